//! Content on disk: blobs by digest, the spool of downloads in flight, unpacked layers by diffID, image records, leases.
//!
//! Nothing has a name here before its digest is right: content is staged, hashed, made durable, and then renamed. A kill at any moment leaves
//! either the old or the new state and some litter in the staging place, which the next open removes.
//!
//! What is synced when: a manifest or config (fsync of the file, then of the directory) before it has its name; unpacked layers, as many as
//! there are, with one `syncfs` before they get theirs; a record by its database's own commit, after all that it names. A compressed layer that is kept on purpose is synced as a manifest is. Spools are never
//! synced: they outlive a kill, and what power loss takes of them is downloaded again. A layer that is whole and not yet durable is *sealed*:
//! it waits in the staging place under a name that holds the kernel's boot id, so that a process that is killed then loses nothing, and
//! after a power cut it is not trusted.
//!
//! Every call blocks; callers in an async context move it to a thread for that. A [`Store`] is a cheap clone, and one process owns a store.
//!
//! ```text
//! FORMAT  lock  records.redb
//! blobs/<algorithm>/<hex>         manifests and configs; compressed layers that are kept on purpose
//! layers/<algorithm>/<hex>/fs     an unpacked layer, in overlayfs' form
//! layers/<algorithm>/<hex>/layer.json
//! layers/<algorithm>/<hex>/files   its files' checksums
//! layers/<algorithm>/<hex>/inventory   every name in it, with mode, owner, target
//! leases/<owner>                  what a container holds
//! spool/<algorithm>-<hex>         compressed bytes of a download that was cut
//! spool/<algorithm>-<hex>.<start> the same from byte <start> on, of one that came in parts
//! aside/                          damaged content that a repair keeps until something right is in its place
//! staging/                        what is not finished
//! ```
#![forbid(unsafe_code)]

mod aside;
mod blob;
mod error;
mod gc;
mod inventory;
mod layer;
mod layout;
mod lease;
mod listing;
mod lock;
mod record;
mod records;
mod spool;
mod state;
mod store;
mod syncer;
mod tree;
mod verify;

pub use blob::BlobWriter;
pub use error::{StoreError, io_cause};
pub use gc::Collected;
pub use layer::{LayerInfo, StagedLayer};
pub use lease::Lease;
pub use listing::{Checksum, Listing};
pub use record::ImageRecord;
pub use spool::Spool;
pub use store::{Options, Store, Usage};
pub use verify::{Damage, Verified};
