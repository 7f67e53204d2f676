//! The runtime alone, for suites such as critest: `serve DIRECTORY SHIM`. It listens on `DIRECTORY/cri.sock`, speaks
//! plain HTTP to every registry, and removes everything when its standard input ends.

use std::path::PathBuf;
use std::time::Duration;

use towline_distribution::PlainHttp;
use towline_runtime::{Options, Service};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let mut args = std::env::args_os().skip(1);
    let (Some(directory), Some(shim)) = (args.next(), args.next()) else {
        return Err("usage: serve DIRECTORY SHIM".into());
    };
    let directory = PathBuf::from(directory);
    let mut options = Options::new(
        directory.join("root"),
        directory.join("state"),
        directory.join("cri.sock"),
        vec![shim],
    );
    options.client.plain_http = PlainHttp::All;
    let handle = Service::start(options).await?;
    let mut end = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut tokio::io::stdin(), &mut end).await?;
    handle.stop_all(Duration::from_secs(30)).await?;
    Ok(())
}
