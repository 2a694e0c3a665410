//! Who signs a role: its keys, and how many of them must.

use std::collections::BTreeMap;

use protocol::tuf::metadata::{Key, Root, Targets};

/// The keys of one role.
#[derive(Clone, Debug, PartialEq)]
pub struct Signers {
    /// The role, or words for it: `root`, `targets`, `env-prod`.
    pub role: String,
    /// Keys by id; only those that the role lists.
    pub keys: BTreeMap<String, Key>,
    /// How many distinct ones must sign.
    pub threshold: u32,
}

/// A role that nobody names.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoSuchRole {
    /// The root does not.
    #[error("the root names no role `{0}`")]
    Root(String),
    /// The targets metadata does not.
    #[error(
        "the metadata delegates no role `{0}`; name the document that does with --parent, or add it with `socle repo delegate add`"
    )]
    Delegation(String),
}

impl Signers {
    /// The signers of a top-level role.
    pub fn of_root(root: &Root, role: &str) -> Result<Self, NoSuchRole> {
        let named = root.roles.get(role).ok_or_else(|| NoSuchRole::Root(role.to_owned()))?;
        Ok(Self {
            role: role.to_owned(),
            keys: listed(&root.keys, &named.keyids),
            threshold: named.threshold,
        })
    }

    /// The signers of a role that `parent` delegates to.
    pub fn of_delegation(parent: &Targets, role: &str) -> Result<Self, NoSuchRole> {
        let none = || NoSuchRole::Delegation(role.to_owned());
        let delegations = parent.delegations.as_ref().ok_or_else(none)?;
        let named = delegations.roles.iter().find(|other| other.name == role).ok_or_else(none)?;
        Ok(Self {
            role: role.to_owned(),
            keys: listed(&delegations.keys, &named.keyids),
            threshold: named.threshold,
        })
    }
}

fn listed(keys: &BTreeMap<String, Key>, ids: &[String]) -> BTreeMap<String, Key> {
    ids.iter().filter_map(|id| Some((id.clone(), keys.get(id)?.clone()))).collect()
}
