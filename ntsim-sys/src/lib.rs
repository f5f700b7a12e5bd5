// SPDX-License-Identifier: MIT OR Apache-2.0

//! The binary interface of the NT kernel and KMDF 1.33 as Rust types, for any 64-bit host.
//!
//! This crate is to a host what `wdk-sys` is to Windows: the same names with the same shapes,
//! made by the same tool (bindgen) from the headers in `openwdk/include`. Types and constants
//! are at the root, functions in [`ntddk`]. Code that is generic over the two writes
//! `use sys::…` and lets `sys` be one crate or the other.
//!
//! What is *not* the same:
//!
//! - The data model is that of Windows on every host ([`ctypes`]): `ULONG` is `u32` and
//!   `wchar_t` is `u16` on Linux too.
//! - Functions and function pointers have the ABI `"C-unwind"`, where `wdk-sys` has `"C"`. A
//!   panic in a driver that is linked into a host program must unwind through the frames of
//!   the simulated kernel to be reported as a bug check; out of `"C"` it would abort the process.
//!   Give callbacks the type of the binding and not a spelled-out `extern "C" fn`.
//! - There is no `call_unsafe_wdf_function_binding!`; call through [`WdfFunctions`] and
//!   [`_WDFFUNCENUM`].
//! - Nothing is linked here. The declared functions are defined by `ntsim`.
//!
//! The three `bindings.rs` files are generated (`cargo xtask codegen`) and committed, so that
//! building needs no clang.

#![no_std]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("ntsim-sys describes 64-bit Windows and needs a 64-bit host");

pub use crate::{constants::*, types::*};

mod constants;
pub mod ctypes;
pub mod ntddk;
mod types;
pub mod wdf;

/// Tells whether `nt_status` is a success or an informational value.
///
/// True for `STATUS_TIMEOUT`, `STATUS_ALERTED` and `STATUS_USER_APC` as well.
#[must_use]
#[allow(non_snake_case, reason = "the name in ntdef.h and wdk-sys")]
pub const fn NT_SUCCESS(nt_status: NTSTATUS) -> bool {
    nt_status >= 0
}

/// Tells whether `nt_status` is an informational value (0x40000000 to 0x7FFFFFFF).
#[must_use]
#[allow(non_snake_case, reason = "the name in ntdef.h and wdk-sys")]
pub const fn NT_INFORMATION(nt_status: NTSTATUS) -> bool {
    nt_status.cast_unsigned() >> 30 == 1
}

/// Tells whether `nt_status` is a warning (0x80000000 to 0xBFFFFFFF).
#[must_use]
#[allow(non_snake_case, reason = "the name in ntdef.h and wdk-sys")]
pub const fn NT_WARNING(nt_status: NTSTATUS) -> bool {
    nt_status.cast_unsigned() >> 30 == 2
}

/// Tells whether `nt_status` is an error (0xC0000000 to 0xFFFFFFFF).
#[must_use]
#[allow(non_snake_case, reason = "the name in ntdef.h and wdk-sys")]
pub const fn NT_ERROR(nt_status: NTSTATUS) -> bool {
    nt_status.cast_unsigned() >> 30 == 3
}

/// Asserts, in debug builds, that the IRQL permits paging.
#[macro_export]
macro_rules! PAGED_CODE {
    () => {
        // SAFETY: `KeGetCurrentIrql` may be called at any IRQL and has no other requirement.
        debug_assert!(unsafe { $crate::ntddk::KeGetCurrentIrql() <= $crate::APC_LEVEL as u8 });
    };
}
