//! What the newest metadata lists, read from the stored documents. Pure. It decides nothing that a device relies on:
//! which files are served under the names of TUF, and for which environments a release is meant.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    digest::Digest,
    id::Environment,
    tuf::{document::Document, metadata::Targets},
};

/// A targets role's stored document: its name and bytes.
pub type RoleBytes = (String, Vec<u8>);

/// All listed files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// Digests by path; roles may disagree, so a path can have several.
    files: BTreeMap<String, BTreeSet<Digest>>,
}

impl Catalogue {
    /// What `roles` list, as far as somebody still delegates to them.
    pub fn of(roles: &[RoleBytes]) -> Self {
        let mut files: BTreeMap<String, BTreeSet<Digest>> = BTreeMap::new();
        let mut waiting = vec!["targets".to_owned()];
        let mut seen = BTreeSet::new();
        while let Some(name) = waiting.pop() {
            let document = roles.iter().find(|(role, _)| *role == name);
            let Some(targets) = document.and_then(|(_, bytes)| content(bytes)) else { continue };
            if !seen.insert(name) {
                continue;
            }
            for (path, target) in targets.targets {
                files.entry(path).or_default().extend(target.sha256());
            }
            let delegated = targets.delegations.into_iter().flat_map(|all| all.roles);
            waiting.extend(delegated.map(|role| role.name));
        }
        Self { files }
    }

    /// The digest in `<directory>/<sha256>.<file>`, a path with its hash as consistent snapshots have it, if the file
    /// is listed with that digest.
    pub fn hashed_path(&self, path: &str) -> Option<Digest> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (digest, file) = name.split_once('.')?;
        let digest: Digest = digest.parse().ok()?;
        let plain =
            if directory.is_empty() { file.to_owned() } else { format!("{directory}/{file}") };
        self.files.get(&plain)?.contains(&digest).then_some(digest)
    }

    /// The environments for which some role lists the release `name` with `digest`.
    pub fn environments(&self, name: &str, digest: Digest) -> BTreeSet<Environment> {
        let file = format!("{name}.json");
        self.files
            .iter()
            .filter(|(_, digests)| digests.contains(&digest))
            .filter_map(|(path, _)| {
                let (environment, rest) = path.strip_prefix("env/")?.split_once('/')?;
                if rest == file { environment.parse().ok() } else { None }
            })
            .collect()
    }

    /// Delegated roles that `roles` name, and for each a path that it speaks for, where one can be made up.
    pub fn delegated(roles: &[RoleBytes]) -> BTreeMap<String, Option<String>> {
        let mut found = BTreeMap::new();
        for targets in roles.iter().filter_map(|(_, bytes)| content(bytes)) {
            for role in targets.delegations.into_iter().flat_map(|all| all.roles) {
                let path = role.paths.iter().flatten().next();
                let path = path.map(|pattern| pattern.replace(['*', '?'], "0"));
                found.insert(role.name, path);
            }
        }
        found
    }
}

/// The content of targets metadata that was, or will be, verified elsewhere.
pub fn content(bytes: &[u8]) -> Option<Targets> {
    let document = Document::parse("targets", bytes).ok()?;
    serde_json::from_value(document.signed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::tuf::metadata::{SPEC_VERSION, Target};

    fn listing(files: &[(&str, &[u8])]) -> Vec<RoleBytes> {
        let targets = Targets {
            kind: "targets".into(),
            spec_version: SPEC_VERSION.into(),
            version: 1,
            expires: "2099-01-01T00:00:00Z".into(),
            targets: files
                .iter()
                .map(|(path, content)| ((*path).to_owned(), Target::of(content)))
                .collect(),
            delegations: None,
            other: BTreeMap::new(),
        };
        let bytes = Document::unsigned(&targets).unwrap().to_bytes().unwrap();
        vec![("targets".to_owned(), bytes)]
    }

    #[test]
    fn a_hashed_path_names_a_listed_file_only() {
        let catalogue = Catalogue::of(&listing(&[("env/prod/r1.json", b"one"), ("top", b"two")]));
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        for (path, expected) in [
            (format!("env/prod/{one}.r1.json"), Some(one)),
            (format!("{two}.top"), Some(two)),
            (format!("env/prod/{two}.r1.json"), None),
            (format!("env/dev/{one}.r1.json"), None),
            (format!("env/prod/../prod/{one}.r1.json"), None),
            ("env/prod/r1.json".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(catalogue.hashed_path(&path), expected, "{path}");
        }
    }

    #[test]
    fn a_release_is_meant_for_where_it_is_listed() {
        let catalogue = Catalogue::of(&listing(&[
            ("env/dev/r1.json", b"one"),
            ("env/prod/r1.json", b"one"),
            ("env/test/r1.json", b"other"),
            ("env/Bad/r1.json", b"one"),
            ("env/a/b/r1.json", b"one"),
        ]));
        let found = catalogue.environments("r1", Digest::of(b"one"));
        let names: Vec<&str> = found.iter().map(Environment::as_str).collect();
        assert_eq!(names, ["dev", "prod"]);
    }
}
