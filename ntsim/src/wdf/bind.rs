// SPDX-License-Identifier: MIT OR Apache-2.0

//! Binding a driver to the framework.

use crate::access::UnicodeString;
use crate::io::DriverObject;

/// `WDF_BIND_INFO`.
#[repr(C)]
pub(crate) struct BindInfo {
    size: u32,
}

pub(crate) fn wdf_version_bind(_: *mut DriverObject, _: *mut UnicodeString, _: *mut BindInfo, _: *mut usize) -> i32 {
    0
}

pub(crate) fn wdf_version_unbind(_: *mut UnicodeString, _: *mut BindInfo, _: crate::access::Addr) -> i32 {
    0
}

/// Runs a linked-in driver's `DriverEntry` as the entry stub of an image would.
pub(crate) fn host_driver_entry(_object: *mut DriverObject, _path: *mut UnicodeString, _entry: usize) -> i32 {
    0
}

pub(crate) fn host_driver_unload(_object: *mut DriverObject, _unload: usize) {}
