//! What may be typed after `socle-launch`, nothing of what it does. By hand: the program is small and starts often.

use std::{ffi::OsString, path::PathBuf};

use protocol::id::Slot;

/// Shown on request, and after words that are not understood.
pub(crate) const HELP: &str = "\
Starts the Socle agent from the slot that the boot record names, if it verifies.

Usage: socle-launch <COMMAND> [OPTIONS]

Commands:
  arm      Before each gateway start: spend a try if a release is on trial. Never fails the start
  exec     Replace this process by the agent of the right slot: exec [OPTIONS] <gateway|worker|updater> [-- ARGUMENTS]
  refund   After a clean stop of the gateway: give its try back
  status   Print the boot record

Options:
  --state <DIR>      The device's state folder [default: /var/lib/socle]
  --factory <DIR>    arm, exec: the package's own agent [default: /usr/lib/socle/factory]
  --slot <a|b>       exec: the worker's slot
  --adopt-listeners  exec: the inherited listening sockets are for this process (a supervisor cannot know its id
                     beforehand)
  --json             status: for machines
  -h, --help         Print this
  -V, --version      Print the version

Examples:
  socle-launch status --state /var/lib/socle
  socle-launch arm --state /var/lib/socle --factory /usr/lib/socle/factory
  socle-launch exec --state /var/lib/socle --factory /usr/lib/socle/factory gateway -- --listen 127.0.0.1:7411";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Spend a try.
    Arm(Folders),
    /// Become an agent.
    Exec(Exec),
    /// Give a try back.
    Refund(PathBuf),
    /// Print the boot record of this folder.
    Status(PathBuf, Form),
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// How the boot record is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Where things lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folders {
    /// The device's state folder.
    pub(crate) state: PathBuf,
    /// The package's own agent.
    pub(crate) factory: PathBuf,
}

/// What is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exec {
    /// Where things lie.
    pub(crate) folders: Folders,
    /// Whether the inherited sockets are for the agent.
    pub(crate) listeners: Listeners,
    /// What it is started as.
    pub(crate) role: RoleName,
    /// Passed on.
    pub(crate) arguments: Vec<OsString>,
}

/// Inherited listening sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listeners {
    /// As the environment says.
    AsTold,
    /// For this process, whatever its id.
    Adopted,
}

/// What an agent is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleName {
    /// The gateway.
    Gateway,
    /// The worker of a slot.
    Worker(Slot),
    /// The updater.
    Updater,
}

/// Why the words are not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misused {
    /// No command.
    #[error("a command is missing: arm, exec, refund or status")]
    NoCommand,
    /// Another command.
    #[error("`{0}` is not a command; there are arm, exec, refund and status")]
    Command(String),
    /// An option that is not for this command, or none at all.
    #[error("`{word}` is not known to `{command}`")]
    Word {
        /// What was typed.
        word: String,
        /// The command.
        command: String,
    },
    /// An option without its value.
    #[error("`{0}` needs a value")]
    NoValue(String),
    /// An option twice.
    #[error("`{0}` is given twice")]
    Twice(String),
    /// A slot that is none.
    #[error("{0}")]
    Slot(String),
    /// No role.
    #[error("`exec` needs what to start: gateway, worker or updater")]
    NoRole,
    /// A worker of which slot?
    #[error("a worker needs --slot a or --slot b")]
    NoSlot,
}

/// Understands the words after the program's name.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Verb, Misused> {
    let mut words = words.into_iter();
    let command = words.next().ok_or(Misused::NoCommand)?;
    let command = command.to_string_lossy().into_owned();
    match command.as_str() {
        "-h" | "--help" | "help" => return Ok(Verb::Help),
        "-V" | "--version" => return Ok(Verb::Version),
        "arm" | "exec" | "refund" | "status" => {}
        _ => return Err(Misused::Command(command)),
    }
    let mut read = Read::default();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        let exec = command == "exec";
        match text.as_str() {
            "-h" | "--help" => return Ok(Verb::Help),
            "--state" => once(&mut read.state, &text, words.next())?,
            "--factory" if exec || command == "arm" => {
                once(&mut read.factory, &text, words.next())?;
            }
            "--slot" if exec => once(&mut read.slot, &text, words.next())?,
            "--adopt-listeners" if exec => read.listeners = Some(Listeners::Adopted),
            "--json" if command == "status" => read.form = Some(Form::Json),
            "--" if exec => {
                read.arguments = words.by_ref().collect();
            }
            "gateway" | "worker" | "updater" if exec && read.role.is_none() => {
                read.role = Some(text);
            }
            _ => return Err(Misused::Word { word: text, command }),
        }
    }
    read.verb(&command)
}

/// The words of one command line, sorted.
#[derive(Default)]
struct Read {
    state: Option<OsString>,
    factory: Option<OsString>,
    slot: Option<OsString>,
    listeners: Option<Listeners>,
    form: Option<Form>,
    role: Option<String>,
    arguments: Vec<OsString>,
}

impl Read {
    fn verb(self, command: &str) -> Result<Verb, Misused> {
        let slot = self.slot.map(|slot| slot.to_string_lossy().parse::<Slot>());
        let slot = slot.transpose().map_err(|error| Misused::Slot(error.to_string()))?;
        let or = |given: Option<OsString>, usual: &str| given.map_or(usual.into(), PathBuf::from);
        let state = or(self.state, "/var/lib/socle");
        let factory = or(self.factory, "/usr/lib/socle/factory");
        let folders = Folders { state: state.clone(), factory };
        Ok(match command {
            "arm" => Verb::Arm(folders),
            "refund" => Verb::Refund(state),
            "status" => Verb::Status(state, self.form.unwrap_or(Form::Text)),
            _ => {
                let role = match (self.role.as_deref(), slot) {
                    (None, _) => return Err(Misused::NoRole),
                    (Some("worker"), Some(slot)) => RoleName::Worker(slot),
                    (Some("worker"), None) => return Err(Misused::NoSlot),
                    (Some("updater"), _) => RoleName::Updater,
                    (Some(_), _) => RoleName::Gateway,
                };
                let listeners = self.listeners.unwrap_or(Listeners::AsTold);
                Verb::Exec(Exec { folders, listeners, role, arguments: self.arguments })
            }
        })
    }
}

fn once(
    place: &mut Option<OsString>,
    option: &str,
    value: Option<OsString>,
) -> Result<(), Misused> {
    if place.is_some() {
        return Err(Misused::Twice(option.to_owned()));
    }
    *place = Some(value.ok_or_else(|| Misused::NoValue(option.to_owned()))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Verb, Misused> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn folders(state: &str, factory: &str) -> Folders {
        Folders { state: state.into(), factory: factory.into() }
    }

    #[test]
    fn what_is_typed_is_understood() {
        let usual = folders("/var/lib/socle", "/usr/lib/socle/factory");
        let cases = [
            ("arm", Verb::Arm(usual.clone())),
            ("arm --factory /f --state /s", Verb::Arm(folders("/s", "/f"))),
            ("refund --state /s", Verb::Refund("/s".into())),
            ("status --json", Verb::Status("/var/lib/socle".into(), Form::Json)),
            ("--help", Verb::Help),
            ("exec -h", Verb::Help),
            ("-V", Verb::Version),
            (
                "exec --adopt-listeners --slot b worker",
                Verb::Exec(Exec {
                    folders: usual.clone(),
                    listeners: Listeners::Adopted,
                    role: RoleName::Worker(Slot::B),
                    arguments: vec![],
                }),
            ),
            (
                "exec gateway -- --state /x --",
                Verb::Exec(Exec {
                    folders: usual,
                    listeners: Listeners::AsTold,
                    role: RoleName::Gateway,
                    arguments: vec!["--state".into(), "/x".into(), "--".into()],
                }),
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(parsed(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let word = |word: &str, command: &str| Misused::Word {
            word: word.into(),
            command: command.into(),
        };
        let cases = [
            ("", Misused::NoCommand),
            ("start", Misused::Command("start".into())),
            ("arm --json", word("--json", "arm")),
            ("refund --factory /f", word("--factory", "refund")),
            ("exec gateway worker", word("worker", "exec")),
            ("arm gateway", word("gateway", "arm")),
            ("arm --state", Misused::NoValue("--state".into())),
            ("arm --state a --state b", Misused::Twice("--state".into())),
            ("exec", Misused::NoRole),
            ("exec worker", Misused::NoSlot),
            ("exec worker --slot c", Misused::Slot("not a slot: `c`; it is a or b".into())),
        ];
        for (line, expected) in cases {
            assert_eq!(parsed(line), Err(expected), "{line}");
        }
    }
}
