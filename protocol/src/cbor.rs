//! The codec of everything that is signed or stored in binary: CBOR in one form only.
//!
//! Structs are maps with integer keys in field order. A message is decoded, encoded again and must come out the
//! same, so that every value has exactly one encoding and nothing can hide in an alternative one.

use serde::{
    Deserialize as _, Deserializer, Serialize,
    de::{DeserializeOwned, Error as _},
};

/// Largest message of the link, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Largest file that carries metadata or a manifest, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
/// Most items of a list that [`readable`] looks at.
pub const READABLE_MAX: usize = 1024;

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

/// The value that `bytes` encode as a peer of another version may have written it: fields that are not known are skipped,
/// so what was written need not come out again. Only for what is neither signed nor stored. `max` as in [`decode`].
///
/// # Errors
/// Too many bytes, or none of the expected shape.
pub fn read<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), max });
    }
    serde_cbor::from_slice(bytes).map_err(DecodeError::Shape)
}

/// Those items of a list that can be read; others are left out. It is the `deserialize_with` of a list in a message for
/// [`read`], whose items a newer peer may describe in words that are not known here.
///
/// # Errors
/// Not a list, or one of more than [`READABLE_MAX`] items.
pub fn readable<'de, D, T>(list: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let items = Vec::<serde_cbor::Value>::deserialize(list)?;
    if items.len() > READABLE_MAX {
        return Err(D::Error::custom(format_args!(
            "list of {} items is longer than the {READABLE_MAX} allowed",
            items.len()
        )));
    }
    Ok(items.into_iter().filter_map(|item| serde_cbor::value::from_value(item).ok()).collect())
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

    /// A [`Sample`] that may have more.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Open {
        number: u64,
        text: String,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Listing {
        #[serde(deserialize_with = "readable")]
        samples: Vec<Open>,
    }

    #[test]
    fn what_a_newer_peer_adds_is_skipped_by_who_reads_and_refused_by_who_decodes() {
        #[derive(Serialize)]
        enum NewerKind {
            Some { value: Option<u8> },
        }
        #[derive(Serialize)]
        struct Newer {
            number: u64,
            text: String,
            kind: Kind,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            more: Vec<Vec<u8>>,
        }
        #[derive(Serialize)]
        struct Listed(u8, NewerKind);
        let newer = || Newer {
            number: 300,
            text: "é".into(),
            kind: Kind::Some { value: Some(1) },
            more: vec![vec![1, 2]],
        };
        let open = || Open { number: 300, text: "é".into(), kind: Kind::Some { value: Some(1) } };
        let bytes = encode(&newer()).unwrap();
        assert_eq!(read::<Open>(&bytes, 64).unwrap(), open());
        assert!(decode::<Open>(&bytes, 64).is_err());
        assert!(matches!(read::<Open>(&bytes, 8), Err(DecodeError::TooLarge { .. })));
        for end in 0..bytes.len() {
            assert!(read::<Open>(&bytes[..end], 64).is_err(), "cut at {end}");
        }
        // An item that is none is left out, its neighbours stay.
        let odd = Listed(7, NewerKind::Some { value: None });
        let list = serde_cbor::ser::to_vec_packed(&((newer(), odd, sample()),)).unwrap();
        let list = [&[0xa1, 0x00], &list[1..]].concat();
        assert_eq!(read::<Listing>(&list, 256).unwrap().samples, [open(), open()]);
        let long = [&[0xa1, 0x00, 0x99, 0x04, 0x01][..], &[0; READABLE_MAX + 1]].concat();
        assert!(matches!(read::<Listing>(&long, 4096), Err(DecodeError::Shape(_))));
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
            drop(read::<Listing>(&bytes, MESSAGE_BYTES_MAX));
        }
    }
}
