//! The engine beside its peers, each a resident process that is asked in turn.
//!
//! # Layout
//! - [`lengths`]: how long real texts are; [`words`]: texts of a wished length
//! - [`lines`]: what residents are asked; [`resident`]: ours; `peers/bench/resident.py`: the others
//! - [`contender`]: a resident as the benchmark sees it; [`field`]: who takes part
//! - [`course`]: what is measured, in turn; [`stats`], [`tables`]: what came out

pub mod contender;
pub mod course;
pub mod field;
pub mod lengths;
pub mod lines;
pub mod resident;
pub mod stats;
pub mod tables;
pub mod words;
