//! Who may say what: path patterns, order, ends and circles of delegations.

use protocol::digest::Digest;
use serde_json::{Value, json};

use crate::attacks::{draft::DraftError, kinds::kind::Kind, scene::Scene};

/// All of them.
pub const KINDS: [Kind; 19] = [
    Kind { name: "delegated-outside-its-paths", make: outside },
    Kind { name: "two-roles-one-path", make: two_roles },
    Kind { name: "terminating-hides-the-next", make: terminating },
    Kind { name: "terminating-below-another", make: terminating_below },
    Kind { name: "delegation-circle", make: circle },
    Kind { name: "delegation-chain", make: chain },
    Kind { name: "forty-delegations", make: forty },
    Kind { name: "role-not-in-snapshot", make: not_in_snapshot },
    Kind { name: "role-not-there", make: not_there },
    Kind { name: "role-broken-but-not-asked", make: broken_not_asked },
    Kind { name: "role-name-twice", make: name_twice },
    Kind { name: "role-name-form", make: name_form },
    Kind { name: "role-named-as-top-level", make: top_level_name },
    Kind { name: "pattern-form", make: pattern_form },
    Kind { name: "pattern-across-folders", make: across_folders },
    Kind { name: "hash-prefixes", make: hash_prefixes },
    Kind { name: "hash-prefix-lies", make: hash_prefix_lies },
    Kind { name: "paths-and-prefixes", make: paths_and_prefixes },
    Kind { name: "target-path-form", make: target_path_form },
];

fn outside(scene: &mut Scene) -> Result<(), DraftError> {
    let delegation = scene.delegation("narrow", &["env/dev/*"]);
    scene.add_role(delegation, &["env/dev/in.json", "env/prod/out.json", "agent/out"])
}

fn two_roles(scene: &mut Scene) -> Result<(), DraftError> {
    let path = "env/prod/both.json";
    for name in ["first", "second"] {
        let delegation = scene.delegation(name, &["env/prod/*"]);
        scene.add_role(delegation, &[path])?;
    }
    Ok(())
}

fn terminating(scene: &mut Scene) -> Result<(), DraftError> {
    let mut stop = scene.delegation("stop", &["env/qa/*"]);
    stop.terminating = true;
    scene.add_role(stop, &["env/qa/here.json"])?;
    let next = scene.delegation("next", &["env/qa/*"]);
    scene.add_role(next, &["env/qa/hidden.json"])
}

fn terminating_below(scene: &mut Scene) -> Result<(), DraftError> {
    let above = scene.delegation("above", &["env/qa/*"]);
    scene.add_role(above, &[])?;
    let mut below = scene.delegation("below", &["env/qa/*"]);
    below.from = "above".to_owned();
    below.terminating = true;
    scene.add_role(below, &["env/qa/here.json"])?;
    let next = scene.delegation("next", &["env/qa/*"]);
    scene.add_role(next, &["env/qa/hidden.json"])
}

fn circle(scene: &mut Scene) -> Result<(), DraftError> {
    let one = scene.delegation("one", &["env/qa/*"]);
    scene.add_role(one.clone(), &["env/qa/one.json"])?;
    let mut two = scene.delegation("two", &["env/qa/*"]);
    two.from = "one".to_owned();
    scene.add_role(two, &["env/qa/two.json"])?;
    let mut back = one;
    back.from = "two".to_owned();
    scene.delegations.push(back);
    scene.paths.insert("env/qa/three.json".to_owned());
    scene.delegate()
}

fn chain(scene: &mut Scene) -> Result<(), DraftError> {
    let depth = scene.random.u64(2..12);
    let mut from = "targets".to_owned();
    for number in 0..depth {
        let mut link = scene.delegation(&format!("link{number}"), &["deep/*"]);
        link.from = std::mem::replace(&mut from, link.name.clone());
        let path = format!("deep/{number}.json");
        scene.add_role(link, &[&path])?;
    }
    Ok(())
}

fn forty(scene: &mut Scene) -> Result<(), DraftError> {
    for number in 0..40 {
        let role = scene.delegation(&format!("role{number}"), &["many/*"]);
        let path = format!("many/{number}.json");
        scene.add_role(role, &[&path])?;
    }
    Ok(())
}

fn not_in_snapshot(scene: &mut Scene) -> Result<(), DraftError> {
    let delegation = scene.delegation("lost", &["lost/*"]);
    scene.add_role(delegation, &["lost/a.json"])?;
    scene.with("lost", |doc| doc.unlisted = true);
    Ok(())
}

fn not_there(scene: &mut Scene) -> Result<(), DraftError> {
    let delegation = scene.delegation("lost", &["lost/*"]);
    scene.add_role(delegation, &["lost/a.json"])?;
    scene.with("lost", |doc| doc.missing = true);
    Ok(())
}

fn broken_not_asked(scene: &mut Scene) -> Result<(), DraftError> {
    let delegation = scene.delegation("broken", &["broken/*"]);
    scene.add_role(delegation, &["broken/a.json"])?;
    scene.with("broken", |doc| doc.signers.clear());
    Ok(())
}

fn name_twice(scene: &mut Scene) -> Result<(), DraftError> {
    let one = scene.delegation("twice", &["env/qa/*"]);
    scene.add_role(one.clone(), &["env/qa/a.json", "agent/x"])?;
    let mut again = one;
    again.paths = vec!["agent/*".to_owned()];
    scene.delegations.push(again);
    scene.delegate()
}

fn name_form(scene: &mut Scene) -> Result<(), DraftError> {
    let names =
        ["Upper", "with space", "a/b", "..", "a.b", "é", "x%2fy", "1.x", "trailing.json", "~a"];
    let name = scene.one_of(&names, "Upper");
    let delegation = scene.delegation(name, &["named/*"]);
    scene.add_role(delegation, &["named/a.json"])
}

fn top_level_name(scene: &mut Scene) -> Result<(), DraftError> {
    let name = scene.one_of(&["root", "snapshot", "timestamp", "targets"], "root");
    let mut delegation = scene.delegation(name, &["env/qa/*"]);
    delegation.signers = scene.top.targets.clone();
    scene.delegations.push(delegation);
    scene.paths.insert("env/qa/a.json".to_owned());
    scene.delegate()
}

fn pattern_form(scene: &mut Scene) -> Result<(), DraftError> {
    let patterns = [
        "env/[pq]rod/*",
        "env/{prod,qa}/*",
        "env/**",
        "**",
        "env/prod/\\*",
        "/env/prod/*",
        "env//prod/*",
        "env/prod/",
        "",
        "ENV/PROD/*",
        "env/prod/a*c.json",
        "env/prod/***.json",
        "env/prod/?",
        "env/prod/[!a]bc.json",
        "env/prod/[",
        "env/*/*",
        "env/prod/.*",
        "env/prod/ét*",
    ];
    let pattern = scene.one_of(&patterns, "");
    let delegation = scene.delegation("odd", &[pattern]);
    let paths = [
        "env/prod/abc.json",
        "env/prod/a",
        "env/prod/*",
        "env/prod/.hidden",
        "env/prod/été.json",
        "env/qrod/x",
        "env/prod/[",
    ];
    scene.add_role(delegation, &paths)
}

fn across_folders(scene: &mut Scene) -> Result<(), DraftError> {
    let delegation = scene.delegation("deep", &["env/*"]);
    scene.add_role(delegation, &["env/a.json", "env/prod/deep.json", "env/prod/x/y.json"])
}

fn hash_prefixes(scene: &mut Scene) -> Result<(), DraftError> {
    let paths = ["bins/a.json", "bins/b.json", "bins/c.json"];
    for (number, path) in paths.into_iter().enumerate() {
        let hash = Digest::of(path.as_bytes()).to_string();
        let length = scene.random.usize(1..9);
        let mut bin = scene.delegation(&format!("bin{number}"), &[]);
        bin.prefixes = Some(vec![hash.get(..length).unwrap_or_default().to_owned()]);
        scene.add_role(bin, &[path])?;
    }
    Ok(())
}

fn hash_prefix_lies(scene: &mut Scene) -> Result<(), DraftError> {
    let forms = ["", "zz", "ABCDEF", "0", "00000000"];
    let form = scene.one_of(&forms, "0");
    let mut bin = scene.delegation("bin", &[]);
    bin.prefixes = Some(vec![form.to_owned()]);
    scene.add_role(bin, &["bins/a.json", "bins/b.json"])
}

fn paths_and_prefixes(scene: &mut Scene) -> Result<(), DraftError> {
    let delegation = scene.delegation("both", &["both/*"]);
    scene.add_role(delegation, &["both/a.json"])?;
    let neither = scene.random.bool();
    scene.with("targets", |doc| {
        doc.amend(move |signed| {
            let role = signed["delegations"]["roles"]
                .as_array_mut()
                .and_then(|roles| roles.last_mut())
                .and_then(Value::as_object_mut);
            if let Some(role) = role {
                if neither {
                    role.remove("paths");
                } else {
                    role.insert("path_hash_prefixes".to_owned(), json!(["00"]));
                }
            }
        });
    });
    Ok(())
}

fn target_path_form(scene: &mut Scene) -> Result<(), DraftError> {
    let paths = [
        "../outside",
        "/absolute",
        "a/../b",
        "a//b",
        "./a",
        "a/.",
        "",
        "a\u{0}b",
        "a\\b",
        "é.json",
        "e\u{301}.json",
        "%2e%2e/x",
        "line\nbreak",
        "\u{1f600}",
        "\u{7f}",
        "..",
    ];
    let path = scene.one_of(&paths, "é.json");
    scene.list("targets", path);
    Ok(())
}
