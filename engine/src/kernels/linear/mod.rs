//! Products of rows with a matrix of weights that is packed once.
//!
//! # Layout
//! - [`block`]: weights of 8 or 4 bits in blocks with input quantized the same way, the house's format
//! - [`affine`]: the int8 of ONNX, one scale and zero point a tensor or a column; [`float`]: f32
//! - [`packed`], [`panels`]: how weights lie in memory; [`epilogue`]: what is done to a product before it is stored
//! - [`tile`]: the innermost products by form: [`portable`], `avx2`, `avx512`; `raw`: what the last two follow

pub mod affine;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod block;
pub mod epilogue;
pub mod float;
pub mod packed;
pub mod panels;
pub mod portable;
#[cfg(target_arch = "x86_64")]
mod raw;
pub mod tile;
