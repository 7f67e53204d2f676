//! The node's file system: full, broken, read-only, out of descriptors, owners out of range.

use towline_cause::Cause;

use crate::chain::Chain;
use crate::context::Context;
use crate::verdict::{Verdict, likely, stated};

/// One link.
pub(crate) fn link(chain: &Chain, at: usize, context: &Context) -> Option<Verdict> {
    let plain = chain.plain(at);
    // Some recorders cut the path together with the colon behind it.
    let called = [
        "write ", "open ", "mkdir ", "link ", "symlink ", "rename ", "mknod ",
    ];
    if plain.ends_with(" no space left on device")
        && called.iter().any(|call| plain.starts_with(call))
        || plain.starts_with("there is not enough space on the disk")
        || plain.starts_with("failed to garbage collect required amount of images")
        // The device mapper counts its own blocks.
        || (plain.starts_with("thin pool has ") && plain.contains("free data blocks"))
    {
        return Some(stated(Cause::NoSpaceLeft));
    }
    match plain {
        "no space left on device" => Some(stated(Cause::NoSpaceLeft)),
        "disk quota exceeded" => Some(likely(Cause::NoSpaceLeft, &[Cause::QuotaExceeded])),
        "input/output error" | "remote i/o error" => {
            Some(likely(Cause::DiskError, &[Cause::NoSpaceLeft]))
        }
        // The file system found its own structures damaged.
        "structure needs cleaning" | "bad message" => Some(stated(Cause::DiskError)),
        "read-only file system" => Some(likely(Cause::FilesystemReadOnly, &[Cause::DiskError])),
        "too many open files" => Some(stated(Cause::TooManyOpenFiles)),
        // containerd appends a hint in brackets.
        "operation not permitted"
        | "invalid argument"
        | "operation not permitted (hint"
        | "invalid argument (hint"
            if chown(chain.before(at)) && context.unpack =>
        {
            Some(likely(
                Cause::UserNamespaceRange,
                &[Cause::LayerExtractFailed],
            ))
        }
        _ => None,
    }
}

fn chown(plain: &str) -> bool {
    plain.starts_with("lchown ") || plain.contains(" lchown ") || plain.starts_with("chown ")
}
