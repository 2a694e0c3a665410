//! Passphrases: asked at the terminal without showing them, or read from a file; wiped from memory after use.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
};

use clap::Args;
use zeroize::Zeroizing;

use crate::files::{self, FileError};

/// Shortest passphrase a new key takes.
const CHARACTERS_MIN: usize = 8;
/// Most bytes a passphrase file may have.
const FILE_BYTES_MAX: u64 = 4096;

/// Where the passphrase of an existing key comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct OpenArgs {
    /// File whose first line is the keys' passphrase; without it, each encrypted key asks for its own
    #[arg(long, env = "SOCLE_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// How new keys are protected.
#[derive(Clone, Debug, Default, Args)]
pub struct ProtectArgs {
    /// File whose first line is the passphrase of the new keys; without it, it is asked for, twice
    #[arg(long, env = "SOCLE_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Write the new keys unencrypted: whoever reads such a file can sign. For tests and sealed hardware
    #[arg(long, conflicts_with = "passphrase_file")]
    pub no_passphrase: bool,
}

/// How a key file is protected.
#[derive(Clone)]
pub enum Protection {
    /// Encrypted under this passphrase.
    Passphrase(Zeroizing<String>),
    /// Readable by whoever can read the file. Said out loud, never assumed.
    Nothing,
}

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// The file.
    #[error("reading the passphrase file")]
    File(#[from] FileError),
    /// The file starts with an empty line.
    #[error("the first line of `{}` is empty; write the passphrase there", .0.display())]
    Empty(PathBuf),
    /// Nobody to ask.
    #[error(
        "`{what}` needs a passphrase and there is no terminal to ask at; give --passphrase-file FILE"
    )]
    NoTerminal {
        /// For what.
        what: String,
    },
    /// The terminal.
    #[error("asking for a passphrase")]
    Ask(#[source] io::Error),
    /// Two different answers.
    #[error("the two passphrases differ; nothing was written")]
    Differ,
    /// Too short for a key.
    #[error("a passphrase has at least {CHARACTERS_MIN} characters; several words are good")]
    Short,
}

impl OpenArgs {
    /// The passphrase of the key called `what`.
    pub fn passphrase(&self, what: &str) -> Result<Zeroizing<String>, PassphraseError> {
        match &self.passphrase_file {
            Some(path) => from_file(path),
            None => ask(what, &format!("Passphrase of {what}: ")),
        }
    }
}

impl ProtectArgs {
    /// Protection for new keys called `what`.
    pub fn protection(&self, what: &str) -> Result<Protection, PassphraseError> {
        if self.no_passphrase {
            return Ok(Protection::Nothing);
        }
        let passphrase = match &self.passphrase_file {
            Some(path) => from_file(path)?,
            None => {
                let first = ask(what, &format!("New passphrase for {what}: "))?;
                if *first != *ask(what, "The same again: ")? {
                    return Err(PassphraseError::Differ);
                }
                first
            }
        };
        if passphrase.chars().count() < CHARACTERS_MIN {
            return Err(PassphraseError::Short);
        }
        Ok(Protection::Passphrase(passphrase))
    }
}

fn from_file(path: &Path) -> Result<Zeroizing<String>, PassphraseError> {
    let bytes = Zeroizing::new(files::read(path, FILE_BYTES_MAX)?);
    let text =
        std::str::from_utf8(&bytes).map_err(|_| FileError::NotText { path: path.to_owned() })?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        Some(_) | None => Err(PassphraseError::Empty(path.to_owned())),
    }
}

fn ask(what: &str, prompt: &str) -> Result<Zeroizing<String>, PassphraseError> {
    if !io::stdin().is_terminal() {
        return Err(PassphraseError::NoTerminal { what: what.to_owned() });
    }
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(PassphraseError::Ask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Access;

    #[test]
    fn the_first_line_is_the_passphrase() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let args =
            |no_passphrase| ProtectArgs { passphrase_file: Some(path.clone()), no_passphrase };
        for (content, expected) in [
            ("correct horse\n", Some("correct horse")),
            ("correct horse\r\nx", Some("correct horse")),
            ("correct horse", Some("correct horse")),
            (" eight ch", Some(" eight ch")),
            ("short", None),
            ("\ncorrect horse", None),
            ("", None),
        ] {
            files::write(&path, content.as_bytes(), Access::Owner).unwrap();
            let seen = match args(false).protection("k") {
                Ok(Protection::Passphrase(text)) => Some(text.to_string()),
                Ok(Protection::Nothing) | Err(_) => None,
            };
            assert_eq!(seen.as_deref(), expected, "{content:?}");
        }
        assert!(matches!(args(true).protection("k"), Ok(Protection::Nothing)));
    }
}
