//! Who should write: an object that the writer writes anew every few seconds, each time only if nobody else did.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::client::{Client, If, Put};
use crate::storage::StorageError;

/// How often somebody who waits for it looks.
const LOOK: Duration = Duration::from_millis(300);
const NAME: &str = "lease";
/// The largest lease, in bytes.
const LIMIT: usize = 64 << 10;

/// What the object says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lease {
    /// The directory whose registry has it: that registry, restarted, need not wait.
    pub(super) node: String,
    /// The process that has it.
    pub(super) instance: String,
    /// Where the writer is reached.
    pub(super) address: String,
    /// False once it was given up.
    pub(super) is_held: bool,
    /// How long it is good, in milliseconds, when it is not written anew.
    pub(super) life: u64,
    /// Changes with each writing.
    pub(super) beat: u64,
}

impl Lease {
    fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// The lease as it is, and its tag.
pub(super) async fn read(client: &Client) -> Result<Option<(Lease, String)>, StorageError> {
    let Some((bytes, tag)) = client.get(NAME, LIMIT).await? else {
        return Ok(None);
    };
    let lease =
        serde_json::from_slice(&bytes).map_err(|_| StorageError::Corrupt { path: NAME.into() })?;
    Ok(Some((lease, tag)))
}

/// Takes the lease as soon as it is free, given up, or not written anew for its life; its tag. Whoever keeps it is named in the error.
pub(super) async fn take(client: &Client, wanted: &Lease) -> Result<String, StorageError> {
    let mut seen: Option<(String, Instant)> = None;
    loop {
        let found = read(client).await?;
        let condition = match &found {
            None => If::Absent,
            Some((lease, tag)) => {
                let is_free = !lease.is_held || lease.node == wanted.node;
                let since = match &seen {
                    Some((first, since)) if first == tag => *since,
                    // Somebody writes it.
                    Some(_) if !is_free => {
                        return Err(StorageError::NotWriter {
                            writer: Some(lease.address.clone()),
                        });
                    }
                    _ => Instant::now(),
                };
                seen = Some((tag.clone(), since));
                if !is_free && since.elapsed() < Duration::from_millis(lease.life) {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                If::Is(tag)
            }
        };
        if let Some(tag) = write(client, wanted, condition).await? {
            return Ok(tag);
        }
    }
}

/// Writes it; its new tag, none if somebody else was faster. An answer that was lost is found out.
pub(super) async fn write(
    client: &Client,
    lease: &Lease,
    condition: If<'_>,
) -> Result<Option<String>, StorageError> {
    if let Put::Done(tag) = client.put(NAME, lease.bytes(), condition).await? {
        return Ok(Some(tag));
    }
    let now = read(client).await?;
    Ok(now.and_then(|(now, tag)| (now == *lease).then_some(tag)))
}
