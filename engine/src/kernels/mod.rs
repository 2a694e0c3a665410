//! The arithmetic of a transformer encoder on the CPU: pure functions of slices, without I/O and without tract.
//!
//! Every kernel has a portable form and, on x86-64, forms for AVX2 and for AVX-512 with VNNI. **All forms give the
//! same bits**: sums have one order, products are fused by the same rule, and functions such as GELU are polynomials
//! written once. A golden answer made on one machine therefore holds on every other one.
//!
//! Lengths that do not fit together are a fault of the caller and stop it ([`assert!`]); what comes from a file
//! (weights, ids) is refused with an error. A number that is not finite is never hidden: what depends on it is not
//! finite either, so that one check of the result is enough.
//!
//! # Layout
//! - [`isa`]: which form a machine can run, and how one body is compiled for each; [`threads`]: how one call is split
//! - [`aligned`], [`scratch`]: memory; [`elementary`]: exp, erf and tanh of one number; [`lanes`]: sums along a row
//! - [`linear`]: products with weights that are packed once; [`quantize`]: what they do to their input first
//! - [`peak`]: what the machine does at most, to measure kernels by
//! - [`attention`], [`attention_ragged`], [`attention_words`], [`layer_norm`], [`softmax`], [`gelu`], [`embedding`], [`pooling`]: the rest of an encoder

pub mod aligned;
pub mod attention;
mod attention_codes;
pub mod attention_ragged;
pub mod attention_words;
#[cfg(target_arch = "x86_64")]
mod attention_words_avx512;
pub mod elementary;
pub mod embedding;
pub mod gelu;
pub mod isa;
pub mod lanes;
pub mod layer_norm;
pub mod linear;
pub mod peak;
pub mod pooling;
pub mod quantize;
pub mod scratch;
pub mod softmax;
pub mod threads;
