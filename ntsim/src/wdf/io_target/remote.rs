// SPDX-License-Identifier: MIT OR Apache-2.0

//! Remote targets: other devices of the same machine.
//!
//! ```text
//!   Closed ── open ──► Started ── close ──────────────────────────────► Closed
//!                        │  ▲                                             ▲
//!        the device is   │  │ reopen: the removal was cancelled           │ it is gone
//!        to be removed   ▼  │                                             │
//!                 ClosedForQueryRemove ───────────────────────────────────┘
//! ```
//!
//! The driver's `EvtIoTargetQueryRemove` and its siblings are called on the way;
//! without them the framework does what the picture says. See
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/controlling-a-general-i-o-target-s-state>.

use crate::abi::{callback, param};
use crate::access::{peek, peek_unicode};
use crate::io::irp::FileId;
use crate::kernel::Kernel;
use crate::trap::kernel;

use super::super::raw::OpenParams;
use super::super::{
    Globals, STATUS_INFO_LENGTH_MISMATCH, STATUS_INVALID_DEVICE_REQUEST,
    STATUS_INVALID_DEVICE_STATE, STATUS_INVALID_PARAMETER, STATUS_SUCCESS, device, file, object,
    required,
};
use super::{State, Target, get};
use object::{Data, Handle};

/// What a remote target is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// A device, through a file.
    File(FileId),
    /// The driver below this device.
    Below(Handle),
}

/// What the framework keeps of a remote target.
#[derive(Default)]
pub(super) struct Remote {
    opened: Option<Opened>,
    /// For reopening.
    name: Option<String>,
    /// The device that it was closed for, which is to be removed.
    leaving: Option<Handle>,
    evt_query_remove: usize,
    evt_remove_canceled: usize,
    evt_remove_complete: usize,
}

impl Remote {
    pub(super) fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    pub(super) fn opened(&self) -> Option<Opened> {
        self.opened
    }
}

/// The remote part of a target that the driver gave; a local target is none.
fn remote<'k>(k: &'k mut Kernel, target: Handle, function: &str) -> &'k mut Remote {
    if object::io_target(k, target, function).remote.is_none() {
        let name = k
            .name_of(target as usize)
            .unwrap_or("the target")
            .to_owned();
        object::invalid(
            k,
            target,
            format!(
                "{function} was given {name}, a local target, which the framework opens and closes"
            ),
        );
    }
    get(k, target).remote.as_mut().expect("checked")
}

/// `WDF_IO_TARGET_OPEN_PARAMS` before KMDF 1.13: without a file name.
const OLDER_SIZE: u32 = 120;

fn read(from: *const OpenParams) -> Option<OpenParams> {
    let size = peek(from.cast::<u32>());
    if size as usize == size_of::<OpenParams>() {
        return Some(peek(from));
    }
    if size != OLDER_SIZE {
        return None;
    }
    let mut whole = [0_u8; size_of::<OpenParams>()];
    whole[..size as usize].copy_from_slice(&crate::access::peek_bytes(from.cast(), size as usize));
    Some(peek(whole.as_ptr().cast()))
}

/// `WdfIoTargetOpen`. Needs `PASSIVE_LEVEL`.
///
/// # Errors
/// As documented: `STATUS_INFO_LENGTH_MISMATCH`, `STATUS_INVALID_PARAMETER` (no
/// name, no device object, a callback without a file object, no such type),
/// `STATUS_INVALID_DEVICE_STATE` (it is open), `STATUS_INVALID_DEVICE_REQUEST`
/// (reopening what was not opened by name), and those of the open itself.
pub(crate) fn open(_: Globals, target: Handle, from: *const OpenParams) -> i32 {
    const EXISTING_DEVICE: u32 = 1;
    const BY_NAME: u32 = 2;
    const REOPEN: u32 = 3;
    let function = "WdfIoTargetOpen";
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        remote(k, target, function);
    });
    required(from, function, "OpenParams");
    let Some(params) = read(from) else {
        return STATUS_INFO_LENGTH_MISMATCH;
    };
    let events = [
        params.evt_query_remove,
        params.evt_remove_canceled,
        params.evt_remove_complete,
    ];
    let wanted = match params.kind {
        EXISTING_DEVICE => {
            let no_file = params.target_file_object == 0;
            if params.target_device_object == 0 || (no_file && events.iter().any(|evt| *evt != 0)) {
                return STATUS_INVALID_PARAMETER;
            }
            Wanted::Device(params.target_device_object)
        }
        BY_NAME => {
            if params.name.buffer.is_null() || params.name.length == 0 {
                return STATUS_INVALID_PARAMETER;
            }
            let name = params.name;
            Wanted::Name(String::from_utf16_lossy(&peek_unicode(&raw const name)))
        }
        REOPEN => match kernel(|k| remote(k, target, function).name.clone()) {
            Some(name) => Wanted::Name(name),
            None => return STATUS_INVALID_DEVICE_REQUEST,
        },
        _ => return STATUS_INVALID_PARAMETER,
    };
    if kernel(|k| remote(k, target, function).is_open()) {
        return STATUS_INVALID_DEVICE_STATE;
    }
    if params.kind != REOPEN {
        kernel(|k| {
            let remote = remote(k, target, function);
            remote.name = None;
            [
                remote.evt_query_remove,
                remote.evt_remove_canceled,
                remote.evt_remove_complete,
            ] = events;
        });
    }
    connect(target, wanted).err().unwrap_or(STATUS_SUCCESS)
}

enum Wanted {
    Name(String),
    /// The address of a `DEVICE_OBJECT`.
    Device(usize),
}

fn connect(target: Handle, wanted: Wanted) -> Result<(), i32> {
    let (opened, name) = match wanted {
        Wanted::Name(name) => (Opened::File(file::open(&name)?), Some(name)),
        Wanted::Device(address) => {
            let opened = kernel(|k| match device::by_address(k, address) {
                Some((device, device::Layer::Own)) => {
                    Some(Opened::File(k.io.irps.add_hidden_file(device)))
                }
                Some((device, device::Layer::Below)) => Some(Opened::Below(device)),
                None => None,
            });
            (opened.ok_or(STATUS_INVALID_PARAMETER)?, None)
        }
    };
    kernel(|k| {
        let data = get(k, target);
        data.state = State::Started;
        if let Some(remote) = &mut data.remote {
            remote.opened = Some(opened);
            remote.leaving = None;
            remote.name = name.or(remote.name.take());
        }
    });
    super::flight::restart(target);
    Ok(())
}

/// Closes the file behind a target.
pub(super) fn disconnect(target: Handle) {
    let opened = kernel(|k| get(k, target).remote.as_mut()?.opened.take());
    if let Some(Opened::File(file)) = opened {
        file::close(file);
    }
}

fn close_as(target: Handle, state: State) {
    super::shut(target, state);
    let device = kernel(|k| device_of(k, target));
    disconnect(target);
    kernel(|k| {
        if let Some(remote) = &mut get(k, target).remote {
            remote.leaving = match state {
                State::ClosedForQueryRemove => device,
                _ => None,
            };
        }
    });
}

/// `WdfIoTargetClose`. Needs `PASSIVE_LEVEL`. Cancels what was sent and waits for it.
pub(crate) fn close(_: Globals, target: Handle) {
    let function = "WdfIoTargetClose";
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        remote(k, target, function);
    });
    close_as(target, State::Closed);
}

/// `WdfIoTargetCloseForQueryRemove`. Needs `PASSIVE_LEVEL`. As [`close`].
pub(crate) fn close_for_query_remove(_: Globals, target: Handle) {
    let function = "WdfIoTargetCloseForQueryRemove";
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        remote(k, target, function);
    });
    close_as(target, State::ClosedForQueryRemove);
}

/// The device that a target is connected to by a file of its own.
fn device_of(k: &mut Kernel, target: Handle) -> Option<Handle> {
    let Opened::File(file) = get(k, target).remote.as_ref()?.opened? else {
        return None;
    };
    Some(k.io.irps.file(file)?.device)
}

/// The remote targets of which `which` holds.
fn targets(k: &mut Kernel, which: impl Fn(&mut Kernel, Handle) -> bool) -> Vec<Handle> {
    let all: Vec<Handle> = k
        .wdf
        .objects
        .values()
        .filter(|object| match &object.data {
            Data::IoTarget(target) => {
                let target: &Target = target;
                target.remote.is_some() && !object.is_deleted()
            }
            _ => false,
        })
        .map(|object| object.handle)
        .collect();
    all.into_iter().filter(|target| which(k, *target)).collect()
}

fn event(target: Handle, which: impl FnOnce(&Remote) -> usize) -> usize {
    kernel(|k| get(k, target).remote.as_ref().map_or(0, which))
}

/// Tells the targets of a device that it is to be removed.
///
/// # Errors
/// The status of an `EvtIoTargetQueryRemove` that refuses.
pub(crate) fn query_remove(device: Handle) -> Result<(), i32> {
    for target in kernel(|k| targets(k, |k, target| device_of(k, target) == Some(device))) {
        match event(target, |remote| remote.evt_query_remove) {
            0 => close_as(target, State::ClosedForQueryRemove),
            evt => {
                let status =
                    callback::<i32>("EvtIoTargetQueryRemove", evt, &[param("IoTarget", &target)]);
                if status < 0 {
                    return Err(status);
                }
            }
        }
    }
    Ok(())
}

fn leaves(k: &mut Kernel, target: Handle, device: Handle) -> bool {
    let remote = get(k, target).remote.as_ref();
    remote.is_some_and(|remote| remote.leaving == Some(device))
}

fn leaving(device: Handle) -> Vec<Handle> {
    kernel(|k| targets(k, |k, target| leaves(k, target, device)))
}

/// Whether some driver's remote target is connected to the device, or was.
pub(crate) fn is_target(k: &mut Kernel, device: Handle) -> bool {
    let connected = targets(k, |k, target| {
        device_of(k, target) == Some(device) || leaves(k, target, device)
    });
    !connected.is_empty()
}

/// Tells the targets of a device that it stays.
pub(crate) fn remove_canceled(device: Handle) {
    for target in leaving(device) {
        match event(target, |remote| remote.evt_remove_canceled) {
            0 => {
                let name = kernel(|k| get(k, target).remote.as_ref()?.name.clone());
                if let Some(name) = name {
                    // Nobody is there to be told that it failed; the target stays closed.
                    let _ = connect(target, Wanted::Name(name));
                }
            }
            evt => callback::<()>(
                "EvtIoTargetRemoveCanceled",
                evt,
                &[param("IoTarget", &target)],
            ),
        }
    }
}

/// Tells the targets of a device that it is gone, in good order or not.
pub(crate) fn remove_complete(device: Handle) {
    let mut gone = leaving(device);
    gone.extend(kernel(|k| {
        targets(k, |k, target| device_of(k, target) == Some(device))
    }));
    for target in gone {
        match event(target, |remote| remote.evt_remove_complete) {
            0 => close_as(target, State::Closed),
            evt => callback::<()>(
                "EvtIoTargetRemoveComplete",
                evt,
                &[param("IoTarget", &target)],
            ),
        }
    }
}
