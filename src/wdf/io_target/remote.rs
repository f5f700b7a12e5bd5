// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`RemoteTarget`]: another device as an I/O target.

use core::fmt;
use core::ops::Deref;

use super::IoTarget;
use crate::irql::{Irql, Passive};
use crate::module::Modules;
use crate::module::node::Reference;
use crate::status::{NtStatus, Result};
use crate::string::UnicodeStr;
use crate::sys;
use crate::wdf::object::{ContextInfo, ObjectLink, attributes, no_handle};

/// `FILE_OPEN`
const OPEN: u32 = 1;
/// `FILE_NON_DIRECTORY_FILE`
const NON_DIRECTORY: u32 = 0x40;
/// `FILE_ATTRIBUTE_NORMAL`
const NORMAL: u32 = 0x80;
/// `GENERIC_READ`
const GENERIC_READ: u32 = 0x8000_0000;
/// `GENERIC_WRITE`
const GENERIC_WRITE: u32 = 0x4000_0000;

/// Another device, opened by name. Everything that an [`IoTarget`] does, it
/// does too.
///
/// ```text
///   closed ── open ──► started ◄── start ── stopped, purged
///     ▲  ▲               │ │                    ▲
///     │  └──── close ────┘ └──── stop, purge ───┘
///     └── the device is removed
/// ```
///
/// Made closed by [`Modules::remote_target`]. When its device is to be removed
/// the framework closes it and cancels what it was sent; the driver may
/// [`open`](Self::open) it again. It goes with its owner.
///
/// # Example
/// ```
/// use dmf::prelude::*;
/// use dmf::wdf::{RemoteTarget, TargetAccess, TargetState};
///
/// dmf::driver!(Client);
///
/// struct Client { server: RemoteTarget }
///
/// impl Device for Client {
///     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
///         Ok(Client { server: add.remote_target()? })
///     }
///
///     fn self_managed_io_init(&self, cx: &mut SelfManagedIoInit<'_>) -> Result {
///         let name = dmf::unicode_string!(r"\DosDevices\Server");
///         let missing = self.server.open(cx.irql(), name, TargetAccess::ReadWrite);
///         assert_eq!(missing, Err(NtStatus::OBJECT_NAME_NOT_FOUND));
///         assert_eq!(self.server.state()?, TargetState::Closed);
///         Ok(())
///     }
/// }
/// # ntsim::run_driver(Client::DRIVER_ENTRY, |_, _| ());
/// ```
///
/// C counterpart: [`WdfIoTargetCreate`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetcreate
pub struct RemoteTarget(IoTarget);

/// What a remote target is opened for.
///
/// C counterpart: the `DesiredAccess` of [`WdfIoTargetOpen`][c].
///
/// [c]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetopen
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetAccess {
    /// `GENERIC_READ`
    Read,
    /// `GENERIC_WRITE`
    Write,
    /// Both.
    ReadWrite,
}

/// What the target's object carries.
#[repr(C)]
struct Context {
    /// First: the node's list is of links.
    link: ObjectLink,
}

static CONTEXT: ContextInfo = ContextInfo::new::<Context>(c"dmf::RemoteTarget", &CONTEXT);

/// # Safety
/// The target is valid and remote, and the level is `PASSIVE_LEVEL`.
unsafe fn shut(target: sys::WDFOBJECT) {
    // SAFETY: the caller's promise.
    unsafe { sys::kmdf::WdfIoTargetClose(target.cast()) };
}

impl RemoteTarget {
    fn open_with(&self, mut params: sys::WDF_IO_TARGET_OPEN_PARAMS) -> Result {
        params.Size = sys::size_field::<sys::WDF_IO_TARGET_OPEN_PARAMS>();
        self.0
            .with(|target| {
                // SAFETY: the target is valid, the callers have the token, and the
                // parameters are valid for the length of the call.
                NtStatus::from_raw(unsafe { sys::kmdf::WdfIoTargetOpen(target, &raw mut params) })
            })?
            .into_result()
    }

    /// Opens the device of this name: a symbolic link, a device's own name, or
    /// the path of a device interface. Starts the target.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` for an empty name; `STATUS_INVALID_DEVICE_STATE`
    /// if it is open, or the owner is not there; `STATUS_OBJECT_NAME_NOT_FOUND`
    /// if nobody has the name, and what else opening can say.
    ///
    /// C counterpart: [`WdfIoTargetOpen`][ms],
    /// `WDF_IO_TARGET_OPEN_PARAMS_INIT_OPEN_BY_NAME`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetopen
    pub fn open(
        &self,
        _irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
        access: TargetAccess,
    ) -> Result {
        self.open_with(sys::WDF_IO_TARGET_OPEN_PARAMS {
            Type: sys::_WDF_IO_TARGET_OPEN_TYPE::WdfIoTargetOpenByName,
            TargetDeviceName: name.to_raw(),
            DesiredAccess: match access {
                TargetAccess::Read => GENERIC_READ,
                TargetAccess::Write => GENERIC_WRITE,
                TargetAccess::ReadWrite => GENERIC_READ | GENERIC_WRITE,
            },
            CreateOptions: NON_DIRECTORY,
            FileAttributes: NORMAL,
            CreateDisposition: OPEN,
            ..sys::WDF_IO_TARGET_OPEN_PARAMS::default()
        })
    }

    /// Opens the device again that was open before.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_REQUEST` if it was never open; else as [`open`](Self::open).
    ///
    /// C counterpart: `WDF_IO_TARGET_OPEN_PARAMS_INIT_REOPEN`.
    pub fn reopen(&self, _irql: &Irql<'_, Passive>) -> Result {
        self.open_with(sys::WDF_IO_TARGET_OPEN_PARAMS {
            Type: sys::_WDF_IO_TARGET_OPEN_TYPE::WdfIoTargetOpenReopen,
            ..sys::WDF_IO_TARGET_OPEN_PARAMS::default()
        })
    }

    /// Closes the target: cancels what it was sent and waits for it. A target
    /// that is closed stays so.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfIoTargetClose`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetclose
    pub fn close(&self, _irql: &Irql<'_, Passive>) -> Result {
        self.0.with(|target| {
            // SAFETY: valid and remote; the token proves the level.
            unsafe { sys::kmdf::WdfIoTargetClose(target) };
        })
    }
}

impl Deref for RemoteTarget {
    type Target = IoTarget;
    fn deref(&self) -> &IoTarget {
        &self.0
    }
}

impl fmt::Debug for RemoteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteTarget").finish_non_exhaustive()
    }
}

impl<O: Send + Sync + 'static> Modules<'_, O> {
    /// Adds a target that is to be connected to another device; it is closed.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`: where modules are added.
    ///
    /// # Errors
    /// What [`WdfIoTargetCreate`][ms] returns: `STATUS_INSUFFICIENT_RESOURCES`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfiotarget/nf-wdfiotarget-wdfiotargetcreate
    pub fn remote_target(&mut self) -> Result<RemoteTarget> {
        let (owner, device) = self.raw();
        // The parent is the device without being named.
        let mut attributes = attributes(&CONTEXT, no_handle());
        let mut handle = no_handle();
        // SAFETY: the device is valid, and the structures are for the call;
        // device-add is at PASSIVE_LEVEL.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfIoTargetCreate(device, &raw mut attributes, &raw mut handle)
        })
        .into_result()?;
        // SAFETY: the target was created with this context.
        let context = unsafe { CONTEXT.of::<Context>(handle.cast()) };
        // SAFETY: the context is ours, and nobody knows of the target yet.
        unsafe {
            context.write(Context {
                link: ObjectLink::new(handle.cast(), shut),
            });
        }
        // SAFETY: the link is the context's first field, and new.
        unsafe { ObjectLink::push(owner, context.cast()) };
        // INVARIANT: the node deletes the target after it has ceased to be alive.
        Ok(RemoteTarget(IoTarget {
            // SAFETY: the node is valid.
            owner: unsafe { Reference::to(owner) },
            handle,
        }))
    }
}
