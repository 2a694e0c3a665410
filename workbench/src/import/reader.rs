//! Little-endian fields from bytes of unknown origin: nothing is read beyond their end, and nothing is allocated
//! before the bytes for it are known to be there.

/// A place in a file.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Why a field cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    /// The file ends before it.
    #[error(
        "file ends in {what}: {wanted} bytes are asked for at byte {at} of {length}; fetch the file again"
    )]
    Short {
        /// What was being read.
        what: &'static str,
        /// Its size.
        wanted: u64,
        /// Where it begins.
        at: usize,
        /// Length of the file.
        length: usize,
    },
    /// A number that no such file has.
    #[error("{what} is {found}; allowed are {least} to {most}")]
    Range {
        /// What was being read.
        what: &'static str,
        /// What the file says.
        found: u64,
        /// Least allowed.
        least: u64,
        /// Most allowed.
        most: u64,
    },
    /// A text that is none.
    #[error("{what} at byte {at} is not UTF-8")]
    NotText {
        /// What was being read.
        what: &'static str,
        /// Where it begins.
        at: usize,
    },
}

impl<'a> Reader<'a> {
    /// At the beginning of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How far it has read.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// How much is left.
    pub const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `wanted` bytes.
    pub fn take(&mut self, what: &'static str, wanted: u64) -> Result<&'a [u8], ReadError> {
        let found = usize::try_from(wanted)
            .ok()
            .and_then(|wanted| self.at.checked_add(wanted))
            .and_then(|end| self.bytes.get(self.at..end));
        let short = ReadError::Short { what, wanted, at: self.at, length: self.bytes.len() };
        let found = found.ok_or(short)?;
        self.at += found.len();
        Ok(found)
    }

    /// A byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, ReadError> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    /// Two bytes.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, ReadError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    /// Four bytes.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, ReadError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// Eight bytes.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, ReadError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A single-precision number.
    pub fn f32(&mut self, what: &'static str) -> Result<f32, ReadError> {
        Ok(f32::from_le_bytes(self.array(what)?))
    }

    /// Four bytes that must be a number from `least` to `most`.
    pub fn count(
        &mut self,
        what: &'static str,
        (least, most): (u32, u32),
    ) -> Result<usize, ReadError> {
        let found = self.u32(what)?;
        if (least..=most).contains(&found) {
            Ok(found as usize)
        } else {
            let (found, least, most) = (found.into(), least.into(), most.into());
            Err(ReadError::Range { what, found, least, most })
        }
    }

    /// A text of `length` bytes, at most `most`.
    pub fn text(
        &mut self,
        what: &'static str,
        length: u64,
        most: u64,
    ) -> Result<&'a str, ReadError> {
        if length > most {
            return Err(ReadError::Range { what, found: length, least: 0, most });
        }
        let at = self.at;
        let bytes = self.take(what, length)?;
        std::str::from_utf8(bytes).map_err(|_| ReadError::NotText { what, at })
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ReadError> {
        let bytes = self.take(what, N as u64)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }
}

/// The numbers in `bytes`; what does not fill one more is left out.
pub fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_beyond_the_end() {
        let mut reader = Reader::new(&[1, 0, 0, 0, b'a', 0xff]);
        assert_eq!(reader.count("count", (1, 3)).unwrap(), 1);
        assert_eq!(reader.text("name", 1, 8).unwrap(), "a");
        assert_eq!(
            reader.u16("tail").unwrap_err().to_string(),
            "file ends in tail: 2 bytes are asked for at byte 5 of 6; fetch the file again"
        );
        assert!(matches!(reader.take("all", u64::MAX), Err(ReadError::Short { .. })));
        assert_eq!(
            reader.clone().text("name", 9, 8).unwrap_err().to_string(),
            "name is 9; allowed are 0 to 8"
        );
        assert_eq!(
            reader.text("name", 1, 8).unwrap_err().to_string(),
            "name at byte 5 is not UTF-8"
        );
        assert_eq!(reader.left(), 0);
    }
}
