//! Every decision, over every way to ask for it, against a list that was written by hand.

use serde_json::Value;
use towline_lab::image;
use towline_registry::access::{Access, Rule, Users, Who};
use towline_registry::{Login, Tokens};

use crate::client::{Answer, Registry, basic};

const PASSWORDS: [(&str, &str); 2] = [("ann", "secret"), ("bob", "hidden")];

fn access() -> Access {
    let mut users = Users::default();
    for (name, password) in PASSWORDS {
        users.insert(name, &password.into()).unwrap();
    }
    let named = |names: &[&str]| Who::Users(names.iter().map(ToString::to_string).collect());
    let rule = |repositories: &str, pull, push, delete| Rule {
        repositories: repositories.to_owned(),
        pull,
        push,
        delete,
    };
    Access {
        rules: vec![
            rule("public/*", Who::Anyone, named(&["ann"]), Who::Nobody),
            rule(
                "team/*",
                Who::AnyUser,
                named(&["ann", "bob"]),
                named(&["ann"]),
            ),
            rule("closed/*", Who::Nobody, Who::Nobody, Who::Nobody),
            rule("drop/*", named(&["ann"]), Who::Anyone, named(&["bob"])),
        ],
        users,
    }
}

pub(crate) async fn registry() -> Registry {
    Registry::with(|options| {
        options.access = access();
        options.login = Login::Tokens(Tokens::default());
    })
    .await
}

/// Who may, and nobody else may. Nothing speaks of `other/app`.
const MAY: &str = "
    public/app pull   - ann bob
    public/app push   ann
    team/app   pull   ann bob
    team/app   push   ann bob
    team/app   delete ann
    drop/app   pull   ann
    drop/app   push   - ann bob
    drop/app   delete bob
";

fn may(user: Option<&str>, repository: &str, action: &str) -> bool {
    let lines = MAY
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut fitting = lines.filter(|line| line.starts_with(&[repository, action]));
    fitting.any(|line| line[2..].contains(&user.unwrap_or("-")))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// Nothing, or name and password with the request.
    Direct,
    WrongPassword,
    /// A token for just this, asked for by GET or by POST.
    Get,
    Post,
    /// A token for all actions on all repositories.
    Everything,
    /// A token for another repository.
    OtherScope,
    /// A token that somebody else signed.
    Forged,
}

const WAYS: [Way; 7] = [
    Way::Direct,
    Way::WrongPassword,
    Way::Get,
    Way::Post,
    Way::Everything,
    Way::OtherScope,
    Way::Forged,
];

fn expected(user: Option<&str>, repository: &str, action: &str, way: Way) -> u16 {
    match (way, user) {
        (Way::WrongPassword | Way::Forged, _) => 401,
        (_, user) if may(user, repository, action) => {
            if way == Way::OtherScope {
                401
            } else {
                200
            }
        }
        // Another login may help somebody who has none, and nobody else.
        (_, None) => 401,
        (_, Some(_)) => 403,
    }
}

fn password(user: &str) -> &'static str {
    PASSWORDS.iter().find(|(name, _)| *name == user).unwrap().1
}

async fn token(registry: &Registry, user: Option<&str>, scope: &str, post: bool) -> String {
    let answer = if post {
        let login = user.map_or(String::new(), |user| {
            format!(
                "&grant_type=password&username={user}&password={}",
                password(user)
            )
        });
        let form = format!("service=towline-registry&scope={scope}{login}");
        let kind = ("content-type", "application/x-www-form-urlencoded");
        registry.send("POST", "/token", &[kind], form).await
    } else {
        let login = user.map(|user| basic(user, password(user)));
        let header = login
            .as_ref()
            .map(|login| ("authorization", login.as_str()));
        let path = format!("/token?service=towline-registry&scope={scope}");
        registry.send("GET", &path, header.as_slice(), "").await
    };
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.json()["token"].as_str().unwrap().to_owned()
}

async fn authorization(
    [registry, other]: [&Registry; 2],
    user: Option<&str>,
    repository: &str,
    action: &str,
    way: Way,
) -> Option<String> {
    let scope = match way {
        Way::Direct => return user.map(|user| basic(user, password(user))),
        Way::WrongPassword => return Some(basic(user.unwrap_or("zoe"), "wrong")),
        Way::Everything => ["public", "team", "closed", "drop", "other"]
            .map(|name| format!("repository:{name}/app:*"))
            .join("+"),
        Way::OtherScope => "repository:some/other:pull,push,delete".to_owned(),
        Way::Get | Way::Post | Way::Forged => format!("repository:{repository}:{action}"),
    };
    let mut token = token(registry, user, &scope, way == Way::Post).await;
    if way == Way::Forged {
        token = self::token(other, user, &scope, false).await;
    }
    Some(format!("Bearer {token}"))
}

async fn requests(
    registry: &Registry,
    repository: &str,
    action: &str,
    login: Option<&str>,
) -> Vec<Answer> {
    let digest = image::sha256(b"nothing");
    let asked: &[(&str, &str)] = match action {
        "pull" => &[
            ("GET", "manifests/v1"),
            ("HEAD", "manifests/v1"),
            ("GET", "blobs/DIGEST"),
            ("GET", "tags/list"),
            ("GET", "referrers/DIGEST"),
        ],
        "push" => &[("POST", "blobs/uploads/"), ("PUT", "manifests/v1")],
        _ => &[("DELETE", "manifests/v1"), ("DELETE", "blobs/DIGEST")],
    };
    let mut answers = Vec::new();
    for (method, path) in asked {
        let path = format!("/v2/{repository}/{}", path.replace("DIGEST", &digest));
        let header = login.map(|login| ("authorization", login));
        answers.push(registry.send(method, &path, header.as_slice(), "").await);
    }
    answers
}

#[tokio::test]
async fn every_decision_over_every_way() {
    let (registry, other) = (registry().await, registry().await);
    let mut seen = 0;
    for user in [None, Some("ann"), Some("bob")] {
        for repository in [
            "public/app",
            "team/app",
            "closed/app",
            "drop/app",
            "other/app",
        ] {
            for action in ["pull", "push", "delete"] {
                for way in WAYS {
                    let login =
                        authorization([&registry, &other], user, repository, action, way).await;
                    let expected = expected(user, repository, action, way);
                    for answer in requests(&registry, repository, action, login.as_deref()).await {
                        let status = match answer.status.as_u16() {
                            refused @ (401 | 403) => refused,
                            _ => 200,
                        };
                        assert_eq!(
                            status, expected,
                            "{user:?} {repository} {action} {way:?}: {answer:?}"
                        );
                        let challenge = answer.header("www-authenticate");
                        assert_eq!(
                            challenge.starts_with("Bearer realm=\"http://127.0.0.1:"),
                            status == 401,
                            "{challenge}"
                        );
                        seen += 1;
                    }
                }
            }
        }
    }
    assert_eq!(seen, 3 * 5 * 9 * WAYS.len());
}

fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(part)
        .unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn a_token_names_only_what_its_user_may() {
    let registry = registry().await;
    let scope =
        "repository:team/app:pull,push,delete+repository:closed/app:pull+registry:catalog:*";
    let access = async |user| claims(&token(&registry, user, scope, false).await)["access"].clone();
    let catalog = serde_json::json!({"type": "registry", "name": "catalog", "actions": ["*"]});
    let team = |actions: &[&str]| serde_json::json!({"type": "repository", "name": "team/app", "actions": actions});
    assert_eq!(access(None).await, serde_json::json!([catalog]));
    assert_eq!(
        access(Some("bob")).await,
        serde_json::json!([catalog, team(&["pull", "push"])])
    );
    assert_eq!(
        access(Some("ann")).await,
        serde_json::json!([catalog, team(&["pull", "push", "delete"])])
    );
}

#[tokio::test]
async fn challenges_say_where_to_go_and_what_for() {
    let registry = registry().await;
    let realm = format!(
        "Bearer realm=\"http://{}/token\",service=\"towline-registry\"",
        registry.address()
    );
    let ping = registry.get("/v2/").await;
    assert_eq!(
        (ping.status.as_u16(), ping.header("www-authenticate")),
        (401, realm.as_str())
    );
    let denied = registry
        .send("POST", "/v2/team/app/blobs/uploads/", &[], "")
        .await;
    assert_eq!(
        denied.header("www-authenticate"),
        format!("{realm},scope=\"repository:team/app:pull,push\"")
    );
    // Whoever holds a token without a login is told that this is a registry.
    let anonymous = format!("Bearer {}", token(&registry, None, "", false).await);
    let header = [("authorization", anonymous.as_str())];
    assert_eq!(registry.send("GET", "/v2/", &header, "").await.status, 200);
    let list = registry.send("GET", "/v2/_catalog", &header, "").await;
    assert_eq!(
        (list.status.as_u16(), list.header("www-authenticate")),
        (
            401,
            format!("{realm},scope=\"registry:catalog:*\",error=\"insufficient_scope\"").as_str()
        )
    );
    // A host that is none is not sent on.
    let strange = registry.send("GET", "/v2/", &[("host", "a\"b")], "").await;
    assert_eq!(
        strange.header("www-authenticate"),
        "Basic realm=\"registry\""
    );
    for (method, body, status) in [
        (
            "POST",
            "grant_type=password&username=ann&password=wrong",
            401,
        ),
        ("POST", "grant_type=refresh_token&refresh_token=x", 400),
        ("PUT", "", 405),
    ] {
        assert_eq!(
            registry.send(method, "/token", &[], body).await.status,
            status,
            "{method} {body}"
        );
    }
}

#[tokio::test]
async fn a_blob_is_mounted_only_from_what_the_token_reads() {
    let registry = registry().await;
    let image = image::guest().build();
    image
        .push(
            registry.address(),
            "team/app",
            "v1",
            Some(("ann", "secret")),
        )
        .await
        .unwrap();
    let digest = &image.blobs[0].digest;
    let both = "repository:public/app:pull,push+repository:team/app:pull";
    for (scope, expected) in [("repository:public/app:pull,push", 202), (both, 201)] {
        let login = format!(
            "Bearer {}",
            token(&registry, Some("ann"), scope, false).await
        );
        let path = format!("/v2/public/app/blobs/uploads/?mount={digest}&from=team/app");
        let answer = registry
            .send("POST", &path, &[("authorization", &login)], "")
            .await;
        assert_eq!(answer.status, expected, "{scope}");
    }
}
