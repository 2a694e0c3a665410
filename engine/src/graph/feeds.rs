//! What an encoder gives to its graph.

/// Name of the graph's input that says where each sequence begins, and where the last one ends.
pub(crate) const SEGMENTS: &str = "socle.segments";

/// Names of the inputs that it feeds.
#[derive(Debug, Clone)]
pub(crate) struct Feeds {
    /// The ids.
    pub(crate) ids: String,
    /// Ones for every token.
    pub(crate) mask: Option<String>,
}
