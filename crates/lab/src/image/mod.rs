//! Small real images, built in memory: the same input gives the same bytes.
//!
//! Nothing here checks that an image makes sense: a builder for tests must be able to build broken ones.

mod blob;
mod builder;
mod layer;
mod layout;
mod push;

pub use blob::{Blob, sha256};
pub use builder::{Builder, Dialect, Image, Index, Platform};
pub use layer::{Compression, Layer};
pub use push::PushError;

use crate::guest;

/// A runnable image: the guest at `/bin/guest`, a link in `/bin` for each of its tools, `/etc/passwd` and `/tmp`.
///
/// Its entry point is `/bin/guest`, its command `hello`.
pub fn guest() -> Builder {
    let mut layer = Layer::new()
        .directory("bin", 0o755)
        .file("bin/guest", guest::BINARY)
        .mode(0o755)
        .directory("etc", 0o755)
        .file(
            "etc/passwd",
            "root:x:0:0:root:/:/bin/guest\nuser:x:1000:1000:user:/tmp:/bin/guest\n",
        )
        .file("etc/group", "root:x:0:\nuser:x:1000:\n")
        .directory("tmp", 0o1777);
    for tool in guest::TOOLS {
        layer = layer.symlink(&format!("bin/{tool}"), "guest");
    }
    Builder::new()
        .layer(layer)
        .entrypoint(["/bin/guest"])
        .cmd(["hello"])
        .env("PATH", "/bin")
}
