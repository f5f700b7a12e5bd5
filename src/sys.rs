// SPDX-License-Identifier: MIT OR Apache-2.0

//! The raw kernel interface, the same for both kernels.
//!
//! On Windows this is `wdk-sys`, elsewhere `ntsim-sys`. Both come from bindgen
//! with the same settings, so names and shapes are the same. They differ in the
//! ABI of functions only: `"C"` on Windows, and `"C-unwind"` on the host, where
//! a panic in a driver unwinds into the simulator, which reports it.
//!
//! Handles of this crate's types convert to and from these types in `unsafe`
//! functions; nothing else in a driver needs this module.

#[cfg(not(kernel))]
pub use ntsim_sys::*;
#[cfg(kernel)]
pub use wdk_sys::*;

/// Defines a function that the kernel calls, with the ABI of the kernel
/// underneath.
macro_rules! callback {
    (
        $(#[$meta:meta])*
        $vis:vis unsafe fn $name:ident $(<$generic:ident: $bound:path>)? (
            $($arg:ident: $ty:ty),* $(,)?
        ) $(-> $ret:ty)? $body:block
    ) => {
        #[cfg(kernel)]
        $(#[$meta])*
        $vis unsafe extern "C" fn $name $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? $body

        #[cfg(not(kernel))]
        $(#[$meta])*
        $vis unsafe extern "C-unwind" fn $name $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? $body
    };
}

/// The functions of KMDF that this crate calls.
///
/// In C these are inline functions of the WDF headers that fetch a pointer from
/// the table which the loader filled at bind time. These do the same.
pub(crate) mod kmdf {
    #![allow(non_snake_case, reason = "the names are those of KMDF")]

    #[allow(clippy::wildcard_imports, reason = "nearly all types of the interface")]
    use super::*;

    macro_rules! functions {
        ($(
            $(#[$meta:meta])*
            fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?
                = $index:ident, $pointer:ident;
        )*) => {$(
            $(#[$meta])*
            ///
            /// # Safety
            /// As documented for the function of that name.
            pub(crate) unsafe fn $name($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: KMDF wrote the table's address before it called
                // DriverEntry, and does not change it afterwards.
                let table = unsafe { WdfFunctions };
                // SAFETY: the driver was bound to KMDF 1.33 or later, so the
                // table has at least the 458 entries of that version.
                let entry = unsafe { table.add(_WDFFUNCENUM::$index as usize) };
                // SAFETY: as above; entries do not change.
                let function: WDFFUNC = unsafe { entry.read() };
                // SAFETY: the entry at this index has this type, and both are
                // an optional function pointer.
                let function: $pointer = unsafe { core::mem::transmute(function) };
                // SAFETY: the table has no empty entries.
                let function = unsafe { function.unwrap_unchecked() };
                // SAFETY: as for the table.
                let globals = unsafe { WdfDriverGlobals };
                // SAFETY: the caller's promise.
                unsafe { function(globals, $($arg),*) }
            }
        )*};
    }

    functions! {
        /// Creates the framework driver object.
        fn WdfDriverCreate(
            driver: PDRIVER_OBJECT,
            path: PCUNICODE_STRING,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            config: PWDF_DRIVER_CONFIG,
            out: *mut WDFDRIVER,
        ) -> NTSTATUS = WdfDriverCreateTableIndex, PFN_WDFDRIVERCREATE;
        /// Opens the driver's Parameters key.
        fn WdfDriverOpenParametersRegistryKey(
            driver: WDFDRIVER,
            access: ACCESS_MASK,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            out: *mut WDFKEY,
        ) -> NTSTATUS
            = WdfDriverOpenParametersRegistryKeyTableIndex, PFN_WDFDRIVEROPENPARAMETERSREGISTRYKEY;
        /// Opens the driver's persistent-state key.
        fn WdfDriverOpenPersistentStateRegistryKey(
            driver: WDFDRIVER,
            access: ACCESS_MASK,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            out: *mut WDFKEY,
        ) -> NTSTATUS
            = WdfDriverOpenPersistentStateRegistryKeyTableIndex,
              PFN_WDFDRIVEROPENPERSISTENTSTATEREGISTRYKEY;
        /// Registers the PnP and power callbacks of a device.
        fn WdfDeviceInitSetPnpPowerEventCallbacks(
            init: PWDFDEVICE_INIT,
            callbacks: PWDF_PNPPOWER_EVENT_CALLBACKS,
        ) = WdfDeviceInitSetPnpPowerEventCallbacksTableIndex,
            PFN_WDFDEVICEINITSETPNPPOWEREVENTCALLBACKS;
        /// Creates a device.
        fn WdfDeviceCreate(
            init: *mut PWDFDEVICE_INIT,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            out: *mut WDFDEVICE,
        ) -> NTSTATUS = WdfDeviceCreateTableIndex, PFN_WDFDEVICECREATE;
        /// Creates a general object.
        fn WdfObjectCreate(
            attributes: PWDF_OBJECT_ATTRIBUTES,
            out: *mut WDFOBJECT,
        ) -> NTSTATUS = WdfObjectCreateTableIndex, PFN_WDFOBJECTCREATE;
        /// Deletes an object and its children.
        fn WdfObjectDelete(object: WDFOBJECT) = WdfObjectDeleteTableIndex, PFN_WDFOBJECTDELETE;
        /// The context of a type in an object.
        fn WdfObjectGetTypedContextWorker(
            object: WDFOBJECT,
            info: PCWDF_OBJECT_CONTEXT_TYPE_INFO,
        ) -> PVOID
            = WdfObjectGetTypedContextWorkerTableIndex, PFN_WDFOBJECTGETTYPEDCONTEXTWORKER;
        /// Creates a timer.
        fn WdfTimerCreate(
            config: PWDF_TIMER_CONFIG,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            out: *mut WDFTIMER,
        ) -> NTSTATUS = WdfTimerCreateTableIndex, PFN_WDFTIMERCREATE;
        /// Starts a timer, or moves its due time.
        fn WdfTimerStart(timer: WDFTIMER, due: LONGLONG) -> BOOLEAN
            = WdfTimerStartTableIndex, PFN_WDFTIMERSTART;
        /// Stops a timer.
        fn WdfTimerStop(timer: WDFTIMER, wait: BOOLEAN) -> BOOLEAN
            = WdfTimerStopTableIndex, PFN_WDFTIMERSTOP;
        /// Creates a work item.
        fn WdfWorkItemCreate(
            config: PWDF_WORKITEM_CONFIG,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            out: *mut WDFWORKITEM,
        ) -> NTSTATUS = WdfWorkItemCreateTableIndex, PFN_WDFWORKITEMCREATE;
        /// Queues a work item.
        fn WdfWorkItemEnqueue(item: WDFWORKITEM)
            = WdfWorkItemEnqueueTableIndex, PFN_WDFWORKITEMENQUEUE;
        /// Waits until a work item is neither queued nor running.
        fn WdfWorkItemFlush(item: WDFWORKITEM)
            = WdfWorkItemFlushTableIndex, PFN_WDFWORKITEMFLUSH;
        /// Reads a `REG_DWORD` value.
        fn WdfRegistryQueryULong(key: WDFKEY, name: PCUNICODE_STRING, value: PULONG) -> NTSTATUS
            = WdfRegistryQueryULongTableIndex, PFN_WDFREGISTRYQUERYULONG;
        /// Writes a `REG_DWORD` value.
        fn WdfRegistryAssignULong(key: WDFKEY, name: PCUNICODE_STRING, value: ULONG) -> NTSTATUS
            = WdfRegistryAssignULongTableIndex, PFN_WDFREGISTRYASSIGNULONG;
        /// Closes a key.
        fn WdfRegistryClose(key: WDFKEY) = WdfRegistryCloseTableIndex, PFN_WDFREGISTRYCLOSE;
    }
}

/// The size of `T` for the `Size` field that each WDF structure starts with.
pub(crate) const fn size_field<T>() -> ULONG {
    assert!(size_of::<T>() <= u32::MAX as usize);
    // Checked above.
    #[allow(clippy::cast_possible_truncation, reason = "checked above")]
    {
        size_of::<T>() as ULONG
    }
}
