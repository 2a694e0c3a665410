//! The life of a repository, told with the real command line: keys on machines of their own, signatures one by one,
//! delegations, a root that changes, copies, and a bundle on a stick.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on says so by panicking; its files go with it"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(bench.path("passphrase"), "correct horse\n").unwrap();
        bench.agent(7, 300_000);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes an agent whose content does not compress.
    fn agent(&self, seed: u64, bytes: usize) {
        let mut random = fastrand::Rng::with_seed(seed);
        let content: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(bytes).collect();
        fs::write(self.path("agent"), content).unwrap();
    }

    /// Runs `socle --json` in the bench; its answer, or what it said on standard error.
    fn socle(&self, words: &str) -> Result<Value, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_socle"))
            .arg("--json")
            .args(words.split_whitespace())
            .current_dir(self.folder.path())
            .env_remove("SOCLE_PASSPHRASE_FILE")
            .env_remove("SOCLE_TOKEN_FILE")
            .env_remove("SOCLE_CA")
            .output()
            .unwrap();
        if output.status.success() {
            return Ok(serde_json::from_slice(&output.stdout).unwrap_or_default());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn ok(&self, words: &str) -> Value {
        self.socle(words).unwrap_or_else(|said| panic!("socle {words}: {said}"))
    }

    fn refused(&self, words: &str, because: &str) {
        match self.socle(words) {
            Ok(answer) => panic!("socle {words} was not refused: {answer}"),
            Err(said) => assert!(said.contains(because), "socle {words}: {said}"),
        }
    }

    /// A fleet whose keys all lie here, without passphrases, and whose repository is kept by hand.
    fn fleet(&self) {
        self.ok("keys init --out keys --no-passphrase");
    }

    fn release(&self, name: &str, counter: u64, previous: &str) {
        self.ok(&format!(
            "release build --name {name} --counter {counter} --agent agent --out {name} {previous}"
        ));
        self.ok(&format!(
            "release sign --release {name} --root keys/metadata/1.root.json --key keys/targets-1.pem --key keys/targets-3.pem"
        ));
    }

    fn freshen(&self) {
        self.ok("repo snapshot --repo repo --key keys/snapshot.pem");
        self.ok("repo timestamp --repo repo --key keys/timestamp.pem");
    }

    /// A repository with one release, `r1`.
    fn repository(&self) {
        self.fleet();
        self.release("r1", 1, "");
        self.ok("repo add --repo repo --root keys/metadata/1.root.json --release r1");
        self.freshen();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let place = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &place);
        } else {
            fs::copy(&path, place).unwrap();
        }
    }
}

fn flip_last_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn keys_are_encrypted_and_named_by_their_public_halves() {
    let bench = Bench::new();
    for name in ["alice", "bob", "carol"] {
        bench.ok(&format!("keys new --out {name}.pem --passphrase-file passphrase"));
        let text = fs::read_to_string(bench.path(&format!("{name}.pem"))).unwrap();
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{text}");
    }
    bench.refused("keys new --out alice.pem --no-passphrase", "exists already");
    bench.refused("keys new --out dora.pem", "no terminal to ask at");
    let shown = bench.ok("keys show alice.pem --passphrase-file passphrase");
    assert_eq!((&shown["encrypted"], &shown["private"]), (&true.into(), &true.into()));
    assert_eq!(shown["keyid"], bench.ok("keys show alice.pub.json")["keyid"]);
    fs::write(bench.path("wrong"), "battery staple\n").unwrap();
    bench.refused("keys show alice.pem --passphrase-file wrong", "does not open");

    // The root is signed where each key is, and brought together.
    let made = bench.ok(
        "keys init --out fleet --root-key alice.pub.json --root-key bob.pub.json --root-key carol.pub.json --passphrase-file passphrase",
    );
    assert_eq!(made["complete"], false);
    let root = bench.path("fleet/metadata/1.root.json");
    for name in ["alice", "carol"] {
        fs::copy(&root, bench.path(&format!("{name}.root.json"))).unwrap();
        let signed = bench.ok(&format!(
            "root sign {name}.root.json --key {name}.pem --passphrase-file passphrase"
        ));
        assert_eq!(signed["complete"], false, "{name} alone is not enough");
    }
    let merged = bench
        .ok("root merge fleet/metadata/1.root.json --from alice.root.json --from carol.root.json");
    assert_eq!(merged["complete"], true);
    assert_eq!(merged["new"]["missing"].as_array().unwrap().len(), 1);
    bench.refused("root sign fleet/metadata/1.root.json --key fleet/targets-1.pem --passphrase-file passphrase", "signs nothing here");
}

#[test]
fn signatures_of_copies_come_together_unless_the_copies_differ() {
    let bench = Bench::new();
    bench.fleet();
    bench.ok("release build --name r1 --counter 1 --agent agent --out r1");
    for number in [1, 2] {
        let copy = format!("copy-{number}");
        copy_folder(&bench.path("r1"), &bench.path(&copy));
        let signed = bench.ok(&format!(
            "release sign --release {copy} --root keys/metadata/1.root.json --key keys/targets-{number}.pem"
        ));
        assert_eq!(signed["complete"], false);
        assert_eq!(signed["standing"]["signed"].as_array().unwrap().len(), 1);
    }
    let merge = "release merge --release r1 --root keys/metadata/1.root.json";
    let merged = bench.ok(&format!("{merge} --from copy-1 --from copy-2/targets.json"));
    assert_eq!(merged["complete"], true);
    // A copy that says something else.
    let path = bench.path("copy-1/targets.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"version\": 1", "\"version\": 2", 1)).unwrap();
    bench.refused(&format!("{merge} --from copy-1"), "differ in what is signed");
    // A key of another role.
    bench.refused(
        "release sign --release r1 --root keys/metadata/1.root.json --key keys/root-1.pem",
        "signs nothing here",
    );
    // The next release counts on.
    bench.refused(
        "release build --name r2 --counter 1 --agent agent --out r2 --previous r1/targets.json",
        "give --counter 2",
    );
}

#[test]
fn a_repository_is_verified_and_copied_and_what_was_altered_is_named() {
    let bench = Bench::new();
    bench.repository();
    let verify = "repo verify repo --root keys/metadata/1.root.json";
    let found = bench.ok(verify);
    assert_eq!(found["releases"], serde_json::json!(["r1 for prod"]));
    let copied = bench.ok("repo mirror repo --root keys/metadata/1.root.json --to mirror");
    assert_eq!(copied["objects"], copied["all"]);
    bench.ok("repo verify mirror --root keys/metadata/1.root.json");
    // Other clients find the manifest under the name of consistent snapshots.
    let listed = fs::read_dir(bench.path("mirror/targets/env/prod")).unwrap().count();
    assert_eq!(listed, 1);

    // A second release: only what it has more moves.
    bench.agent(8, 200_000);
    bench.release("r2", 2, "--previous r1/targets.json");
    bench.ok("repo add --repo repo --release r2");
    bench.freshen();
    let before = fs::read(bench.path("mirror/metadata/timestamp.json")).unwrap();
    let copied = bench.ok("repo mirror repo --to mirror");
    assert!(copied["objects"].as_u64().unwrap() < copied["all"].as_u64().unwrap(), "{copied}");
    assert_eq!(bench.ok("repo mirror repo --to mirror")["objects"], 0);

    // Going back to what was: the mirror refuses, and stays as it is.
    let newest = fs::read(bench.path("repo/metadata/timestamp.json")).unwrap();
    fs::write(bench.path("repo/metadata/timestamp.json"), before).unwrap();
    bench.refused("repo mirror repo --to mirror", "rollback");
    fs::write(bench.path("repo/metadata/timestamp.json"), newest).unwrap();

    // Another fleet's root.
    let other = Bench::new();
    other.fleet();
    fs::copy(other.path("keys/metadata/1.root.json"), bench.path("other.json")).unwrap();
    bench.refused("repo verify repo --root other.json", "another fleet");

    // One byte of one object.
    let object = fs::read_dir(bench.path("repo/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    flip_last_byte(&object);
    bench.refused(verify, "another content");
    bench
        .refused("repo mirror repo --root keys/metadata/1.root.json --to fresh", "another content");
    assert!(!bench.path("fresh/metadata/timestamp.json").exists(), "no state became visible");
}

#[test]
fn a_delegated_role_endorses_promotes_and_is_taken_back() {
    let bench = Bench::new();
    bench.repository();
    for name in ["vendor", "approver"] {
        bench.ok(&format!("keys new --out {name}.pem --no-passphrase"));
    }
    fs::copy(bench.path("r1/targets.json"), bench.path("targets.json")).unwrap();
    bench.ok("repo delegate add --parent targets.json --role vendor --path agent/* --key vendor.pub.json");
    let added = bench.ok("repo delegate add --parent targets.json --role approvers --path env/prod/* --terminating --key approver.pub.json");
    assert_eq!(added["version"], 2, "a signed document gets its next version, once");
    bench.refused(
        "repo delegate add --parent targets.json --role vendor --path x/* --key vendor.pub.json",
        "trusted already",
    );
    bench.refused(
        "repo delegate add --parent targets.json --role snapshot --path x/* --key vendor.pub.json",
        "not the name",
    );
    let sign_targets = "repo sign targets.json --parent keys/metadata/1.root.json --key keys/targets-1.pem --key keys/targets-2.pem";
    assert_eq!(bench.ok(sign_targets)["complete"], true);
    bench.ok("repo sign vendor.json --parent targets.json --key vendor.pem");
    bench.ok("repo sign approvers.json --parent targets.json --key approver.pem");
    bench.refused(
        "repo sign vendor.json --parent targets.json --key approver.pem",
        "signs nothing here",
    );
    bench.ok("repo add --repo repo --metadata targets.json --metadata vendor.json --metadata approvers.json");
    bench.freshen();
    // Since a vendor is trusted for agents, releases need his word.
    bench.refused("repo verify repo", "not endorsed");
    bench.ok("repo endorse --metadata vendor.json --release r1 --agent");
    bench.ok("repo sign vendor.json --parent targets.json --key vendor.pem");
    bench.ok("repo add --repo repo --metadata vendor.json");
    bench.freshen();
    bench.ok("repo verify repo");

    // Developers' release, promoted to production by the approvers, byte for byte.
    bench.agent(9, 1000);
    bench.ok("release build --name r2 --counter 2 --env dev --agent agent --agent-version 0.2.0 --out r2 --previous targets.json");
    bench.ok("release sign --release r2 --root keys/metadata/1.root.json --key keys/targets-1.pem --key keys/targets-2.pem");
    let manifest = fs::read(bench.path("r2/manifest.json")).unwrap();
    let promoted = bench
        .ok("release promote --release r2 --env prod --role approvers --previous approvers.json");
    assert_eq!(promoted["version"], 2);
    bench
        .ok("release sign --release r2 --role approvers --root r2/targets.json --key approver.pem");
    assert_eq!(fs::read(bench.path("r2/manifest.json")).unwrap(), manifest);
    bench.ok("repo endorse --metadata vendor.json --release r2 --agent");
    bench.ok("repo sign vendor.json --parent targets.json --key vendor.pem");
    bench.ok("repo add --repo repo --release r2 --metadata vendor.json");
    bench.freshen();
    let found = bench.ok("repo verify repo");
    let releases: Vec<&str> =
        found["releases"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(releases, ["r2 for dev", "r1 for prod", "r2 for prod"]);
    let dev = bench.ok("repo verify repo --env dev");
    assert_eq!(dev["releases"].as_array().unwrap().len(), 1);

    // Taken back: what only the approvers said counts no more.
    fs::copy(bench.path("r2/targets.json"), bench.path("targets.json")).unwrap();
    bench.ok("repo delegate remove --parent targets.json --role approvers");
    bench.ok(sign_targets);
    bench.ok("repo add --repo repo --metadata targets.json");
    bench.freshen();
    let found = bench.ok("repo verify repo");
    assert_eq!(found["releases"], serde_json::json!(["r2 for dev", "r1 for prod"]));
}

#[test]
fn a_root_follows_the_one_before_by_both_their_keys() {
    let bench = Bench::new();
    bench.repository();
    bench.ok("keys new --out dora.pem --no-passphrase");
    let old = "keys/metadata/1.root.json";
    let shown = bench.ok(&format!("root show {old}"));
    let lost = shown["root"]["roles"]["root"]["keyids"][0].as_str().unwrap().to_owned();
    bench.refused(&format!("root change --root {old} --threshold root=4"), "threshold of 4");
    let changed = bench.ok(&format!(
        "root change --root {old} --remove root={} --add root=dora.pub.json",
        &lost[..10]
    ));
    assert_eq!(changed["complete"], false);
    let sign = format!("root sign keys/metadata/2.root.json --previous {old} --key");
    // By the lost key's neighbours: enough for the old root, one too few for the new one is not.
    assert_eq!(bench.ok(&format!("{sign} keys/root-2.pem"))["complete"], false);
    let by_new = bench.ok(&format!("{sign} dora.pem"));
    assert_eq!(by_new["complete"], false, "dora is no key of the old root: {by_new}");
    let complete = bench.ok(&format!("{sign} keys/root-3.pem"));
    assert_eq!(complete["complete"], true, "{complete}");
    bench.refused("root sign keys/metadata/2.root.json --key keys/root-2.pem", "--previous");
    bench.ok("repo add --repo repo --root keys/metadata/2.root.json");
    let found = bench.ok(&format!("repo verify repo --root {old}"));
    assert_eq!(found["root_version"], 2);

    // Renewed under the new keys.
    bench.ok("root renew --root keys/metadata/2.root.json --days 700");
    let sign = "root sign keys/metadata/3.root.json --previous keys/metadata/2.root.json";
    let renewed = bench.ok(&format!("{sign} --key dora.pem --key keys/root-3.pem"));
    assert_eq!(renewed["complete"], true);
    bench.ok("repo add --repo repo --root keys/metadata/3.root.json");
    assert_eq!(bench.ok("repo verify repo")["root_version"], 3);
}

#[test]
fn a_bundle_travels_and_nothing_of_a_damaged_one_is_placed() {
    let bench = Bench::new();
    bench.repository();
    bench.agent(5, 100_000);
    bench.release("r2", 2, "--previous r1/targets.json");
    bench.ok("repo add --repo repo --release r2");
    bench.freshen();
    let root = "--root keys/metadata/1.root.json";
    let exported = bench.ok(&format!("bundle export repo {root} --release r2 --out r2.tar"));
    assert_eq!(exported["releases"], serde_json::json!(["r2 for prod"]));
    bench.refused("bundle import r2.tar --into site", "--root");
    let imported = bench.ok(&format!("bundle import r2.tar --into site {root}"));
    assert_eq!(imported["objects"], imported["all"]);
    bench.ok(&format!("repo verify site --release r2 {root}"));
    // All of it, over a folder this time; the site's own root counts now.
    bench.ok(&format!("bundle export repo {root} --out stick"));
    let imported = bench.ok("bundle import stick --into site");
    assert!(imported["objects"].as_u64().unwrap() < imported["all"].as_u64().unwrap());
    bench.ok(&format!("repo verify site {root}"));

    let whole = fs::read(bench.path("r2.tar")).unwrap();
    // Somewhere in each tenth of the file: a bit, and the end. Headers, metadata and objects are all met.
    for tenth in 0..10 {
        let at = whole.len() * tenth / 10 + 600;
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(bench.path("bad.tar"), &flipped).unwrap();
        let into = format!("bad-{tenth}");
        let flip = bench.socle(&format!("bundle import bad.tar --into {into} {root}"));
        // Padding between files carries nothing; everything else must be refused.
        if flip.is_err() {
            assert!(!bench.path(&into).join("metadata").exists(), "{into}: {flip:?}");
        } else {
            bench.ok(&format!("repo verify {into} --release r2 {root}"));
        }
        fs::write(bench.path("bad.tar"), &whole[..at]).unwrap();
        let into = format!("cut-{tenth}");
        assert!(bench.socle(&format!("bundle import bad.tar --into {into} {root}")).is_err());
        assert!(!bench.path(&into).join("metadata").exists());
    }
}

#[test]
fn every_command_says_how_it_is_used() {
    let bench = Bench::new();
    for words in [
        "keys init",
        "keys new",
        "keys show",
        "keys public",
        "keys protect",
        "root show",
        "root renew",
        "root change",
        "root sign",
        "root merge",
        "root publish",
        "release build",
        "release sign",
        "release merge",
        "release promote",
        "release permit",
        "release permit-publish",
        "release publish",
        "repo delegate add",
        "repo delegate remove",
        "repo delegate list",
        "repo endorse",
        "repo sign",
        "repo merge",
        "repo standing",
        "repo verify",
        "repo mirror",
        "repo add",
        "repo snapshot",
        "repo timestamp",
        "bundle export",
        "bundle import",
        "bundle publish",
        "device enrol",
        "device assign",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_socle"))
            .args(words.split_whitespace())
            .arg("--help")
            .current_dir(bench.folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("Example"), "{words}: {text}");
    }
    for shell in ["bash", "fish", "zsh"] {
        let output = Command::new(env!("CARGO_BIN_EXE_socle"))
            .args(["completions", shell])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("delegate") && text.contains("mirror"), "{shell}");
    }
}
