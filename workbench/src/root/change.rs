//! What a new root says, given the old one. Pure.

use std::collections::BTreeSet;

use protocol::tuf::metadata::{Key, Role, Root};

use crate::keys::ceremony::KEYS_MAX;

/// Shortest beginning of a key id that names one.
const ID_MIN: usize = 8;
const ROLES: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];

/// What is to be different in the next root.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Keys to add, with their role.
    pub add: Vec<(String, Key)>,
    /// Keys to remove: role and the id or its beginning.
    pub remove: Vec<(String, String)>,
    /// New thresholds by role.
    pub thresholds: Vec<(String, u32)>,
}

/// Why there is no such root.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Not a role.
    #[error("`{0}` is not a role of the root: root, targets, snapshot or timestamp")]
    Role(String),
    /// No such key, or several.
    #[error(
        "role {role} has {found} keys whose id starts with `{id}`; `socle root show` lists them"
    )]
    Key {
        /// The role.
        role: String,
        /// What was given.
        id: String,
        /// How many there are.
        found: usize,
    },
    /// Added although it is there.
    #[error("key {id} is one of {role}'s already")]
    There {
        /// The role.
        role: String,
        /// The key.
        id: String,
    },
    /// A threshold that cannot be met or protects nothing.
    #[error(
        "role {role} would have {keys} keys with a threshold of {threshold}: 1 to {KEYS_MAX} keys, and a threshold from 1 to their number"
    )]
    Count {
        /// The role.
        role: String,
        /// Keys it would have.
        keys: usize,
        /// Its threshold.
        threshold: u32,
    },
    /// The highest version.
    #[error("root version {0} is the last there can be")]
    Version(u64),
    /// A mistake of ours.
    #[error("encoding a key")]
    Json(#[from] serde_json::Error),
}

/// The root that follows `old`.
pub fn next_root(old: &Root, change: &Change, expires: String) -> Result<Root, ChangeError> {
    let mut root = old.clone();
    root.version = old.version.checked_add(1).ok_or(ChangeError::Version(old.version))?;
    root.expires = expires;
    for (role, beginning) in &change.remove {
        let named = role_of(&mut root, role)?;
        let found: Vec<String> =
            named.keyids.iter().filter(|id| id.starts_with(beginning.as_str())).cloned().collect();
        match (found.as_slice(), beginning.len() >= ID_MIN) {
            ([id], true) => named.keyids.retain(|other| other != id),
            ([..], true | false) => {
                let (role, id) = (role.clone(), beginning.clone());
                return Err(ChangeError::Key { role, id, found: found.len() });
            }
        }
    }
    for (role, key) in &change.add {
        let id = key.id()?;
        let named = role_of(&mut root, role)?;
        if named.keyids.contains(&id) {
            return Err(ChangeError::There { role: role.clone(), id });
        }
        named.keyids.push(id.clone());
        root.keys.insert(id, key.clone());
    }
    for &(ref role, threshold) in &change.thresholds {
        role_of(&mut root, role)?.threshold = threshold;
    }
    let used: BTreeSet<&String> = root.roles.values().flat_map(|role| &role.keyids).collect();
    let unused: Vec<String> = root.keys.keys().filter(|id| !used.contains(id)).cloned().collect();
    for id in unused {
        root.keys.remove(&id);
    }
    for (role, Role { keyids, threshold }) in &root.roles {
        let keys = u32::try_from(keyids.len()).unwrap_or(u32::MAX);
        if !(1..=KEYS_MAX).contains(&keys) || !(1..=keys).contains(threshold) {
            let (role, keys, threshold) = (role.clone(), keyids.len(), *threshold);
            return Err(ChangeError::Count { role, keys, threshold });
        }
    }
    Ok(root)
}

fn role_of<'a>(root: &'a mut Root, role: &str) -> Result<&'a mut Role, ChangeError> {
    if !ROLES.contains(&role) {
        return Err(ChangeError::Role(role.to_owned()));
    }
    root.roles.get_mut(role).ok_or_else(|| ChangeError::Role(role.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use protocol::{key::PublicKey, tuf::metadata::SPEC_VERSION};

    fn key(number: u8) -> (String, Key) {
        let key = Key::ed25519(&PublicKey::from_bytes([number; 32]));
        (key.id().unwrap(), key)
    }

    /// Keys 1 to 3 are root's, two of which sign; key 4 signs everything else.
    fn old() -> Root {
        let role = |numbers: &[u8], threshold| Role {
            keyids: numbers.iter().map(|number| key(*number).0).collect(),
            threshold,
        };
        Root {
            kind: "root".into(),
            spec_version: SPEC_VERSION.into(),
            version: 7,
            expires: "2026-01-01T00:00:00Z".into(),
            consistent_snapshot: true,
            keys: (1..=4).map(key).collect(),
            roles: BTreeMap::from([
                ("root".to_owned(), role(&[1, 2, 3], 2)),
                ("targets".to_owned(), role(&[4], 1)),
                ("snapshot".to_owned(), role(&[4], 1)),
                ("timestamp".to_owned(), role(&[4], 1)),
            ]),
            other: BTreeMap::new(),
        }
    }

    #[test]
    fn a_renewed_root_differs_in_version_and_expiry_only() {
        let renewed = next_root(&old(), &Change::default(), "2027-01-01T00:00:00Z".into()).unwrap();
        let expected = Root { version: 8, expires: "2027-01-01T00:00:00Z".into(), ..old() };
        assert_eq!(renewed, expected);
    }

    #[test]
    fn a_key_is_replaced_and_forgotten_when_no_role_has_it() {
        let change = Change {
            add: vec![("root".into(), key(5).1)],
            remove: vec![("root".into(), key(1).0[..ID_MIN].into())],
            thresholds: vec![("root".into(), 3)],
        };
        let root = next_root(&old(), &change, String::new()).unwrap();
        assert_eq!(root.roles["root"].keyids, [key(2).0, key(3).0, key(5).0]);
        assert_eq!(root.roles["root"].threshold, 3);
        assert!(!root.keys.contains_key(&key(1).0) && root.keys.contains_key(&key(5).0));
        // A key that another role still has stays.
        let shared = Change {
            add: vec![("targets".into(), key(6).1)],
            remove: vec![("targets".into(), key(4).0)],
            ..Change::default()
        };
        assert!(next_root(&old(), &shared, String::new()).unwrap().keys.contains_key(&key(4).0));
    }

    #[test]
    fn a_root_that_nobody_or_anybody_could_sign_is_not_made() {
        let removed = |numbers: &[u8]| {
            numbers.iter().map(|number| ("root".to_owned(), key(*number).0)).collect()
        };
        let refused = |change: Change| next_root(&old(), &change, String::new()).unwrap_err();
        let too_few = Change { remove: removed(&[1, 2]), ..Change::default() };
        assert!(matches!(refused(too_few), ChangeError::Count { keys: 1, threshold: 2, .. }));
        let zero = Change { thresholds: vec![("root".into(), 0)], ..Change::default() };
        assert!(matches!(refused(zero), ChangeError::Count { threshold: 0, .. }));
        let short = Change {
            remove: vec![("root".into(), key(1).0[..ID_MIN - 1].into())],
            ..Change::default()
        };
        assert!(matches!(refused(short), ChangeError::Key { found: 1, .. }));
        let unknown = Change { remove: removed(&[9]), ..Change::default() };
        assert!(matches!(refused(unknown), ChangeError::Key { found: 0, .. }));
        let there = Change { add: vec![("root".into(), key(2).1)], ..Change::default() };
        assert!(matches!(refused(there), ChangeError::There { .. }));
        let role = Change { thresholds: vec![("mirrors".into(), 1)], ..Change::default() };
        assert!(matches!(refused(role), ChangeError::Role(_)));
    }
}
