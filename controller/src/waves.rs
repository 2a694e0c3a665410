//! The words of a rollout: its policy, its states, and what becomes of an assignment.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most waves one rollout may have.
const WAVES_MAX: usize = 16;
const DAY_S: u64 = 86_400;

/// How a release is rolled out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// In order; the last one reaches the whole fleet.
    pub waves: Vec<Wave>,
    /// What each wave must show before the next one opens.
    pub gate: Gate,
}

/// One wave. In JSON: its name and exactly one of `devices` and `percent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenWave", into = "WrittenWave")]
pub struct Wave {
    /// Its name for people.
    pub name: String,
    /// How many devices it holds.
    pub size: Size,
}

/// How large a wave is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many devices more.
    Devices(u32),
    /// So much of the fleet in total, the waves before included.
    Percent(u8),
}

/// What a wave must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Share of the results that must be commits.
    pub success_percent: u8,
    /// Results a wave needs before it can pass (or all of its devices, if it is smaller).
    pub min_sample: u32,
    /// After so long without a result a device counts as timed out; or as unreachable, if it was not heard of.
    pub timeout_s: u64,
}

/// Why a policy is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    /// None or too many waves.
    #[error("a rollout has 1 to {WAVES_MAX} waves, not {0}")]
    Waves(usize),
    /// A name for people that no person would want.
    #[error("a wave's name has 1 to 40 characters")]
    Name,
    /// A wave that is empty or larger than the fleet.
    #[error("wave `{0}`: give `devices` of at least 1, or `percent` of 1 to 100")]
    Size(String),
    /// Percentages that do not grow.
    #[error("wave `{0}`: percentages are of the whole fleet and must grow from wave to wave")]
    Order(String),
    /// The fleet is not covered.
    #[error("the last wave must be `percent` 100, so that the rollout reaches the whole fleet")]
    Last,
    /// The gate.
    #[error(
        "gate: success_percent is 1 to 100, min_sample at least 1, timeout_s 1 to {} (30 days)",
        30 * DAY_S
    )]
    Gate,
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RolloutState {
    /// Waves open and close.
    Running,
    /// Every gate was passed; who joins later gets the release too.
    Complete,
    /// A gate failed or a person stopped it.
    Halted,
}

/// What became of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// No result yet.
    Assigned,
    /// The device runs the release.
    Committed,
    /// The device refused it.
    Failed,
    /// The device gave it up and returned to what it ran.
    RolledBack,
    /// The device was heard of, but gave no result in time.
    TimedOut,
    /// The device was not heard of: it neither blocks nor counts.
    Unreachable,
}

/// Not a word of a rollout.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a word of a rollout: `{0}`")]
pub struct UnknownWord(String);

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenWave {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    devices: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    percent: Option<u8>,
}

impl TryFrom<WrittenWave> for Wave {
    type Error = PolicyError;

    fn try_from(written: WrittenWave) -> Result<Self, PolicyError> {
        let size = match (written.devices, written.percent) {
            (Some(devices), None) => Size::Devices(devices),
            (None, Some(percent)) => Size::Percent(percent),
            (None, None) | (Some(_), Some(_)) => return Err(PolicyError::Size(written.name)),
        };
        Ok(Self { name: written.name, size })
    }
}

impl From<Wave> for WrittenWave {
    fn from(wave: Wave) -> Self {
        let (devices, percent) = match wave.size {
            Size::Devices(devices) => (Some(devices), None),
            Size::Percent(percent) => (None, Some(percent)),
        };
        Self { name: wave.name, devices, percent }
    }
}

impl Policy {
    /// Holds if a rollout can follow it to an end.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.waves.is_empty() || self.waves.len() > WAVES_MAX {
            return Err(PolicyError::Waves(self.waves.len()));
        }
        let mut reached = 0;
        for wave in &self.waves {
            if wave.name.is_empty() || wave.name.chars().count() > 40 {
                return Err(PolicyError::Name);
            }
            match wave.size {
                Size::Devices(devices) if devices >= 1 => {}
                Size::Percent(percent @ 1..=100) if percent > reached => reached = percent,
                Size::Percent(1..=100) => return Err(PolicyError::Order(wave.name.clone())),
                Size::Devices(_) | Size::Percent(_) => {
                    return Err(PolicyError::Size(wave.name.clone()));
                }
            }
        }
        if self.waves.last().map(|wave| wave.size) != Some(Size::Percent(100)) {
            return Err(PolicyError::Last);
        }
        let Gate { success_percent, min_sample, timeout_s } = self.gate;
        let holds = (1..=100).contains(&success_percent)
            && min_sample >= 1
            && (1..=30 * DAY_S).contains(&timeout_s);
        if holds { Ok(()) } else { Err(PolicyError::Gate) }
    }
}

impl Gate {
    /// The time-out in milliseconds.
    pub const fn timeout_ms(&self) -> u64 {
        self.timeout_s.saturating_mul(1000)
    }
}

impl RolloutState {
    /// Its name, as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Halted => "halted",
        }
    }
}

impl FromStr for RolloutState {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        [Self::Running, Self::Complete, Self::Halted]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownWord(text.chars().take(40).collect()))
    }
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Assigned,
        Self::Committed,
        Self::Failed,
        Self::RolledBack,
        Self::TimedOut,
        Self::Unreachable,
    ];

    /// Its name, as stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Committed => "committed",
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
            Self::TimedOut => "timed-out",
            Self::Unreachable => "unreachable",
        }
    }
}

impl FromStr for Status {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownWord(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(waves: &[(&str, Size)]) -> Policy {
        Policy {
            waves: waves
                .iter()
                .map(|(name, size)| Wave { name: (*name).to_owned(), size: *size })
                .collect(),
            gate: Gate { success_percent: 100, min_sample: 1, timeout_s: 600 },
        }
    }

    #[test]
    fn the_policy_of_the_documentation_reads_and_holds() {
        let text = r#"{"waves":[{"name":"canary","devices":1},{"name":"rest","percent":100}],
            "gate":{"success_percent":100,"min_sample":1,"timeout_s":600}}"#;
        let read: Policy = serde_json::from_str(text).unwrap();
        let canary = ("canary", Size::Devices(1));
        assert_eq!(read, policy(&[canary, ("rest", Size::Percent(100))]));
        assert_eq!(read.check(), Ok(()));
    }

    #[test]
    fn a_wave_has_exactly_one_size() {
        for text in [
            r#"{"name":"a"}"#,
            r#"{"name":"a","devices":1,"percent":5}"#,
            r#"{"name":"a","devices":1,"extra":5}"#,
        ] {
            assert!(serde_json::from_str::<Wave>(text).is_err(), "{text}");
        }
        let wave = Wave { name: "a".into(), size: Size::Percent(5) };
        let text = serde_json::to_string(&wave).unwrap();
        assert_eq!(serde_json::from_str::<Wave>(&text).unwrap(), wave);
    }

    #[test]
    fn policies_that_cannot_end_are_refused() {
        let rest = ("rest", Size::Percent(100));
        let named = |name: &str| name.to_owned();
        let cases = [
            (policy(&[]), PolicyError::Waves(0)),
            (policy(&[("", Size::Devices(1)), rest]), PolicyError::Name),
            (policy(&[("a", Size::Devices(0)), rest]), PolicyError::Size(named("a"))),
            (policy(&[("a", Size::Percent(101)), rest]), PolicyError::Size(named("a"))),
            (policy(&[rest, rest]), PolicyError::Order(named("rest"))),
            (policy(&[("a", Size::Devices(1))]), PolicyError::Last),
            (policy(&[("a", Size::Percent(99))]), PolicyError::Last),
        ];
        for (policy, refusal) in cases {
            assert_eq!(policy.check(), Err(refusal), "{policy:?}");
        }
        let mut ungated = policy(&[rest]);
        ungated.gate.min_sample = 0;
        assert_eq!(ungated.check(), Err(PolicyError::Gate));
    }
}
