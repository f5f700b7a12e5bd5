// SPDX-License-Identifier: MIT OR Apache-2.0

//! C's types with the widths that they have on Windows, whatever the host.
//!
//! `core::ffi::c_long` is 64 bits wide on Linux; the kernel's is 32.

#![allow(non_camel_case_types, reason = "the names of core::ffi")]

pub use core::ffi::c_void;

/// `char`: signed on Windows.
pub type c_char = i8;
/// `signed char`.
pub type c_schar = i8;
/// `unsigned char`.
pub type c_uchar = u8;
/// `short`.
pub type c_short = i16;
/// `unsigned short`.
pub type c_ushort = u16;
/// `int`.
pub type c_int = i32;
/// `unsigned int`.
pub type c_uint = u32;
/// `long`: 32 bits on Windows.
pub type c_long = i32;
/// `unsigned long`: 32 bits on Windows.
pub type c_ulong = u32;
/// `long long`.
pub type c_longlong = i64;
/// `unsigned long long`.
pub type c_ulonglong = u64;
/// `float`.
pub type c_float = f32;
/// `double`.
pub type c_double = f64;
