//! The messages, read once from their table.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::DecodeError;

const TEXT: &str = include_str!("schema.txt");

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Flag,
    Integer,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// A message with one repeated string.
    Texts,
    Message(String),
}

/// One field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: Type,
    pub(super) repeated: bool,
    pub(super) map: bool,
    /// A zero value is a value.
    pub(super) pointer: bool,
    /// The message's fields are the parent's in JSON.
    pub(super) inline: bool,
}

/// The fields of a message by number.
#[derive(Debug, Default)]
pub(super) struct Message(HashMap<u64, Field>);

impl Message {
    pub(super) fn field(&self, number: u64) -> Option<&Field> {
        self.0.get(&number)
    }
}

/// All messages.
#[derive(Debug, Default)]
pub(super) struct Schema {
    packages: HashMap<String, String>,
    messages: HashMap<String, Message>,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::parse(TEXT));

fn field(text: &str) -> Option<(u64, Field)> {
    let mut parts = text.splitn(3, ':');
    let (number, name, mut kind) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
    let mut take = |mark: char| {
        kind.strip_prefix(mark).is_some_and(|rest| {
            kind = rest;
            true
        })
    };
    let pointer = take('*');
    let (repeated, map) = (take('['), take('{'));
    let kind = match kind {
        "s" => Type::Text,
        "b" => Type::Flag,
        "i" => Type::Integer,
        "y" => Type::Bytes,
        "t" => Type::Time,
        "u" => Type::MicroTime,
        "q" => Type::Quantity,
        "x" => Type::IntOrString,
        "e" => Type::Texts,
        name => Type::Message(name.to_owned()),
    };
    Some((
        number,
        Field {
            name: name.to_owned(),
            kind,
            repeated,
            map,
            pointer,
            inline: name == "-",
        },
    ))
}

impl Schema {
    pub(super) fn get() -> &'static Self {
        &SCHEMA
    }

    fn parse(text: &str) -> Self {
        let mut schema = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
            if let Some(package) = head.strip_prefix('=') {
                schema.packages.insert(rest.to_owned(), package.to_owned());
            } else {
                schema.messages.insert(
                    head.to_owned(),
                    Message(rest.split(' ').filter_map(field).collect()),
                );
            }
        }
        schema
    }

    /// The message of a kind.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        let known = self.packages.get(api_version)?;
        // Options of requests travel under the version of the resource they are for.
        self.messages
            .get(&format!("{known}.{kind}"))
            .or_else(|| self.messages.get(&format!("meta.{kind}")))
    }

    pub(super) fn message(&self, name: &str) -> Result<&Message, DecodeError> {
        self.messages
            .get(name)
            .ok_or(DecodeError::Malformed("a message without a schema"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete() {
        let schema = Schema::get();
        for (name, message) in &schema.messages {
            for field in message.0.values() {
                assert!(!(field.repeated && field.map), "{name}.{}", field.name);
                if let Type::Message(other) = &field.kind {
                    assert!(
                        schema.messages.contains_key(other),
                        "{name}.{} is of unknown {other}",
                        field.name
                    );
                }
            }
        }
        for kind in crate::kinds::KINDS {
            if !["VolumeAttachment"].contains(&kind.kind) {
                assert!(
                    schema.kind(&kind.api_version(), kind.kind).is_some(),
                    "{}",
                    kind.qualified()
                );
            }
        }
    }
}
