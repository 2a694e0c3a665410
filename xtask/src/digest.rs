//! SHA-256 of what was downloaded, against what was pinned.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use ring::digest::{Context, SHA256};

/// The SHA-256 of a file in lower-case hexadecimal, read in pieces.
pub(crate) fn of_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    copy(&mut file, &mut io::sink(), u64::MAX, &mut |_| {})
}

/// Copies at most `bytes_max` bytes, tells `seen` of each piece, and gives the SHA-256 of what
/// was copied. More than `bytes_max` is an error of kind `FileTooLarge`.
pub(crate) fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    bytes_max: u64,
    seen: &mut dyn FnMut(u64),
) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut total = 0_u64;
    loop {
        let length = from.read(&mut buffer)?;
        let Some(piece) = buffer.get(..length).filter(|piece| !piece.is_empty()) else {
            return Ok(data_encoding::HEXLOWER.encode(context.finish().as_ref()));
        };
        total = total.saturating_add(piece.len() as u64);
        if total > bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than {bytes_max} bytes"),
            ));
        }
        context.update(piece);
        to.write_all(piece)?;
        seen(piece.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::copy;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_digest_of_abc_is_that_of_fips_180() {
        let mut out = Vec::new();
        let digest = copy(&mut b"abc".as_slice(), &mut out, 3, &mut |_| {}).unwrap();
        assert_eq!((digest.as_str(), out.as_slice()), (ABC, b"abc".as_slice()));
    }

    #[test]
    fn more_bytes_than_pinned_are_refused() {
        let error = copy(&mut b"abc".as_slice(), &mut Vec::new(), 2, &mut |_| {}).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
    }
}
