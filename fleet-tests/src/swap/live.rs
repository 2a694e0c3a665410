//! Which releases may answer at the moment, as the driver of the swaps knows it.

use std::sync::{Arc, PoisonError, RwLock};

use protocol::digest::Digest;

use crate::swap::variant::Expected;

/// A release that may answer.
#[derive(Clone, Debug)]
pub struct Live {
    /// The release.
    pub release: Digest,
    /// The version its package says.
    pub version: String,
    /// What it answers.
    pub expected: Arc<Vec<Expected>>,
}

/// Those that may answer now.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<RwLock<Arc<Vec<Live>>>>);

impl Board {
    /// Only these may answer from now on.
    pub fn set(&self, live: Vec<Live>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
    }

    /// Who may answer now.
    pub fn now(&self) -> Arc<Vec<Live>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}
