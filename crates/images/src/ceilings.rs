//! The most that a layer may cost, and the words for a layer that asks for more.

use serde::{Deserialize, Serialize};

/// The most that a layer may cost. A layer that asks for more ends the pull with an error that names the ceiling and how to raise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Compressed bytes of a whole image as its manifest declares them.
    pub image_bytes: u64,
    /// Layers of an image; overlayfs stacks no more than 500.
    pub layers: usize,
    /// Files, directories, links and whiteouts of a layer.
    pub entries: u64,
    /// Bytes of a layer after decompression.
    pub layer_bytes: u64,
    /// Bytes after decompression for each compressed byte. Counts from [`Ceilings::ratio_floor`] on.
    pub ratio: u64,
    /// Bytes after decompression from which the ratio counts.
    pub ratio_floor: u64,
    /// Bytes of a path; the kernel takes no more than 4095.
    pub path_bytes: usize,
    /// Bytes of one name in a path; Linux file systems hold 255.
    pub name_bytes: usize,
    /// Names in a path.
    pub path_depth: usize,
    /// Bytes of the extended headers of one entry.
    pub header_bytes: usize,
    /// Extended attributes of one entry.
    pub xattrs: usize,
    /// Bytes of one extended attribute's value; the kernel takes no more than 65,536.
    pub xattr_bytes: usize,
    /// Memory of a zstd window as a power of two.
    pub zstd_window_log: u32,
}

impl Default for Ceilings {
    fn default() -> Self {
        Self {
            image_bytes: 256 << 30,
            layers: 500,
            entries: 4_000_000,
            layer_bytes: 256 << 30,
            ratio: 400,
            ratio_floor: 1 << 30,
            path_bytes: 4095,
            name_bytes: 255,
            path_depth: 512,
            header_bytes: 1 << 20,
            xattrs: 256,
            xattr_bytes: 64 << 10,
            zstd_window_log: 27,
        }
    }
}

/// Names of the ceilings that can be raised.
const NAMES: &str =
    "image-bytes, entries, layer-bytes, ratio, path-depth, header-bytes, xattrs, zstd-window";

impl Ceilings {
    /// Sets one ceiling from `NAME=NUMBER`, as the command line has it. A number may end in K, M, G or T (powers of 1024). The window of
    /// zstd counts in bytes too, rounded up to a power of two.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let wrong = || format!("{text:?} is not NAME=NUMBER with a NAME of {NAMES}");
        let (name, number) = text.split_once('=').ok_or_else(wrong)?;
        let number = bytes(number).filter(|n| *n > 0).ok_or_else(wrong)?;
        let small = usize::try_from(number).map_err(|_| wrong())?;
        match name.trim() {
            "image-bytes" => self.image_bytes = number,
            "entries" => self.entries = number,
            "layer-bytes" => self.layer_bytes = number,
            "ratio" => self.ratio = number,
            // Deeper than the kernel's own paths nothing could be opened.
            "path-depth" if small <= 2048 => self.path_depth = small,
            "header-bytes" if small <= 1 << 30 => self.header_bytes = small,
            "xattrs" if small <= 1 << 20 => self.xattrs = small,
            "zstd-window" if (1024..=1 << 31).contains(&number) => {
                self.zstd_window_log = number.next_power_of_two().trailing_zeros();
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

/// A number with an optional unit of 1024.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(['K', 'M', 'G', 'T']);
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Which ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Limit {
    Entries,
    Headers,
    LayerBytes,
    Ratio,
    PathBytes,
    NameBytes,
    PathDepth,
    HeaderBytes,
    Records,
    Xattrs,
    XattrBytes,
    ZstdWindow,
    DirectoryNames,
    SparseBytes,
    SparsePieces,
}

impl Limit {
    /// The whole sentence: what is too much, the ceiling, and how it is raised. `name` is the entry or attribute, where there is one.
    pub(crate) fn sentence(self, name: &str, ceiling: u64) -> String {
        let what = match self {
            Self::Entries => {
                "the layer has more entries (files, directories, links) than".to_owned()
            }
            Self::Headers => "the layer has more tar headers than".to_owned(),
            Self::LayerBytes => "the layer has more bytes after decompression than".to_owned(),
            Self::Ratio => "the layer has more bytes for each compressed byte than".to_owned(),
            Self::PathBytes => format!("the path of entry {name:?} has more bytes than"),
            Self::NameBytes => format!("a name in the path of entry {name:?} has more bytes than"),
            Self::PathDepth => format!("the path of entry {name:?} is deeper than"),
            Self::HeaderBytes => "an extended header has more bytes than".to_owned(),
            Self::Records => "an extended header has more records than".to_owned(),
            Self::Xattrs => "an entry has more extended attributes than".to_owned(),
            Self::XattrBytes => format!("extended attribute {name:?} has more bytes than"),
            Self::SparseBytes => format!(
                "the sparse files of the layer up to {name:?} have more bytes, holes included, than"
            ),
            Self::SparsePieces => format!("the sparse file {name:?} has more pieces than"),
            Self::ZstdWindow => "the layer's zstd window has more bytes than".to_owned(),
            Self::DirectoryNames => {
                "the names and attributes of all directories have more bytes together than"
                    .to_owned()
            }
        };
        let raise = match self.option() {
            Some(option) => format!("--ceiling {option}=NUMBER raises it"),
            None => "it cannot be raised".to_owned(),
        };
        format!("{what} the ceiling of {ceiling}; {raise}")
    }

    /// Its name on the command line, where it can be raised.
    fn option(self) -> Option<&'static str> {
        Some(match self {
            // Two headers for each entry are accepted.
            Self::Entries | Self::Headers => "entries",
            Self::LayerBytes | Self::SparseBytes => "layer-bytes",
            Self::Ratio => "ratio",
            Self::PathDepth => "path-depth",
            Self::HeaderBytes => "header-bytes",
            Self::Xattrs | Self::Records => "xattrs",
            Self::ZstdWindow => "zstd-window",
            // What the kernel and its file systems take, and this process's own memory.
            Self::PathBytes
            | Self::NameBytes
            | Self::XattrBytes
            | Self::DirectoryNames
            | Self::SparsePieces => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_set_by_name() {
        let mut ceilings = Ceilings::default();
        for text in [
            "entries=5",
            "layer-bytes=2T",
            "ratio=1000",
            "zstd-window=200M",
        ] {
            ceilings.set(text).unwrap();
        }
        assert_eq!(
            ceilings,
            Ceilings {
                entries: 5,
                layer_bytes: 2 << 40,
                ratio: 1000,
                zstd_window_log: 28,
                ..Ceilings::default()
            }
        );
        for text in [
            "entries",
            "entries=",
            "entries=0",
            "entries=-1",
            "entries=1X",
            "entries=99999999999T",
            "zstd-window=4T",
            "path-depth=9999",
            "path-bytes=9000",
            "=5",
        ] {
            let why = ceilings.set(text).unwrap_err();
            assert!(why.contains("layer-bytes, ratio"), "{why}");
        }
    }

    /// What an error tells its reader to do can be done.
    #[test]
    fn every_option_in_a_sentence_exists() {
        for limit in [
            Limit::Entries,
            Limit::Headers,
            Limit::LayerBytes,
            Limit::Ratio,
            Limit::PathBytes,
            Limit::NameBytes,
            Limit::PathDepth,
            Limit::HeaderBytes,
            Limit::Records,
            Limit::Xattrs,
            Limit::XattrBytes,
            Limit::ZstdWindow,
            Limit::DirectoryNames,
            Limit::SparseBytes,
            Limit::SparsePieces,
        ] {
            let sentence = limit.sentence("x", 7);
            assert!(sentence.contains("ceiling of 7; "), "{sentence}");
            match limit.option() {
                Some(option) => Ceilings::default().set(&format!("{option}=1024")).unwrap(),
                None => assert!(sentence.ends_with("cannot be raised"), "{sentence}"),
            }
        }
    }
}
