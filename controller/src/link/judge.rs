//! What a message is worth. Pure: bytes and what we know come in, a judgement goes out.

use std::collections::BTreeMap;

use protocol::{
    cbor,
    id::{DeviceId, FleetId},
    key::PublicKey,
    report::{Body, Presence, Report},
    seal::{Envelope, EnvelopeError},
    topic::{Channel, Topic},
};

use super::{arrival::Arrival, sessions::Sessions};
use crate::causes::chain;
use crate::store::{refusals::Refused, reports::Reported, seal_keys::PrivateKey};

/// Short names of why a message is refused; `replayed` is given by the store, which alone knows what it has seen.
pub const REASONS: [&str; 8] = [
    "unknown-topic",
    "foreign",
    "unknown-device",
    "malformed",
    "bad-signature",
    "unknown-seal-key",
    "unopenable",
    REPLAYED,
];
/// The report was stored before.
pub const REPLAYED: &str = "replayed";
/// Longest presence message: a map with one boolean is far shorter.
const PRESENCE_BYTES_MAX: usize = 64;

/// What the judge goes by.
pub struct Known<'a> {
    /// Our fleet.
    pub fleet: &'a FleetId,
    /// Keys of devices that are enrolled.
    pub devices: &'a BTreeMap<DeviceId, PublicKey>,
    /// Our private sealing keys, by number.
    pub seal_keys: &'a BTreeMap<u64, PrivateKey>,
}

/// What a message is worth.
#[derive(Clone, Debug)]
pub enum Judgement {
    /// The broker says whether a device is connected. Held to the device only by the broker's access list.
    Presence {
        /// Which.
        device: DeviceId,
        /// Whether it is.
        online: bool,
    },
    /// A genuine report; whether it is new is for the store to say.
    Report(Reported),
    /// Nothing.
    Refused(Refused),
}

/// The sender that a topic names, if it is one of our fleet.
pub fn sender(fleet: &FleetId, topic: &str) -> Option<DeviceId> {
    match topic.parse() {
        Ok(Topic::Report(of, device, _)) if of == *fleet => Some(device),
        Ok(Topic::Report(..) | Topic::Desired(..) | Topic::Command(..))
        | Ok(Topic::Halt(_) | Topic::SealKeys(_))
        | Err(_) => None,
    }
}

/// Judges one message.
pub fn judge(known: &Known<'_>, sessions: &mut Sessions, arrival: &Arrival) -> Judgement {
    match accept(known, sessions, arrival) {
        Ok(judgement) => judgement,
        Err((reason, device, detail)) => {
            Judgement::Refused(Refused { reason, device, topic: arrival.topic.clone(), detail })
        }
    }
}

type Refusal = (&'static str, Option<DeviceId>, String);

fn accept(
    known: &Known<'_>,
    sessions: &mut Sessions,
    arrival: &Arrival,
) -> Result<Judgement, Refusal> {
    let topic: Topic =
        arrival.topic.parse().map_err(|unknown| ("unknown-topic", None, chain(&unknown)))?;
    let Topic::Report(fleet, device, channel) = &topic else {
        return Err(("unknown-topic", None, format!("`{topic}` is not for reports")));
    };
    let of = Some(*device);
    if fleet != known.fleet {
        return Err(("foreign", of, format!("of the fleet {fleet}, not {}", known.fleet)));
    }
    let Some(public) = known.devices.get(device) else {
        let detail = format!("device {} is not enrolled here", device.short());
        return Err(("unknown-device", of, detail));
    };
    if *channel == Channel::Presence {
        let presence: Presence = cbor::decode(&arrival.bytes, PRESENCE_BYTES_MAX)
            .map_err(|error| ("malformed", of, chain(&error)))?;
        return Ok(Judgement::Presence { device: *device, online: presence.online });
    }
    let refused = |error: EnvelopeError| (reason(&error), of, chain(&error));
    let envelope = Envelope::parse(&topic, &arrival.bytes).map_err(refused)?;
    envelope.check_signature(public).map_err(refused)?;
    let number = envelope.header.seal_key;
    let private = known.seal_keys.get(&number).ok_or_else(|| {
        let detail = format!("sealed to key {number}, which was destroyed or never was ours");
        ("unknown-seal-key", of, detail)
    })?;
    let key = sessions
        .key(&envelope.header, private)
        .map_err(|error| ("unopenable", of, error.to_string()))?;
    let content = envelope.open(&key).map_err(refused)?;
    let report: Report = cbor::decode(&content, cbor::MESSAGE_BYTES_MAX)
        .map_err(|error| ("malformed", of, chain(&error)))?;
    if !belongs(&report.body, *channel) {
        let detail = format!("a report of another kind on the channel {}", channel.as_str());
        return Err(("malformed", of, detail));
    }
    let sequence = envelope.header.sequence;
    Ok(Judgement::Report(Reported { device: *device, sequence, report }))
}

fn belongs(body: &Body, channel: Channel) -> bool {
    match body {
        Body::State(_) => channel == Channel::State,
        Body::Tele(_) => channel == Channel::Tele,
        Body::Event(_) => channel == Channel::Event,
    }
}

const fn reason(error: &EnvelopeError) -> &'static str {
    match error {
        EnvelopeError::Shape(_)
        | EnvelopeError::Suite(_)
        | EnvelopeError::Session(_)
        | EnvelopeError::Content(_) => "malformed",
        EnvelopeError::Foreign { .. } => "foreign",
        EnvelopeError::BadSignature(_) => "bad-signature",
        EnvelopeError::Sealed => "unopenable",
    }
}

#[cfg(test)]
mod tests;
