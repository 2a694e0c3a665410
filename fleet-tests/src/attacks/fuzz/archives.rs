//! The agent's archive, unpacked by the code that unpacks it on a device.

use std::{fs, path::PathBuf};

use agent::update::archive::{Unpacking, unpack};
use fastrand::Rng;
use protocol::{digest::Digest, manifest::Archive};
use slots::disk::{Disk as _, RealDisk};

use crate::attacks::fuzz::{mutation, target::Target};

/// The agent's archive, as its maker signed it: nothing may be placed but the executable that is signed, and nothing may
/// be left anywhere else.
pub struct Archives {
    folder: tempfile::TempDir,
    good: Vec<u8>,
    agent: Vec<u8>,
}

impl Archives {
    /// In a folder of its own; in memory where the machine has such a file system.
    pub fn new() -> anyhow::Result<Self> {
        let memory = PathBuf::from("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
        let agent: Vec<u8> = (0..1500_u32).map(|at| (at % 251) as u8).collect();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(agent.len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        tar.append_data(&mut header, "socle-agent", agent.as_slice())?;
        let good = tar.into_inner()?;
        Ok(Self { folder, good, agent })
    }
}

impl Target for Archives {
    fn name(&self) -> &'static str {
        "archive"
    }

    fn input(&mut self, random: &mut Rng) -> anyhow::Result<Vec<u8>> {
        let mut bytes = self.good.clone();
        if random.u32(0..8) == 0 {
            return Ok(mutation::noise(random));
        }
        let header = random.u32(0..3) > 0;
        if header && let Some(head) = bytes.get_mut(..512) {
            // In the header, where names, sizes and kinds stand; its sum is made right again.
            let mut piece = head.to_vec();
            mutation::bytes(&mut piece, random);
            piece.resize(512, 0);
            head.copy_from_slice(&piece);
            head[148..156].fill(b' ');
            let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
            head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        } else {
            mutation::bytes(&mut bytes, random);
        }
        Ok(bytes)
    }

    fn feed(&mut self, input: &[u8]) -> anyhow::Result<bool> {
        let folder = self.folder.path();
        let (archive, to) = (folder.join("archive"), folder.join("socle-agent"));
        RealDisk.write(&archive, &mut &*input)?;
        let unpacking = Unpacking {
            archive: archive.clone(),
            named: Archive { length: input.len() as u64, sha256: Digest::of(input) },
            version: "0.1.0".to_owned(),
            agent_sha256: Digest::of(&self.agent),
            agent_length: self.agent.len() as u64,
            to: to.clone(),
        };
        let accepted = unpack(&unpacking).is_ok();
        if accepted {
            anyhow::ensure!(fs::read(&to)? == self.agent, "another executable was placed");
            fs::remove_file(&to)?;
        }
        fs::remove_file(&archive)?;
        let mut left = fs::read_dir(folder)?;
        anyhow::ensure!(left.next().is_none(), "something was left in {}", folder.display());
        Ok(accepted)
    }
}
