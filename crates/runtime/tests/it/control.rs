//! The image store, looked after while the runtime owns it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use towline_runtime::control::{self, Answer, ControlError, Question};
use towline_sys::testing::need_root;

use crate::fixture::{Node, Registry};

async fn verify(socket: &Path) -> Vec<towline_images::Damage> {
    match control::ask(socket, &Question::Verify).await.unwrap() {
        Answer::Verified {
            images: 1, damage, ..
        } => damage,
        other => panic!("{other:?}"),
    }
}

/// Some file of the image, from its topmost layer.
fn some_file(directories: &[PathBuf]) -> PathBuf {
    let passwd = directories.iter().map(|dir| dir.join("etc/passwd"));
    passwd.into_iter().find(|path| path.exists()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_is_looked_after_through_the_runtime() {
    if !need_root() {
        return;
    }
    let registry = Registry::start().await;
    let mut node = Node::start("ctl").await;
    let image = registry.image("v1");
    let id = node.pull(&image).await.unwrap();
    let socket = control::socket_beside(node.handle().socket());
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let ask = async |question: Question| control::ask(&socket, &question).await.unwrap();
    let Answer::Images(list) = ask(Question::Images).await else {
        panic!("not a list")
    };
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].tags, [image.as_str()]);
    let Answer::Usage(rows) = ask(Question::Usage).await else {
        panic!("not the usage")
    };
    assert_eq!((rows[0].what.as_str(), rows[0].count), ("images", 1));
    assert_eq!(rows[1].count, 1, "no container holds it");
    let names = vec![image.clone(), "nothing:1".to_owned()];
    let Answer::Inspected(found) = ask(Question::Inspect(names)).await else {
        panic!("not images")
    };
    assert_eq!(found[1], None);
    let found = found[0].as_ref().unwrap();
    assert!(id.contains(&found.id) || found.digests.contains(&id));

    assert_eq!(verify(&socket).await, []);
    std::fs::write(some_file(&found.directories), "rotten").unwrap();
    let damage = verify(&socket).await;
    assert!(damage[0].to_string().contains("etc/passwd"), "{damage:?}");
    let answer = ask(Question::SetAside(damage)).await;
    assert_eq!(answer, Answer::SetAside(vec![true]));
    assert!(!verify(&socket).await.is_empty(), "the layer is missing");
    node.pull(&image).await.unwrap();
    assert_eq!(verify(&socket).await, []);

    let Answer::Pruned(pruned) = ask(Question::Prune(true)).await else {
        panic!("not what went")
    };
    assert_eq!(pruned.images, 1);
    assert!(pruned.bytes > 0);
    assert_eq!(ask(Question::Images).await, Answer::Images(Vec::new()));
    let answer = ask(Question::Remove(vec![image])).await;
    assert_eq!(answer, Answer::Removed(vec![false]));

    node.shutdown().await;
    assert!(!socket.exists());
    let gone = control::ask(&socket, &Question::Images).await.unwrap_err();
    assert!(matches!(gone, ControlError::Connect { .. }), "{gone}");
}

/// Whatever else comes over the socket gets no answer, and the next one gets its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_on_the_socket_is_not_answered() {
    if !need_root() {
        return;
    }
    let mut node = Node::start("noise").await;
    let socket = control::socket_beside(node.handle().socket());
    let long = vec![b'['; (1 << 20) + 1];
    for noise in [
        &b""[..],
        b"{\"somethingNew\":1}",
        b"GET / HTTP/1.1\r\n\r\n",
        &long,
    ] {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        // The other side may have hung up on what is too long.
        stream.write_all(noise).await.ok();
        stream.shutdown().await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        assert_eq!(answer, b"", "{}", noise.len());
    }
    // Half a question that never ends holds up nobody.
    let mut slow = UnixStream::connect(&socket).await.unwrap();
    slow.write_all(b"\"ima").await.unwrap();
    let answer = control::ask(&socket, &Question::Images).await.unwrap();
    assert_eq!(answer, Answer::Images(Vec::new()));
    node.shutdown().await;
}
