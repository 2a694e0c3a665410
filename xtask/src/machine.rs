//! What the commands know of the machine they run on: read once, in `main`, and handed down.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who reads standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// A person: programs that are driven write where they like.
    Person,
    /// A machine: standard output carries one JSON object, everything else goes to standard error.
    Json,
}

/// The machine and the checkout.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The root of the workspace.
    pub(crate) root: PathBuf,
    /// Where cargo builds: `CARGO_TARGET_DIR`, or `target` in the root.
    pub(crate) target: PathBuf,
    /// The user's cache folder for this project.
    pub(crate) cache: PathBuf,
    /// The cargo that started us, so that its toolchain is used throughout.
    pub(crate) cargo: OsString,
    /// Folders where programs are looked for.
    pub(crate) path: Vec<PathBuf>,
    /// Whether packages may be installed.
    pub(crate) superuser: bool,
    /// A checkout of the RustSec advisory database, if one was named.
    pub(crate) advisory_db: Option<PathBuf>,
    /// The time that packages carry, if one was given: seconds since 1970.
    pub(crate) source_date_epoch: Option<String>,
    /// Who reads standard output.
    pub(crate) output: Output,
    /// Names of variables that `cargo run` set for us and that must not reach another cargo:
    /// build scripts that watch them (ring's does) would run again each time.
    pub(crate) cargo_variables: Vec<OsString>,
}

impl Machine {
    /// Where the release profile puts programs.
    pub(crate) fn bin_dir(&self) -> PathBuf {
        self.target.join("release")
    }

    /// A program by its name.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
    }

    /// Cargo in the workspace, with our own package's variables taken out.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(Path::new(&self.cargo));
        command.args(arguments);
        command
    }

    /// Any program in the workspace's root, its output where [`Output`] says.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        for name in &self.cargo_variables {
            command.env_remove(name);
        }
        match self.output {
            Output::Person => {}
            Output::Json => {
                command.stdout(std::io::stderr());
            }
        }
        command
    }
}

/// Whether `cargo run` sets a variable of this name for the program that it starts.
pub(crate) fn is_set_by_cargo_run(name: &str) -> bool {
    const PREFIXES: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::is_set_by_cargo_run;

    #[test]
    fn cargo_home_is_kept_and_package_variables_go() {
        assert!(is_set_by_cargo_run("CARGO_PKG_NAME"));
        assert!(is_set_by_cargo_run("CARGO_MANIFEST_DIR"));
        assert!(!is_set_by_cargo_run("CARGO_HOME"));
        assert!(!is_set_by_cargo_run("CARGO_TERM_COLOR"));
        assert!(!is_set_by_cargo_run("CARGO_NET_OFFLINE"));
    }
}
