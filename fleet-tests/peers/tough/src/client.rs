//! One case after the other, each with a datastore of its own, from memory.

use std::{
    collections::BTreeMap,
    error::Error,
    io::{self, BufRead as _, Write as _},
    path::Path,
    sync::Arc,
};

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use tough::{
    Bytes, RepositoryLoader, TargetName, Transport, TransportError, TransportErrorKind,
    TransportStream, async_trait,
};
use url::Url;

const METADATA: &str = "https://localhost/metadata/";
const TARGETS: &str = "https://localhost/targets/";

#[derive(Deserialize)]
struct Case {
    id: u64,
    root: String,
    steps: Vec<BTreeMap<String, String>>,
    paths: Vec<String>,
}

#[derive(Serialize)]
struct Answer {
    id: u64,
    steps: Vec<Look>,
}

#[derive(Default, Serialize)]
struct Look {
    refused: Option<String>,
    paths: BTreeMap<String, Answered>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Answered {
    Absent,
    Refused(String),
    Found { sha256: String, length: u64 },
}

/// Answers every case of standard input.
pub async fn answer_all() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let case: Case = serde_json::from_str(&line?)?;
        let root = BASE64.decode(case.root.as_bytes())?;
        let folder = tempfile::tempdir()?;
        let mut answer = Answer { id: case.id, steps: Vec::new() };
        for step in &case.steps {
            let mut files = BTreeMap::new();
            for (name, text) in step {
                files.insert(name.clone(), Bytes::from(BASE64.decode(text.as_bytes())?));
            }
            answer.steps.push(look(&root, files, folder.path(), &case.paths).await?);
        }
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    }
    Ok(())
}

async fn look(
    root: &[u8],
    files: BTreeMap<String, Bytes>,
    datastore: &Path,
    paths: &[String],
) -> Result<Look, Box<dyn Error>> {
    let repository = RepositoryLoader::new(&root, Url::parse(METADATA)?, Url::parse(TARGETS)?)
        .transport(Shelf(Arc::new(files)))
        .datastore(datastore)
        .load()
        .await;
    let repository = match repository {
        Ok(repository) => repository,
        Err(error) => return Ok(Look { refused: Some(words(&error)), ..Look::default() }),
    };
    let mut look = Look::default();
    for path in paths {
        let answered = match TargetName::new(path.as_str()) {
            Err(error) => Answered::Refused(words(&error)),
            Ok(name) => match repository.targets().signed.find_target(&name, false) {
                Err(_) => Answered::Absent,
                Ok(target) => Answered::Found {
                    sha256: HEXLOWER.encode(&target.hashes.sha256),
                    length: target.length,
                },
            },
        };
        look.paths.insert(path.clone(), answered);
    }
    Ok(look)
}

fn words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text.chars().take(300).collect()
}

/// Files in memory instead of a server.
#[derive(Clone, Debug)]
struct Shelf(Arc<BTreeMap<String, Bytes>>);

#[async_trait]
impl Transport for Shelf {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let name = url.as_str().strip_prefix(METADATA).unwrap_or_default();
        match self.0.get(name) {
            Some(bytes) => {
                let bytes = bytes.clone();
                Ok(Box::pin(futures::stream::once(async move { Ok(bytes) })))
            }
            None => Err(TransportError::new(TransportErrorKind::FileNotFound, url)),
        }
    }
}
