//! The `tough` crate as a client: reads cases, one JSON object a line, and says what it makes of each; and as a maker
//! of repositories.

mod client;
mod maker;

use std::{error::Error, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, "client"] => runtime.block_on(client::answer_all()),
        [_, "make", folder] => runtime.block_on(maker::make(Path::new(folder))),
        _ => Err(
            "usage: tough-peer client < cases.jsonl > answers.jsonl, or: tough-peer make FOLDER"
                .into(),
        ),
    }
}
