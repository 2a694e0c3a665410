//! What a kind of wrong repository is.

use serde_json::Value;

use crate::attacks::{
    draft::{Doc, DraftError},
    scene::Scene,
};

/// One way in which repositories are made.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name in the list of differences.
    pub name: &'static str,
    /// Changes a good repository.
    pub make: fn(&mut Scene) -> Result<(), DraftError>,
}

/// The four documents that every repository has.
pub const TOP: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

impl Scene {
    /// The newest document of a role.
    pub fn doc(&mut self, role: &str) -> Option<&mut Doc> {
        match role {
            "root" => self.last.root(),
            "timestamp" => Some(&mut self.last.timestamp),
            "snapshot" => Some(&mut self.last.snapshot),
            name => self.last.role(name),
        }
    }

    /// Changes the newest document of a role.
    pub fn with(&mut self, role: &str, change: impl FnOnce(&mut Doc)) {
        if !TOP.contains(&role) {
            role.clone_into(&mut self.delegated);
        }
        if let Some(doc) = self.doc(role) {
            change(doc);
        }
    }

    /// A random document: a top-level one, or a delegated one if there is any.
    pub fn any_doc(&mut self) -> String {
        let chosen = self.random.usize(0..5);
        match TOP.get(chosen) {
            Some(role) => (*role).to_owned(),
            None => self.any_delegated().unwrap_or_else(|| "targets".to_owned()),
        }
    }

    /// A second look, with one more root if `role` is the root's, so that what is changed is what is new.
    pub fn next_of(&mut self, role: &str) -> Result<(), DraftError> {
        self.advance();
        if role == "root" { self.rotate(|_, _| {}) } else { Ok(()) }
    }

    /// A random document of a second look.
    pub fn next_doc(&mut self) -> Result<String, DraftError> {
        let role = self.any_doc();
        self.next_of(&role)?;
        Ok(role)
    }

    /// One of these.
    pub fn one_of<T: Clone>(&mut self, all: &[T], otherwise: T) -> T {
        let chosen = self.random.usize(0..all.len().max(1));
        all.get(chosen).cloned().unwrap_or(otherwise)
    }

    /// One of these values.
    pub fn value_of(&mut self, all: &[Value]) -> Value {
        self.one_of(all, Value::Null)
    }
}
