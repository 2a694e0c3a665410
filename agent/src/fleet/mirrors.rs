//! Where objects come from: mirrors in the operator's order, then the fleet's own server. None of them is trusted; one
//! that fails or gives wrong bytes rests for a while. Choosing is pure.

use std::{
    num::NonZeroU64,
    sync::{Arc, Mutex, PoisonError},
};

use protocol::time::UnixMs;

use crate::fleet::{artifact_server::ArtifactServer, rate::Slowest};

const REST_FIRST_MS: u64 = 1_000;
const REST_LONGEST_MS: u64 = 10 * 60_000;
/// Wrong bytes count as so many failures in a row.
const WRONG_WEIGHT: u32 = 8;

/// How objects are fetched on this device.
#[derive(Clone, Debug)]
pub struct Transport {
    /// Asked before the fleet's own server, in this order.
    pub mirrors: Vec<ArtifactServer>,
    /// Limit of all downloads together, in bytes per second.
    pub limit: Option<NonZeroU64>,
    /// The slowest server that is still waited for.
    pub slowest: Slowest,
    standings: Arc<Mutex<Standings>>,
}

/// How servers behaved lately.
#[derive(Clone, Debug, Default)]
pub struct Standings(Vec<Standing>);

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    failures: u32,
    rests_until_ms: u64,
}

/// What a server did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// It gave what was asked for.
    Good,
    /// It could not be reached, broke off, or was slow.
    Failed,
    /// It gave bytes that are not what is signed.
    Wrong,
}

impl Transport {
    /// `mirrors`, then the fleet's own server, no faster than `limit`.
    pub fn new(mirrors: Vec<ArtifactServer>, limit: Option<NonZeroU64>) -> Self {
        Self { mirrors, limit, slowest: Slowest::USUAL, standings: Arc::default() }
    }

    /// The mirrors to ask now, in order. The fleet's own server is asked after them, always.
    pub fn awake(&self, now: UnixMs) -> Vec<(usize, &ArtifactServer)> {
        let standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let awake = |(number, _): &(usize, &ArtifactServer)| !standings.rests(*number, now.0);
        self.mirrors.iter().enumerate().filter(awake).collect()
    }

    /// Remembers what mirror `number` did.
    pub fn note(&self, number: usize, behaviour: Behaviour, now: UnixMs) {
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        standings.note(number, behaviour, now.0);
    }
}

impl Standings {
    /// Whether server `number` is left alone at `now_ms`.
    pub fn rests(&self, number: usize, now_ms: u64) -> bool {
        // A clock that was set back must not make a rest longer than the longest.
        self.0.get(number).is_some_and(|standing| {
            (1..=REST_LONGEST_MS).contains(&standing.rests_until_ms.saturating_sub(now_ms))
        })
    }

    /// Remembers what server `number` did: each failure in a row doubles its rest.
    pub fn note(&mut self, number: usize, behaviour: Behaviour, now_ms: u64) {
        if self.0.len() <= number {
            self.0.resize(number + 1, Standing::default());
        }
        let Some(standing) = self.0.get_mut(number) else { return };
        let weight = match behaviour {
            Behaviour::Good => {
                *standing = Standing::default();
                return;
            }
            Behaviour::Failed => 1,
            Behaviour::Wrong => WRONG_WEIGHT,
        };
        standing.failures = standing.failures.saturating_add(weight);
        let doublings = (standing.failures - 1).min(20);
        let rest_ms = (REST_FIRST_MS << doublings).min(REST_LONGEST_MS);
        standing.rests_until_ms = now_ms.saturating_add(rest_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_up_to_ten_minutes_and_end_with_success() {
        let mut standings = Standings::default();
        for rest_ms in [1_000, 2_000, 4_000, 8_000] {
            standings.note(2, Behaviour::Failed, 50);
            assert!(standings.rests(2, 49 + rest_ms) && !standings.rests(2, 50 + rest_ms));
        }
        for _ in 0..100 {
            standings.note(2, Behaviour::Failed, 50);
        }
        assert!(standings.rests(2, 49 + REST_LONGEST_MS));
        assert!(!standings.rests(2, 50 + REST_LONGEST_MS));
        standings.note(2, Behaviour::Good, 50);
        assert!(!standings.rests(2, 50) && !standings.rests(0, 0));
        standings.note(0, Behaviour::Wrong, 0);
        assert!(standings.rests(0, 127_999) && !standings.rests(0, 128_000));
    }
}
