//! No secret value in any output of `towline why`, whatever holds it.

use towline_sys::testing::{need_program, need_root};

use crate::support::node::Node;
use crate::support::program::{text, towline};
use crate::support::registry::{DockerRegistry, hello};

/// Where a secret is planted, and its value: each of its own, so that a leak names its place.
const MARKS: [(&str, &str); 7] = [
    ("the password of a pull secret that matches", "Mark1Horse"),
    (
        "the password of a pull secret for another host",
        "Mark2Horse",
    ),
    ("a pull secret that does not parse", "Mark3Horse"),
    ("the login in an image", "Mark4Horse"),
    ("an environment variable of the pod", "Mark5Horse"),
    ("a secret that is no pull secret", "Mark6Horse"),
    ("the password on the command line", "Mark7Horse"),
];

fn base64(text: &str) -> String {
    let output = std::process::Command::new("sh")
        .args(["-c", "printf %s \"$0\" | base64 -w0", text])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn planted_secrets_stay_where_they_are() {
    if !need_root()
        || need_program("kubectl").is_none()
        || need_program("docker-registry").is_none()
    {
        return;
    }
    let registry = DockerRegistry::with_login();
    registry.push(&hello("x"), "team/app", "v1");
    let node = Node::up();
    plant(&node, &registry.address.to_string());
    let image = format!("{}/team/app:v1", registry.address);
    let mut forms: Vec<(&str, String)> = Vec::new();
    for (place, mark) in MARKS {
        forms.push((place, mark.to_owned()));
        forms.push((place, base64(mark)));
        // Inside a login the digits of base64 depend on what stands before: of three ways one is it.
        for before in ["bob:", "alice:", "x:"] {
            let coded = base64(&format!("{before}{mark}"));
            forms.push((place, coded[8..].trim_end_matches('=').to_owned()));
        }
    }
    let mut said = String::new();
    for args in [
        &["why", "-n", "default"][..],
        &["why", "-A"],
        &["why", "pod/matching"],
        &["why", "pod/in-image"],
        &["why", "pod/matching", "--fix", "--yes"],
        &["why", &image, "--creds", "bob:Mark7Horse"],
        &["why", "https://bob:Mark7Horse@reg.test/x:v1"],
    ] {
        for form in ["text", "json", "yaml", "markdown"] {
            if args.contains(&"--fix") && form != "text" {
                continue;
            }
            let output = towline()
                .args(args)
                .args(["-o", form, "-vv", "--kubeconfig"])
                .arg(node.kubeconfig())
                .env("RUST_LOG", "trace")
                .env("TOWLINE_LOG", "trace")
                .output()
                .unwrap();
            let told = text(&output);
            assert!(told.len() > 200, "{args:?} {form}: {told}");
            for (place, form_of) in &forms {
                assert!(
                    !told.contains(form_of.as_str()),
                    "{args:?} -o {form} shows {place} ({form_of}): {}",
                    around(&told, form_of)
                );
            }
            said.push_str(&told);
        }
    }
    for word in [
        "WrongCredentials",
        "PullSecretWrongHost",
        "InvalidReference",
        "TRACE",
    ] {
        assert!(said.contains(word), "{word} is among what was said");
    }
    let log = node.log();
    for (place, form) in &forms {
        assert!(!log.contains(form.as_str()), "the node's log shows {place}");
    }
}

fn around<'a>(told: &'a str, found: &str) -> &'a str {
    let at = told.find(found).unwrap_or_default();
    let line = told[..at].rfind('\n').map_or(0, |end| end + 1);
    let end = told[at..].find('\n').map_or(told.len(), |end| at + end);
    &told[line..end]
}

fn plant(node: &Node, registry: &str) {
    let login = |host: &str, password: &str| {
        base64(&format!(
            r#"{{"auths":{{"{host}":{{"username":"bob","password":"{password}","auth":"{}"}}}}}}"#,
            base64(&format!("bob:{password}"))
        ))
    };
    let secret = |name: &str, kind: &str, key: &str, value: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: {kind}\ndata: {{{key}: {value}}}\n---\n"
        )
    };
    let json = "kubernetes.io/dockerconfigjson";
    let key = ".dockerconfigjson";
    node.apply(&format!(
        "{}{}{}{}",
        secret("matching", json, key, &login(registry, MARKS[0].1)),
        secret("elsewhere", json, key, &login("elsewhere.test", MARKS[1].1)),
        // Kubernetes takes JSON that is no login.
        secret(
            "odd",
            json,
            key,
            &base64(&format!(r#"{{"auths":"{}"}}"#, MARKS[2].1))
        ),
        secret("other", "Opaque", "token", &base64(MARKS[5].1)),
    ));
    for (name, image, secret) in [
        (
            "matching",
            format!("{registry}/team/app:v1"),
            Some("matching"),
        ),
        (
            "elsewhere",
            format!("{registry}/team/app:v1"),
            Some("elsewhere"),
        ),
        ("odd", format!("{registry}/team/app:v1"), Some("odd")),
        (
            "in-image",
            format!("https://bob:{}@{registry}/team/app:v1", MARKS[3].1),
            None,
        ),
        (
            "in-host",
            format!("bob:{}@{registry}/team/app:v1", MARKS[3].1),
            None,
        ),
    ] {
        let secrets = secret.map_or(String::new(), |name| {
            format!("  imagePullSecrets: [{{name: {name}}}]\n")
        });
        node.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - {{name: app, image: \"{image}\", env: [{{name: PASSWORD, value: {}}}]}}\n{secrets}",
            MARKS[4].1
        ));
    }
    for name in ["matching", "elsewhere"] {
        node.wait_status(name, "ErrImagePull", 30);
    }
}

#[test]
fn a_pasted_secret_is_never_quoted() {
    let mark = "Mark8Horse";
    let coded = base64(mark);
    let login = base64(&format!("bob:{mark}"));
    let yaml = format!(
        "apiVersion: v1\ndata:\n  .dockerconfigjson: {login}\n  token: {coded}\nkind: Secret\nmetadata:\n  annotations:\n    kubectl.kubernetes.io/last-applied-configuration: |\n      {{\"data\":{{\"token\":\"{coded}\"}},\"kind\":\"Secret\"}}\n  name: bobok\ntype: kubernetes.io/dockerconfigjson\n"
    );
    let cut = &yaml[..yaml.len() - 60];
    let json =
        format!(r#"{{"kind":"Secret","stringData":{{"password":"{mark} of"}},"apiVersion":"v1"}}"#);
    let message = format!(
        "Failed to pull image \"r.test/x:v1\": HEAD https://bob:{mark}@r.test/v2/x: 401 Unauthorized\nAuthorization: Basic {login}\ntoken={mark}"
    );
    for (paste, what) in [
        (
            yaml.as_str(),
            Some("this is a Secret: nothing of it is read"),
        ),
        (
            json.as_str(),
            Some("this is a Secret: nothing of it is read"),
        ),
        (cut, None),
        (message.as_str(), None),
    ] {
        for form in ["text", "json", "yaml", "markdown"] {
            let output = towline()
                .args(["why", "--message", paste, "-o", form])
                .output()
                .unwrap();
            let told = text(&output);
            for secret in [mark, &coded, &login] {
                assert!(
                    !told.contains(secret.trim_end_matches('=')),
                    "{form}: {told}"
                );
            }
            let said = told.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                what.is_none_or(|what| said.contains(what)),
                "{form}: {told}"
            );
        }
    }
}
