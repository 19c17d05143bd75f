//! Protobuf's building blocks, for the messages that are coded by hand.

use bytes::BufMut;

/// Why bytes are not protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end within a field.
    #[error("it ends within a field")]
    Truncated,
    /// A number of more than 64 bits, or a tag or length of more than 32.
    #[error("a number is out of range")]
    Number,
    /// A tag with field number 0 or a wire type that does not exist.
    #[error("tag {0} does not exist")]
    Tag(u32),
    /// A group, which none of the messages has.
    #[error("it contains a group")]
    Group,
    /// A text that is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
}

/// Bytes that `value` takes as a varint: 1 to 10.
#[inline]
pub(crate) const fn varint_len(value: u64) -> usize {
    // ⌈significant bits / 7⌉ without a division: 9/64 is 1/7 closely enough for 1 to 64 bits.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

/// Appends `value` as a varint.
#[inline]
pub(crate) fn put_varint(buf: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        buf.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

/// Bytes of a length-delimited field with a one-byte tag.
#[inline]
pub(crate) const fn delimited_len(content: usize) -> usize {
    1 + varint_len(content as u64) + content
}

/// Appends a length-delimited field with a one-byte tag.
#[inline]
pub(crate) fn put_delimited(buf: &mut impl BufMut, tag: u8, content: &[u8]) {
    buf.put_u8(tag);
    put_varint(buf, content.len() as u64);
    buf.put_slice(content);
}

/// Reads fields off the front of a message.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// What is still to be read.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Passes over `count` bytes of [`rest`](Self::rest).
    #[inline]
    pub(crate) fn advance(&mut self, count: usize) {
        debug_assert!(count <= self.rest().len());
        self.at += count;
    }

    /// The next field's tag; `None` at the end.
    #[inline]
    pub(crate) fn tag(&mut self) -> Result<Option<u32>, Malformed> {
        if self.at == self.bytes.len() { Ok(None) } else { self.number32().map(Some) }
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        match self.rest() {
            [byte, ..] if *byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (i, byte) in self.rest().iter().enumerate() {
            if i == 9 && *byte > 1 {
                return Err(Malformed::Number);
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if *byte < 0x80 {
                self.at += i + 1;
                return Ok(value);
            }
        }
        Err(Malformed::Truncated)
    }

    /// A tag or a length: at most five bytes and 32 bits.
    #[inline]
    fn number32(&mut self) -> Result<u32, Malformed> {
        let start = self.at;
        let value = self.varint()?;
        if self.at - start > 5 {
            return Err(Malformed::Number);
        }
        u32::try_from(value).map_err(|_| Malformed::Number)
    }

    /// A bytes field, behind its tag.
    #[inline]
    pub(crate) fn delimited(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.number32()? as usize;
        let field = self.rest().get(..len).ok_or(Malformed::Truncated)?;
        self.at += len;
        Ok(field)
    }

    /// A string field, behind its tag.
    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.delimited()?).map_err(|_| Malformed::Text)
    }

    /// A fixed32 field, behind its tag.
    pub(crate) fn fixed32(&mut self) -> Result<u32, Malformed> {
        let bytes = self.rest().first_chunk::<4>().ok_or(Malformed::Truncated)?;
        self.at += 4;
        Ok(u32::from_le_bytes(*bytes))
    }

    /// Passes over a field that is not known, behind its tag.
    pub(crate) fn skip(&mut self, tag: u32) -> Result<(), Malformed> {
        if tag >> 3 == 0 {
            return Err(Malformed::Tag(tag));
        }
        let fixed = match tag & 7 {
            0 => return self.varint().map(drop),
            1 => 8,
            2 => return self.delimited().map(drop),
            3 | 4 => return Err(Malformed::Group),
            5 => 4,
            _ => return Err(Malformed::Tag(tag)),
        };
        if self.rest().len() < fixed {
            return Err(Malformed::Truncated);
        }
        self.at += fixed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_exact() {
        for shift in 0..64 {
            for value in [(1_u64 << shift) - 1, 1 << shift, (1 << shift) + 1, u64::MAX] {
                let mut buf = Vec::new();
                put_varint(&mut buf, value);
                assert_eq!(buf.len(), varint_len(value), "{value:#x}");
                assert_eq!(Reader::new(&buf).varint(), Ok(value));
            }
        }
    }

    #[test]
    fn bad_fields_are_refused() {
        assert_eq!(Reader::new(&[0x80]).varint(), Err(Malformed::Truncated));
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Err(Malformed::Number));
        assert_eq!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]).tag(), Err(Malformed::Number));
        assert_eq!(Reader::new(&[3, 1, 2]).delimited(), Err(Malformed::Truncated));
        assert_eq!(Reader::new(&[1, 0xff]).text(), Err(Malformed::Text));
        assert_eq!(Reader::new(&[]).tag(), Ok(None));
        let skip = |tag| Reader::new(&[1, 2, 3]).skip(tag);
        assert_eq!([skip(8), skip(10)], [Ok(()); 2]);
        assert_eq!([skip(9), skip(13)], [Err(Malformed::Truncated); 2]);
        assert_eq!([skip(11), skip(12)], [Err(Malformed::Group); 2]);
        assert_eq!([skip(2), skip(14)], [Err(Malformed::Tag(2)), Err(Malformed::Tag(14))]);
    }
}
