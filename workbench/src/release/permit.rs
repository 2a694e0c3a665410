//! `socle release permit`: the paper that lets one device go back to one older release, for a few days. It is signed
//! like the metadata of the role that signs for the release: `socle repo sign`.

use std::path::PathBuf;

use clap::Args;
use protocol::{
    digest::Digest,
    id::{DeviceId, FleetId},
    time::UnixMs,
    tuf::permit::{Holder, Permit},
};

use crate::{
    files::FileError,
    metadata::document::{self, LoadError},
};

const DAY_MS: u64 = 86_400_000;

/// Arguments of `socle release permit`.
#[derive(Clone, Debug, Args)]
pub struct PermitArgs {
    /// The fleet
    #[arg(long)]
    pub fleet: FleetId,
    /// The device that may go back: its whole id, 64 characters
    #[arg(long)]
    pub device: DeviceId,
    /// The release it may install: its whole SHA-256
    #[arg(long)]
    pub release: Digest,
    /// Days it holds
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=90))]
    pub days: u32,
    /// File to write
    #[arg(long)]
    pub out: PathBuf,
}

/// Why there is no permit.
#[derive(Debug, thiserror::Error)]
pub enum PermitError {
    /// A file is in the way.
    #[error("making the permit")]
    File(#[from] FileError),
    /// It cannot be written.
    #[error("writing the permit")]
    Load(#[from] LoadError),
}

/// Writes the permit, unsigned.
pub fn make(args: &PermitArgs, now: UnixMs) -> Result<Permit, PermitError> {
    if args.out.exists() {
        return Err(FileError::Exists { path: args.out.clone() }.into());
    }
    let holder = Holder { fleet: &args.fleet, device: args.device };
    let until = now.plus(u64::from(args.days) * DAY_MS);
    let permit = Permit::new(holder, args.release, until);
    document::write_unsigned(&args.out, &permit)?;
    Ok(permit)
}
