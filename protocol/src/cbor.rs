//! The codec of everything that is signed or stored in binary: CBOR in one form only.
//!
//! Structs are maps with integer keys in field order. A message is decoded, encoded again and must come out the
//! same, so that every value has exactly one encoding and nothing can hide in an alternative one.

use serde::{Serialize, de::DeserializeOwned};

/// Largest message of the link, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Largest file that carries metadata or a manifest, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// Why bytes are not the message they should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than the largest allowed.
    #[error("message of {bytes} bytes is larger than the {max} allowed")]
    TooLarge {
        /// Size seen.
        bytes: usize,
        /// Largest allowed.
        max: usize,
    },
    /// Not CBOR of the expected shape (truncated, trailing bytes, wrong type, unknown field).
    #[error("message is not of the expected shape")]
    Shape(#[source] serde_cbor::Error),
    /// A second encoding of a value that has one already.
    #[error("message is not in its one canonical encoding")]
    NotCanonical,
}

/// A value that cannot be written: a map with non-text keys, say. It is a mistake in the type, not in the input.
#[derive(Debug, thiserror::Error)]
#[error("value cannot be written as CBOR")]
pub struct EncodeError(#[source] serde_cbor::Error);

/// The one encoding of `value`.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    serde_cbor::ser::to_vec_packed(value).map_err(EncodeError)
}

/// The value that `bytes` encode; `max` is the largest size accepted, checked first.
pub fn decode<T: DeserializeOwned + Serialize>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), max });
    }
    let value: T = serde_cbor::from_slice(bytes).map_err(DecodeError::Shape)?;
    match encode(&value) {
        Ok(again) if again == bytes => Ok(value),
        Ok(_) | Err(_) => Err(DecodeError::NotCanonical),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        number: u64,
        text: String,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    enum Kind {
        None,
        Some { value: Option<u8> },
    }

    fn sample() -> Sample {
        Sample { number: 300, text: "é".into(), kind: Kind::Some { value: Some(1) } }
    }

    #[test]
    fn a_value_has_one_encoding() {
        let bytes = encode(&sample()).unwrap();
        assert_eq!(decode::<Sample>(&bytes, 64).unwrap(), sample());
        let named = serde_cbor::to_vec(&sample()).unwrap();
        assert!(matches!(decode::<Sample>(&named, 64), Err(DecodeError::NotCanonical)));
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(decode::<Sample>(&longer, 64), Err(DecodeError::Shape(_))));
        assert!(matches!(decode::<Sample>(&bytes, 4), Err(DecodeError::TooLarge { .. })));
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = encode(&sample()).unwrap();
        for end in 0..bytes.len() {
            assert!(decode::<Sample>(&bytes[..end], 64).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_without_a_stack_overflow() {
        let bytes = vec![0x81; 60_000];
        assert!(decode::<serde_cbor::Value>(&bytes, MESSAGE_BYTES_MAX).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(decode::<Sample>(&bytes, MESSAGE_BYTES_MAX));
        }
    }
}
