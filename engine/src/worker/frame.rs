//! Frames: a length, u32 little-endian, then that many bytes of CBOR. Pure, for blocking and async streams alike:
//! read 4 bytes, ask [`body_len`], read that many, [`decode`].

use protocol::cbor::{self, DecodeError, EncodeError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Largest body of a frame, in bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the length in front of a body.
pub const HEADER_BYTES: usize = 4;

/// Why bytes are not a frame, or a message does not fit into one.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The header says more than the largest, or nothing.
    #[error("frame of {bytes} bytes refused; allowed are 1 to {BODY_BYTES_MAX}")]
    Length {
        /// What it says.
        bytes: usize,
    },
    /// The body is not the message expected.
    #[error("reading the body of a frame")]
    Body(#[source] DecodeError),
    /// A message that cannot be written.
    #[error("writing the body of a frame")]
    Encode(#[from] EncodeError),
}

/// How many bytes follow `header`.
///
/// # Errors
/// None, or more than [`BODY_BYTES_MAX`].
pub const fn body_len(header: [u8; HEADER_BYTES]) -> Result<usize, FrameError> {
    match u32::from_le_bytes(header) as usize {
        bytes @ 1..=BODY_BYTES_MAX => Ok(bytes),
        bytes => Err(FrameError::Length { bytes }),
    }
}

/// The frame of `message`: header and body.
///
/// # Errors
/// It is larger than a frame may be.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let body = cbor::encode(message)?;
    if body.len() > BODY_BYTES_MAX {
        return Err(FrameError::Length { bytes: body.len() });
    }
    let length = u32::try_from(body.len()).map_err(|_| FrameError::Length { bytes: body.len() })?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// The message in the body of a frame, by a peer of whichever version: what it says beyond what is known here is skipped.
///
/// # Errors
/// It is not that message.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    cbor::read(body, BODY_BYTES_MAX).map_err(FrameError::Body)
}

/// The id of the request or response in the body of a frame, also of one that this version cannot read; none where there
/// is no id.
pub fn id(body: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Numbered {
        id: u64,
    }
    decode::<Numbered>(body).ok().map(|numbered| numbered.id)
}
