//! Generates the CRI types and services from `proto/`, without any program from outside.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/api.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Its own `Debug` in `v1` prints no secret.
        .skip_debug(["runtime.v1.AuthConfig"])
        .compile_fds(files)?;
    Ok(())
}
