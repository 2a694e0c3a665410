//! `cargo xtask check`: what can be held without starting the product.

use crate::failure::Failure;
use crate::machine::Machine;
use crate::stage::{Stage, Work};
use crate::test::{self, CLIPPY};
use crate::{advisories, demo, hardening, say, shell, tools};

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
        work: Work::Call(package),
    },
];

fn deny(machine: &Machine) -> Result<String, Failure> {
    let mut command = machine.command(&tools::cargo_deny(machine)?);
    command.args(["--log-level", "error", "check", "--hide-inclusion-graph"]);
    command.args(["bans", "licenses", "sources"]);
    say::line(&format!("$ {}", shell::line(&command)));
    shell::run(&mut command).map(|()| "bans, licences and sources hold".to_owned())
}

fn package(machine: &Machine) -> Result<String, Failure> {
    if machine.program("dpkg-deb").is_none() {
        return Err(Failure::missing("`dpkg-deb` is not installed, which builds the package")
            .next("apt-get install -y dpkg-dev; elsewhere than on Debian leave this stage out"));
    }
    demo::build(machine)?;
    let mut command = machine.command(&machine.root.join("packaging/deb/check.sh"));
    command.arg("--bin-dir").arg(machine.bin_dir());
    say::line(&format!("$ {}", shell::line(&command)));
    shell::run(&mut command).map(|()| "the package holds what it must, twice the same".to_owned())
}
