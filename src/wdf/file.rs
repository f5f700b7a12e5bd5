// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`File`]: one opening of the device, from create to close.
//!
//! ```text
//!   CreateFile ─► file_create ─► requests ... ─► file_cleanup ─► ... ─► file_close ─► contexts dropped
//!                     │                              (last handle        (last request
//!                     └─► refused: contexts dropped    is closed)          is completed)
//! ```
//!
//! Each module, and the device, can attach a value of a type of its own to a
//! file: [`FileCreate::attach`], [`File::context`].
//!
//! ```
//! use core::sync::atomic::{AtomicUsize, Ordering};
//! use dmf::prelude::*;
//! use dmf::wdf::*;
//!
//! # dmf::driver!(Meter);
//! struct Meter;
//!
//! /// What was written through one handle.
//! #[derive(Default)]
//! struct Written(AtomicUsize);
//!
//! impl Device for Meter {
//!     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
//!         add.default_queue(DefaultQueue::parallel())?;
//!         Ok(Meter)
//!     }
//!
//!     fn file_create(&self, cx: &mut FileCreate<'_>) -> FileAnswer {
//!         match cx.attach(Written::default()) {
//!             Ok(()) => FileAnswer::Accepted,
//!             Err(status) => FileAnswer::Refused(status),
//!         }
//!     }
//!
//!     fn io_write(&self, _cx: &mut QueueCallback<'_>, request: Request<Write>) -> Offer<Write> {
//!         let length = request.len();
//!         if let Some(written) = request.file().and_then(File::context::<Written>) {
//!             written.0.fetch_add(length, Ordering::Relaxed);
//!         }
//!         request.complete(Ok(length));
//!         Offer::Handled
//!     }
//!
//!     fn file_close(&self, cx: &mut FileClose<'_>) {
//!         let written = cx.file().context::<Written>().map(|written| written.0.load(Ordering::Relaxed));
//!         assert_eq!(written, Some(5));
//!     }
//! }
//! # ntsim::run_driver(Meter::DRIVER_ENTRY, |machine, device| {
//! #     let file = machine.open(device).unwrap();
//! #     assert_eq!(machine.write(file, b"12345").unwrap().information, 5);
//! #     machine.close(file).unwrap();
//! # });
//! ```
//!
//! See [Framework file objects][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-file-objects

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::dispatch::IoEvent;
use super::object::{ContextInfo, attributes, no_handle};
use super::values::Values;
use crate::irql::{Irql, Passive};
use crate::module::node::{self, Header, Reference};
use crate::status::{NtStatus, Result};
use crate::string::UnicodeStr;
use crate::sys;

/// One opening of the device.
///
/// C counterpart: [`WDFFILEOBJECT`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-file-objects
///
/// # Invariants
/// `raw` is valid for `'a` and has a `Context`.
#[derive(Clone, Copy)]
pub struct File<'a> {
    raw: sys::WDFFILEOBJECT,
    life: PhantomData<&'a ()>,
}

impl<'a> File<'a> {
    /// The file of a handle; `None` for a null one.
    ///
    /// # Safety
    /// `raw` is null, or valid for `'a` and of a device of this crate.
    pub unsafe fn from_raw(raw: sys::WDFFILEOBJECT) -> Option<Self> {
        // INVARIANT: the caller's promise.
        (!raw.is_null()).then_some(Self {
            raw,
            life: PhantomData,
        })
    }

    /// KMDF's handle, for code of the driver that calls KMDF itself.
    #[must_use]
    pub const fn as_raw(self) -> sys::WDFFILEOBJECT {
        self.raw
    }

    /// The value of this type that was attached when the file was opened.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    #[must_use]
    pub fn context<T: Send + Sync + 'static>(self) -> Option<&'a T> {
        // SAFETY: the invariant.
        unsafe { context(self.raw) }.values.get()
    }

    /// What was behind the device's name when it was opened: `\a\b` of
    /// `\\.\Device\a\b`; empty if nothing.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`, as long as the text is used: it is in paged memory.
    ///
    /// C counterpart: [`WdfFileObjectGetFileName`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdffileobject/nf-wdffileobject-wdffileobjectgetfilename
    #[must_use]
    pub fn name<'t>(self, _irql: &'t Irql<'_, Passive>) -> UnicodeStr<'t>
    where
        'a: 't,
    {
        // SAFETY: the invariant, and the token proves the level.
        let name = unsafe { sys::kmdf::WdfFileObjectGetFileName(self.raw) };
        let Some(name) = NonNull::new(name) else {
            return UnicodeStr::literal(&[]);
        };
        // SAFETY: KMDF returns the file's own string, valid as long as the file.
        let name = unsafe { name.read() };
        if name.Buffer.is_null() || name.Length < 2 {
            return UnicodeStr::literal(&[]);
        }
        // SAFETY: as above; the length is in bytes.
        let units =
            unsafe { core::slice::from_raw_parts(name.Buffer, usize::from(name.Length / 2)) };
        UnicodeStr::new(units).unwrap_or(UnicodeStr::literal(&[]))
    }
}

impl PartialEq for File<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for File<'_> {}

impl fmt::Debug for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").finish_non_exhaustive()
    }
}

/// What a hook says to somebody who opens the device.
///
/// C counterpart: how [`EvtDeviceFileCreate`][ms] completes or passes on its request.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_file_create
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum FileAnswer {
    /// Not mine: ask the next. If nobody says anything, the file is opened.
    Declined,
    /// The file is opened.
    Accepted,
    /// The file is not opened.
    Refused(NtStatus),
}

contexts! {
    /// What [`file_create`](crate::Device::file_create) is given.
    FileCreate {
        /// The file.
        file: File<'a>,
    }
    /// What [`file_cleanup`](crate::Device::file_cleanup) is given.
    FileCleanup {
        /// The file.
        file: File<'a>,
    }
    /// What [`file_close`](crate::Device::file_close) is given.
    FileClose {
        /// The file.
        file: File<'a>,
    }
}

impl FileCreate<'_> {
    /// Attaches a value to the file, which drops it when it is gone.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_COLLISION` if the file has a value of this type
    /// already; `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn attach<T: Send + Sync + 'static>(&mut self, value: T) -> Result {
        // SAFETY: the file's invariant.
        unsafe { context(self.file.raw) }.values.attach(value)?;
        Ok(())
    }
}

/// The context of each file: the values that were attached to it.
struct Context {
    values: Values,
    /// The root of the device's tree, counted: a file may outlive its device.
    root: Cell<Option<NonNull<Header>>>,
}

static CONTEXT: ContextInfo = ContextInfo::new::<Context>(c"dmf::File", &CONTEXT);

/// # Safety
/// The file is valid for `'a` and of a device of this crate.
unsafe fn context<'a>(file: sys::WDFFILEOBJECT) -> &'a Context {
    // SAFETY: the caller's promise.
    let context = unsafe { CONTEXT.of::<Context>(file.cast()) };
    // SAFETY: KMDF zeroes contexts, and no values is zero.
    unsafe { context.as_ref() }
}

/// Registers this crate's file callbacks.
///
/// C counterpart: `WDF_FILEOBJECT_CONFIG_INIT`, `WdfDeviceInitSetFileObjectConfig`.
///
/// # Safety
/// `init` is what KMDF gave to `EvtDriverDeviceAdd`, and the device is going to
/// be one of this crate.
pub(crate) unsafe fn configure(init: sys::PWDFDEVICE_INIT) {
    let mut config = sys::WDF_FILEOBJECT_CONFIG {
        Size: sys::size_field::<sys::WDF_FILEOBJECT_CONFIG>(),
        EvtDeviceFileCreate: Some(evt_file_create),
        EvtFileClose: Some(evt_file_close),
        EvtFileCleanup: Some(evt_file_cleanup),
        AutoForwardCleanupClose: sys::_WDF_TRI_STATE::WdfUseDefault,
        FileObjectClass: sys::_WDF_FILEOBJECT_CLASS::WdfFileObjectWdfCanUseFsContext,
    };
    let mut attributes = attributes(&CONTEXT, no_handle());
    attributes.EvtDestroyCallback = Some(evt_file_destroy);
    // SAFETY: the caller's promise, and the structures are valid for the call.
    unsafe {
        sys::kmdf::WdfDeviceInitSetFileObjectConfig(init, &raw mut config, &raw mut attributes);
    };
}

/// Tells the device's tree.
///
/// # Safety
/// The file is valid and of a device of this crate; `PASSIVE_LEVEL`.
unsafe fn tell(file: File<'_>, event: &mut IoEvent<'_>) -> Result {
    // SAFETY: the caller's promise.
    let Some(root) = unsafe { context(file.raw) }.root.get() else {
        return Err(NtStatus::INVALID_DEVICE_STATE);
    };
    // SAFETY: the file has a count of the root, and the caller's promise.
    unsafe { node::tell(root, event) }
}

callback! {
    unsafe fn evt_file_create(
        device: sys::WDFDEVICE,
        request: sys::WDFREQUEST,
        raw: sys::WDFFILEOBJECT,
    ) {
        // SAFETY: KMDF gives each create a file of the device.
        let status = match unsafe { File::from_raw(raw) } {
            Some(file) => {
                // SAFETY: the device is one of this crate, and is there.
                let root = unsafe { crate::driver::root_of(device) };
                // SAFETY: as above.
                let root = unsafe { Reference::to(root) }.into_raw();
                // SAFETY: the file is new and has this context.
                unsafe { context(raw) }.root.set(Some(root));
                // SAFETY: KMDF calls this at PASSIVE_LEVEL.
                let cx = unsafe { FileCreate::new(file) };
                let mut event = IoEvent::Create(cx, FileAnswer::Declined);
                // SAFETY: as above.
                match (unsafe { tell(file, &mut event) }, event) {
                    (Err(status), _) | (_, IoEvent::Create(_, FileAnswer::Refused(status))) => {
                        status
                    }
                    _ => NtStatus::SUCCESS,
                }
            }
            None => NtStatus::SUCCESS,
        };
        // SAFETY: the create request is this callback's to complete.
        unsafe { sys::kmdf::WdfRequestCompleteWithInformation(request, status.to_raw(), 0) };
    }
}

callback! {
    unsafe fn evt_file_cleanup(raw: sys::WDFFILEOBJECT) {
        // SAFETY: KMDF calls this for files of this crate's devices.
        let Some(file) = (unsafe { File::from_raw(raw) }) else { return };
        // SAFETY: KMDF calls this at PASSIVE_LEVEL.
        let cx = unsafe { FileCleanup::new(file) };
        // SAFETY: as above. A device that is gone need not be told.
        let _ = unsafe { tell(file, &mut IoEvent::Cleanup(cx)) };
    }
}

callback! {
    unsafe fn evt_file_close(raw: sys::WDFFILEOBJECT) {
        // SAFETY: KMDF calls this for files of this crate's devices.
        let Some(file) = (unsafe { File::from_raw(raw) }) else { return };
        // SAFETY: KMDF calls this at PASSIVE_LEVEL.
        let cx = unsafe { FileClose::new(file) };
        // SAFETY: as above. A device that is gone need not be told.
        let _ = unsafe { tell(file, &mut IoEvent::Close(cx)) };
    }
}

callback! {
    unsafe fn evt_file_destroy(raw: sys::WDFOBJECT) {
        // SAFETY: KMDF calls this for files with this context.
        let context = unsafe { context(raw.cast()) };
        // SAFETY: nobody has the file any more.
        unsafe { context.values.drop_all() };
        if let Some(root) = context.root.take() {
            // SAFETY: the context's count.
            drop(unsafe { Reference::from_raw(root) });
        }
    }
}
