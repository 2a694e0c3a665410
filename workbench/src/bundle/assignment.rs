//! The controller's word for a device, carried by hand: an agent that takes a release from a bundle needs it as much as
//! one that hears it over the network. Only the device can check the signature; here it is read so far that a mix-up
//! is noticed before the stick travels.

use protocol::{
    cbor::{self, DecodeError, MESSAGE_BYTES_MAX},
    command::Desired,
    signed::Signed,
};

/// Why it is not one.
#[derive(Debug, thiserror::Error)]
pub enum AssignmentError {
    /// Not of that shape.
    #[error("this is no signed assignment")]
    Shape(#[from] DecodeError),
}

/// What the assignment says; nobody has checked who signed it.
pub fn read(bytes: &[u8]) -> Result<Desired, AssignmentError> {
    let signed: Signed = cbor::decode(bytes, MESSAGE_BYTES_MAX)?;
    Ok(cbor::decode(signed.payload.as_slice(), MESSAGE_BYTES_MAX)?)
}
