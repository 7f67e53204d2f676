//! Bodies in Kubernetes' protobuf form: kubectl and other Go clients send them for objects they know by type.
//!
//! Answers are always JSON. The messages are data (`schema.txt`); one decoder reads them all into the JSON form.

mod schema;
mod wire;

use serde_json::{Map, Value, json};

use schema::{Field, Message, Schema, Type};
use wire::Reader;

/// Starts every enveloped object.
const MAGIC: &[u8] = b"k8s\0";
/// Depth of messages at most.
const MAX_DEPTH: usize = 32;

/// Why a body cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// There is no schema for this kind.
    Unknown(String),
    /// The bytes are not what they claim to be.
    Malformed(&'static str),
}

/// Decodes an enveloped object into its JSON form.
pub(crate) fn decode(body: &[u8]) -> Result<Value, DecodeError> {
    let mut envelope = Reader::new(
        body.strip_prefix(MAGIC)
            .ok_or(DecodeError::Malformed("no k8s prefix"))?,
    );
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while let Some((number, value)) = envelope.next()? {
        match number {
            1 => {
                let mut meta = Reader::new(value.bytes()?);
                while let Some((number, value)) = meta.next()? {
                    match number {
                        1 => api_version = value.text()?,
                        2 => kind = value.text()?,
                        _ => {}
                    }
                }
            }
            2 => raw = value.bytes()?,
            _ => {}
        }
    }
    let schema = Schema::get();
    let message = schema
        .kind(&api_version, &kind)
        .ok_or_else(|| DecodeError::Unknown(format!("{kind} in {api_version}")))?;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    read(schema, message, raw, &mut object, 0)?;
    Ok(Value::Object(object))
}

fn read(
    schema: &Schema,
    message: &Message,
    bytes: &[u8],
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return Err(DecodeError::Malformed("nested too deeply"));
    }
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        let Some(field) = message.field(number) else {
            continue;
        };
        match field {
            Field {
                inline: true,
                kind: Type::Message(name),
                ..
            } => {
                read(
                    schema,
                    schema.message(name)?,
                    value.bytes()?,
                    out,
                    depth + 1,
                )?;
            }
            Field {
                repeated: true,
                name,
                kind,
                ..
            } => {
                let item = one(schema, kind, &value, depth)?.unwrap_or(Value::Null);
                if let Value::Array(list) = out.entry(name.clone()).or_insert_with(|| json!([])) {
                    list.push(item);
                }
            }
            Field {
                map: true,
                name,
                kind,
                ..
            } => {
                let (key, item) = entry(schema, kind, value.bytes()?, depth)?;
                if let Value::Object(map) = out.entry(name.clone()).or_insert_with(|| json!({})) {
                    map.insert(key, item);
                }
            }
            Field {
                name,
                kind,
                pointer,
                ..
            } => {
                if let Some(item) = one(schema, kind, &value, depth)?
                    && (*pointer || !is_zero(&item))
                {
                    out.insert(name.clone(), item);
                }
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn entry(
    schema: &Schema,
    kind: &Type,
    bytes: &[u8],
    depth: usize,
) -> Result<(String, Value), DecodeError> {
    let (mut key, mut item) = (String::new(), None);
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        match number {
            1 => key = value.text()?,
            2 => item = one(schema, kind, &value, depth)?,
            _ => {}
        }
    }
    Ok((
        key,
        item.unwrap_or_else(|| {
            if matches!(kind, Type::Message(_)) {
                json!({})
            } else {
                json!("")
            }
        }),
    ))
}

/// One value; `None` when it says nothing, like a time that is not set.
fn one(
    schema: &Schema,
    kind: &Type,
    value: &wire::Field<'_>,
    depth: usize,
) -> Result<Option<Value>, DecodeError> {
    use base64::Engine as _;
    Ok(Some(match kind {
        Type::Text => json!(value.text()?),
        Type::Flag => json!(value.integer()? != 0),
        Type::Integer => json!(value.integer()?),
        Type::Bytes => json!(base64::engine::general_purpose::STANDARD.encode(value.bytes()?)),
        Type::Time | Type::MicroTime => {
            return time(value.bytes()?, matches!(kind, Type::MicroTime));
        }
        Type::Quantity => {
            let mut text = "0".to_owned();
            let mut reader = Reader::new(value.bytes()?);
            while let Some((number, value)) = reader.next()? {
                if number == 1 {
                    text = value.text()?;
                }
            }
            json!(text)
        }
        Type::IntOrString => {
            let (mut is_text, mut integer, mut text) = (false, 0, String::new());
            let mut reader = Reader::new(value.bytes()?);
            while let Some((number, value)) = reader.next()? {
                match number {
                    1 => is_text = value.integer()? == 1,
                    2 => integer = value.integer()?,
                    3 => text = value.text()?,
                    _ => {}
                }
            }
            if is_text { json!(text) } else { json!(integer) }
        }
        Type::Texts => {
            let mut list = Vec::new();
            let mut reader = Reader::new(value.bytes()?);
            while let Some((_, value)) = reader.next()? {
                list.push(json!(value.text()?));
            }
            Value::Array(list)
        }
        Type::Message(name) => {
            let mut out = Map::new();
            read(
                schema,
                schema.message(name)?,
                value.bytes()?,
                &mut out,
                depth + 1,
            )?;
            Value::Object(out)
        }
    }))
}

fn time(bytes: &[u8], micro: bool) -> Result<Option<Value>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        match number {
            1 => seconds = value.integer()?,
            2 => nanos = i32::try_from(value.integer()?).unwrap_or_default(),
            _ => {}
        }
    }
    let time = jiff::Timestamp::new(seconds, nanos)
        .map_err(|_| DecodeError::Malformed("a time out of range"))?;
    let format = if micro {
        "%Y-%m-%dT%H:%M:%S.%6fZ"
    } else {
        "%Y-%m-%dT%H:%M:%SZ"
    };
    Ok(Some(json!(time.strftime(format).to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn what_kubectl_sends_for_a_namespace() {
        let body = unhex(
            "6b38730 00a0f0a02 7631 1209 4e616d657370616365 121a 0a12 0a026e31 1200 1a00 2200 2a00 3200 3800 4200 1200 1a02 0a00 1a002200",
        );
        assert_eq!(
            decode(&body).unwrap(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n1"}, "spec": {}, "status": {}})
        );
    }

    #[test]
    fn bytes_that_lie_are_refused() {
        for body in [
            &b"k8s\0\x0a\xff"[..],
            b"k8",
            b"k8s\0\x12\x05a",
            b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert!(
                matches!(decode(body), Err(DecodeError::Malformed(_))),
                "{body:?}"
            );
        }
        assert!(matches!(decode(b"k8s\0"), Err(DecodeError::Unknown(_))));
    }
}
