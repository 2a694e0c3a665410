//! Protobuf by hand: what a library would refuse to write can be written too.

/// A message under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proto(Vec<u8>);

impl Proto {
    /// An empty one.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// A number.
    #[must_use]
    pub fn number(mut self, field: u32, value: i64) -> Self {
        self.varint(u64::from(field) << 3);
        self.varint(value.cast_unsigned());
        self
    }

    /// Bytes, a text, or a message.
    #[must_use]
    pub fn bytes(mut self, field: u32, content: &[u8]) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(content.len() as u64);
        self.0.extend_from_slice(content);
        self
    }

    /// A text.
    #[must_use]
    pub fn text(self, field: u32, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    /// A message.
    #[must_use]
    pub fn message(self, field: u32, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    /// A 32-bit float.
    #[must_use]
    pub fn float(mut self, field: u32, value: f32) -> Self {
        self.varint(u64::from(field) << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// The head of a field that claims to have `length` bytes, of which none follow.
    #[must_use]
    pub fn claim(mut self, field: u32, length: u64) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(length);
        self
    }

    /// Bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The message.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_protobuf_has_them() {
        let proto = Proto::new().number(1, 300).text(2, "ab").number(3, -1);
        let minus_one = [0xff; 9];
        let expected =
            [&[0x08, 0xac, 0x02, 0x12, 0x02, b'a', b'b', 0x18][..], &minus_one, &[0x01]].concat();
        assert_eq!(proto.into_bytes(), expected);
    }
}
