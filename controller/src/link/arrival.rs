//! A message as it arrived from the broker; nothing about it is believed.

use bytes::Bytes;

/// One message.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Where.
    pub topic: String,
    /// What.
    pub bytes: Bytes,
    /// Whether the broker had kept it: it may have been delivered before.
    pub retained: bool,
}
