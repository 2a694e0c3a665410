//! Every target.

use crate::attacks::fuzz::{
    archives::Archives,
    documents::{Manifests, Metadata, Permits},
    messages::{Assignments, Chunks, Requests},
    models::{Descriptions, Graphs, Tokenizers},
    records::Records,
    target::Target,
};

/// Every target, each from a good start.
pub fn targets() -> anyhow::Result<Vec<Box<dyn Target>>> {
    Ok(vec![
        Box::new(Metadata::new()?),
        Box::new(Manifests),
        Box::new(Permits::new()?),
        Box::new(Requests),
        Box::new(Assignments::new()?),
        Box::new(Chunks),
        Box::new(Records::new()?),
        Box::new(Archives::new()?),
        Box::new(Graphs::new()?),
        Box::new(Tokenizers::new()?),
        Box::new(Descriptions::new()?),
    ])
}
