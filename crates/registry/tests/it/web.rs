//! The pages for people: over the wire, and in a browser.

use std::path::Path;

use serde_json::json;
use towline_lab::image::{self, Index, Layer, Platform};
use towline_registry::access::{Access, Rule, Users, Who};

use crate::browser::Browser;
use crate::client::{Answer, Registry, basic};

/// What runs in a page that does not escape it.
const HOSTILE: &str = "</title></pre><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u{202e}";

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// Images of every kind, an artifact that refers to one, hostile words, more tags than fit a page, and a refusal.
async fn fill(registry: &Registry) {
    let address = registry.address();
    let layer = |path: &str, size: usize| Layer::new().file(path, vec![b'x'; size]);
    let built = |platform: Platform| {
        let config = json!({"os": platform.os, "architecture": platform.architecture, "variant": platform.variant,
            "created": "2026-03-01T09:30:00Z",
            "config": {"Entrypoint": ["/usr/bin/app"], "Cmd": ["serve", "--port", "8080"], "User": "1000",
                "ExposedPorts": {"8080/tcp": {}}, "WorkingDir": "/srv"},
            "rootfs": {"type": "layers", "diff_ids": []},
            "history": [{"created_by": "COPY base /"}, {"created_by": "ENV A=1", "empty_layer": true},
                {"created_by": "RUN /bin/sh -c make install && rm -rf /var/cache/build"}, {"created_by": HOSTILE}]});
        image::Builder::new()
            .platform(platform)
            .layer(layer("base", 2_000_000))
            .layer(layer("usr/bin/app", 40_000))
            .layer(layer("etc/conf", 10))
            .raw_config(config.to_string())
            .annotation("org.opencontainers.image.title", HOSTILE)
            .annotation(
                "org.opencontainers.image.source",
                "https://example.test/team/app",
            )
            .annotation("<b>key</b>", "a \"quoted\" 'value' & more")
            .build()
    };
    let mut arm = Platform::linux("arm64");
    arm.variant = Some("v8".to_owned());
    let (amd, arm) = (built(Platform::linux("amd64")), built(arm));
    let index = Index::new().image(amd.clone()).image(arm).build();
    index
        .push(address, "team/app", "v1.4.2", None)
        .await
        .unwrap();
    amd.push(address, "team/app", "amd64", None).await.unwrap();
    amd.push(address, "library/tools", "latest", None)
        .await
        .unwrap();
    for number in 0..60 {
        let path = format!("/v2/library/tools/manifests/1.{number:02}");
        let kind = [("content-type", amd.manifest.media_type.as_str())];
        let put = registry.send("PUT", &path, &kind, amd.manifest.bytes.clone());
        assert_eq!(put.await.status, 201);
    }
    let empty = registry.blob("team/app", b"{}").await;
    let signature = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": format!("application/x-<script>document.title='owned'</script>"),
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2}],
        "subject": {"mediaType": index.manifest.media_type, "digest": index.digest(), "size": index.manifest.bytes.len()}});
    let kind = [("content-type", "application/vnd.oci.image.manifest.v1+json")];
    let put = registry.send(
        "PUT",
        "/v2/team/app/manifests/sig",
        &kind,
        signature.to_string(),
    );
    assert_eq!(put.await.status, 201);
    // As `towline why` asks, to see how this registry refuses: nobody wanted to pull that.
    let nobodys = "/v2/team/towline-asks-0123456789abcdef/manifests/latest";
    assert_eq!(registry.get(nobodys).await.status, 404);
    let refused = "/v2/team/app/manifests/v1.4.3?x=%3Cscript%3E";
    assert_eq!(registry.get(refused).await.status, 404);
    assert_eq!(registry.get(refused).await.status, 404);
}

#[tokio::test]
async fn pages_show_what_there_is_and_nothing_that_acts() {
    let registry = Registry::open().await;
    fill(&registry).await;
    let root = registry.get("/").await;
    assert_eq!(
        (root.status.as_u16(), root.header("location")),
        (303, "/ui/")
    );
    for (path, words) in [
        ("/ui/", &["team/app", "library/tools", "2 repositories"][..]),
        ("/ui/?q=tool", &["library/tools", "1 repository"]),
        (
            "/ui/repository/team/app",
            &[
                "v1.4.2",
                "linux/amd64, linux/arm64/v8",
                "index",
                "artifact",
                "3 tags",
            ],
        ),
        (
            "/ui/repository/library/tools",
            &["1.00", "Next page", "61 tags"],
        ),
        (
            "/ui/repository/library/tools?after=1.48",
            &["latest", "First page"],
        ),
        (
            "/ui/image/team/app:v1.4.2",
            &[
                "Platforms",
                "linux/arm64/v8",
                "What refers to it",
                "application/x-&lt;script&gt;",
            ],
        ),
        (
            "/ui/image/team/app:amd64",
            &[
                "make install",
                "8080/tcp",
                "Part of",
                "&lt;img src=x",
                "\\u{202e}",
                "&lt;b&gt;key",
            ],
        ),
        (
            "/ui/image/team/app:sig",
            &["Refers to", "Contents", "artifact"],
        ),
        (
            "/ui/refusals",
            &["TagNotFound", "/v2/team/app/manifests/v1.4.3", ">2<"],
        ),
    ] {
        let answer = registry.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        let page = text(&answer);
        for word in words {
            assert!(page.contains(word), "{path} lacks {word:?}:\n{page}");
        }
        assert!(
            !page.contains("<script") && !page.contains("<img") && !page.contains('\u{202e}'),
            "{path}"
        );
        assert!(!page.contains("towline-asks-"), "{path}: {page}");
        assert!(
            answer
                .header("content-security-policy")
                .starts_with("default-src 'none'; style-src 'self'")
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn what_is_no_page_is_said_to_people_and_the_api_stays_where_it_is() {
    let registry = Registry::open().await;
    for (method, path, status) in [
        ("POST", "/ui/", 405),
        ("GET", "/ui/nothing", 404),
        ("GET", "/ui/repository/none", 404),
        ("GET", "/ui/image/none:v1", 404),
        ("GET", "/ui/repository/..%2f..%2fetc", 404),
        ("HEAD", "/ui/", 200),
        // What the pages are called shadows nothing of the API.
        ("GET", "/v2/", 200),
        ("GET", "/v2/ui/tags/list", 404),
    ] {
        let answer = registry.send(method, path, &[], "").await;
        assert_eq!(answer.status, status, "{method} {path}");
        let is_page = answer.header("content-type").starts_with("text/html");
        assert_eq!(is_page, !path.starts_with("/v2"), "{method} {path}");
    }
}

#[tokio::test]
async fn everybody_sees_what_the_rules_let_them_pull() {
    let mut users = Users::default();
    users.insert("ann", &"secret".into()).unwrap();
    users.insert("bob", &"hidden".into()).unwrap();
    let ann = || Who::Users(vec!["ann".to_owned()]);
    let access = Access {
        rules: vec![
            Rule::new("public/*", Who::Anyone, ann()),
            Rule::new("ann/*", ann(), ann()),
            Rule::new("*", Who::AnyUser, ann()),
        ],
        users,
    };
    let registry = Registry::with(|options| options.access = access).await;
    let image = image::guest().build();
    let names = ["public/a", "ann/b", "team/c"];
    for name in names {
        let login = Some(("ann", "secret"));
        image
            .push(registry.address(), name, "v1", login)
            .await
            .unwrap();
        let missing = format!("/v2/{name}/manifests/none");
        let login = basic("ann", "secret");
        let headers = [("authorization", login.as_str())];
        let got = registry.send("GET", &missing, &headers, "").await;
        assert_eq!(got.status, 404);
    }
    let (ann, bob, wrong) = (
        basic("ann", "secret"),
        basic("bob", "hidden"),
        basic("bob", "no"),
    );
    for (login, seen, statuses) in [
        (None, &names[..1], [200, 401, 401]),
        (Some(&ann), &names[..], [200, 200, 200]),
        (Some(&bob), &["public/a", "team/c"][..], [200, 403, 200]),
    ] {
        let headers: Vec<_> = login
            .iter()
            .map(|login| ("authorization", login.as_str()))
            .collect();
        for page in ["/ui/", "/ui/refusals"] {
            let answer = registry.send("GET", page, &headers, "").await;
            assert_eq!(answer.status, 200);
            for name in names {
                assert_eq!(
                    text(&answer).contains(name),
                    seen.contains(&name),
                    "{login:?} {page} {name}"
                );
            }
        }
        for (name, status) in names.iter().zip(statuses) {
            for page in ["repository", "image"] {
                let tag = if page == "image" { ":v1" } else { "" };
                let path = format!("/ui/{page}/{name}{tag}");
                let answer = registry.send("GET", &path, &headers, "").await;
                assert_eq!(answer.status, status, "{login:?} {path}");
                if status == 401 {
                    assert!(answer.header("www-authenticate").starts_with("Basic "));
                }
            }
        }
    }
    let refused = registry
        .send("GET", "/ui/", &[("authorization", &wrong)], "")
        .await;
    assert_eq!(refused.status, 401);
    assert_eq!(registry.get("/ui/login").await.status, 401);
    let back = registry
        .send("GET", "/ui/login", &[("authorization", &ann)], "")
        .await;
    assert_eq!(
        (back.status.as_u16(), back.header("location")),
        (303, "/ui/")
    );
}

#[tokio::test]
async fn pages_can_be_turned_off() {
    let registry = Registry::with(|options| options.web = false).await;
    for path in ["/", "/ui/", "/ui/refusals"] {
        let answer = registry.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (404, "UNSUPPORTED"),
            "{path}"
        );
    }
}

fn title(dom: &str) -> &str {
    let rest = dom.split_once("<title>").map_or("", |(_, rest)| rest);
    rest.split_once("</title>").map_or("", |(title, _)| title)
}

#[tokio::test]
async fn a_browser_reads_the_pages_and_runs_nothing_that_was_pushed() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let registry = Registry::with(|options| {
        let nowhere = towline_registry::Upstream::parse("up=http://127.0.0.1:9").unwrap();
        options.cache.upstreams = vec![nowhere];
    })
    .await;
    fill(&registry).await;
    let host = format!("http://{}", registry.address());
    // The browser does run scripts when it may, so that nothing run means something.
    let acting = "data:text/html,<title>a</title><script>document.title='owned'</script>";
    for (on, expected) in [(true, "owned"), (false, "a")] {
        browser.scripts(on).await;
        browser.go(acting).await;
        assert_eq!(title(&browser.dom().await), expected);
    }
    // Without scripts: by links and the form alone.
    browser.go(&host).await;
    follow(&mut browser, &host).await;
    browser.write("input[name=q]", "<script>1.3").await;
    browser.click("button").await;
    assert!(browser.dom().await.contains("No tag has this in its name"));
    browser.click("form a").await;
    browser.write("input[name=q]", "1.3").await;
    browser.click("button").await;
    assert!(browser.dom().await.contains("10 tags"));
    // With scripts nothing of what was pushed runs, and on a small screen nothing sticks out.
    browser.scripts(true).await;
    for path in [
        "/ui/image/team/app:v1.4.2",
        "/ui/image/team/app:amd64",
        "/ui/image/team/app:sig",
        "/ui/repository/team/app",
        "/ui/refusals",
        "/ui/upstreams",
        "/ui/?q=%3Cscript%3Edocument.title=%27owned%27%3C/script%3E",
    ] {
        browser.go(&format!("{host}{path}")).await;
        let dom = browser.dom().await;
        assert!(
            title(&dom).ends_with(" · Registry"),
            "{path}: {}",
            title(&dom)
        );
        assert!(
            !dom.contains("<img") && !dom.contains("<script"),
            "{path}: {dom}"
        );
        let width = browser.look(320, false).await;
        assert!(width <= 320.0, "{path} is {width} wide");
    }
    narrow(&mut browser, &host).await;
    if let Some(folder) = std::env::var_os("TOWLINE_TEST_SCREENSHOTS") {
        pictures(&mut browser, &host, Path::new(&folder)).await;
    }
}

/// Clicks through the pages.
async fn follow(browser: &mut Browser, host: &str) {
    for (link, at) in [
        (
            "a[href='/ui/repository/team/app']",
            "/ui/repository/team/app",
        ),
        (
            "a[href='/ui/image/team/app:v1.4.2']",
            "/ui/image/team/app:v1.4.2",
        ),
        ("td a.digest", "/ui/image/team/app@sha256:"),
        ("nav a[href='/ui/refusals']", "/ui/refusals"),
        ("nav a[href='/ui/upstreams']", "/ui/upstreams"),
        (".brand", "/ui/"),
        (
            "a[href='/ui/repository/library/tools']",
            "/ui/repository/library/tools",
        ),
        ("a[rel=next]", "/ui/repository/library/tools?after=1.49"),
        ("a[rel=first]", "/ui/repository/library/tools"),
    ] {
        browser.click(link).await;
        let address = browser.address().await;
        assert!(
            address.starts_with(&format!("{host}{at}")),
            "{link}: {address}"
        );
        assert!(
            title(&browser.dom().await).ends_with(" · Registry"),
            "{link}"
        );
    }
}

/// On a small screen a cell is its label and, beside it, all that it says: also the words that explain a cause.
async fn narrow(browser: &mut Browser, host: &str) {
    browser.go(&format!("{host}/ui/refusals")).await;
    browser.look(320, false).await;
    let cell = browser.left("td[data-label=Cause]").await;
    let words = browser.left("td[data-label=Cause] .soft").await;
    assert!(words >= cell + 100.0, "{words} beside {cell}");
}

/// Pictures for people to look at.
async fn pictures(browser: &mut Browser, host: &str, folder: &Path) {
    for (name, path) in [
        ("home", "/ui/"),
        ("tags", "/ui/repository/library/tools"),
        ("repository", "/ui/repository/team/app"),
        ("index", "/ui/image/team/app:v1.4.2"),
        ("image", "/ui/image/team/app:amd64"),
        ("artifact", "/ui/image/team/app:sig"),
        ("refusals", "/ui/refusals"),
        ("upstreams", "/ui/upstreams"),
        ("missing", "/ui/repository/none"),
    ] {
        browser.go(&format!("{host}{path}")).await;
        for (look, width, dark) in [
            ("wide", 1200, false),
            ("narrow", 320, false),
            ("dark", 1200, true),
        ] {
            browser.look(width, dark).await;
            browser
                .picture(&folder.join(format!("{name}-{look}.png")))
                .await;
        }
    }
}
