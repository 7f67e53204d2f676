//! Image records, durable in one small database.

use std::path::Path;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use towline_oci::Digest;
use towline_sys::fs;

use crate::{ImageRecord, StoreError};

const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");

/// The database of image records.
#[derive(Debug)]
pub(crate) struct Records(Database);

/// A database, and what was in it.
pub(crate) struct Opened {
    pub(crate) records: Records,
    pub(crate) images: Vec<ImageRecord>,
    /// The database was damaged and a new one is in its place: the caller rebuilds what it can.
    pub(crate) rebuilt: bool,
}

fn failed<E: Into<redb::Error>>(action: &'static str) -> impl FnOnce(E) -> StoreError {
    move |error| StoreError::Records {
        action,
        source: Box::new(error.into()),
    }
}

impl Records {
    /// Opens the database, or puts a new one in the place of a damaged one, which is kept beside it.
    pub(crate) fn open(path: &Path) -> Result<Opened, StoreError> {
        match Self::open_whole(path) {
            Ok((records, images)) => Ok(Opened {
                records,
                images,
                rebuilt: false,
            }),
            Err(error) if is_damage(&error) => {
                let aside = path.with_extension("damaged");
                tracing::error!(
                    error = %towline_sys::task::chain(&error),
                    "the image records are damaged; they are kept as {} and rebuilt", aside.display()
                );
                fs::rename(path, &aside)?;
                let (records, images) = Self::open_whole(path)?;
                Ok(Opened {
                    records,
                    images,
                    rebuilt: true,
                })
            }
            Err(error) => Err(error),
        }
    }

    fn open_whole(path: &Path) -> Result<(Self, Vec<ImageRecord>), StoreError> {
        let database = Database::create(path).map_err(failed("open"))?;
        fs::set_mode(path, 0o600)?;
        let write = database.begin_write().map_err(failed("begin"))?;
        write.open_table(IMAGES).map_err(failed("open the table"))?;
        write.commit().map_err(failed("commit"))?;
        let records = Self(database);
        let images = records.read(path)?;
        Ok((records, images))
    }

    fn read(&self, path: &Path) -> Result<Vec<ImageRecord>, StoreError> {
        let read = self.0.begin_read().map_err(failed("begin"))?;
        let table = read.open_table(IMAGES).map_err(failed("open the table"))?;
        let mut images = Vec::new();
        for row in table.iter().map_err(failed("read"))? {
            let (_, value) = row.map_err(failed("read"))?;
            let image =
                serde_json::from_slice(value.value()).map_err(|source| StoreError::Damaged {
                    path: path.to_owned(),
                    source,
                })?;
            images.push(image);
        }
        Ok(images)
    }

    /// Writes and removes records in one durable step.
    pub(crate) fn change(
        &self,
        put: &[&ImageRecord],
        remove: Option<&Digest>,
    ) -> Result<(), StoreError> {
        let write = self.0.begin_write().map_err(failed("begin"))?;
        {
            let mut table = write.open_table(IMAGES).map_err(failed("open the table"))?;
            for image in put {
                let text = serde_json::to_vec(image).map_err(|source| StoreError::Damaged {
                    path: "records.redb".into(),
                    source,
                })?;
                table
                    .insert(image.id.to_string().as_str(), text.as_slice())
                    .map_err(failed("write"))?;
            }
            if let Some(id) = remove {
                table
                    .remove(id.to_string().as_str())
                    .map_err(failed("remove"))?;
            }
        }
        write.commit().map_err(failed("commit"))
    }
}

/// Whether the file itself is bad, as opposed to the disk below it.
fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Damaged { .. } => true,
        StoreError::Records { source, .. } => match source.as_ref() {
            redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => true,
            redb::Error::Io(error) => matches!(
                error.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
            ),
            _ => false,
        },
        _ => false,
    }
}
