//! `cargo xtask package`: the Debian package, made by cargo-deb from what `[package.metadata.deb]` in
//! `agent/Cargo.toml` says. Laid out beforehand is what cargo does not build: the description of the
//! factory agent, which names it by its digest, and Debian's change log.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::failure::Failure;
use crate::machine::{Machine, Output};
use crate::{demo, digest, say, shell, tools};

/// Where cargo-deb finds the programs: `agent/Cargo.toml` names this folder.
const STAGE: &str = "target/deb/stage";
/// Where packages go when nothing else is said.
const OUT: &str = "target/deb";
const MAINTAINER: &str = "The Socle authors <maintainers@socle.invalid>";

/// How the package is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Squeeze {
    /// As it is shipped.
    #[default]
    Small,
    /// In seconds, for a machine that is thrown away.
    Quick,
}

/// What is packed, and where to.
#[derive(Debug, Default)]
pub(crate) struct Package<'a> {
    /// Where `socle-agent` lies; the release profile's folder by default.
    pub(crate) bin_dir: Option<&'a Path>,
    /// Another launcher than the one that is built, linked statically, for the package.
    pub(crate) launch: Option<&'a Path>,
    /// The folder of the package.
    pub(crate) out: Option<&'a Path>,
    /// Another version than the workspace's.
    pub(crate) version: Option<&'a str>,
    /// How it is compressed.
    pub(crate) squeeze: Squeeze,
}

/// Builds what is packed, packs it, and prints where the package is.
pub(crate) fn run(machine: &Machine, package: &Package<'_>) -> Result<(), Failure> {
    if package.bin_dir.is_none() {
        demo::build(machine)?;
    }
    let made = make(machine, package)?;
    let text = match machine.output {
        Output::Json => serde_json::json!({ "package": made }).to_string(),
        Output::Person => made.display().to_string(),
    };
    say::result(&text).map_err(|error| Failure::new("printing the package's path").because(error))
}

/// Packs programs that are built already; the path of the package.
pub(crate) fn make(machine: &Machine, package: &Package<'_>) -> Result<PathBuf, Failure> {
    for tool in ["dpkg-deb", "dpkg-shlibdeps"] {
        if machine.program(tool).is_none() {
            return Err(Failure::missing(format!(
                "`{tool}` is not installed, which packing needs"
            ))
            .next("apt-get install -y dpkg-dev"));
        }
    }
    let cargo_deb = tools::cargo_deb(machine)?;
    let launch = match package.launch {
        Some(launch) => launch.to_path_buf(),
        None => launcher(machine)?,
    };
    let agent = package.bin_dir.unwrap_or(&machine.bin_dir()).join("socle-agent");
    let stage = machine.root.join(STAGE);
    let time = source_date(machine)?;
    let version = version(machine)?;
    let changelog = changelog(machine, &version, time)?;
    lay_out(&stage, &agent, &launch, &version)
        .and_then(|()| put(&stage.join("changelog"), &changelog))
        .map_err(|error| {
            Failure::new(format!("laying out `{}`", stage.display())).because(error)
        })?;
    let out = package.out.map_or_else(|| machine.root.join(OUT), Path::to_path_buf);
    let named = package.version.unwrap_or(&version);
    let path = out.join(format!("socle-agent_{named}_{}.deb", architecture(machine)?));
    std::fs::create_dir_all(&out)
        .map_err(|error| Failure::new(format!("making `{}`", out.display())).because(error))?;
    let mut command = machine.command(&cargo_deb);
    command.args(["--package", "agent", "--no-build", "--no-strip", "--no-dbgsym", "--locked"]);
    // The shared target folder of a build elsewhere has no bearing on where the stage lies.
    command.env_remove("CARGO_TARGET_DIR").env("SOURCE_DATE_EPOCH", time.to_string());
    command.arg("--deb-version").arg(named).arg("--output").arg(&path);
    match package.squeeze {
        Squeeze::Small => {}
        Squeeze::Quick => {
            command.arg("--fast");
        }
    }
    command.stdout(io::stderr());
    say::line(&format!("$ {}", shell::line(&command)));
    shell::run(&mut command)?;
    Ok(path)
}

/// The launcher that the package carries: linked statically, so that no library of the machine can
/// keep it from starting. It has a target folder of its own, since other flags would have everything
/// built anew in the shared one.
pub(crate) fn launcher(machine: &Machine) -> Result<PathBuf, Failure> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = machine.root.join("target/launcher");
    let mut command = machine.cargo(&["build", "--locked", "--release", "--package", "slots"]);
    command.args(["--bin", "socle-launch", "--target", &triple]).stdout(io::stderr());
    command.env("CARGO_TARGET_DIR", &folder).env("RUSTFLAGS", "-C target-feature=+crt-static");
    // It starts often and does little: what counts is its size.
    let small = [
        ("OPT_LEVEL", "s"),
        ("LTO", "fat"),
        ("CODEGEN_UNITS", "1"),
        ("PANIC", "abort"),
        ("STRIP", "symbols"),
    ];
    for (name, value) in small {
        command.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
    say::line(&format!("$ {}", shell::line(&command)));
    shell::run(&mut command)?;
    Ok(folder.join(triple).join("release/socle-launch"))
}

fn lay_out(stage: &Path, agent: &Path, launch: &Path, version: &str) -> io::Result<()> {
    if stage.exists() {
        std::fs::remove_dir_all(stage)?;
    }
    std::fs::create_dir_all(stage)?;
    for (from, name) in [(agent, "socle-agent"), (launch, "socle-launch")] {
        let to = stage.join(name);
        std::fs::copy(from, &to)?;
        std::fs::set_permissions(&to, PermissionsExt::from_mode(0o755))?;
    }
    let sha256 = digest::of_file(&stage.join("socle-agent"))?;
    let factory = format!("{{\"version\":\"{version}\",\"sha256\":\"{sha256}\"}}\n");
    put(&stage.join("factory.json"), &factory)
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    File::create(path)?.write_all(text.as_bytes())
}

/// Debian's own change log, which only points to ours.
fn changelog(machine: &Machine, version: &str, time: u64) -> Result<String, Failure> {
    let mut date = machine.command(Path::new("date"));
    date.env("LC_ALL", "C").args(["-u", "-R", "-d", &format!("@{time}")]);
    let date = shell::read(date.stdout(Stdio::piped()))?.out;
    Ok(format!(
        "socle ({version}) unstable; urgency=medium\n\n  * Changes are listed in CHANGELOG.md.\n\n \
         -- {MAINTAINER}  {date}"
    ))
}

/// `SOURCE_DATE_EPOCH`, else the time of the last commit: the same sources give the same bytes.
fn source_date(machine: &Machine) -> Result<u64, Failure> {
    let advice = "set SOURCE_DATE_EPOCH to seconds since 1970";
    let text = match &machine.source_date_epoch {
        Some(text) => text.clone(),
        None => {
            let mut command = machine.command(Path::new("git"));
            command.args(["log", "-1", "--format=%ct"]).stdout(Stdio::piped());
            shell::read(&mut command)?.out
        }
    };
    let unknown = |error: std::num::ParseIntError| {
        Failure::new("the time of the package is not known").because(error).next(advice)
    };
    text.trim().parse().map_err(unknown)
}

/// The workspace's version.
pub(crate) fn version(machine: &Machine) -> Result<String, Failure> {
    let path = machine.root.join("Cargo.toml");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Failure::new(format!("reading `{}`", path.display())).because(error))?;
    let manifest: toml::Value = toml::from_str(&text)
        .map_err(|error| Failure::new(format!("reading `{}`", path.display())).because(error))?;
    let version = ["workspace", "package", "version"]
        .iter()
        .try_fold(&manifest, |table, key| table.get(key))
        .and_then(toml::Value::as_str);
    version.map(str::to_owned).ok_or_else(|| Failure::new("the workspace has no version"))
}

/// Debian's name of this processor.
fn architecture(machine: &Machine) -> Result<String, Failure> {
    let mut command = machine.command(Path::new("dpkg"));
    let printed = shell::read(command.arg("--print-architecture").stdout(Stdio::piped()))?;
    match printed.out.trim() {
        "" => Err(Failure::new("`dpkg --print-architecture` says nothing")),
        name => Ok(name.to_owned()),
    }
}

/// The package twice from the same programs, inspected; installs nothing.
pub(crate) fn check(machine: &Machine) -> Result<String, Failure> {
    demo::build(machine)?;
    let work = tempfile::tempdir()
        .map_err(|error| Failure::new("making a temporary folder").because(error))?;
    let launch = launcher(machine)?;
    // A compilation between the two is no difference of theirs: both take one pair of programs.
    let bin = work.path().join("bin");
    std::fs::create_dir(&bin)
        .and_then(|()| {
            std::fs::copy(machine.bin_dir().join("socle-agent"), bin.join("socle-agent"))
        })
        .and_then(|_| std::fs::copy(&launch, bin.join("socle-launch")))
        .map_err(|error| Failure::new("copying the programs").because(error))?;
    let launch = bin.join("socle-launch");
    let mut made = Vec::new();
    for name in ["first", "second"] {
        let out = work.path().join(name);
        let package = Package {
            bin_dir: Some(&bin),
            launch: Some(&launch),
            out: Some(&out),
            ..Package::default()
        };
        made.push(make(machine, &package)?);
    }
    let mut command = machine.command(&machine.root.join("packaging/deb/check.sh"));
    command.args(&made);
    say::line(&format!("$ {}", shell::line(&command)));
    shell::run(&mut command).map(|()| "the package holds what it must, twice the same".to_owned())
}
