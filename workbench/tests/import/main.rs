//! Models come in: what is read, what is refused, and that the package computes what the model computed.

mod files;
mod hostile;
mod packages;
mod real;
mod vocabularies;
