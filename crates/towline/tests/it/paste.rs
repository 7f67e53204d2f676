//! `towline why --message`: what people paste, read by the program itself.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::support::program::{text, towline};

const MISSING: &str = r#"Failed to pull image "reg.example.com/team/app:v9": rpc error: code = NotFound desc = failed to pull and unpack image "reg.example.com/team/app:v9": failed to resolve reference "reg.example.com/team/app:v9": reg.example.com/team/app:v9: not found"#;

fn ask(pasted: &str, more: &[&str]) -> (Option<i32>, String) {
    let mut child = towline()
        .args(["why", "--message", "-"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(pasted.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    (output.status.code(), text(&output))
}

fn answer(pasted: &str) -> Value {
    let (code, told) = ask(pasted, &["-o", "json"]);
    assert_eq!(code, Some(1), "{told}");
    let answer: Value = serde_json::from_str(&told).unwrap();
    crate::support::schema::check(&answer);
    answer
}

fn describe(name: &str) -> String {
    format!(
        "Name:             {name}\nNamespace:        shop\nNode:             node-1/10.0.0.1\nStatus:           Pending\nContainers:\n  app:\n    Container ID:   \n    Image:          reg.example.com/team/app:v9\n    State:          Waiting\n      Reason:       ImagePullBackOff\n    Ready:          False\nEvents:\n  Type     Reason   Age                From     Message\n  ----     ------   ----               ----     -------\n  Warning  Failed   12s (x3 over 60s)  kubelet  {MISSING}\n"
    )
}

#[test]
fn a_message_is_read_and_what_decides_is_no_fix() {
    let found = answer(MISSING);
    assert_eq!(found["cause"], "TagNotFound", "{found}");
    assert_eq!(
        found["decidedBy"][0]["command"],
        "towline why reg.example.com/team/app:v9"
    );
    let fixes = found["fixes"].to_string();
    assert!(!fixes.contains("towline why"), "{fixes}");
    let (_, told) = ask(MISSING, &[]);
    let named = told.matches("image reg.example.com/team/app:v9").count()
        + told
            .matches("image      reg.example.com/team/app:v9")
            .count();
    assert_eq!(named, 1, "the image is named once: {told}");
    assert!(told.contains("to decide  Ask the registry"), "{told}");
}

#[test]
fn a_description_several_pods_and_events_are_read() {
    let found = answer(&describe("web-1"));
    assert_eq!(found["cause"], "TagNotFound", "{found}");
    assert_eq!(found["target"]["namespace"], "shop");
    assert_eq!(found["target"]["node"], "node-1");

    let two = format!("{}\n\n{}", describe("web-1"), describe("api-1"));
    let found = answer(&two);
    // They fail for one reason: one answer, for both.
    assert_eq!((&found["pods"], &found["broken"]), (&2.into(), &2.into()));
    let items = found["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{found}");
    let pods = serde_json::json!(["shop/api-1", "shop/web-1"]);
    assert_eq!(items[0]["affected"]["pods"], pods);
    assert_eq!(items[0]["affected"]["alone"], pods);

    let events = format!(
        "LAST SEEN   TYPE      REASON    OBJECT      MESSAGE\n12s         Warning   Failed    pod/web-1   {MISSING}\n"
    );
    assert_eq!(answer(&events)["cause"], "TagNotFound");
}

#[test]
fn yaml_of_pods_is_read() {
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web-1\n  namespace: shop\nspec:\n  containers:\n  - name: app\n    image: reg.example.com/team/app:v9\nstatus:\n  containerStatuses:\n  - name: app\n    state:\n      waiting:\n        reason: ErrImagePull\n        message: {}\n",
        serde_json::to_string(MISSING).unwrap()
    );
    let found = answer(&yaml);
    assert_eq!(found["cause"], "TagNotFound", "{found}");
    assert_eq!(found["target"]["container"], "app");
}

#[test]
fn what_a_terminal_wrapped_or_cut_is_not_read_wrongly() {
    let wrapped: Vec<String> = MISSING
        .as_bytes()
        .chunks(80)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    assert_eq!(answer(&wrapped.join("\n"))["cause"], "TagNotFound");
    for length in (40..MISSING.len()).step_by(40) {
        let (code, told) = ask(&MISSING[..length], &["-o", "json"]);
        let found: Value = serde_json::from_str(&told).unwrap();
        let cause = found["cause"].as_str();
        assert!(
            matches!(cause, Some("TagNotFound" | "Unknown")),
            "{length}: {found}"
        );
        let want = if cause == Some("Unknown") { 2 } else { 1 };
        assert_eq!(code, Some(want), "{told}");
    }
    let (code, told) = ask("  \n", &[]);
    assert_eq!(code, Some(64), "{told}");
}

/// Names that hold the words of other errors.
const TRAPS: [&str; 6] = [
    "certificate.example.com/x509/unauthorized",
    "throttler.example.com/toomanyrequests/429",
    "timeout.example.com/i-o/timeout",
    "forbidden-401.example.com/denied/certificate-expired",
    "reg.example.com/no-space-left-on-device/not-found",
    "unauthorized:5000/connection-refused/no-such-host",
];

/// The same missing tag as three runtimes say it.
fn missing(image: &str) -> [(&'static str, String); 3] {
    let tag = image.rsplit(':').next().unwrap();
    [
        (
            "containerd",
            MISSING.replace("reg.example.com/team/app:v9", image),
        ),
        (
            "CRI-O",
            format!(
                "Failed to pull image \"{image}\": rpc error: code = Unknown desc = reading manifest {tag} in {}: manifest unknown",
                &image[..image.rfind(':').unwrap()]
            ),
        ),
        (
            "dockerd",
            format!(
                "Failed to pull image \"{image}\": rpc error: code = Unknown desc = Error response from daemon: manifest for {image} not found: manifest unknown: manifest unknown"
            ),
        ),
    ]
}

#[test]
fn words_inside_names_decide_nothing() {
    for name in TRAPS {
        let image = format!("{name}:timeout-expired");
        for (speaker, message) in missing(&image) {
            let found = answer(&message);
            assert_eq!(found["cause"], "TagNotFound", "{speaker}: {message}");
            assert_eq!(found["target"]["image"], image.as_str(), "{speaker}");
        }
        // Wrapped by a terminal of any width, and with the indent of a description's column.
        let (_, message) = &missing(&image)[0];
        for width in [60, 80, 100, 132] {
            let lines: Vec<&str> = (0..message.len())
                .step_by(width)
                .map(|at| &message[at..message.len().min(at + width)])
                .collect();
            for joint in ["\n", "\r\n"] {
                let found = answer(&lines.join(joint));
                assert_eq!(found["cause"], "TagNotFound", "{width}: {message}");
            }
        }
        // Cut anywhere it is that or nothing: never what a name says.
        for length in (60..message.len()).step_by(61) {
            let (_, told) = ask(&message[..length], &["-o", "json"]);
            let found: Value = serde_json::from_str(&told).unwrap();
            let cause = found["cause"].as_str();
            assert!(
                matches!(cause, Some("TagNotFound" | "Unknown")),
                "{length} of {message}: {cause:?}"
            );
        }
    }
}

#[test]
fn each_pod_of_a_paste_has_its_own_cause() {
    let refused = r#"Failed to pull image "reg.example.com/team/private:v1": rpc error: code = Unknown desc = failed to pull and unpack image "reg.example.com/team/private:v1": failed to resolve reference "reg.example.com/team/private:v1": pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials"#;
    let limited = r#"Failed to pull image "docker.io/library/nginx:1.27": rpc error: code = Unknown desc = failed to pull and unpack image "docker.io/library/nginx:1.27": failed to copy: httpReadSeeker: failed open: unexpected status code https://registry-1.docker.io/v2/library/nginx/manifests/sha256:0123: 429 Too Many Requests - Server message: toomanyrequests: You have reached your unauthenticated pull rate limit"#;
    let described = describe("unauthorized-7");
    let events = format!(
        "NAMESPACE   LAST SEEN   TYPE      REASON    OBJECT             MESSAGE\nshop        12s         Warning   Failed    pod/timeout-1      {refused}\nshop        14s         Warning   Failed    pod/certificate-2  {limited}\nshop        3s          Warning   BackOff   pod/certificate-2  Back-off pulling image \"docker.io/library/nginx:1.27\"\n"
    );
    let yaml = format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: throttler-3, namespace: shop}}\nspec: {{containers: [{{name: app, image: \"reg.example.com/team/app:v9\"}}]}}\nstatus:\n  containerStatuses:\n  - name: app\n    state: {{waiting: {{reason: ErrImagePull, message: {}}}}}\n",
        serde_json::to_string(MISSING).unwrap()
    );
    for (what, paste, want) in [
        (
            "a description, then events",
            format!("$ kubectl describe pod\n{described}\n\n$ kubectl get events -A\n{events}"),
            vec![
                ("certificate-2", "RateLimited"),
                ("timeout-1", "NoCredentials"),
                ("unauthorized-7", "TagNotFound"),
            ],
        ),
        (
            "events, then YAML",
            format!("{events}\n{yaml}"),
            vec![
                ("certificate-2", "RateLimited"),
                ("throttler-3", "TagNotFound"),
                ("timeout-1", "NoCredentials"),
            ],
        ),
    ] {
        let found = answer(&paste);
        let mut causes: Vec<(&str, &str)> = found["items"]
            .as_array()
            .unwrap_or_else(|| panic!("{what}: {found}"))
            .iter()
            .map(|item| {
                let name = item["target"]["name"].as_str().unwrap();
                (name, item["cause"].as_str().unwrap())
            })
            .collect();
        causes.sort_unstable();
        assert_eq!(causes, want, "{what}: {found}");
    }
}
