//! `cargo xtask check`: what can be held without starting the product.

use crate::failure::Failure;
use crate::machine::Machine;
use crate::stage::{Stage, Work};
use crate::test::{self, CLIPPY};
use crate::{advisories, hardening, package, say, shell, tools};

/// In this order.
pub(crate) const STAGES: [Stage; 8] = [
    Stage { name: "fmt", about: "rustfmt", work: Work::Cargo(&["fmt", "--all", "--check"]) },
    Stage { name: "clippy", about: "lints, warnings are errors", work: Work::Cargo(CLIPPY) },
    Stage { name: "tidy", about: "the rules of the tree", work: Work::Call(test::tidy) },
    Stage { name: "deny", about: "bans, licences and sources", work: Work::Call(deny) },
    Stage {
        name: "advisories",
        about: "known vulnerabilities",
        work: Work::Call(advisories::check),
    },
    Stage { name: "units", about: "systemd-analyze verify", work: Work::Call(hardening::verify) },
    Stage {
        name: "exposure",
        about: "systemd-analyze security",
        work: Work::Call(hardening::exposure),
    },
    Stage {
        name: "package",
        about: "the Debian package, built twice and inspected",
        work: Work::Call(package::check),
    },
];

fn deny(machine: &Machine) -> Result<String, Failure> {
    let mut command = machine.command(&tools::cargo_deny(machine)?);
    command.args(["--log-level", "error", "check", "--hide-inclusion-graph"]);
    command.args(["bans", "licenses", "sources"]);
    say::line(&format!("$ {}", shell::line(&command)));
    shell::run(&mut command).map(|()| "bans, licences and sources hold".to_owned())
}
