//! ntsim

pub mod registry;
