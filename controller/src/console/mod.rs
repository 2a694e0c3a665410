//! The web console's first page: devices, the rollout, live events. Rendered here, works without a script, in French
//! and English, and loads nothing from anywhere else.
//!
//! # Layout
//! [`words`] (what it says, in each language) → [`html`] (escaping) → [`page`] (facts to text; pure) → [`pages`]
//! (requests)

pub mod html;
pub mod page;
pub mod pages;
pub mod words;
