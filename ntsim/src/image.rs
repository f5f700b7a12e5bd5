// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernel images: reading, checking, loading, and explaining their addresses.
//!
//! - [`Image::parse`] checks the bytes of a `.sys` file and says in one sentence
//!   what is wrong with them. It is what an attacker's file meets first, so it
//!   never panics and allocates no more than [`MAX_IMAGE_SIZE`].
//! - [`Loaded::load`] maps an image, relocates it, binds its imports and sets page protections.
//! - [`unwind`] finds the callers of a place in an image.
//! - [`symbols`] names functions and source lines by the image's PDB.
//!
//! # Vocabulary
//!
//! - *RVA*: relative virtual address, the distance from the image's base.
//! - *layout*: the image's bytes at their RVAs, before relocation.

pub mod load;
pub mod parse;
pub mod symbols;
pub mod unwind;

pub use load::{Loaded, Unloaded};
pub use parse::{
    CodeView, Export, Image, ImageError, Import, MAX_IMAGE_SIZE, Problem, RuntimeFunction, Section,
};
