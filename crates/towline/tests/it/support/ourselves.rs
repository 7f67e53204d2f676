//! An image that holds this very program, as people build it for their cluster.

use std::path::Path;
use std::process::Command;

use towline_lab::image::{Builder, Compression, Image, Layer};

/// The program at `/bin/towline` with the libraries that it asks for.
pub(crate) fn image() -> Image {
    let binary = Path::new(env!("CARGO_BIN_EXE_towline"));
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("towline");
    // Symbols triple its size; where nothing takes them away it is only larger.
    let stripped = Command::new("strip")
        .arg("-o")
        .args([small.as_path(), binary])
        .status();
    let shown = if stripped.is_ok_and(|status| status.success()) {
        small.as_path()
    } else {
        binary
    };
    let mut layer = Layer::new()
        .compression(Compression::None)
        .directory("bin", 0o755)
        .file("bin/towline", std::fs::read(shown).unwrap())
        .mode(0o755)
        .directory("tmp", 0o1777);
    for library in libraries(binary) {
        let inside = library.trim_start_matches('/');
        layer = layer
            .file(inside, std::fs::read(&library).unwrap())
            .mode(0o755);
    }
    Builder::new()
        .layer(layer)
        .entrypoint(["/bin/towline"])
        .env("PATH", "/bin")
        .build()
}

/// Absolute paths of what the loader takes for a program, itself included.
fn libraries(program: &Path) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned);
    paths.collect()
}
