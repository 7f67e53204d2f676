//! Rows of the list of what registries do wrong that `appendix.rs` and the files of single subjects do not have.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt as _;
use towline_cause::{Cause, Step};
use towline_distribution::{Fact, Options, PlainHttp, Recorder, Sources};
use towline_keyring::Credential;
use towline_lab::dns::{Answer, Table};
use towline_oci::{Descriptor, Digest, media_type};

use crate::stub::{
    Reply, Seen, Stub, bob, client, manifest, manifest_reply, options, repository, words,
};

const BLOB: &[u8] = b"twelve bytes";

fn layer() -> Descriptor {
    Descriptor::of(media_type::OCI_LAYER, BLOB)
}

fn mirrored(
    tree: &Path,
    own: &Stub,
    mirror: &Stub,
    options: Options,
) -> towline_distribution::Client {
    let folder = tree.join(format!("127.0.0.1_{}_", own.port()));
    std::fs::create_dir_all(&folder).unwrap();
    let hosts = format!("[host.\"http://{}\"]\n", mirror.address());
    std::fs::write(folder.join("hosts.toml"), hosts).unwrap();
    client(Options {
        endpoints: Sources {
            hosts_dirs: vec![tree.to_owned()],
            registries_conf: None,
        },
        ..options
    })
}

/// A17, the other way round: a service that knows forms alone gets the login in one.
#[tokio::test]
async fn a_token_service_that_knows_only_post() {
    for status in [404, 405, 501] {
        let service = Stub::plain(move |seen| {
            if seen.method == "POST" {
                Reply::new(200).json(r#"{"access_token":"t1"}"#)
            } else {
                Reply::new(status)
            }
        })
        .await;
        let realm = format!("http://{}/oauth2/token", service.address());
        let own = wants("Bearer t1", vec![bearer(&realm)]).await;
        let user = Credential::basic("bob smith", "a&b=c");
        own.repository(user).resolve().await.unwrap();
        let asked = service.seen();
        let post = asked.iter().find(|seen| seen.method == "POST").unwrap();
        assert_eq!(
            post.body,
            "grant_type=password&client_id=towline&scope=repository:team/app:pull&username=bob%20smith&password=a%26b%3Dc&service=lab"
        );
        assert_eq!(post.header("authorization"), None);
        assert_eq!(post.target, "/oauth2/token", "no secret in a URL");
    }
    // Nobody has no login to put into a form: the refusal of the GET is told.
    let service = Stub::plain(|_| Reply::new(405)).await;
    let realm = format!("http://{}/token", service.address());
    let own = wants("Bearer t1", vec![bearer(&realm)]).await;
    let failure = own
        .repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap_err();
    assert_eq!(failure.step(), Step::Authenticate, "{failure}");
    assert!(failure.to_string().contains("405"), "{failure}");
}

fn bearer(realm: &str) -> String {
    format!("Bearer realm=\"{realm}\",service=\"lab\",scope=\"repository:team/app:pull\"")
}

/// A registry that wants this authorization and otherwise answers with these challenges.
async fn wants(authorization: &'static str, challenges: Vec<String>) -> Stub {
    let bytes = manifest(BLOB);
    Stub::plain(move |seen| {
        if seen.header("authorization") == Some(authorization) {
            return manifest_reply(&bytes);
        }
        let refused = Reply::error(401, "UNAUTHORIZED", "authentication required");
        challenges.iter().fold(refused, |reply, value| {
            reply.header("WWW-Authenticate", value)
        })
    })
    .await
}

/// A18, A19, A21, A22: what challenges and tokens look like does not matter, in which order neither.
#[tokio::test]
async fn challenges_in_any_order_and_tokens_of_any_form() {
    let service = Stub::plain(|_| Reply::new(200).json(r#"{"access_token":"t1"}"#)).await;
    let realm = format!("http://{}/token", service.address());
    let basic = "Basic realm=\"x\"".to_owned();
    let placeholder = bearer(&realm).replace("team/app", "user/image");
    for challenges in [
        vec![basic.clone(), bearer(&realm)],
        vec![bearer(&realm), basic.clone()],
        vec![format!("{basic}, {}", bearer(&realm))],
        vec![format!("{}, {basic}", bearer(&realm))],
        vec![placeholder],
    ] {
        let what = challenges.join(" | ");
        let own = wants("Bearer t1", challenges).await;
        own.repository(bob()).resolve().await.unwrap();
        assert!(
            !own.everything().contains("Basic"),
            "{what}: a token is the safer of the two"
        );
        let last = service.seen().pop().unwrap();
        assert!(
            last.target.contains("scope=repository:team/app:pull"),
            "{what}: {}",
            last.target
        );
    }
}

/// A27: a place that a redirect names without scheme and host is one of the same server, login included.
#[tokio::test]
async fn a_relative_redirect_stays_where_it_is() {
    let own = Stub::plain(|seen| match (seen.path(), seen.header("authorization")) {
        (_, None) => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        ("/storage/b", _) => Reply::new(200).body(BLOB),
        _ => Reply::new(307).header("Location", "/storage/b?part=1"),
    })
    .await;
    let got = own
        .repository(bob())
        .blob_bytes(&layer(), 100)
        .await
        .unwrap();
    assert_eq!(got, BLOB);
    let last = own.seen().pop().unwrap();
    assert_eq!(last.target, "/storage/b?part=1");
    assert!(last.header("authorization").is_some());
}

/// A04: bytes that only trickle do not hold up the next endpoint for ever: silence longer than the idle time counts as a cut, and what
/// came is kept.
#[tokio::test]
async fn a_mirror_that_trickles_is_left() {
    let tree = tempfile::tempdir().unwrap();
    let own = Stub::plain(|seen: &Seen| {
        let from = seen.header("range").map_or(0, |range| {
            range["bytes=".len()..]
                .split('-')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        });
        let reply = Reply::new(if from == 0 { 200 } else { 206 });
        let range = format!("bytes {from}-{}/{}", BLOB.len() - 1, BLOB.len());
        reply.header("Content-Range", &range).body(&BLOB[from..])
    })
    .await;
    // One byte, and nothing for longer than anybody waits: each connection brings one more.
    let mirror = Stub::plain(|seen: &Seen| {
        let from = seen.header("range").map_or(0, |range| {
            range["bytes=".len()..]
                .split('-')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        });
        let reply = Reply::new(if from == 0 { 200 } else { 206 });
        let range = format!("bytes {from}-{}/{}", BLOB.len() - 1, BLOB.len());
        reply
            .header("Content-Range", &range)
            .body(&BLOB[from..=from])
            .stall(BLOB.len() - from)
    })
    .await;
    let client = mirrored(tree.path(), &own, &mirror, options());
    let repository = repository(&client, &own.image(), Credential::Anonymous);
    let got = repository.blob_bytes(&layer(), 100).await.unwrap();
    assert_eq!(got, BLOB);
    assert_eq!(mirror.seen().len(), 1, "it is asked once");
    let asked = own.seen();
    assert_eq!(asked.last().unwrap().header("range"), Some("bytes=1-11"));
}

/// A47: what there is instead is told.
#[tokio::test]
async fn no_platform_of_an_index_fits() {
    let entry = |architecture: &str| {
        format!(
            "{{\"mediaType\":\"{}\",\"digest\":\"{}\",\"size\":2,\"platform\":{{\"os\":\"linux\",\"architecture\":\"{architecture}\"}}}}",
            media_type::OCI_MANIFEST,
            Digest::of(architecture.as_bytes())
        )
    };
    let index = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"manifests\":[{},{}]}}",
        media_type::OCI_INDEX,
        entry("s390x"),
        entry("riscv64")
    );
    let own = Stub::plain(move |_| {
        Reply::new(200)
            .header("Content-Type", media_type::OCI_INDEX)
            .body(&index)
    })
    .await;
    let resolved = own
        .repository(Credential::Anonymous)
        .resolve()
        .await
        .unwrap();
    let towline_oci::Document::Index(index) = resolved.document else {
        panic!("it is an index")
    };
    let wanted = towline_oci::Platform::new("linux", "amd64");
    let failure = towline_distribution::select_platform(&index, &wanted).unwrap_err();
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::PlatformMismatch, Step::Platform)
    );
    for part in ["linux/amd64", "linux/s390x", "linux/riscv64"] {
        assert!(failure.to_string().contains(part), "{failure}");
    }
}

/// A54: a HEAD answer without length and digest is an answer.
#[tokio::test]
async fn a_head_without_a_length() {
    let raw = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\n\r\n",
        media_type::OCI_MANIFEST
    );
    let own = Stub::plain(move |_| Reply::raw(raw.as_bytes())).await;
    let head = own
        .repository(Credential::Anonymous)
        .head_manifest("1.0")
        .await
        .unwrap();
    assert_eq!((head.size, head.digest), (None, None));
    assert_eq!(head.media_type, media_type::OCI_MANIFEST);
}

/// A57: an IPv6 address that swallows packets costs a moment; the IPv4 address serves.
#[tokio::test]
async fn an_ipv6_black_hole_beside_a_good_ipv4() {
    let bytes = manifest(BLOB);
    let own = Stub::plain(move |_| manifest_reply(&bytes)).await;
    let Some(_hole) = full_queue(own.port()) else {
        eprintln!("skipped: needs IPv6 on loopback");
        return;
    };
    let (server, told) = crate::network::names(Table::new().with(
        "registry.test",
        Answer::Addresses(vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()]),
    ))
    .await;
    let told = Options {
        plain_http: PlainHttp::Hosts(vec!["registry.test".to_owned()]),
        timeouts: towline_distribution::Timeouts {
            // As shipped: the other family must not wait for this to pass.
            connect: towline_distribution::Timeouts::default().connect,
            ..told.timeouts
        },
        ..told
    };
    let limit = told.timeouts.connect;
    let image = format!("registry.test:{}/team/app:1", own.port());
    let recorder = Arc::new(Recorder::new());
    let repository =
        repository(&client(told), &image, Credential::Anonymous).observed(recorder.clone());
    let start = std::time::Instant::now();
    repository.resolve().await.unwrap();
    assert!(start.elapsed() < limit, "{:?}", start.elapsed());
    let good = recorder.take().into_iter().any(|fact| {
        matches!(fact, Fact::Connect { address, error: None, .. } if address == own.address().to_string())
    });
    assert!(good);
    drop(server);
}

/// A listener of `[::1]` at this port whose queue is full: a connection attempt gets no answer at all.
fn full_queue(port: u16) -> Option<(std::net::TcpListener, Vec<std::net::TcpStream>)> {
    use std::net::{Ipv6Addr, TcpListener, TcpStream};
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address).ok()?;
    let patience = std::time::Duration::from_millis(200);
    let mut queue = Vec::new();
    // The standard library's backlog is 128 or the kernel's own bound.
    while queue.len() < 8192 {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => queue.push(stream),
            Err(_) => return Some((listener, queue)),
        }
    }
    None
}

/// A58: a name server that failed for a moment is asked again.
#[tokio::test]
async fn a_name_server_that_failed_for_a_moment() {
    let bytes = manifest(BLOB);
    let own = Stub::plain(move |_| manifest_reply(&bytes)).await;
    let table = Table::new().with("registry.test", Answer::ServFail);
    let (server, told) = crate::network::names(table).await;
    let server = Arc::new(server);
    let told = Options {
        plain_http: PlainHttp::Hosts(vec!["registry.test".to_owned()]),
        retries: towline_distribution::Retries {
            attempts: 4,
            base: std::time::Duration::from_millis(100),
            longest: std::time::Duration::from_secs(2),
            patience: std::time::Duration::ZERO,
        },
        ..told
    };
    let image = format!("registry.test:{}/team/app:1", own.port());
    let repository = repository(&client(told), &image, Credential::Anonymous);
    let mend = server.clone();
    let mended = async move {
        // Once it was asked, and said that it failed.
        while mend.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        mend.set(
            "registry.test",
            Answer::Addresses(vec!["127.0.0.1".parse().unwrap()]),
        );
    };
    let (resolved, ()) = tokio::join!(repository.resolve(), mended);
    resolved.map_err(|failure| words(&failure)).unwrap();
}

/// A56: a connection that is told to go away in the middle of a blob: the rest comes over another one.
#[tokio::test]
async fn http2_goaway_in_the_middle_of_a_blob() {
    let ca = towline_lab::tls::Ca::new("lab");
    let acceptor = tokio_rustls::TlsAcceptor::from(crate::http2::config(&ca));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut running = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            if counter.fetch_add(1, Ordering::SeqCst) == 0 {
                running.spawn(go_away(stream));
            } else {
                running.spawn(serve(stream));
            }
        }
    });
    let client = client(Options {
        extra_ca_pem: vec![ca.pem().into_bytes()],
        ..options()
    });
    let repository = repository(
        &client,
        &format!("{address}/team/app:1"),
        Credential::Anonymous,
    );
    let got = repository
        .blob_bytes(&layer(), 100)
        .await
        .map_err(|failure| words(&failure));
    assert_eq!(got.unwrap(), BLOB);
    assert_eq!(connections.load(Ordering::SeqCst), 2, "one for each half");
}

/// Serves the blob as it is asked for.
async fn serve(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static) {
    let service = hyper::service::service_fn(|request| {
        let content = bytes::Bytes::from_static(BLOB);
        let (parts, body) = crate::http2::answer(&request, &content, false).into_parts();
        let body = http_body_util::Full::new(body);
        async move { Ok::<_, std::convert::Infallible>(http::Response::from_parts(parts, body)) }
    });
    let executor = hyper_util::rt::TokioExecutor::new();
    hyper::server::conn::http2::Builder::new(executor)
        .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
        .await
        .ok();
}

/// An HTTP/2 server by hand: it sends five bytes of the blob, GOAWAY, and the end.
async fn go_away(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    use tokio::io::AsyncReadExt as _;
    let frame = |kind: u8, flags: u8, id: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(id.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    };
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.unwrap();
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match head[3] {
            4 if head[4] == 0 => stream.write_all(&frame(4, 1, 0, &[])).await.unwrap(),
            1 => {
                // `:status: 200` is entry 8 of the table that both sides know.
                let mut answer = frame(1, 4, id, &[0x88]);
                answer.extend(frame(0, 0, id, &BLOB[..5]));
                // No error, and this stream is the last one.
                answer.extend(frame(7, 0, 0, &[id.to_be_bytes(), [0; 4]].concat()));
                stream.write_all(&answer).await.unwrap();
                stream.flush().await.unwrap();
                stream.shutdown().await.ok();
                return;
            }
            _ => {}
        }
    }
}

/// A mirror's own login goes to the mirror, the registry's to the registry, and neither elsewhere.
#[tokio::test]
async fn a_mirror_has_a_login_of_its_own() {
    use towline_distribution::MirrorLogins;
    let tree = tempfile::tempdir().unwrap();
    let closed = |user: &'static str| {
        let bytes = manifest(BLOB);
        Stub::plain(move |seen| {
            if seen.header("authorization") == Some(user) {
                manifest_reply(&bytes)
            } else {
                Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\"")
            }
        })
    };
    // mirror:m-canary and bob:canary-password
    let mirror = closed("Basic bWlycm9yOm0tY2FuYXJ5").await;
    let own = closed("Basic Ym9iOmNhbmFyeS1wYXNzd29yZA==").await;
    let place = mirror.address().to_string();
    let told = Options {
        mirror_logins: MirrorLogins::new(move |asked| {
            assert!(!asked.tls);
            assert_eq!(asked.image.registry(), place);
            Some(Credential::basic("mirror", "m-canary"))
        }),
        ..options()
    };
    let client = mirrored(tree.path(), &own, &mirror, told);
    let resolved = repository(&client, &own.image(), bob())
        .resolve()
        .await
        .unwrap();
    assert_eq!(resolved.endpoint, format!("http://{}", mirror.address()));
    assert!(own.seen().is_empty());
    assert!(
        !mirror.everything().contains("Ym9i"),
        "the registry's login stays the registry's"
    );
}
