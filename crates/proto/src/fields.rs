//! The few fields of a small message, found in one pass and asked for by name.

use crate::error::DecodeError;
use crate::wire::{Malformed, Reader};

/// The last occurrence of each wanted field; all others are passed over.
pub(crate) struct Fields<'a, const N: usize> {
    message: &'static str,
    tags: [u32; N],
    values: [Option<Value<'a>>; N],
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a, const N: usize> Fields<'a, N> {
    /// Reads `content`. The tags carry the wire type: 0 for numbers, 2 for texts and messages.
    pub(crate) fn read(
        message: &'static str,
        content: &'a [u8],
        tags: [u32; N],
    ) -> Result<Fields<'a, N>, DecodeError> {
        let malformed = |reason| DecodeError::Malformed { message, reason };
        let mut values = [None; N];
        let mut reader = Reader::new(content);
        while let Some(tag) = reader.tag().map_err(malformed)? {
            let Some(slot) = tags.iter().position(|wanted| *wanted == tag) else {
                reader.skip(tag).map_err(malformed)?;
                continue;
            };
            values[slot] = Some(match tag & 7 {
                0 => Value::Number(reader.varint().map_err(malformed)?),
                _ => Value::Bytes(reader.delimited().map_err(malformed)?),
            });
        }
        Ok(Fields { message, tags, values })
    }

    fn value(&self, tag: u32) -> Option<Value<'a>> {
        let slot = self.tags.iter().position(|known| *known == tag);
        debug_assert!(slot.is_some(), "tag {tag} was not asked for");
        slot.and_then(|slot| self.values[slot])
    }

    fn missing(&self, field: &'static str) -> DecodeError {
        DecodeError::Missing { message: self.message, field }
    }

    /// A number as it stands, if it is there.
    pub(crate) fn number(&self, tag: u32) -> Option<u64> {
        match self.value(tag) {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        }
    }

    /// A number that must not be negative, if it is there.
    pub(crate) fn optional_count(&self, tag: u32, field: &'static str) -> Result<Option<u64>, DecodeError> {
        match self.number(tag) {
            Some(number) if i64::try_from(number).is_err() => {
                Err(DecodeError::Negative { message: self.message, field, value: number as i64 })
            }
            number => Ok(number),
        }
    }

    /// A required number that must not be negative.
    pub(crate) fn count(&self, tag: u32, field: &'static str) -> Result<u64, DecodeError> {
        self.optional_count(tag, field)?.ok_or_else(|| self.missing(field))
    }

    /// A required truth value.
    pub(crate) fn flag(&self, tag: u32, field: &'static str) -> Result<bool, DecodeError> {
        self.number(tag).map(|number| number != 0).ok_or_else(|| self.missing(field))
    }

    /// A nested message, if it is there.
    pub(crate) fn bytes(&self, tag: u32) -> Option<&'a [u8]> {
        match self.value(tag) {
            Some(Value::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// A text, if it is there.
    pub(crate) fn optional_text(&self, tag: u32) -> Result<Option<&'a str>, DecodeError> {
        self.bytes(tag)
            .map(std::str::from_utf8)
            .transpose()
            .map_err(|_| DecodeError::Malformed { message: self.message, reason: Malformed::Text })
    }

    /// A required text.
    pub(crate) fn text(&self, tag: u32, field: &'static str) -> Result<&'a str, DecodeError> {
        self.optional_text(tag)?.ok_or_else(|| self.missing(field))
    }
}
