//! The API server alone: `serve DATA_DIR ADDRESS KUBECONFIG`. Ends with its standard input.

use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use towline_apiserver::{Identity, Options, Service};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, address, kubeconfig] = arguments.as_slice() else {
        return Err("usage: serve DATA_DIR ADDRESS KUBECONFIG".into());
    };
    let handle = Service::start(Options::new(data, vec![address.parse()?])).await?;
    towline_sys::fs::write_atomic_mode(
        Path::new(kubeconfig),
        handle.kubeconfig(&Identity::Admin)?.as_bytes(),
        0o600,
    )?;
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    handle.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
