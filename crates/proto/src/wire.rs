//! Protobuf's base-128 numbers, for the messages that are coded by hand.

use bytes::BufMut;

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
                let back = buf.iter().rev().fold(0_u64, |acc, b| acc << 7 | u64::from(b & 0x7f));
                assert_eq!(back, value);
            }
        }
    }
}
