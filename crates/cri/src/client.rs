//! A CRI client over a unix socket.

use std::path::PathBuf;
use std::time::Duration;

pub use tonic::transport::Channel;
use tonic::transport::Endpoint;

use crate::MAX_MESSAGE;
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why no client could be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The endpoint is not `unix:///path`, `unix:path` or an absolute path.
    NotUnix(String),
    /// Nobody answers at the socket.
    Connect(PathBuf, tonic::transport::Error),
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotUnix(endpoint) => {
                write!(
                    f,
                    "the CRI endpoint {endpoint:?} is not a unix socket (unix:///path)"
                )
            }
            Self::Connect(path, _) => {
                write!(f, "connect to the CRI socket {}", path.display())
            }
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotUnix(_) => None,
            Self::Connect(_, source) => Some(source),
        }
    }
}

/// The socket's path in an endpoint as `--container-runtime-endpoint` takes it.
pub fn socket_path(endpoint: &str) -> Result<PathBuf, ConnectError> {
    let path = endpoint
        .strip_prefix("unix://")
        .or_else(|| endpoint.strip_prefix("unix:"))
        .unwrap_or(endpoint);
    if path.starts_with('/') {
        Ok(PathBuf::from(path))
    } else {
        Err(ConnectError::NotUnix(endpoint.to_owned()))
    }
}

/// Connects to a runtime; the channel is cheap to clone and reconnects by itself.
pub async fn connect(endpoint: &str) -> Result<Channel, ConnectError> {
    let path = socket_path(endpoint)?;
    let failed = |e| ConnectError::Connect(path.clone(), e);
    Endpoint::from_shared(format!("unix://{}", path.display()))
        .map_err(failed)?
        .connect_timeout(CONNECT_TIMEOUT)
        .connect()
        .await
        .map_err(failed)
}

/// A client of `RuntimeService` that takes messages up to [`MAX_MESSAGE`].
pub fn runtime(channel: Channel) -> RuntimeServiceClient<Channel> {
    RuntimeServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// A client of `ImageService` that takes messages up to [`MAX_MESSAGE`].
pub fn images(channel: Channel) -> ImageServiceClient<Channel> {
    ImageServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for endpoint in ["unix:///run/t.sock", "unix:/run/t.sock", "/run/t.sock"] {
            assert_eq!(
                socket_path(endpoint).unwrap(),
                PathBuf::from("/run/t.sock"),
                "{endpoint}"
            );
        }
        for endpoint in ["", "tcp://127.0.0.1:1", "unix://run/t.sock", "t.sock"] {
            assert!(socket_path(endpoint).is_err(), "{endpoint}");
        }
    }
}
