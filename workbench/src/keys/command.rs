//! `socle keys …`: parsed words to deeds, and what is said about them.

use std::{io, path::PathBuf};

use clap::{Args, Subcommand};
use protocol::{digest::Digest, time::UnixMs, tuf::metadata::Key};
use serde_json::json;

use crate::{
    keys::{
        ceremony::{self, CeremonyError, InitArgs},
        file::{self, KeyFileError, Sealed},
        passphrase::{OpenArgs, PassphraseError, ProtectArgs},
        public::{self, PublicError},
    },
    terminal::{Colour, Terminal},
};

/// `socle keys …`
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make the keys of a new fleet and sign its first root
    #[command(
        after_help = "Examples:\n  socle keys init --out ./keys --online online-keys.json\n  socle keys init --out ./keys --root-key alice.pub.json --root-key bob.pub.json --root-key carol.pub.json\n\nMove each root-*.pem and targets-*.pem to a machine or stick of its own: whoever holds a threshold of them, and\ntheir passphrases, can sign releases. Give each its own passphrase with `socle keys protect`."
    )]
    Init(InitArgs),
    /// Make one key, on the machine of whoever will hold it
    #[command(
        after_help = "Example:\n  socle keys new --out alice.pem\nthen hand alice.pub.json, never alice.pem, to whoever makes the root."
    )]
    New(NewArgs),
    /// Show a key file: its id, and whether it is encrypted
    #[command(after_help = "Example:\n  socle keys show alice.pem")]
    Show(ShowArgs),
    /// Write the public half of a key again, for example when its .pub.json was lost
    #[command(after_help = "Example:\n  socle keys public alice.pem --out alice.pub.json")]
    Public(PublicArgs),
    /// Change the passphrase of a key file
    #[command(
        after_help = "Example:\n  socle keys protect root-2.pem\n\nCopies under the old passphrase stay readable with it: destroy them."
    )]
    Protect(ProtectKeyArgs),
}

/// Arguments of `socle keys new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The key file to make; its public half is written beside it
    #[arg(long)]
    pub out: PathBuf,
    /// How it is protected
    #[command(flatten)]
    pub protect: ProtectArgs,
}

/// Arguments of `socle keys show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A key file, or a .pub.json file
    pub key: PathBuf,
    /// How it is opened
    #[command(flatten)]
    pub open: OpenArgs,
}

/// Arguments of `socle keys public`.
#[derive(Debug, Args)]
pub struct PublicArgs {
    /// The private key file
    pub key: PathBuf,
    /// Where to write the public half; without it, it is printed
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// How it is opened
    #[command(flatten)]
    pub open: OpenArgs,
}

/// Arguments of `socle keys protect`.
#[derive(Debug, Args)]
pub struct ProtectKeyArgs {
    /// The private key file
    pub key: PathBuf,
    /// File whose first line is the old passphrase; without it, it is asked for
    #[arg(long, value_name = "FILE")]
    pub old_passphrase_file: Option<PathBuf>,
    /// How it is protected from now on
    #[command(flatten)]
    pub protect: ProtectArgs,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The ceremony.
    #[error("making the keys of a fleet")]
    Ceremony(#[from] CeremonyError),
    /// A key file.
    #[error("handling a key")]
    Key(#[from] KeyFileError),
    /// A public key.
    #[error("handling a public key")]
    Public(#[from] PublicError),
    /// The passphrase.
    #[error("protecting the key")]
    Passphrase(#[from] PassphraseError),
    /// The terminal.
    #[error("writing the result")]
    Output(#[from] io::Error),
}

/// Runs `socle keys …`.
pub fn run(command: &KeysCommand, now: UnixMs, terminal: &Terminal) -> Result<(), KeysError> {
    match command {
        KeysCommand::Init(args) => init(args, now, terminal),
        KeysCommand::New(args) => {
            warn(&args.protect, terminal)?;
            let key = file::make(&args.out, &args.protect.protection("the new key")?)?;
            let id = public::id(&Key::ed25519(&key.public()))?;
            let public = file::public_path(&args.out);
            let text = format!(
                "Made {}\n  key id  {id}\n  public  {}",
                args.out.display(),
                public.display()
            );
            Ok(terminal
                .result(&text, &json!({ "key": args.out, "public": public, "keyid": id }))?)
        }
        KeysCommand::Show(args) => show(args, terminal),
        KeysCommand::Public(args) => {
            let key = Key::ed25519(&file::read(&args.key, &args.open)?.public());
            let text = public::shown(&key)?;
            match &args.out {
                Some(path) => {
                    public::write_new(path, &key)?;
                    let told = json!({ "public": path, "keyid": public::id(&key)? });
                    Ok(terminal.result(&format!("Wrote {}", path.display()), &told)?)
                }
                None => Ok(terminal
                    .result(text.trim_end(), &json!({ "keyid": public::id(&key)?, "key": key }))?),
            }
        }
        KeysCommand::Protect(args) => {
            warn(&args.protect, terminal)?;
            let open = OpenArgs { passphrase_file: args.old_passphrase_file.clone() };
            let protection = args.protect.protection("the key")?;
            file::protect(&args.key, &open, &protection)?;
            let text = format!(
                "{} has its new passphrase; destroy copies with the old one",
                args.key.display()
            );
            Ok(terminal.result(
                &text,
                &json!({ "key": args.key, "protected": !args.protect.no_passphrase }),
            )?)
        }
    }
}

fn init(args: &InitArgs, now: UnixMs, terminal: &Terminal) -> Result<(), KeysError> {
    warn(&args.protect, terminal)?;
    let made = ceremony::init(args, now)?;
    let pin = Digest::of(&made.root);
    let path = args.out.join("metadata/1.root.json");
    let value = json!({
        "root": path, "root_sha256": pin, "keys": made.keys, "threshold": args.threshold,
        "complete": made.standing.complete(), "standing": made.standing,
    });
    let next = if made.standing.complete() {
        "keep the *.pem files apart and offline; then `socle release build --help`".to_owned()
    } else {
        format!("each keeper signs it: `socle root sign {} --key …`", path.display())
    };
    let text = format!(
        "Made {} private keys in {}\nRoot: {}\n  SHA-256 {pin}\n  {}\nNext: {next}.",
        made.keys.len(),
        args.out.display(),
        path.display(),
        made.standing,
    );
    Ok(terminal.result(&text, &value)?)
}

fn show(args: &ShowArgs, terminal: &Terminal) -> Result<(), KeysError> {
    let public = args.key.extension().is_some_and(|end| end == "json");
    let (key, sealed) = if public {
        (public::read(&args.key)?, None)
    } else {
        let sealed = file::sealed(&args.key)?;
        (Key::ed25519(&file::read(&args.key, &args.open)?.public()), Some(sealed))
    };
    let protection = match sealed {
        None => "public",
        Some(Sealed::Encrypted) => "private, encrypted",
        Some(Sealed::Plain) => "private, NOT encrypted: whoever reads this file can sign",
    };
    let id = public::id(&key)?;
    let text = format!(
        "{}\n  key id  {id}\n  public  {}\n  file    {protection}",
        args.key.display(),
        key.keyval.public
    );
    let value = json!({
        "keyid": id, "public": key.keyval.public,
        "private": sealed.is_some(), "encrypted": sealed == Some(Sealed::Encrypted),
    });
    Ok(terminal.result(&text, &value)?)
}

fn warn(protect: &ProtectArgs, terminal: &Terminal) -> io::Result<()> {
    if protect.no_passphrase {
        terminal.line(&terminal.paint(
            Colour::Yellow,
            "Without a passphrase: whoever reads such a key file can sign. Keep it where nobody does.",
        ))?;
    }
    Ok(())
}
