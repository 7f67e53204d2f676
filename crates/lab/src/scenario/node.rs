//! The node itself is in the way.

use towline_cause::{Cause, Step};

use super::{Place, Published, PullPolicy, Scenario};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            place: Place::SmallNode,
            // It is full while the layer is downloaded or while it is unpacked, which go on at the same time.
            step: None,
            ..Scenario::new(
                "disk-full",
                "The disk of the node has no room for the image.",
                Cause::NoSpaceLeft,
                Step::Fetch,
            )
            .published(Published::Large)
            .repaired("enlarge the node's disk")
        },
        Scenario {
            place: Place::FewFilesNode,
            ..Scenario::new(
                "inodes-used-up",
                "The disk of the node has room, and no inode for another file.",
                Cause::NoSpaceLeft,
                Step::Unpack,
            )
            .published(Published::ManyFiles)
            .repaired("make the node's disk anew with more inodes")
        },
        Scenario {
            place: Place::BrokenNode,
            // As above: it cannot be written while the layer is downloaded, or while it is unpacked.
            step: None,
            ..Scenario::new(
                "disk-read-only",
                "The disk of the node had an error, and the kernel made it read-only.",
                Cause::FilesystemReadOnly,
                Step::Fetch,
            )
            .repaired("repair the node's disk")
        },
        Scenario {
            place: Place::PauselessNode,
            ..Scenario::new(
                "pause-image-gone",
                "The runtime was told of a sandbox image that the registry does not have any more.",
                Cause::SandboxImageUnavailable,
                Step::Sandbox,
            )
            .repaired("push the sandbox image")
        },
        Scenario {
            place: Place::SlowNode,
            // Another pod takes the first pull, of the same image.
            policy: PullPolicy::Always,
            pulled_before: true,
            ..Scenario::new(
                "pull-throttled",
                "The kubelet starts fewer pulls a second than are asked for.",
                Cause::PullThrottled,
                Step::Queue,
            )
            .repaired("wait for the kubelet's turn")
        },
    ]
}
