// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `WDFDPC` and `WDFWORKITEM` have in common: how they are created, and
//! their parents.

use crate::access::{peek, poke};
use crate::kernel::Kernel;
use crate::trap::kernel;

use super::lock::{self, Serial};
use super::object::{self, Allow, Data, Handle};
use super::raw::{CallbackConfig, ObjectAttributes};
use super::{
    Globals, STATUS_INFO_LENGTH_MISMATCH, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_PARAMETER,
    required,
};

/// What the driver gave to the function that creates such an object.
pub(crate) struct Creation {
    pub(crate) globals: Globals,
    pub(crate) config: *const CallbackConfig,
    pub(crate) attributes: *const ObjectAttributes,
    pub(crate) out: *mut Handle,
    /// The function, and the name of its last parameter.
    pub(crate) function: &'static str,
    pub(crate) parameter: &'static str,
    /// Whether the object's callback runs at `PASSIVE_LEVEL`.
    pub(crate) passive: bool,
}

/// `WdfDpcCreate` and `WdfWorkItemCreate`. Callable at `<= DISPATCH_LEVEL`.
///
/// # Errors
/// `STATUS_INFO_LENGTH_MISMATCH`, `STATUS_INVALID_PARAMETER` (no callback),
/// `STATUS_WDF_PARENT_NOT_SPECIFIED`, `STATUS_INVALID_DEVICE_REQUEST` (no device
/// above it), `STATUS_WDF_INCOMPATIBLE_EXECUTION_LEVEL`.
pub(crate) fn create(by: &Creation, data: impl FnOnce(usize, Serial) -> Data) -> i32 {
    let function = by.function;
    kernel(|k| crate::ke::irql::at_most_dispatch(k, function));
    required(by.out, function, by.parameter);
    required(by.config, function, "Config");
    poke(by.out, std::ptr::null_mut());
    let config = peek(by.config);
    if config.size as usize != size_of::<CallbackConfig>() {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    let attributes = object::attributes(by.attributes, Allow::ParentRequired, false);
    let created = attributes.and_then(|attributes| {
        if config.evt == 0 {
            return Err(STATUS_INVALID_PARAMETER);
        }
        kernel(|k| {
            let (slot, parent) = object::parent_or_driver(k, by.globals, &attributes, function);
            if object::device_of(k, parent).is_none() {
                return Err(STATUS_INVALID_DEVICE_REQUEST);
            }
            let serial =
                lock::effective(k, parent, config.automatic_serialization != 0, by.passive)?;
            object::create(k, slot, Some(parent), &attributes, data(config.evt, serial))
        })
    });
    object::give(by.out, created)
}

/// The parent of an object whose type was checked.
pub(crate) fn parent(k: &mut Kernel, handle: Handle) -> Handle {
    object::get(k, handle)
        .parent
        .unwrap_or(std::ptr::null_mut())
}
