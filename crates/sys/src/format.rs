//! Versions of what is on disk: each directory of our own says what it is and
//! in which version, and a program that is too old refuses it.

use std::path::{Path, PathBuf};

use crate::fs::{self, FsError};

/// The file in a directory that states its kind and version.
pub const FILE: &str = "FORMAT";

/// A kind of directory and the versions of it that this program understands.
///
/// The file holds one line, `<kind> <version>`.
#[derive(Debug, Clone, Copy)]
pub struct FormatVersion {
    /// What the directory is: `towline-store`.
    pub kind: &'static str,
    /// The version that this program writes.
    pub current: u32,
    /// The oldest version that this program reads (and migrates).
    pub oldest: u32,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Written by a newer program: using it could destroy what it holds.
    #[error("{} holds {kind} version {found}, this program knows up to {current}; use a newer program or another directory", dir.display())]
    TooNew {
        /// The directory.
        dir: PathBuf,
        /// The kind.
        kind: &'static str,
        /// The version found.
        found: u32,
        /// The version that this program writes.
        current: u32,
    },
    /// Written by a program older than we can migrate.
    #[error("{} holds {kind} version {found}, this program reads {oldest} and newer; migrate with an older program or use another directory", dir.display())]
    TooOld {
        /// The directory.
        dir: PathBuf,
        /// The kind.
        kind: &'static str,
        /// The version found.
        found: u32,
        /// The oldest version that this program reads.
        oldest: u32,
    },
    /// The directory is something else, or its version file is damaged.
    #[error("{} is not a directory of kind {kind}: its {FILE} file says {found:?}", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// The kind expected.
        kind: &'static str,
        /// What the file says, shortened.
        found: String,
    },
    /// The file could not be read or written.
    #[error("check the format version")]
    Fs(#[from] FsError),
}

impl FormatVersion {
    /// A kind whose only readable version is `current`.
    pub const fn new(kind: &'static str, current: u32) -> Self {
        Self {
            kind,
            current,
            oldest: current,
        }
    }

    /// Reads the version of `dir`, or writes the current one where there is
    /// none (the directory is created). The answer is the version found: when
    /// it is less than `current`, the caller migrates and calls
    /// [`write`](Self::write).
    pub fn check_or_write(&self, dir: impl AsRef<Path>) -> Result<u32, FormatError> {
        let dir = dir.as_ref();
        let Some(bytes) = fs::read_optional(dir.join(FILE), 256)? else {
            fs::create_dir_all(dir)?;
            self.write(dir)?;
            return Ok(self.current);
        };
        let text = String::from_utf8_lossy(&bytes);
        let foreign = || FormatError::Foreign {
            dir: dir.into(),
            kind: self.kind,
            found: text.trim_end().chars().take(80).collect(),
        };
        let (kind, version) = text.trim_end().split_once(' ').ok_or_else(foreign)?;
        let found: u32 = version.parse().map_err(|_| foreign())?;
        if kind != self.kind {
            return Err(foreign());
        }
        if found > self.current {
            return Err(FormatError::TooNew {
                dir: dir.into(),
                kind: self.kind,
                found,
                current: self.current,
            });
        }
        if found < self.oldest {
            return Err(FormatError::TooOld {
                dir: dir.into(),
                kind: self.kind,
                found,
                oldest: self.oldest,
            });
        }
        Ok(found)
    }

    /// Writes the current version, durably.
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<(), FormatError> {
        let line = format!("{} {}\n", self.kind, self.current);
        Ok(fs::write_atomic(dir.as_ref().join(FILE), line.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: FormatVersion = FormatVersion {
        kind: "towline-test",
        current: 2,
        oldest: 1,
    };

    #[test]
    fn writes_then_reads() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new");
        assert_eq!(V2.check_or_write(&dir).unwrap(), 2);
        assert_eq!(V2.check_or_write(&dir).unwrap(), 2);
    }

    #[test]
    fn refuses_newer_older_and_foreign() {
        let dir = tempfile::tempdir().unwrap();
        let put = |text: &str| fs::write_atomic(dir.path().join(FILE), text.as_bytes()).unwrap();
        put("towline-test 1\n");
        assert_eq!(V2.check_or_write(&dir).unwrap(), 1);
        put("towline-test 3\n");
        assert!(matches!(
            V2.check_or_write(&dir),
            Err(FormatError::TooNew { found: 3, .. })
        ));
        put("towline-test 0\n");
        assert!(matches!(
            V2.check_or_write(&dir),
            Err(FormatError::TooOld { found: 0, .. })
        ));
        for text in ["towline-other 2\n", "", "towline-test", "towline-test x\n"] {
            put(text);
            assert!(
                matches!(V2.check_or_write(&dir), Err(FormatError::Foreign { .. })),
                "{text:?}"
            );
        }
    }
}
