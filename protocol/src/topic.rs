//! MQTT topics: `socle/1/<fleet>/<device>/…` and `socle/1/<fleet>/all/…`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::id::{DeviceId, FleetId};

/// A topic of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Controller → device: the release it should run. Retained.
    Desired(FleetId, DeviceId),
    /// Controller → device: acknowledgements.
    Command(FleetId, DeviceId),
    /// Device → controller.
    Report(FleetId, DeviceId, Channel),
    /// Controller → all: halt or resume. Retained.
    Halt(FleetId),
    /// Controller → all: its sealing keys. Retained.
    SealKeys(FleetId),
}

/// What a device reports on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// What it runs; retained.
    State,
    /// Vitals; may be dropped when the outbox is full.
    Tele,
    /// What happened; never dropped.
    Event,
    /// Whether it is connected (last will).
    Presence,
}

/// A topic that is none of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown topic `{0}`")]
pub struct UnknownTopic(String);

impl Channel {
    /// All channels.
    pub const ALL: [Self; 4] = [Self::State, Self::Tele, Self::Event, Self::Presence];

    /// The last part of its topic.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Tele => "tele",
            Self::Event => "event",
            Self::Presence => "presence",
        }
    }
}

impl Topic {
    /// The filter that a controller subscribes to for `channel` of all devices.
    pub fn all_reports(fleet: &FleetId, channel: Channel) -> String {
        format!("socle/1/{fleet}/+/{}", channel.as_str())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Desired(fleet, device) => write!(f, "socle/1/{fleet}/{device}/desired"),
            Self::Command(fleet, device) => write!(f, "socle/1/{fleet}/{device}/cmd"),
            Self::Report(fleet, device, channel) => {
                write!(f, "socle/1/{fleet}/{device}/{}", channel.as_str())
            }
            Self::Halt(fleet) => write!(f, "socle/1/{fleet}/all/halt"),
            Self::SealKeys(fleet) => write!(f, "socle/1/{fleet}/all/keys"),
        }
    }
}

impl FromStr for Topic {
    type Err = UnknownTopic;

    fn from_str(text: &str) -> Result<Self, UnknownTopic> {
        let unknown = || UnknownTopic(text.chars().take(200).collect());
        let parts: Vec<&str> = text.split('/').collect();
        let ["socle", "1", fleet, owner, leaf] = parts.as_slice() else { return Err(unknown()) };
        let fleet: FleetId = fleet.parse().map_err(|_| unknown())?;
        if *owner == "all" {
            return match *leaf {
                "halt" => Ok(Self::Halt(fleet)),
                "keys" => Ok(Self::SealKeys(fleet)),
                _ => Err(unknown()),
            };
        }
        let device: DeviceId = owner.parse().map_err(|_| unknown())?;
        match *leaf {
            "desired" => Ok(Self::Desired(fleet, device)),
            "cmd" => Ok(Self::Command(fleet, device)),
            _ => Channel::ALL
                .into_iter()
                .find(|channel| channel.as_str() == *leaf)
                .map(|channel| Self::Report(fleet, device, channel))
                .ok_or_else(unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn topics_survive_the_round_trip() {
        let fleet: FleetId = "demo".parse().unwrap();
        let device = DeviceId::from(Digest::of(b"device"));
        let mut topics = vec![
            Topic::Desired(fleet.clone(), device),
            Topic::Command(fleet.clone(), device),
            Topic::Halt(fleet.clone()),
            Topic::SealKeys(fleet.clone()),
        ];
        topics.extend(Channel::ALL.map(|channel| Topic::Report(fleet.clone(), device, channel)));
        for topic in topics {
            assert_eq!(topic.to_string().parse(), Ok(topic));
        }
    }

    #[test]
    fn foreign_topics_are_named_and_refused() {
        for text in [
            "",
            "socle",
            "socle/2/demo/all/halt",
            "socle/1/demo/all/cmd",
            "socle/1/+/all/halt",
            "a/b/c/d/e",
        ] {
            assert_eq!(text.parse::<Topic>(), Err(UnknownTopic(text.into())));
        }
    }
}
