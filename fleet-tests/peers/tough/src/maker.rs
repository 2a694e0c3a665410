//! A repository as tough makes it: targets and delegated roles with their own keys, snapshot and timestamp.
//!
//! In the folder stand `files/` (what is listed, by target path), `metadata/N.root.json` and `root.json`, the newest of
//! them, and `keys/<role>.pk8`, since tough makes neither roots nor Ed25519 keys.

use std::{
    error::Error,
    fs, io,
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use tough::{
    TargetName,
    editor::RepositoryEditor,
    key_source::{KeySource, LocalKeySource},
    schema::{PathPattern, PathSet, Target},
};

/// A delegated role, and the beginning of its paths.
const ROLES: [(&str, &str); 3] =
    [("prod", "env/prod/"), ("agent", "agent/"), ("models-faq", "models/faq/")];

/// Makes the repository's metadata in `folder`.
pub async fn make(folder: &Path) -> Result<(), Box<dyn Error>> {
    // Whole seconds: the specification knows no others.
    let month = Timestamp::from_second(Timestamp::now().as_second() + 30 * 86_400)?;
    let version = NonZeroU64::MIN.saturating_add(6);
    let top = ["targets", "snapshot", "timestamp"].map(|role| key(folder, role));
    let mut editor = RepositoryEditor::new(folder.join("root.json")).await?;
    editor
        .targets_version(version)?
        .targets_expires(month)?
        .snapshot_version(version)
        .snapshot_expires(month)
        .timestamp_version(version)
        .timestamp_expires(month);
    let files = files(&folder.join("files"))?;
    for (path, file) in &files {
        if !ROLES.iter().any(|(_, prefix)| path.starts_with(prefix)) {
            editor.add_target(TargetName::new(path.as_str())?, Target::from_path(file).await?)?;
        }
    }
    for (role, prefix) in ROLES {
        let pattern = PathSet::Paths(vec![PathPattern::new(format!("{prefix}*"))?]);
        let terminating = role == "prod";
        let one = NonZeroU64::MIN;
        editor
            .delegate_role(role, &[key(folder, role)], pattern, terminating, one, month, version)
            .await?;
    }
    editor.sign_targets_editor(&top).await?;
    for (role, prefix) in ROLES {
        editor.change_delegated_targets(role)?;
        for (path, file) in files.iter().filter(|(path, _)| path.starts_with(prefix)) {
            editor.add_target(TargetName::new(path.as_str())?, Target::from_path(file).await?)?;
        }
        editor.targets_version(version)?.targets_expires(month)?;
        editor.sign_targets_editor(&[key(folder, role)]).await?;
    }
    editor.sign(&top).await?.write(folder.join("metadata")).await?;
    Ok(())
}

fn key(folder: &Path, role: &str) -> Box<dyn KeySource> {
    Box::new(LocalKeySource { path: folder.join("keys").join(format!("{role}.pk8")) })
}

/// Every file below `root` by its path from there.
fn files(root: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(name) = path.strip_prefix(root) {
                found.push((name.to_string_lossy().into_owned(), path.clone()));
            }
        }
    }
    Ok(found)
}
