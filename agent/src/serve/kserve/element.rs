//! Tensors as bytes, the same in the binary extension and in gRPC's raw contents: an element of type BYTES is its length,
//! u32 little-endian, then that many bytes; an f32 is its 4 bytes, little-endian.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::serve::{
    kserve::exchange::{Values, shown},
    refused::Refused,
};

const LENGTH_BYTES: usize = 4;

/// The elements in the bytes of input `name`.
///
/// # Errors
/// They end within an element.
pub fn elements(name: &str, mut bytes: Bytes) -> Result<Vec<Bytes>, Refused> {
    let cut = |at: usize| {
        let message = format!("binary data of input `{}` ends within element {at}", shown(name));
        Refused::bad("data", message)
    };
    let mut elements = Vec::new();
    while !bytes.is_empty() {
        let at = elements.len();
        let length = bytes.first_chunk::<LENGTH_BYTES>().ok_or_else(|| cut(at))?;
        let end = (u32::from_le_bytes(*length) as usize).saturating_add(LENGTH_BYTES);
        if bytes.len() < end {
            return Err(cut(at));
        }
        elements.push(bytes.split_to(end).split_off(LENGTH_BYTES));
    }
    Ok(elements)
}

/// `values` as bytes.
pub fn raw(values: &Values) -> Bytes {
    match values {
        Values::Fp32(bytes) => bytes.clone(),
        Values::Bytes(texts) => {
            let size = texts.iter().map(|text| LENGTH_BYTES + text.len()).sum();
            let mut bytes = BytesMut::with_capacity(size);
            for text in texts {
                bytes.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
                bytes.put_slice(text.as_bytes());
            }
            bytes.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let texts = ["", "a", "où est l'imprimante ?"].map(str::to_owned);
        let bytes = raw(&Values::Bytes(texts.to_vec()));
        assert_eq!(elements("text", bytes).unwrap(), texts.map(Bytes::from));
    }

    #[test]
    fn bytes_that_end_early_name_the_element() {
        let whole = raw(&Values::Bytes(vec!["ab".into(), "cd".into()]));
        for length in [1, 4, 5, 7, 11] {
            let message = elements("text", whole.slice(..length)).unwrap_err().message;
            let at = usize::from(length > 6);
            assert!(message.contains(&format!("element {at}")), "{length}: {message}");
        }
        let huge = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, b'a']);
        assert!(elements("text", huge).is_err());
    }
}
