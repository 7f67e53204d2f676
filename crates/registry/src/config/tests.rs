//! What files mean, and where they are wrong.

use super::*;

fn read(text: &str) -> Result<Options, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.yaml");
    std::fs::write(&file, text).unwrap();
    let hash = bcrypt::hash("secret", 4).unwrap();
    std::fs::write(
        folder.path().join("users"),
        format!("ann:{hash}\nbob:{hash}\n"),
    )
    .unwrap();
    std::fs::write(folder.path().join("none"), "# nobody\n").unwrap();
    let mut options = Options::new("/nowhere");
    apply(&file, &mut options)
        .map(|_| options)
        .map_err(|error| towline_sys::task::chain(&error).replace(file.to_str().unwrap(), "FILE"))
}

#[test]
fn a_whole_file() {
    let options = read(
        "users: users
rules:
  - repositories: public/*
    pull: anyone
    push: [ann]
    delete: nobody
  - {repositories: '*', pull: users, push: [ann, bob]}
openBeyondLoopback: true
readOnly: true
web: false
mount: named
quota: {total: 1TiB, repositories: [{repositories: team/*, size: 10GiB}]}
drain: {announce: 3s, deadline: 20s}
limits: {requests: {perSecond: 50}, reserve: 1GiB, head: 16KiB, blob: 10GiB, uploads: 7, uploadAge: 2h, connections: 9, page: 5}
",
    )
    .unwrap();
    assert_eq!(options.mount, Mount::Named);
    assert_eq!(options.quota.total, Some(1 << 40));
    assert_eq!(
        options.quota.repositories,
        [("team/*".to_owned(), 10 << 30)]
    );
    let seconds = Duration::from_secs;
    let drain = (options.drain.announce, options.drain.deadline);
    assert_eq!(drain, (seconds(3), seconds(20)));
    let limits = &options.limits;
    let rate = limits.rate.map(|rate| (rate.per_second, rate.burst));
    assert_eq!(rate, Some((50, 500)));
    assert_eq!((limits.reserve, limits.head_bytes), (1 << 30, 16 << 10));
    let names = |names: &[&str]| Who::Users(names.iter().map(ToString::to_string).collect());
    let expected = [
        Rule {
            repositories: "public/*".to_owned(),
            pull: Who::Anyone,
            push: names(&["ann"]),
            delete: Who::Nobody,
        },
        Rule::new("*", Who::AnyUser, names(&["ann", "bob"])),
    ];
    assert_eq!(options.access.rules, expected);
    assert!(options.access.users.right("bob", &"secret".into()));
    assert_eq!(options.login, Login::Tokens(Tokens::default()));
    assert!(options.open_beyond_loopback && options.read_only && !options.web);
    assert_eq!(options.limits.blob_bytes, 10 << 30);
    assert_eq!(options.limits.upload_age.as_secs(), 7200);
    assert_eq!((options.limits.uploads, options.limits.page), (7, 5));
}

#[test]
fn what_is_not_said_stays_as_it_was() {
    for text in ["", "# nothing\n\n", "limits: {}\n"] {
        let options = read(text).unwrap();
        assert_eq!(options.access.rules, Access::open().rules, "{text:?}");
    }
    let options = read("users: users\n").unwrap();
    assert_eq!(
        options.access.rules,
        [Rule::new("*", Who::AnyUser, Who::AnyUser)]
    );
}

#[test]
fn errors_name_line_and_column() {
    for (text, expected) in [
        ("user: x\n", "line 1, column 1"),
        (
            "rules:\n  - repositories: a\n    pul: anyone\n",
            "line 3, column 5",
        ),
        (
            "rules:\n  - repositories: a\n    pull: everyone\n",
            "line 3, column 5",
        ),
        (
            "rules:\n  - repositories: a\n    pull: [zoe]\n",
            "line 3, column 12: there is no user \"zoe\"",
        ),
        (
            "users: users\nrules:\n  - repositories: A/*\n",
            "line 3, column 19: no repository can fit",
        ),
        ("users: none\n", "line 1, column 8: this file names no user"),
        ("limits:\n  blob: 10 gigs\n", "line 2, column 9"),
        ("limits:\n  uploadAge: 5\n", "line 2, column 14"),
        ("rules: [\n", "line "),
        (
            "token: {lifetime: 2h}\n",
            "line 1, column 19: a token may live for",
        ),
        ("token: {realm: here}\n", "line 1, column 16: the realm is"),
        (
            "login: basic\ntoken: {}\n",
            "line 2, column 8: there are no tokens",
        ),
        (
            "gc: {every: 1s}\n",
            "line 1, column 13: garbage is collected",
        ),
        ("gc: {grace: 1s}\n", "line 1, column 13: a grace below 5m"),
        ("login: none\n", "line 1"),
    ] {
        let error = read(text).unwrap_err();
        assert!(
            error.starts_with("FILE: ") && error.contains(expected),
            "{text:?}: {error}"
        );
    }
    let error = read("users: absent\n").unwrap_err();
    assert!(error.contains("absent"), "{error}");
}

#[test]
fn upstreams_are_read_with_their_logins() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.yaml");
    let logins = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YW5uOnNlY3JldA=="}}}"#;
    std::fs::write(folder.path().join("hub.json"), logins).unwrap();
    let text = "cache:\n  tagTtl: 5m\n  size: 20GiB\n  upstreams:\n    - {url: docker.io, logins: hub.json}\n    - {url: \"https://ghcr.io/team\", prefix: team}\n";
    std::fs::write(&file, text).unwrap();
    let mut options = Options::new(folder.path());
    apply(&file, &mut options).unwrap();
    let prefixes: Vec<_> = options
        .cache
        .upstreams
        .iter()
        .map(|one| one.prefix.as_str())
        .collect();
    assert_eq!(prefixes, ["docker.io", "team"]);
    assert_eq!(
        options.cache.upstreams[0].credential.to_string(),
        "user ann"
    );
    assert!(options.cache.upstreams[1].credential.is_anonymous());
    assert_eq!(options.cache.tag_ttl.as_secs(), 300);
    assert_eq!(options.cache.size, Some(20 << 30));
    std::fs::write(&file, "cache:\n  upstreams:\n    - url: ftp://x.example\n").unwrap();
    let error = apply(&file, &mut options).unwrap_err().to_string();
    assert!(error.contains("line 3") && error.contains("ftp"), "{error}");
}
