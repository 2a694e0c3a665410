//! Update histories on a modelled disk, everything that can go wrong with it, and what must hold then.

pub(crate) mod enumerate;
pub(crate) mod histories;
pub(crate) mod judge;
pub(crate) mod machine;
