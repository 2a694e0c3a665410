//! Who may say what: paths, order, environments, endorsements.

use fleet_tests::attacks::scene::Scene;
use protocol::{digest::Digest, tuf::verify::newer_than};
use serde_json::json;

use crate::repository::{
    AGENT, MODEL, NOW, PATH, delegated, files, first, good, look, manifest, pinned, refused, role,
};

/// A repository in which only what `build` adds may list the release.
fn scene(build: impl FnOnce(&mut Scene)) -> Scene {
    let mut scene = Scene::plain(NOW).unwrap();
    build(&mut scene);
    scene
}

fn add(scene: &mut Scene, name: &str, paths: &[&str]) {
    let delegation = role(scene, name, paths);
    scene.add_role(delegation, &[]).unwrap();
}

#[test]
fn a_delegation_outside_its_path() {
    let scene = scene(|scene| {
        add(scene, "dev", &["env/dev/*"]);
        scene.list_file("dev", PATH, &manifest());
    });
    refused(&first(&scene), "is not listed");
}

#[test]
fn a_delegation_outside_its_hash_prefixes() {
    let of_path = Digest::of(PATH.as_bytes()).to_string();
    let other = if of_path.starts_with('0') { "1" } else { "0" };
    for (prefix, listed) in [(&of_path[..3], true), (other, false)] {
        let scene = scene(|scene| {
            let mut bin = role(scene, "bin", &[]);
            bin.prefixes = Some(vec![prefix.to_owned()]);
            scene.add_role(bin, &[]).unwrap();
            scene.list_file("bin", PATH, &manifest());
        });
        assert_eq!(first(&scene).is_ok(), listed, "{prefix}");
    }
}

#[test]
fn a_pattern_that_would_cross_folders() {
    for pattern in ["env/*", "*", "env/prod*", "**", "env/?rod/2027.1.1.jso"] {
        let scene = scene(|scene| {
            add(scene, "wide", &[pattern]);
            scene.list_file("wide", PATH, &manifest());
        });
        refused(&first(&scene), "is not listed");
    }
}

#[test]
fn a_pattern_that_clients_read_in_different_ways() {
    for pattern in ["env/[pq]rod/*", "env/{prod,dev}/*", "env/prod/\\*"] {
        let scene = scene(|scene| {
            add(scene, "odd", &[pattern]);
            scene.list_file("odd", PATH, &manifest());
        });
        refused(&first(&scene), "only * and ? are understood");
    }
}

#[test]
fn a_terminating_delegation_hides_what_follows() {
    let scene = scene(|scene| {
        let mut stop = role(scene, "stop", &["env/prod/*"]);
        stop.terminating = true;
        scene.add_role(stop, &[]).unwrap();
        add(scene, "later", &["env/prod/*"]);
        scene.list_file("later", PATH, &manifest());
    });
    refused(&first(&scene), "is not listed");
}

#[test]
fn a_less_trusted_role_cannot_replace_an_entry() {
    let scene = scene(|scene| {
        add(scene, "first", &["env/prod/*"]);
        scene.list_file("first", PATH, b"another release");
        add(scene, "second", &["env/prod/*"]);
        scene.list_file("second", PATH, &manifest());
    });
    refused(&first(&scene), "is not listed");
}

#[test]
fn an_unknown_role() {
    let mut scene = delegated();
    scene.last.roles.get_mut("prod").unwrap().unlisted = true;
    refused(&first(&scene), "snapshot metadata does not list prod");
    scene.last.roles.get_mut("prod").unwrap().unlisted = false;
    scene.last.roles.get_mut("prod").unwrap().missing = true;
    refused(&first(&scene), "prod metadata is needed and was not offered");
}

#[test]
fn a_role_named_like_a_top_level_one_or_like_a_path() {
    for name in ["root", "snapshot", "timestamp", "targets", "../up", "a/b", ".hidden", "UP", ""] {
        let scene = scene(|scene| {
            let delegation = role(scene, name, &["env/prod/*"]);
            scene.delegations.push(delegation);
            scene.delegate().unwrap();
        });
        refused(&first(&scene), "cannot be a delegated role");
    }
}

#[test]
fn a_circle_of_delegations_ends() {
    let scene = scene(|scene| {
        add(scene, "one", &["env/prod/*"]);
        let mut two = role(scene, "two", &["env/prod/*"]);
        two.from = "one".to_owned();
        scene.add_role(two, &[]).unwrap();
        let mut back = scene.delegations[0].clone();
        back.from = "two".to_owned();
        scene.delegations.push(back);
        scene.delegate().unwrap();
    });
    refused(&first(&scene), "is not listed");
}

#[test]
fn a_hundred_delegated_roles() {
    let scene = scene(|scene| {
        for number in 0..100 {
            let delegation = role(scene, &format!("role{number}"), &["env/prod/*"]);
            scene.delegations.push(delegation);
        }
        scene.delegate().unwrap();
        for number in 0..100 {
            let name = format!("role{number}");
            let doc = scene.last.roles["targets"].clone();
            let mut doc = fleet_tests::attacks::draft::Doc::new(doc.signed, &[]);
            doc.unset("delegations");
            scene.last.roles.insert(name, doc);
        }
        scene.delegate().unwrap();
    });
    refused(&first(&scene), "at most 32 are");
}

#[test]
fn wrong_environment() {
    let mut scene = scene(|scene| {
        add(scene, "dev", &["env/dev/*"]);
        add(scene, "prod", &["env/prod/*"]);
        scene.list_file("dev", "env/dev/2027.1.1.json", &manifest());
    });
    let answer = |scene: &Scene, environment: &str| {
        let environment = environment.parse().unwrap();
        let trusted = pinned(scene);
        fleet_tests::attacks::ours::release(&trusted, &files(scene), &manifest(), &environment, NOW)
    };
    assert!(answer(&scene, "dev").is_ok());
    refused(&answer(&scene, "prod"), "not signed for this environment");
    // What dev signs at prod's path is not theirs to sign.
    scene.list_file("dev", PATH, &manifest());
    refused(&answer(&scene, "prod"), "not signed for this environment");
    // Promotion: prod signs the same digest.
    scene.list_file("prod", PATH, &manifest());
    assert!(answer(&scene, "prod").is_ok());
}

#[test]
fn path_traversal_in_target_names() {
    for path in [
        "env/prod/../prod/2027.1.1.json",
        "/env/prod/2027.1.1.json",
        "env/prod//2027.1.1.json",
        "./env/prod/2027.1.1.json",
        "env/prod/2027.1.1.json/",
        "env\\prod\\2027.1.1.json",
        "ENV/prod/2027.1.1.json",
        "env/prod/2027.1.1.json\0",
    ] {
        let scene = scene(|scene| scene.list_file("targets", path, &manifest()));
        refused(&first(&scene), "is not listed");
    }
}

#[test]
fn a_path_in_a_manifest_that_leaves_its_slot() {
    for path in
        ["../outside", "/etc/passwd", "models/../../x", "models/a/..", "bin/other", "models/a/.b"]
    {
        let text = String::from_utf8(manifest()).unwrap();
        let bent = text.replace("models/faq/model.onnx", path).into_bytes();
        let scene = scene(|scene| scene.list_file("targets", PATH, &bent));
        let prod = "prod".parse().unwrap();
        let trusted = pinned(&scene);
        let answer =
            fleet_tests::attacks::ours::release(&trusted, &files(&scene), &bent, &prod, NOW);
        refused(&answer, "not a path a release may fill");
    }
}

#[test]
fn an_agent_that_its_maker_did_not_endorse() {
    let mut scene = good();
    add(&mut scene, "vendor", &["agent/*"]);
    refused(&first(&scene), "is not endorsed");
    scene.list_file("vendor", AGENT, b"other");
    refused(&first(&scene), "is not endorsed");
    scene.list_file("vendor", AGENT, b"agent");
    assert!(first(&scene).is_ok(), "the vendor's signature is enough");
}

#[test]
fn a_model_that_its_team_did_not_endorse() {
    let mut scene = good();
    add(&mut scene, "support", &["models/support/*"]);
    refused(&first(&scene), "is not endorsed");
    // Another team's word does not count for it.
    add(&mut scene, "legal", &["models/legal/*"]);
    scene.list_file("legal", MODEL, b"model");
    refused(&first(&scene), "is not endorsed");
    scene.list_file("support", MODEL, b"model");
    assert!(first(&scene).is_ok(), "the team's signature is enough");
}

#[test]
fn a_length_that_is_not_the_manifests() {
    let mut scene = good();
    let length = json!(manifest().len() + 1);
    scene.with("targets", |doc| doc.signed["targets"][PATH]["length"] = length);
    refused(&first(&scene), "bytes where");
}

#[test]
fn a_second_digest_that_does_not_hold() {
    let mut scene = good();
    let wrong = json!("00".repeat(64));
    scene.with("targets", |doc| doc.signed["targets"][PATH]["hashes"]["sha512"] = wrong);
    refused(&first(&scene), "is not listed");
}

#[test]
fn a_release_that_is_listed_is_no_newer_for_it() {
    let scene = good();
    let (trusted, release) = first(&scene).unwrap();
    assert!(newer_than(&release, 1).is_err());
    // Looking again changes nothing of what is trusted.
    assert_eq!(look(&trusted, &scene).unwrap().0, trusted);
}
