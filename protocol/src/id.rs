//! Names of fleets, environments, devices and slots.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{digest::Digest, key::PublicKey};

/// A fleet's name: 1 to 32 of `a-z 0-9 -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FleetId(String);

/// Where a release may run, such as `dev` or `prod`: 1 to 32 of `a-z 0-9 -`. A device belongs to one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Environment(String);

/// A device's name: the SHA-256 of its raw Ed25519 public key, 64 hexadecimal characters.
///
/// It is also the common name of the device's certificate, so a broker's access list can hold a device to its
/// own topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(Digest);

/// One of the two places a release can be installed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// Slot a.
    A,
    /// Slot b.
    B,
}

/// Why a text is not a name of that kind.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotAName {
    /// Not a fleet's name.
    #[error("not a fleet name: `{0}`; use 1 to 32 of a-z, 0-9 and -")]
    Fleet(String),
    /// Not an environment's name.
    #[error("not an environment: `{0}`; use 1 to 32 of a-z, 0-9 and -")]
    Environment(String),
    /// Not a device's name.
    #[error("not a device id: `{0}`; it has 64 hexadecimal characters")]
    Device(String),
    /// Not a slot's name.
    #[error("not a slot: `{0}`; it is a or b")]
    Slot(String),
}

/// 1 to 32 lowercase letters, digits and hyphens.
fn is_short_word(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl FleetId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FleetId {
    type Error = NotAName;

    fn try_from(text: String) -> Result<Self, NotAName> {
        if is_short_word(&text) { Ok(Self(text)) } else { Err(NotAName::Fleet(shown(&text))) }
    }
}

impl FromStr for FleetId {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        Self::try_from(text.to_owned())
    }
}

impl From<FleetId> for String {
    fn from(fleet: FleetId) -> Self {
        fleet.0
    }
}

impl fmt::Display for FleetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Environment {
    /// `prod`: the one meant where none is named.
    pub fn production() -> Self {
        Self("prod".to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Environment {
    type Error = NotAName;

    fn try_from(text: String) -> Result<Self, NotAName> {
        if is_short_word(&text) { Ok(Self(text)) } else { Err(NotAName::Environment(shown(&text))) }
    }
}

impl FromStr for Environment {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        Self::try_from(text.to_owned())
    }
}

impl From<Environment> for String {
    fn from(environment: Environment) -> Self {
        environment.0
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl DeviceId {
    /// The id of the device that holds the private half of `key`.
    pub fn of(key: &PublicKey) -> Self {
        Self(key.id())
    }

    /// The first 12 characters, for people.
    pub fn short(&self) -> String {
        self.0.short()
    }

    /// The digest behind the name.
    pub const fn digest(&self) -> Digest {
        self.0
    }
}

impl From<Digest> for DeviceId {
    fn from(digest: Digest) -> Self {
        Self(digest)
    }
}

impl FromStr for DeviceId {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        text.parse().map(Self).map_err(|_| NotAName::Device(shown(text)))
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Slot {
    /// Both slots.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other slot.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// `a` or `b`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

impl FromStr for Slot {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        match text {
            "a" => Ok(Self::A),
            "b" => Ok(Self::B),
            _ => Err(NotAName::Slot(shown(text))),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_reach_into_a_topic_or_a_path() {
        for text in ["", "a/b", "+", "#", "Ä", "UP", "..", "*", &"x".repeat(33)] {
            assert!(text.parse::<FleetId>().is_err(), "{text:?}");
            assert!(text.parse::<Environment>().is_err(), "{text:?}");
        }
        assert_eq!("hospital-7".parse::<FleetId>().unwrap().as_str(), "hospital-7");
    }
}
