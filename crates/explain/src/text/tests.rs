//! Pastes as people make them.

use towline_cause::Cause::{self, *};

use super::explain;

const MISSING: &str = "Failed to pull image \"reg.example.com/team/app:v9\": rpc error: code = NotFound desc = failed to pull and unpack \
     image \"reg.example.com/team/app:v9\": failed to resolve reference \"reg.example.com/team/app:v9\": \
     reg.example.com/team/app:v9: not found";
const REFUSED: &str = "Failed to pull image \"unauthorized.example.com/timeout/certificate:1\": failed to pull and unpack image \
     \"unauthorized.example.com/timeout/certificate:1\": failed to resolve image: failed to do request: Head \
     \"https://unauthorized.example.com/v2/timeout/certificate/manifests/1\": dial tcp 10.0.0.9:443: connect: connection refused";

fn describe(pod: &str, image: &str, message: &str) -> String {
    format!(
        "Name:             {pod}-6d4b5c7f9-x2x4z\nNamespace:        shop\nPriority:         0\nService Account:  builder\n\
         Node:             node-1/10.0.0.5\nLabels:           app={pod}\n                  pod-template-hash=6d4b5c7f9\n\
         Annotations:      <none>\nStatus:           Pending\nControlled By:  ReplicaSet/{pod}-6d4b5c7f9\n\
         Containers:\n  app:\n    Container ID:   \n    Image:          {image}\n    State:          Waiting\n      \
         Reason:       ImagePullBackOff\n    Ready:          False\n    Environment:    <none>\nConditions:\n  Type     Status\n  \
         Ready    False\nEvents:\n  Type     Reason     Age                From               Message\n  \
         ----     ------     ----               ----               -------\n  \
         Normal   Scheduled  5m                 default-scheduler  Successfully assigned shop/{pod} to node-1\n  \
         Normal   Pulling    3m (x4 over 5m)    kubelet            Pulling image \"{image}\"\n  \
         Warning  Failed     3m (x4 over 5m)    kubelet            {message}\n  \
         Warning  Failed     3m (x4 over 5m)    kubelet            Error: ErrImagePull\n  \
         Normal   BackOff    10s (x12 over 5m)  kubelet            Back-off pulling image \"{image}\"\n  \
         Warning  Unhealthy  5s                 kubelet            Readiness probe failed: dial tcp 1.2.3.4:80: i/o timeout\n"
    )
}

fn causes(text: &str) -> Vec<(String, Option<Cause>)> {
    explain(text)
        .into_iter()
        .map(|one| (one.target.name, one.cause))
        .collect()
}

#[test]
fn a_description_gives_the_cause_and_the_command_for_its_workload() {
    let all = explain(&describe("web", "reg.example.com/team/app:v9", MISSING));
    let [one] = all.as_slice() else {
        panic!("{all:#?}")
    };
    assert_eq!(one.cause, Some(TagNotFound));
    assert_eq!(one.target.namespace.as_deref(), Some("shop"));
    assert_eq!(one.target.container.as_deref(), Some("app"));
    assert_eq!(one.target.node.as_deref(), Some("node-1"));
    let commands: Vec<&str> = one
        .fixes
        .iter()
        .flat_map(|fix| &fix.commands)
        .map(String::as_str)
        .collect();
    let decides = one.decided_by.iter().map(|one| one.command.as_deref());
    assert_eq!(
        decides.collect::<Vec<_>>(),
        [Some("towline why pod/web-6d4b5c7f9-x2x4z -n shop")]
    );
    assert_eq!(
        commands,
        ["kubectl -n shop set image deployment/web app=IMAGE",]
    );
}

#[test]
fn several_pods_in_one_paste_are_kept_apart() {
    let text = format!(
        "$ kubectl describe pod web -n shop\n{}\n\n\n{}",
        describe("web", "reg.example.com/team/app:v9", MISSING),
        describe(
            "api",
            "unauthorized.example.com/timeout/certificate:1",
            REFUSED
        )
    );
    assert_eq!(
        causes(&text),
        [
            ("web-6d4b5c7f9-x2x4z".to_owned(), Some(TagNotFound)),
            ("api-6d4b5c7f9-x2x4z".to_owned(), Some(ConnectionRefused)),
        ]
    );
}

#[test]
fn tables_of_events() {
    for text in [
        format!(
            "LAST SEEN   TYPE      REASON      OBJECT        MESSAGE\n5m          Normal    Scheduled   pod/web-1     Successfully assigned\n\
             3m          Warning   Failed      pod/web-1     {MISSING}\n3m          Warning   Failed      pod/web-1     Error: ErrImagePull\n\
             2m          Warning   BackOff     pod/db-1      Back-off restarting failed container db in pod db-1\n\
             1m          Warning   Failed      pod/api-1     {REFUSED}\n"
        ),
        format!(
            "NAMESPACE   LAST SEEN   TYPE      REASON   OBJECT      SUBOBJECT               SOURCE            MESSAGE   FIRST SEEN   COUNT   NAME\n\
             shop   3m   Warning   Failed   pod/web-1   spec.containers{{app}}   kubelet, node-1   {MISSING}   9m   4   web-1.17f\n\
             shop   1m   Warning   Failed   pod/api-1   spec.containers{{app}}   kubelet, node-1   {REFUSED}   9m   4   api-1.17f\n"
        ),
        format!("3m Warning Failed pod/web-1 {MISSING}\n1m Warning Failed pod/api-1 {REFUSED}"),
    ] {
        assert_eq!(
            causes(&text),
            [
                ("web-1".to_owned(), Some(TagNotFound)),
                ("api-1".to_owned(), Some(ConnectionRefused))
            ],
            "{text}"
        );
    }
}

#[test]
fn other_troubles_of_a_pod_are_not_taken_for_its_image() {
    let text = "LAST SEEN   TYPE      REASON      OBJECT      MESSAGE\n\
        1m   Warning   Unhealthy   pod/web-1   Readiness probe failed: Get \"http://10.0.0.1/\": dial tcp 10.0.0.1:80: connect: connection refused\n\
        1m   Warning   Failed   pod/web-1   Error: secret \"db\" not found\n\
        1m   Warning   FailedMount   pod/web-1   MountVolume.SetUp failed: secret \"db\" not found\n";
    assert_eq!(causes(text), [("-".to_owned(), Some(Unknown))]);
}

#[test]
fn a_missing_secret_and_a_refusal_are_one_story() {
    let refusal = "Failed to pull image \"reg.example.com/team/app:v9\": failed to pull and unpack image \
         \"reg.example.com/team/app:v9\": failed to resolve image: pull access denied, repository does not exist or may require \
         authorization: authorization failed: no basic auth credentials";
    let text = format!(
        "{}  Warning  FailedToRetrieveImagePullSecret  2s (x9 over 5m)  kubelet  Unable to retrieve some image pull secrets (ghost); \
         attempting to pull the image may not succeed.\n",
        describe("web", "reg.example.com/team/app:v9", refusal)
    );
    let all = explain(&text);
    assert_eq!(all[0].cause, Some(PullSecretMissing), "{all:#?}");
    assert!(all[0].alternatives.contains(&NoCredentials));
    assert!(
        all[0].fixes[0].commands[0]
            .contains("create secret docker-registry ghost --docker-server=reg.example.com"),
        "{:?}",
        all[0].fixes
    );
}

fn pod_yaml(name: &str, message: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: shop\nspec:\n  nodeName: node-1\n  containers:\n  - name: app\n    \
         image: reg.example.com/team/app:v9\n  - name: side\n    image: busybox\nstatus:\n  containerStatuses:\n  - name: app\n    state:\n      \
         waiting:\n        reason: ImagePullBackOff\n        message: {}\n  - name: side\n    state:\n      running: {{}}\n",
        serde_json::to_string(message).unwrap()
    )
}

#[test]
fn pods_as_yaml_and_json() {
    let waiting = MISSING
        .replacen("Failed to pull image", "Back-off pulling image", 1)
        .replacen("\": rpc", "\": ErrImagePull: rpc", 1);
    let yaml = pod_yaml("web-1", &waiting);
    let two = format!("{yaml}---\n{}", pod_yaml("web-2", REFUSED));
    let value: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
    let list =
        serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [value]}).to_string();
    let single = [("web-1".to_owned(), Some(TagNotFound))];
    assert_eq!(causes(&yaml), single);
    assert_eq!(causes(&list), single);
    assert_eq!(
        causes(&two),
        [
            single[0].clone(),
            ("web-2".to_owned(), Some(ConnectionRefused))
        ]
    );
    // A description behind a YAML document, as in a ticket.
    let mixed = format!(
        "{yaml}\n{}",
        describe(
            "api",
            "unauthorized.example.com/timeout/certificate:1",
            REFUSED
        )
    );
    assert_eq!(causes(&mixed).len(), 2, "{:?}", causes(&mixed));
    // A document that was cut.
    let cut =
        &yaml[yaml.find("    state:").unwrap()..yaml.find("  - name: side\n    state").unwrap()];
    assert_eq!(explain(cut)[0].cause, Some(TagNotFound), "{cut}");
}

#[test]
fn a_terminal_breaks_lines_anywhere() {
    let text = describe("web", "reg.example.com/team/app:v9", MISSING);
    for width in [80, 100, 132] {
        let broken: Vec<String> = text
            .lines()
            .flat_map(|line| {
                let characters: Vec<char> = line.chars().collect();
                let pieces: Vec<String> = characters
                    .chunks(width)
                    .map(|c| c.iter().collect())
                    .collect();
                if pieces.is_empty() {
                    vec![String::new()]
                } else {
                    pieces
                }
            })
            .collect();
        let all = explain(&broken.join("\n"));
        assert_eq!(all[0].cause, Some(TagNotFound), "{width}: {all:#?}");
        assert_eq!(all.len(), 1, "{width}");
    }
}

#[test]
fn pods_of_a_list_say_little_and_good_news_is_said() {
    let list = "NAME    READY   STATUS             RESTARTS   AGE\nweb-1   0/1     ImagePullBackOff   0          5m\n\
                bad-1   0/1     ErrImageNeverPull  0          5m\nok-1    1/1     Running            0          5m\n";
    assert_eq!(
        causes(list),
        [
            ("bad-1".to_owned(), Some(NeverPull)),
            ("web-1".to_owned(), Some(Unknown)),
            ("ok-1".to_owned(), None)
        ]
    );
    let good = explain(
        "Successfully pulled image \"nginx:1\" in 2s (2s including waiting). Image size: 5 bytes.",
    );
    assert!(good[0].pulls, "{good:#?}");
}

#[test]
fn signed_urls_are_not_repeated() {
    let text = "Failed to pull image \"a.example.com/b:1\": failed to copy: httpReadSeeker: failed open: failed to do request: Get \
         \"https://u:hunter2@cdn.example.com/blob?X-Amz-Signature=hunter2\": dial tcp 1.2.3.4:443: i/o timeout";
    let all = explain(text);
    assert_eq!(all[0].cause, Some(BlobHostUnreachable));
    assert!(
        !serde_json::to_string(&all).unwrap().contains("hunter2"),
        "{all:#?}"
    );
}

#[test]
fn hostile_pastes_are_bounded() {
    let nested = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let deep_yaml = format!("apiVersion: v1\nkind: Pod\na: {}", "[".repeat(100_000));
    let bomb = "apiVersion: v1\na: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    let quotes = "\\\"".repeat(40_000);
    let binary: String = (0..=255_u8)
        .cycle()
        .take(200_000)
        .map(|n| char::from(n.wrapping_mul(7)))
        .collect();
    let rows = "1m Warning Failed pod/a-1 Failed to pull image \"a\": x\n".repeat(20_000);
    for text in [
        nested,
        deep_yaml,
        bomb.to_owned(),
        quotes,
        binary,
        rows,
        "\n".repeat(100_000),
        "\u{1b}[".repeat(50_000),
        ",cookie:a'".repeat(200_000),
        "password:".repeat(200_000),
    ] {
        assert!(!explain(&text).is_empty());
    }
}

#[test]
fn of_many_sentences_the_newest_count() {
    let line = |text: &str| {
        format!(
            "Nov 30 12:00:00 n1 kubelet[9]: E1130 12:00:00.000000 9 pod_workers.go:1301] \"Error syncing pod, skipping\" err={text:?} pod=\"shop/web-1\" podUID=\"x\"\n"
        )
    };
    let mut paste: String = (0..300).map(|n| line(&format!("attempt {n}"))).collect();
    paste.push_str(&line(&format!(
        "failed to \"StartContainer\" for \"app\" with ErrImagePull: {MISSING:?}"
    )));
    let read: Vec<_> = causes(&paste).into_iter().map(|(_, cause)| cause).collect();
    assert_eq!(read, [Some(TagNotFound)]);
}

#[test]
fn text_that_a_page_or_a_dump_changed_is_read() {
    let folded = "apiVersion: v1\nkind: Event\nmessage: 'Failed to pull image \"reg.example.com/team/app:v9\": rpc error:\n  \
                  code = NotFound desc = failed to pull and unpack image \"reg.example.com/team/app:v9\":\n  failed to resolve \
                  reference \"reg.example.com/team/app:v9\": reg.example.com/team/app:v9:\n  not found'\nreason: Failed\ntype: Warning";
    let page = MISSING.replace('"', "&quot;");
    let escaped = format!("\"message\": \"{}\",", MISSING.replace('"', "\\\""));
    for text in [folded, &page, &escaped] {
        let read: Vec<_> = causes(text).into_iter().map(|(_, cause)| cause).collect();
        assert_eq!(read, [Some(TagNotFound)], "{text}");
    }
}

fn journal(pod: &str, said: &str) -> String {
    let error = format!("failed to \"StartContainer\" for \"app\" with ErrImagePull: {said:?}");
    format!(
        "Nov 30 12:00:01 node-1 kubelet[812]: E1130 12:00:01.000000     812 pod_workers.go:1301] \"Error syncing pod, skipping\" err={error:?} pod=\"shop/{pod}\" podUID=\"1\""
    )
}

#[test]
fn each_pod_of_a_log_has_its_answer() {
    let absent = r#"rpc error: code = NotFound desc = failed to pull and unpack image "r.test/a:v1": failed to resolve reference "r.test/a:v1": r.test/a:v1: not found"#;
    let full = r#"rpc error: code = Unknown desc = failed to pull and unpack image "r.test/b:v1": failed to extract layer sha256:0000: write /x: no space left on device"#;
    let json = |pod: &str, said: &str| {
        let error = format!("failed to \"StartContainer\" for \"app\" with ErrImagePull: {said:?}");
        serde_json::json!({"ts": 1.0, "caller": "kubelet/pod_workers.go:1301", "msg": "Error syncing pod, skipping",
            "pod": {"name": pod, "namespace": "shop"}, "err": error})
        .to_string()
    };
    for paste in [
        format!("{}\n{}\n", journal("web", absent), journal("db", full)),
        format!("{}\n{}\n", json("web", absent), json("db", full)),
    ] {
        let told = explain(&paste);
        let mut causes: Vec<(&str, Option<Cause>)> = told
            .iter()
            .map(|one| (one.target.name.as_str(), one.cause))
            .collect();
        causes.sort_unstable();
        let want = [
            ("db", Some(Cause::NoSpaceLeft)),
            ("web", Some(Cause::TagNotFound)),
        ];
        assert_eq!(causes, want, "{paste}");
        assert_eq!(told[0].target.namespace.as_deref(), Some("shop"));
    }
}

#[test]
fn pasted_events_are_folded_by_cause() {
    let mut paste = "LAST SEEN   TYPE      REASON   OBJECT      MESSAGE\n".to_owned();
    for pod in 0..30 {
        let row = "5m          Warning   Failed   pod/web-{pod}   Failed to pull image \"r.test/a:v1\": rpc error: code = NotFound desc = failed to pull and unpack image \"r.test/a:v1\": failed to resolve reference \"r.test/a:v1\": r.test/a:v1: not found\n";
        paste.push_str(&row.replace("{pod}", &pod.to_string()));
    }
    paste.push_str(
        "5m          Warning   Failed   pod/db-0   Failed to pull image \"r.test/b:v1\": rpc error: code = Unknown desc = write /x: no space left on device\n",
    );
    let told = super::scan(&paste);
    assert_eq!(
        (told.pods, told.broken, told.items.len()),
        (31, 31, 2),
        "{told:?}"
    );
    let affected = told.items[0].affected.as_ref().unwrap();
    assert_eq!((affected.count, affected.alone.len()), (30, 30));
    assert_eq!(told.items[0].cause, Some(Cause::TagNotFound));
    // One pod alone is one answer, as ever.
    let one = super::scan("Failed to pull image \"r.test/a:v1\": r.test/a:v1: not found");
    assert_eq!((one.pods, one.items.len()), (0, 1));
}
