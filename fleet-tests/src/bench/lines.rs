//! What is said between the benchmark and a resident process: one JSON object a line each way.

use serde::{Deserialize, Serialize};

/// Asked of a resident.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// Keep these batches, and forget those kept before.
    Hold(Batches),
    /// Compute the batches that are kept, one after the other, this many times.
    Time(Turns),
    /// The embedding of each text, one by one.
    Embed(Texts),
}

/// Batches, both as texts and as token ids; a resident takes what it can.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batches {
    /// What [`Turns`] calls them by.
    pub name: String,
    /// Token ids of each text of each batch.
    pub ids: Vec<Vec<Vec<u32>>>,
    /// The same as texts.
    pub texts: Vec<Vec<String>>,
}

/// How often.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Turns {
    /// Which batches.
    pub name: String,
    /// How many times.
    pub turns: u32,
}

/// Texts, both ways.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Texts {
    /// Token ids of each.
    pub ids: Vec<Vec<u32>>,
    /// The same as texts.
    pub texts: Vec<String>,
}

/// Answered by a resident.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Said once, unasked.
    Ready(Ready),
    /// How many sets of batches are kept.
    Held(u32),
    /// How long it took.
    Took(Took),
    /// Embeddings, in order.
    Vectors(Vec<Vec<f32>>),
}

/// A resident that has loaded its model and computed once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Of the runtime.
    pub version: String,
    /// From the files to the first embedding.
    pub load_ms: f64,
    /// Resident memory of the process, after that.
    pub resident_bytes: u64,
    /// Resident memory of the process before it loaded the model.
    pub before_bytes: u64,
}

/// Of each turn.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Took {
    /// By the clock.
    pub wall_ms: Vec<f64>,
    /// Of the processor, over all threads of the process.
    pub cpu_ms: Vec<f64>,
}
