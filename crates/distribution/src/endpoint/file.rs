//! Configuration files in TOML, read strictly: whatever is wrong has a line and a column, a key that is not known is wrong.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Greatest size of a configuration file.
pub(crate) const MOST_BYTES: u64 = 1 << 20;

/// What is wrong with a configuration file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {what}", .path.display(), place(*.line, *.column))]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
}

impl ConfigError {
    /// About a file as a whole.
    pub(crate) fn whole(path: &Path, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line: 0,
            column: 0,
            what: what.into(),
        }
    }
}

fn place(line: usize, column: usize) -> String {
    if line == 0 {
        String::new()
    } else {
        format!(":{line}:{column}")
    }
}

/// Where something stands: `file:line`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    path: PathBuf,
    line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// A file under reading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    pub(crate) text: &'a str,
}

/// One key of a table, with where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item<'t, 'a> {
    source: Source<'a>,
    pub(crate) key: &'t str,
    key_at: usize,
    pub(crate) value: &'t Spanned<DeValue<'a>>,
}

impl<'a> Source<'a> {
    /// The whole file.
    pub(crate) fn parse(self) -> Result<Spanned<DeTable<'a>>, ConfigError> {
        DeTable::parse(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            self.fail(at, error.message())
        })
    }

    pub(crate) fn fail(self, at: usize, what: impl Into<String>) -> ConfigError {
        let before = self.text.get(..at).unwrap_or(self.text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ConfigError {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            what: what.into(),
        }
    }

    pub(crate) fn place(self, at: usize) -> Place {
        Place {
            path: self.path.to_owned(),
            line: self.fail(at, "").line,
        }
    }

    /// The keys of a table in the order in which they are written.
    pub(crate) fn items<'t>(self, table: &'t DeTable<'a>) -> Vec<Item<'t, 'a>> {
        let mut items: Vec<Item<'t, 'a>> = table
            .iter()
            .map(|(key, value)| Item {
                source: self,
                key: key.get_ref(),
                key_at: key.span().start,
                value,
            })
            .collect();
        items.sort_by_key(|item| item.key_at);
        items
    }
}

impl<'t> Item<'t, '_> {
    /// Where the key stands.
    pub(crate) fn place(&self) -> Place {
        self.source.place(self.key_at)
    }

    /// An error at the key.
    pub(crate) fn wrong_key(&self, what: impl Into<String>) -> ConfigError {
        self.source.fail(self.key_at, what)
    }

    /// An error at the value.
    pub(crate) fn wrong(&self, what: impl Into<String>) -> ConfigError {
        self.source.fail(self.value.span().start, what)
    }

    /// An unknown key, with the known one that is nearest.
    pub(crate) fn unknown(&self, known: &[&str]) -> ConfigError {
        let near = known
            .iter()
            .map(|name| (distance(self.key, name), name))
            .min()
            .filter(|(distance, _)| *distance <= 3);
        let hint = match near {
            Some((_, name)) => format!("; did you mean {name:?}?"),
            None => format!("; known are {}", known.join(", ")),
        };
        self.wrong_key(format!("unknown key {:?}{hint}", self.key))
    }

    pub(crate) fn text(&self) -> Result<&'t str, ConfigError> {
        self.value
            .get_ref()
            .as_str()
            .ok_or_else(|| self.mistyped("a string"))
    }

    pub(crate) fn flag(&self) -> Result<bool, ConfigError> {
        self.value
            .get_ref()
            .as_bool()
            .ok_or_else(|| self.mistyped("true or false"))
    }

    pub(crate) fn table(&self) -> Result<Vec<Self>, ConfigError> {
        match self.value.get_ref() {
            DeValue::Table(table) => Ok(self.source.items(table)),
            _ => Err(self.mistyped("a table")),
        }
    }

    /// The elements of an array.
    pub(crate) fn array(&self) -> Result<Vec<Self>, ConfigError> {
        match self.value.get_ref() {
            DeValue::Array(array) => Ok(array
                .iter()
                .map(|value| Item {
                    source: self.source,
                    key: self.key,
                    key_at: value.span().start,
                    value,
                })
                .collect()),
            _ => Err(self.mistyped("an array")),
        }
    }

    /// A string, or an array of strings.
    pub(crate) fn texts(&self) -> Result<Vec<&'t str>, ConfigError> {
        match self.value.get_ref() {
            DeValue::String(text) => Ok(vec![text]),
            DeValue::Array(_) => self.array()?.iter().map(Item::text).collect(),
            _ => Err(self.mistyped("a string or an array of strings")),
        }
    }

    pub(crate) fn is_array(&self) -> bool {
        self.value.get_ref().is_array()
    }

    pub(crate) fn mistyped(&self, wanted: &str) -> ConfigError {
        self.wrong(format!(
            "{:?} wants {wanted}, not {}",
            self.key,
            self.value.get_ref().type_str()
        ))
    }
}

/// Insertions, deletions and replacements between two short words.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, from) in left.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

/// Reads a small text file; `None` where it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    match read_bytes(path)? {
        None => Ok(None),
        Some(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..valid].split(|b| *b == b'\n').count();
                Err(ConfigError {
                    path: path.to_owned(),
                    line,
                    column: 1,
                    what: "the line is not UTF-8".to_owned(),
                })
            }
        },
    }
}

/// Reads a small file; `None` where it is not there.
pub(crate) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, ConfigError> {
    use std::io::Read as _;
    let cannot =
        |error: std::io::Error| ConfigError::whole(path, format!("it cannot be read: {error}"));
    // A FIFO or a device in its place must not hang a pull or fill the memory.
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error)),
        Ok(facts) if !facts.is_file() => {
            return Err(ConfigError::whole(path, "it is not a regular file"));
        }
        Ok(_) => {}
    }
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(ConfigError::whole(path, "it is larger than 1 MiB"));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_near() {
        for (left, right, want) in [
            ("skip_verify", "skip_verify", 0),
            ("skip-verify", "skip_verify", 1),
            ("", "ca", 2),
            ("capabilites", "capabilities", 1),
        ] {
            assert_eq!(distance(left, right), want, "{left} {right}");
        }
    }
}
