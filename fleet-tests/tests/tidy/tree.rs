//! The files of the checkout as rules see them: relative paths and text.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

/// One file whose content is text.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// Its content; empty where it is not UTF-8.
    pub(crate) text: String,
}

impl File {
    /// The path's last part.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The folder that it is in, without the last `/`.
    pub(crate) fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// Where something stands: `path:line`, counted from 1, for a byte offset.
    pub(crate) fn at(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        format!("{}:{}", self.path, before.matches('\n').count() + 1)
    }
}

/// All files that git knows or would take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    /// In git's order.
    pub(crate) files: Vec<File>,
}

impl Tree {
    /// A made-up tree, for seeded violations.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        Self { files: files.iter().map(file).collect() }
    }

    /// The checkout that this test was built from; panics if it cannot be read or is implausibly
    /// small, for a rule over no files always holds.
    pub(crate) fn checkout() -> Self {
        let read = read();
        assert!(read.is_ok(), "reading the checkout: {read:?}");
        let tree = read.unwrap_or_default();
        assert!(tree.files.len() > 20, "only {} files in the checkout", tree.files.len());
        tree
    }

    /// Whether there is such a file, or a folder with files in it.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty() || self.files.iter().any(|f| f.path == path || f.path.starts_with(&folder))
    }

    /// The file of this path.
    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The files of this kind, by what comes after the last dot.
    pub(crate) fn of_kind(&self, extension: &'static str) -> impl Iterator<Item = &File> {
        self.files.iter().filter(move |file| {
            file.name().rsplit_once('.').is_some_and(|(_, kind)| kind == extension)
        })
    }
}

/// Fails a test with every violation on a line of its own.
pub(crate) fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

fn read() -> io::Result<Tree> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(&root)
        .output();
    let mut paths: Vec<String> = match listed {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let names = String::from_utf8_lossy(&output.stdout).into_owned();
            names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect()
        }
        // Sources from an archive have no git.
        Ok(_) | Err(_) => walk(&root, "")?,
    };
    paths.sort();
    paths.dedup();
    let mut files = Vec::new();
    for path in paths {
        // Git still lists a file that was just deleted.
        if let Ok(bytes) = fs::read(root.join(&path)) {
            let text = String::from_utf8(bytes).unwrap_or_default();
            files.push(File { path, text });
        }
    }
    Ok(Tree { files })
}

fn walk(root: &Path, folder: &str) -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.file_type()?.is_file() {
            paths.push(path);
        } else if entry.file_type()?.is_dir() && !["target", ".git"].contains(&name.as_str()) {
            paths.extend(walk(root, &path)?);
        }
    }
    Ok(paths)
}

#[test]
fn without_git_the_folders_are_walked_and_what_is_built_is_left_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let paths = walk(&root, "").unwrap();
    assert!(paths.iter().any(|path| path == "fleet-tests/tests/tidy.rs"));
    assert!(!paths.iter().any(|path| path.starts_with("target/")));
}
