//! The rules of the tree that a machine can hold. Each rule has its own file and two kinds of
//! test: that the tree holds to it, and that a seeded violation is caught.
//!
//! # Layout
//! `tree` is the files of the checkout, read once by each rule; `rust` blanks out comments, strings
//! and test modules so that rules look at code alone. All else is one rule a file, from
//! `fn violations(&Tree) -> Vec<String>`.

#[path = "tidy/arrows.rs"]
mod arrows;
#[path = "tidy/attacks.rs"]
mod attacks;
#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/declarations.rs"]
mod declarations;
#[path = "tidy/dependencies.rs"]
mod dependencies;
#[path = "tidy/leftovers.rs"]
mod leftovers;
#[path = "tidy/links.rs"]
mod links;
#[path = "tidy/manifests.rs"]
mod manifests;
#[path = "tidy/own_paths.rs"]
mod own_paths;
#[path = "tidy/rust.rs"]
mod rust;
#[path = "tidy/safety.rs"]
mod safety;
#[path = "tidy/shaders.rs"]
mod shaders;
#[path = "tidy/sizes.rs"]
mod sizes;
#[path = "tidy/tree.rs"]
mod tree;
