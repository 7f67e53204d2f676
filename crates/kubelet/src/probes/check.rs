//! One check of a probe.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::cri::Cri;

/// Bytes of an answer that are read and shown.
const MAX_BODY: usize = 10 * 1024;

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    /// It says no; the text goes into the event.
    Failure(String),
}

/// Runs a command in the container.
pub(super) async fn exec(cri: &Cri, id: &str, command: &[String], limit: Duration) -> Verdict {
    match cri.exec(id, command, limit).await {
        Ok(done) if done.exit_code == 0 => Verdict::Success,
        Ok(done) => {
            let mut output = done.stdout;
            output.extend_from_slice(&done.stderr);
            output.truncate(MAX_BODY);
            Verdict::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) if error.code == tonic::Code::DeadlineExceeded => Verdict::Failure(format!(
            "command timed out: {:?} timed out after {}",
            command.join(" "),
            towline_pod::duration::go(limit)
        )),
        Err(error) => Verdict::Failure(error.to_string()),
    }
}

/// The number of a port, looked up among the container's where it is a name.
fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            let named = ports.into_iter().find(|p| p.name.as_deref() == Some(name));
            named
                .map(|p| p.container_port)
                .or_else(|| name.parse().ok())
        }
    };
    let number = number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|n| *n > 0);
    number.ok_or_else(|| format!("invalid port: {port:?}"))
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn dial_problem(address: &str, error: &std::io::Error) -> String {
    let words = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => format!("connect: {error}"),
    };
    format!("dial tcp {address}: {words}")
}

/// Opens a connection.
pub(super) async fn tcp(
    action: &TCPSocketAction,
    container: &Container,
    ip: &str,
    limit: Duration,
) -> Verdict {
    let host = action
        .host
        .as_deref()
        .filter(|h| !h.is_empty())
        .unwrap_or(ip);
    let port = match port(container, &action.port) {
        Ok(port) => port,
        Err(text) => return Verdict::Failure(text),
    };
    let address = join(host, port);
    match tokio::time::timeout(limit, TcpStream::connect(&address)).await {
        Ok(Ok(_)) => Verdict::Success,
        Ok(Err(error)) => Verdict::Failure(dial_problem(&address, &error)),
        Err(_) => Verdict::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}

/// Asks over HTTP; 200 to 399 is a success.
pub(crate) async fn http(
    action: &HTTPGetAction,
    container: &Container,
    ip: &str,
    limit: Duration,
) -> Verdict {
    let host = action
        .host
        .as_deref()
        .filter(|h| !h.is_empty())
        .unwrap_or(ip);
    let port = match port(container, &action.port) {
        Ok(port) => port,
        Err(text) => return Verdict::Failure(text),
    };
    let address = join(host, port);
    let tls = action.scheme.as_deref() == Some("HTTPS");
    let path = action
        .path
        .as_deref()
        .filter(|p| !p.is_empty())
        .unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let url = format!("{}://{address}{path}", if tls { "https" } else { "http" });
    match tokio::time::timeout(limit, get(action, host, &address, &path, tls)).await {
        Ok(Ok(status)) if (200..400).contains(&status) => Verdict::Success,
        Ok(Ok(status)) => Verdict::Failure(format!("HTTP probe failed with statuscode: {status}")),
        Ok(Err(text)) => Verdict::Failure(format!("Get \"{url}\": {text}")),
        Err(_) => Verdict::Failure(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

async fn get(
    action: &HTTPGetAction,
    host: &str,
    address: &str,
    path: &str,
    tls: bool,
) -> Result<u16, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| dial_problem(address, &e))?;
    let mut request = http::Request::get(path)
        .header("User-Agent", "kube-probe/1.36")
        .header("Accept", "*/*")
        .header("Connection", "close");
    let mut named = false;
    for header in action.http_headers.iter().flatten() {
        named |= header.name.eq_ignore_ascii_case("host");
        request = request.header(&header.name, &header.value);
    }
    if !named {
        request = request.header("Host", address);
    }
    let request = request
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|e| e.to_string())?;
    if tls {
        let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
        let stream = tokio_rustls::TlsConnector::from(blind_config()?)
            .connect(name, stream)
            .await
            .map_err(|e| e.to_string())?;
        send(stream, request).await
    } else {
        send(stream, request).await
    }
}

async fn send<S>(stream: S, request: http::Request<Empty<bytes::Bytes>>) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let exchange = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?;
        let status = answer.status().as_u16();
        // The body is read as a client would, and not looked at.
        drop(Limited::new(answer.into_body(), MAX_BODY).collect().await);
        Ok(status)
    };
    tokio::pin!(exchange);
    tokio::select! {
        status = &mut exchange => status,
        // The peer may close as soon as its answer is out.
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

/// Probes do not check whom they speak to, as in Kubernetes: the address is the pod's own.
fn blind_config() -> Result<Arc<rustls::ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Blind(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Blind(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn get_action(port: u16) -> HTTPGetAction {
        HTTPGetAction {
            path: Some("/healthz".into()),
            port: IntOrString::Int(port.into()),
            ..HTTPGetAction::default()
        }
    }

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn http_by_status_and_by_refusal() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = towline_sys::task::spawn("server", async move {
            for status in ["200 OK", "503 Service Unavailable"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(
                    String::from_utf8_lossy(&request[..read]).starts_with("GET /healthz HTTP/1.1")
                );
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let container = Container::default();
        let action = get_action(port);
        assert_eq!(
            http(&action, &container, "127.0.0.1", SOON).await,
            Verdict::Success
        );
        assert_eq!(
            http(&action, &container, "127.0.0.1", SOON).await,
            Verdict::Failure("HTTP probe failed with statuscode: 503".into())
        );
        server.await.unwrap();
        let refused = format!(
            "Get \"http://127.0.0.1:{port}/healthz\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        );
        assert_eq!(
            http(&action, &container, "127.0.0.1", SOON).await,
            Verdict::Failure(refused)
        );
    }

    #[test]
    fn ports_by_name() {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "ports": [{"name": "web", "containerPort": 8080}],
        }))
        .unwrap();
        assert_eq!(
            port(&container, &IntOrString::String("web".into())),
            Ok(8080)
        );
        assert!(port(&container, &IntOrString::String("none".into())).is_err());
        assert!(port(&container, &IntOrString::Int(0)).is_err());
    }
}
