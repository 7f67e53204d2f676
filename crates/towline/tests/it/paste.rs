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
    let names: Vec<&str> = found["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["target"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["web-1", "api-1"]);

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
