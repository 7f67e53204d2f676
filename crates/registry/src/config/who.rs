//! Who a rule speaks of: `anyone`, `users`, `nobody`, or a list of names.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::access::Who;

/// Who, and the names with their places.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) who: Who,
    pub(super) names: Vec<Spanned<String>>,
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`anyone`, `users`, `nobody`, or a list of users")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Written, E> {
        let who = match text {
            "anyone" => Who::Anyone,
            "users" => Who::AnyUser,
            "nobody" => Who::Nobody,
            _ => return Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        };
        Ok(Written {
            who,
            names: Vec::new(),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Written, A::Error> {
        let mut names: Vec<Spanned<String>> = Vec::new();
        while let Some(name) = list.next_element()? {
            names.push(name);
        }
        let who = Who::Users(names.iter().map(|name| name.value.clone()).collect());
        Ok(Written { who, names })
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reading)
    }
}
