//! What a document's parts must be beside their types, and which paths a delegated role speaks for.

use std::collections::BTreeSet;

use crate::{
    digest::Digest,
    tuf::metadata::{DelegatedRole, Meta, Root, Snapshot, TOP_LEVEL, Targets, Timestamp},
};

/// Most entries of a snapshot, and most roles one document may delegate to.
const ENTRIES_MAX: usize = 4096;

/// Why a document must not be used although it is signed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ShapeError {
    /// Versions start at 1.
    #[error("its version is 0")]
    Version,
    /// Nobody would have to sign.
    #[error("role {0} has a threshold of 0")]
    Threshold(String),
    /// A key id twice in one role.
    #[error("role {0} names a key id twice")]
    KeyTwice(String),
    /// Not the name of a delegated role.
    #[error(
        "`{0}` cannot be a delegated role: names are 1 to 64 of a-z 0-9 . _ -, do not begin with a dot, and are none of the four top-level roles"
    )]
    Name(String),
    /// A role twice in one document.
    #[error("it delegates to {0} twice")]
    RoleTwice(String),
    /// Both or neither of the two ways to say which paths.
    #[error("role {0} must have either paths or path_hash_prefixes")]
    Paths(String),
    /// A pattern that implementations read in different ways.
    #[error(
        "role {role} has the path pattern `{pattern}`; only * and ? are understood beside plain text"
    )]
    Pattern {
        /// Role.
        role: String,
        /// Pattern.
        pattern: String,
    },
    /// Delegations of a kind that we do not read.
    #[error("it delegates by succinct_roles, which this version does not read")]
    Succinct,
    /// More entries than we take.
    #[error("it has {0} entries; at most {ENTRIES_MAX} are read")]
    TooMany(usize),
    /// A timestamp that lists more than the snapshot.
    #[error("it lists {0}; a timestamp lists snapshot.json and nothing else")]
    Timestamp(String),
    /// An entry that says nothing.
    #[error("its entry {0} has version 0 or an empty list of hashes")]
    Entry(String),
}

/// A document whose parts can be checked.
pub trait Shape {
    /// Its version.
    fn version(&self) -> u64;

    /// When it expires, as written.
    fn expires(&self) -> &str;

    /// Holds if its parts fit together, beside the version.
    fn parts(&self) -> Result<(), ShapeError>;

    /// Holds if its parts fit together.
    fn check(&self) -> Result<(), ShapeError> {
        if self.version() == 0 { Err(ShapeError::Version) } else { self.parts() }
    }
}

impl Shape for Root {
    fn version(&self) -> u64 {
        self.version
    }

    fn expires(&self) -> &str {
        &self.expires
    }

    fn parts(&self) -> Result<(), ShapeError> {
        self.roles.iter().try_for_each(|(name, role)| signers(name, role.threshold, &role.keyids))
    }
}

impl Shape for Timestamp {
    fn version(&self) -> u64 {
        self.version
    }

    fn expires(&self) -> &str {
        &self.expires
    }

    fn parts(&self) -> Result<(), ShapeError> {
        let mut others = self.meta.keys().filter(|name| *name != "snapshot.json");
        if let Some(other) = others.next() {
            return Err(ShapeError::Timestamp(other.chars().take(80).collect()));
        }
        self.meta.iter().try_for_each(|(name, meta)| entry(name, meta))
    }
}

impl Shape for Snapshot {
    fn version(&self) -> u64 {
        self.version
    }

    fn expires(&self) -> &str {
        &self.expires
    }

    fn parts(&self) -> Result<(), ShapeError> {
        if self.meta.len() > ENTRIES_MAX {
            return Err(ShapeError::TooMany(self.meta.len()));
        }
        self.meta.iter().try_for_each(|(name, meta)| entry(name, meta))
    }
}

impl Shape for Targets {
    fn version(&self) -> u64 {
        self.version
    }

    fn expires(&self) -> &str {
        &self.expires
    }

    fn parts(&self) -> Result<(), ShapeError> {
        let Some(delegations) = &self.delegations else { return Ok(()) };
        if delegations.other.contains_key("succinct_roles") {
            return Err(ShapeError::Succinct);
        }
        if delegations.roles.len() > ENTRIES_MAX {
            return Err(ShapeError::TooMany(delegations.roles.len()));
        }
        let mut names = BTreeSet::new();
        for role in &delegations.roles {
            delegated(role)?;
            if !names.insert(role.name.as_str()) {
                return Err(ShapeError::RoleTwice(role.name.clone()));
            }
        }
        Ok(())
    }
}

impl DelegatedRole {
    /// Whether it speaks for `path`.
    pub fn speaks_for(&self, path: &str) -> bool {
        if let Some(patterns) = &self.paths {
            return patterns.iter().any(|pattern| matches(pattern, path));
        }
        let hash = Digest::of(path.as_bytes()).to_string();
        let prefixes = self.path_hash_prefixes.as_deref().unwrap_or_default();
        prefixes.iter().any(|prefix| hash.starts_with(prefix.as_str()))
    }
}

/// Whether `name` can be a delegated role's. Such a name is safe in a file name and in an address.
pub fn is_role_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    (1..=64).contains(&name.len())
        && name.bytes().all(fits)
        && !name.starts_with('.')
        && !TOP_LEVEL.contains(&name)
}

/// Whether `pattern` matches `path`, segment by segment: `*` is any text and `?` one character, neither a `/`.
pub fn matches(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut segments) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), segments.next()) {
            (None, None) => return true,
            (Some(pattern), Some(segment)) if glob(pattern, segment) => {}
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}

/// One segment. Greedy, going back to the last `*` only, so it takes pattern × text steps at most.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || Some(c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

fn delegated(role: &DelegatedRole) -> Result<(), ShapeError> {
    if !is_role_name(&role.name) {
        return Err(ShapeError::Name(role.name.chars().take(80).collect()));
    }
    signers(&role.name, role.threshold, &role.keyids)?;
    if role.paths.is_some() == role.path_hash_prefixes.is_some() {
        return Err(ShapeError::Paths(role.name.clone()));
    }
    let strange = |pattern: &&String| pattern.contains(['[', ']', '{', '}', '\\']);
    match role.paths.iter().flatten().find(strange) {
        Some(pattern) => Err(ShapeError::Pattern {
            role: role.name.clone(),
            pattern: pattern.chars().take(120).collect(),
        }),
        None => Ok(()),
    }
}

fn signers(name: &str, threshold: u32, keyids: &[String]) -> Result<(), ShapeError> {
    let shown = || name.chars().take(80).collect();
    if threshold == 0 {
        return Err(ShapeError::Threshold(shown()));
    }
    let distinct: BTreeSet<&String> = keyids.iter().collect();
    if distinct.len() == keyids.len() { Ok(()) } else { Err(ShapeError::KeyTwice(shown())) }
}

fn entry(name: &str, meta: &Meta) -> Result<(), ShapeError> {
    let empty = meta.hashes.as_ref().is_some_and(|hashes| hashes.is_empty());
    if meta.version == 0 || empty {
        Err(ShapeError::Entry(name.chars().take(80).collect()))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stay_within_their_segment() {
        for (pattern, path, expected) in [
            ("env/prod/*", "env/prod/2027.1.json", true),
            ("env/prod/*", "env/prod/", true),
            ("env/prod/*", "env/prod", false),
            ("env/prod/*", "env/prod/a/b", false),
            ("env/*", "env/prod/x", false),
            ("env/*/*", "env/prod/x", true),
            ("*", "a", true),
            ("*", "a/b", false),
            ("agent/socle-agent-?.?", "agent/socle-agent-1.2", true),
            ("agent/socle-agent-?.?", "agent/socle-agent-1.22", false),
            ("m/*a*b", "m/xxaxxbxab", true),
            ("m/*a*b", "m/xxaxxbxa", false),
            ("m/**", "m/abc", true),
            ("m/?", "m//", false),
            ("", "", true),
            ("é*", "été", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn a_pattern_of_stars_ends_soon() {
        let (pattern, text) = ("*a".repeat(500), "a".repeat(20_000));
        assert!(matches(&pattern, &text));
        assert!(!matches(&format!("{pattern}b"), &text));
    }

    #[test]
    fn role_names_are_file_names() {
        for good in ["vendor", "env-prod", "team_1.b", "0"] {
            assert!(is_role_name(good), "{good}");
        }
        for bad in ["", ".", "..", "../x", ".x", "a/b", "A", "root", "targets", "snapshot", "é"] {
            assert!(!is_role_name(bad), "{bad}");
        }
        assert!(!is_role_name("timestamp") && !is_role_name(&"x".repeat(65)));
    }
}
