//! The name server over its sockets.

use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use towline_lab::dns::{Answer, Options, Server, Table, Transport};

fn question(name: &str) -> Vec<u8> {
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    query.to_vec().unwrap()
}

async fn udp(server: &Server, name: &str) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket
        .send_to(&question(name), server.local_addr())
        .await
        .unwrap();
    let mut buffer = [0; 1500];
    let length = tokio::time::timeout(Duration::from_millis(300), socket.recv(&mut buffer))
        .await
        .ok()?
        .unwrap();
    Some(Message::from_vec(&buffer[..length]).unwrap())
}

async fn tcp(server: &Server, name: &str) -> Message {
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    let question = question(name);
    stream
        .write_u16(u16::try_from(question.len()).unwrap())
        .await
        .unwrap();
    stream.write_all(&question).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

#[tokio::test]
async fn it_answers_fails_and_forwards() {
    let address = "127.0.0.9".parse().unwrap();
    let table = Table::new().with("up.example", Answer::Addresses(vec![address]));
    let upstream = Server::start(Options {
        table,
        ..Options::default()
    })
    .await
    .unwrap();
    let table = Table::new()
        .with("big.test", Answer::Truncated(vec![address]))
        .with("quiet.test", Answer::Timeout);
    let options = Options {
        table,
        upstream: Some(upstream.local_addr()),
        ..Options::default()
    };
    let server = Server::start(options).await.unwrap();

    assert_eq!(udp(&server, "up.example.").await.unwrap().answers.len(), 1);
    assert_eq!(tcp(&server, "up.example.").await.answers.len(), 1);
    assert!(udp(&server, "big.test.").await.unwrap().metadata.truncation);
    assert_eq!(tcp(&server, "big.test.").await.answers.len(), 1);
    assert!(udp(&server, "quiet.test.").await.is_none());
    let missing = udp(&server, "missing.test.").await.unwrap();
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    server.set("missing.test", Answer::ServFail);
    let failing = udp(&server, "missing.test.").await.unwrap();
    assert_eq!(failing.metadata.response_code, ResponseCode::ServFail);

    let asked = server.asked();
    assert_eq!(
        (asked[1].name.as_str(), asked[1].transport),
        ("up.example", Transport::Tcp)
    );
    assert!(
        upstream
            .asked()
            .iter()
            .all(|asked| asked.name == "up.example")
    );
}
