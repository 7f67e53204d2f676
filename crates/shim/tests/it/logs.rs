//! The log files.

use std::collections::BTreeSet;

use crate::pod::{Pod, poll};

#[test]
fn times_streams_and_long_lines_are_as_the_kubelet_reads_them() {
    let Some(pod) = Pod::new() else { return };
    let script = "head -c 20000 /dev/zero | tr '\\0' x; echo; printf 'no end'";
    // `tr` is not among the links.
    std::os::unix::fs::symlink("busybox", pod.rootfs("a").join("bin/tr")).unwrap();
    let mut spec = pod.spec("a", &["sh", "-c", script]);
    spec["linux"]["resources"] = serde_json::json!({});
    pod.run_spec("a", &spec);
    pod.wait("a");
    let text = std::fs::read_to_string(pod.log_path("a")).unwrap();
    let mut lengths = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(4, ' ');
        let time = fields.next().unwrap();
        assert!(
            time.parse::<jiff::Timestamp>().is_ok() && time.ends_with('Z'),
            "{time}"
        );
        assert_eq!(fields.next(), Some("stdout"));
        lengths.push((fields.next().unwrap(), fields.next().unwrap().len()));
    }
    assert_eq!(
        lengths,
        [("P", 16384), ("F", 20000 - 16384), ("F", "no end".len())]
    );
    pod.shut_down();
}

#[test]
fn nothing_of_a_big_output_is_lost() {
    let Some(pod) = Pod::new() else { return };
    pod.run_to_end("a", &["seq", "1", "300000"]);
    let log = pod.log("a");
    assert_eq!(log.len(), 300_000);
    assert!(
        log.iter()
            .zip(1..)
            .all(|(line, n)| *line == format!("stdout F {n}"))
    );
    pod.shut_down();
}

#[test]
fn a_rotated_log_goes_on_in_the_new_file_without_a_gap() {
    let Some(pod) = Pod::new() else { return };
    pod.run(
        "a",
        &["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; done"],
    );
    let mut client = pod.client();
    let path = pod.log_path("a");
    let mut lines = Vec::new();
    for round in 0..5 {
        poll(|| path.metadata().is_ok_and(|meta| meta.len() > 10_000));
        let rotated = path.with_extension(round.to_string());
        std::fs::rename(&path, &rotated).unwrap();
        client.reopen_log("a").unwrap();
        lines.push(rotated);
    }
    client.kill("a", 9).unwrap();
    pod.wait("a");
    lines.push(path);
    let numbers: BTreeSet<u64> = lines
        .iter()
        .flat_map(|path| {
            std::fs::read_to_string(path)
                .unwrap()
                .lines()
                .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
                .collect::<Vec<u64>>()
        })
        .collect();
    let last = *numbers.last().unwrap();
    assert_eq!(
        u64::try_from(numbers.len()).unwrap(),
        last,
        "no line is missing"
    );
    pod.shut_down();
}

#[test]
fn a_symlink_in_place_of_the_log_is_not_followed() {
    let Some(pod) = Pod::new() else { return };
    let target = pod.dir.path().join("precious");
    std::os::unix::fs::symlink(&target, pod.log_path("a")).unwrap();
    let create = pod.bundle("a", &pod.spec("a", &["true"]));
    assert!(pod.client().create(create).is_err());
    assert!(!target.exists());
    pod.shut_down();
}
