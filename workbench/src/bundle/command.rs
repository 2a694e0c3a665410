//! `socle bundle …`.

use std::io;

use clap::Subcommand;
use protocol::time::UnixMs;

use crate::{
    bundle::{
        export::{self, ExportArgs, ExportError},
        import::{self, ImportArgs, ImportError, Imported, PublishArgs},
    },
    terminal::Terminal,
};

/// `socle bundle …`
#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Put a repository, or some of its releases, on a stick
    #[command(
        after_help = "Examples:\n  socle bundle export https://controller:8443/artifacts --ca ca.pem --token-file token --env prod --out /media/stick/socle.tar\n  socle bundle export ./mirror --release 2026.11.2 --out ./bundle\n  with the assignment that a device needs to install it without a network:\n    socle bundle export https://controller:8443/artifacts … --device 3f2a9c --out socle.tar"
    )]
    Export(ExportArgs),
    /// Take a bundle into a site's mirror; everything is verified before anything is placed
    #[command(
        after_help = "Example:\n  socle bundle import /media/stick/socle.tar --into /srv/socle --root 1.root.json\nthen serve /srv/socle with any web server."
    )]
    Import(ImportArgs),
    /// Take a bundle into a controller, which verifies it again
    #[command(
        after_help = "Example:\n  socle bundle publish /media/stick/socle.tar --controller https://controller.site:8443 --ca ca.pem --token-file token"
    )]
    Publish(PublishArgs),
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Export.
    #[error("exporting a bundle")]
    Export(#[from] ExportError),
    /// Import.
    #[error("importing a bundle")]
    Import(#[from] ImportError),
    /// The terminal.
    #[error("writing the result")]
    Output(#[from] io::Error),
}

/// Runs `socle bundle …`.
pub fn run(command: &BundleCommand, now: UnixMs, terminal: &Terminal) -> Result<(), BundleError> {
    match command {
        BundleCommand::Export(args) => {
            let exported = export::export(args, now, terminal)?;
            let text = format!(
                "{}: {}; {} objects, {} bytes, {} assignments",
                args.out.display(),
                exported.releases.join(", "),
                exported.copied.all,
                exported.copied.bytes,
                exported.assignments.len(),
            );
            Ok(terminal.result(&text, &exported)?)
        }
        BundleCommand::Import(args) => {
            let imported = import::import(args, now, terminal)?;
            let place = args.into.display().to_string();
            Ok(terminal.result(&told(&imported, &place), &imported)?)
        }
        BundleCommand::Publish(args) => {
            let imported = import::publish(args, now, terminal)?;
            Ok(terminal.result(&told(&imported, &args.controller.controller), &imported)?)
        }
    }
}

fn told(imported: &Imported, place: &str) -> String {
    format!(
        "{place}: {}; {} of {} objects moved, {} bytes, {} assignments",
        imported.releases.join(", "),
        imported.copied.objects,
        imported.copied.all,
        imported.copied.bytes,
        imported.assignments,
    )
}
