// SPDX-License-Identifier: MIT OR Apache-2.0

//! Nothing: the crate exists for its test, `tests/abi.rs`, which compares the types of `ntsim-sys`,
//! and with them the headers of `openwdk`, with
//!
//! - the data of `openwdk/abi` (every structure, enumeration, constant, function and callback), and
//! - Microsoft's metadata in `windows-sys`, for each type, enumeration value and constant that both have.
//!
//! The third comparison, with mingw-w64's headers, needs clang and is part of `cargo xtask codegen --check`.
