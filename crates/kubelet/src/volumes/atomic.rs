//! Files of a volume that change all at once.
//!
//! The files live in a directory named by the time of writing; `..data` points at it, and every name that a container sees
//! points through `..data`. A change is one rename of `..data`, so a reader sees the old set or the new one, never a mix.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

/// One file: content and mode.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
}

/// Files by their path inside the volume.
pub(crate) type Files = BTreeMap<String, File>;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Makes `directory` show exactly `files`; `gid` owns them where given. `stamp` names the new set and must be fresh. Returns whether anything changed.
pub(crate) fn write(
    directory: &Path,
    files: &Files,
    gid: Option<u32>,
    stamp: &str,
) -> io::Result<bool> {
    for path in files.keys() {
        check(path)?;
    }
    fs::create_dir_all(directory)?;
    let data = directory.join(DATA);
    let current = fs::read_link(&data).ok();
    if let Some(current) = &current
        && same(&directory.join(current), files)
    {
        return Ok(false);
    }
    let fresh = format!("..{stamp}");
    write_set(&directory.join(&fresh), files, gid)?;
    let next = directory.join(NEXT);
    remove_if_there(&next)?;
    symlink(&fresh, &next)?;
    fs::rename(&next, &data)?;
    link_names(directory, files)?;
    if let Some(current) = current
        && current != Path::new(&fresh)
    {
        fs::remove_dir_all(directory.join(current))?;
    }
    Ok(true)
}

fn check(path: &str) -> io::Result<()> {
    let fine = !path.is_empty()
        && !path.starts_with("..")
        && path.len() <= 4096
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
    if fine {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("invalid path in the volume: {path:?}"),
    ))
}

fn write_set(directory: &Path, files: &Files, gid: Option<u32>) -> io::Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    make_dir(directory, gid)?;
    for (path, file) in files {
        let target = directory.join(path);
        if let Some(parent) = target.parent() {
            let mut missing: Vec<PathBuf> = parent
                .ancestors()
                .take_while(|a| a.starts_with(directory) && !a.exists())
                .map(Path::to_path_buf)
                .collect();
            missing.reverse();
            for directory in missing {
                make_dir(&directory, gid)?;
            }
        }
        fs::write(&target, &file.content)?;
        if let Some(gid) = gid {
            std::os::unix::fs::chown(&target, None, Some(gid))?;
        }
        fs::set_permissions(&target, fs::Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

fn make_dir(directory: &Path, gid: Option<u32>) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(directory)?;
    if let Some(gid) = gid {
        std::os::unix::fs::chown(directory, None, Some(gid))?;
    }
    Ok(())
}

/// The names that a container sees: first parts of the paths, each a link through `..data`.
fn link_names(directory: &Path, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            remove_if_there(&directory.join(name.as_ref()))?;
        }
    }
    for name in wanted {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn same(set: &Path, files: &Files) -> bool {
    let mut found = 0;
    let mut open = vec![set.to_path_buf()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            return false;
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            } else {
                found += 1;
            }
        }
    }
    found == files.len()
        && files.iter().all(|(path, file)| {
            let target = set.join(path);
            fs::metadata(&target).is_ok_and(|meta| meta.permissions().mode() & 0o7777 == file.mode)
                && fs::read(&target).is_ok_and(|content| content == file.content)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> Files {
        entries
            .iter()
            .map(|(path, content)| {
                let file = File {
                    content: content.as_bytes().to_vec(),
                    mode: 0o640,
                };
                ((*path).to_owned(), file)
            })
            .collect()
    }

    #[test]
    fn a_change_shows_all_at_once_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("v");
        assert!(write(&volume, &files(&[("a", "1"), ("d/b", "2")]), None, "1").unwrap());
        assert_eq!(fs::read_to_string(volume.join("d/b")).unwrap(), "2");
        assert!(!write(&volume, &files(&[("a", "1"), ("d/b", "2")]), None, "2").unwrap());
        assert!(write(&volume, &files(&[("a", "3")]), None, "3").unwrap());
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
        assert!(fs::symlink_metadata(volume.join("d")).is_err());
        let mut names: Vec<_> = fs::read_dir(&volume)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["..3", "..data", "a"]);
    }

    #[test]
    fn a_path_that_leaves_the_volume_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/passwd", "a/../../x", "", "..data"] {
            assert!(write(root.path(), &files(&[(path, "")]), None, "1").is_err());
        }
    }
}
