//! The wire format of protobuf: numbered fields, varints, lengths.

use super::DecodeError;

/// Reads the fields of one message.
pub(super) struct Reader<'a>(&'a [u8]);

/// The value of a field as it is on the wire.
pub(super) enum Field<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    pub(super) fn bytes(&self) -> Result<&'a [u8], DecodeError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Integer(_) => Err(DecodeError::Malformed("a number where bytes belong")),
        }
    }

    pub(super) fn text(&self) -> Result<String, DecodeError> {
        let bytes = self.bytes()?.to_vec();
        String::from_utf8(bytes).map_err(|_| DecodeError::Malformed("a string that is not UTF-8"))
    }

    /// Negative numbers are ten bytes of two's complement.
    pub(super) fn integer(&self) -> Result<i64, DecodeError> {
        match self {
            Self::Integer(number) => Ok(number.cast_signed()),
            Self::Bytes(_) => Err(DecodeError::Malformed("bytes where a number belongs")),
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next field and its number; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, DecodeError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Field::Integer(self.varint()?),
            1 => Field::Bytes(self.take(8)?),
            2 => {
                let length = usize::try_from(self.varint()?)
                    .map_err(|_| DecodeError::Malformed("a length too large"))?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Bytes(self.take(4)?),
            _ => return Err(DecodeError::Malformed("an unknown wire type")),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(DecodeError::Malformed("a value is cut off"))?;
        self.0 = rest;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(DecodeError::Malformed("a number too long"))
    }
}
