//! Which tests there are.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

/// The kinds of tests that ONNX ships with their data.
pub const CATEGORIES: [&str; 4] = ["node", "pytorch-operator", "pytorch-converted", "simple"];

/// One test: a folder with a model and its data.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// Its kind.
    pub category: &'static str,
    /// Its name, without `test_`.
    pub name: String,
    /// Where it lies.
    pub folder: PathBuf,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.category, self.name)
    }
}

/// Every test below `data`, in a fixed order.
pub fn all(data: &Path) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for category in CATEGORIES {
        let kind = data.join(category);
        let entries = fs::read_dir(&kind)
            .with_context(|| format!("listing the tests in {}", kind.display()))?;
        for entry in entries {
            let folder = entry?.path();
            let name = folder.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.and_then(|name| name.strip_prefix("test_"))
                && folder.join("model.onnx").is_file()
            {
                cases.push(Case { category, name: name.to_owned(), folder });
            }
        }
    }
    ensure!(!cases.is_empty(), "{} holds no tests", data.display());
    cases.sort();
    Ok(cases)
}
