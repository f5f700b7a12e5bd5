// SPDX-License-Identifier: MIT OR Apache-2.0

//! Handles and object references (`Ob`).

use std::collections::BTreeMap;

use crate::access::{Addr, UnicodeString, peek, poke};
use crate::exports::Export;
use crate::ke::dispatcher::{Thread, ThreadId};
use crate::kernel::Kernel;
use crate::origin::Origin;
use crate::registry::KeyId;
use crate::rules;
use crate::trap::kernel;

pub(crate) const STATUS_SUCCESS: i32 = 0;
pub(crate) const STATUS_INVALID_HANDLE: i32 = 0xC000_0008_u32.cast_signed();
pub(crate) const STATUS_OBJECT_TYPE_MISMATCH: i32 = 0xC000_0024_u32.cast_signed();

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handle {
    Thread(ThreadId),
    /// With the rights that were granted when it was opened.
    Key(KeyId, u32),
}

/// The system's handle table.
#[derive(Default)]
pub(crate) struct Handles {
    /// With where they were opened.
    open: BTreeMap<usize, (Handle, Option<Origin>)>,
    next: usize,
}

/// Kernel handles have the top bit set; they count in fours.
const KERNEL_HANDLE: usize = 0xFFFF_FFFF_8000_0000;

/// Opens a handle.
pub(crate) fn open(k: &mut Kernel, object: Handle) -> usize {
    k.io.handles.next += 4;
    let handle = KERNEL_HANDLE | k.io.handles.next;
    let origin = Origin::of_one_of(k, k.io.handles.open.len());
    k.io.handles.open.insert(handle, (object, origin));
    k.name(handle, "handle");
    handle
}

/// Closes a handle; tells whether it was open.
pub(crate) fn close(k: &mut Kernel, handle: usize) -> bool {
    let open = k.io.handles.open.remove(&handle);
    if open.is_some() {
        k.unname(handle);
    }
    if let Some((Handle::Thread(id), _)) = open {
        thread_changed(k, id);
    }
    open.is_some()
}

/// A driver's thread has ended or lost a handle or a reference: with the last of
/// these its object goes.
pub(crate) fn thread_changed(k: &mut Kernel, id: ThreadId) {
    let goes = (k.threads.get(&id))
        .is_some_and(|thread| thread.exited && !thread.system && thread.references == 0)
        && !(k.io.handles.open.values()).any(|(handle, _)| *handle == Handle::Thread(id));
    if goes {
        k.forget_thread(id);
    }
}

/// What `handle` stands for.
pub(crate) fn look_up(k: &Kernel, handle: usize) -> Option<Handle> {
    k.io.handles.open.get(&handle).map(|(object, _)| *object)
}

/// The handles that are still open, with their names and where they were opened.
pub(crate) fn open_handles(k: &Kernel) -> impl Iterator<Item = (String, Option<&Origin>)> {
    k.io.handles.open.iter().map(|(handle, (object, origin))| {
        let name = k.name_of(*handle).unwrap_or("handle");
        (format!("{name} ({object:?})"), origin.as_ref())
    })
}

/// Holds the caller of a `Zw` function to special kernel APCs being enabled, with
/// which the I/O of a system service completes.
pub(crate) fn zw_call(k: &mut Kernel, function: &str) {
    let guarded = k
        .running_thread()
        .and_then(|thread| k.ke.guarded_regions.get(&thread));
    if let Some(depth) = guarded.copied() {
        k.broken(
            &rules::object::ZW_CALL,
            &[k.caller(), u64::from(k.irql()), u64::from(depth)],
            format!(
                "{function} was called in a guarded region, where no special kernel APC arrives"
            ),
        );
    }
}

/// Holds the caller of a `Zw` function to a string that is well formed; NULL is none.
pub(crate) fn zw_string(string: *const UnicodeString, function: &str) {
    if string.is_null() {
        return;
    }
    let UnicodeString {
        length,
        maximum_length,
        buffer,
    } = peek(string);
    let wrong = if !length.is_multiple_of(2) {
        "an odd length"
    } else if length > maximum_length {
        "a length above its maximum"
    } else if length > 0 && buffer.is_null() {
        "a length, and no buffer"
    } else {
        return;
    };
    kernel(|k| {
        k.broken(
            &rules::object::MALFORMED_STRING,
            &[k.caller(), string as u64, 0],
            format!("{function} was given a string with {wrong}"),
        );
    });
}

/// `ZwClose`.
pub(crate) fn zw_close(Addr(handle): Addr) -> i32 {
    kernel(|k| {
        zw_call(k, "ZwClose");
        if !close(k, handle) {
            k.broken(
                &rules::object::CLOSE_INVALID,
                &[handle as u64, 1, 0, 0],
                "ZwClose was given a handle that is not open",
            );
            return STATUS_INVALID_HANDLE;
        }
        STATUS_SUCCESS
    })
}

/// What `PsThreadType` points to: a pointer to the type of threads, of which
/// drivers know the address and nothing else.
static THREAD_TYPE: TypePointer = TypePointer(&TYPE);
static TYPE: u8 = 0;

#[repr(transparent)]
struct TypePointer(&'static u8);

/// Variables, for images only.
pub(crate) const EXPORTS: &[Export] = &[Export {
    dll: "ntoskrnl.exe",
    name: "PsThreadType",
    host: std::ptr::null(),
    image: (&raw const THREAD_TYPE).cast(),
}];

fn thread_type() -> usize {
    std::ptr::from_ref(THREAD_TYPE.0).addr()
}

/// `ObReferenceObjectByHandle`, for threads.
pub(crate) fn ob_reference_object_by_handle(
    Addr(handle): Addr,
    _access: u32,
    Addr(kind): Addr,
    _mode: i8,
    object: *mut usize,
    _information: *mut u8,
) -> i32 {
    let found = kernel(|k| {
        crate::inject::check(k, "ObReferenceObjectByHandle")?;
        match look_up(k, handle) {
            // A type is optional for callers in kernel mode.
            Some(Handle::Thread(_)) if kind != 0 && kind != thread_type() => {
                Err(STATUS_OBJECT_TYPE_MISMATCH)
            }
            Some(Handle::Thread(id)) => {
                k.threads
                    .get_mut(&id)
                    .expect("a thread stays in the table")
                    .references += 1;
                Ok(id.address())
            }
            Some(Handle::Key(..)) => Err(STATUS_OBJECT_TYPE_MISMATCH),
            None => {
                let (rule, parameter, what) = if handle == 0 {
                    (&rules::object::NULL_HANDLE, 0, "the handle NULL")
                } else {
                    let handle = handle as u64;
                    (
                        &rules::object::BAD_HANDLE,
                        handle,
                        "a handle that is not open",
                    )
                };
                k.broken(
                    rule,
                    &[parameter, kind as u64, 0],
                    format!("ObReferenceObjectByHandle was given {what}"),
                );
                Err(STATUS_INVALID_HANDLE)
            }
        }
    });
    match found {
        Ok(address) => {
            poke(object, address);
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

/// `ObfReferenceObject`. Returns the new count.
pub(crate) fn obf_reference_object(Addr(object): Addr) -> isize {
    kernel(|k| change_references(k, object, 1))
}

/// `ObfDereferenceObject`. Returns the new count.
pub(crate) fn obf_dereference_object(Addr(object): Addr) -> isize {
    kernel(|k| change_references(k, object, -1))
}

fn change_references(k: &mut Kernel, object: usize, by: i32) -> isize {
    let id = ThreadId::from_address(object).filter(|id| k.threads.contains_key(id));
    let Some(id) = id else {
        k.fatal(
            &rules::object::REFERENCE_BY_POINTER,
            &[0, object as u64, 0, 0],
            "a reference was counted on something that is no object",
        )
    };
    let Thread {
        references, exited, ..
    } = k.threads[&id];
    // Who runs, and an open handle, keep it too.
    let kept = !exited || {
        let handles = &k.io.handles.open;
        handles
            .values()
            .any(|(open, _)| *open == Handle::Thread(id))
    };
    if references == 0 && (by < 0 || !kept) {
        let direction = if by < 0 { "down" } else { "up" };
        let name = k.threads[&id].name.clone();
        let message =
            format!("a reference to {name} was counted {direction}, of which there is none");
        k.broken(
            &rules::object::REFERENCE_ZERO,
            &[object as u64, i64::from(by).cast_unsigned(), 0],
            message.as_str(),
        );
        if by < 0 {
            k.fatal(
                &rules::object::REFERENCE_BY_POINTER,
                &[thread_type() as u64, object as u64, 0, 0],
                message,
            );
        }
    }
    let counted = references.wrapping_add_signed(by);
    k.threads.get_mut(&id).expect("looked up").references = counted;
    thread_changed(k, id);
    isize::try_from(counted).expect("fewer than 2^32 references")
}

/// `ZwWaitForSingleObject`, for threads.
pub(crate) fn zw_wait_for_single_object(
    Addr(handle): Addr,
    alertable: u8,
    timeout: *const i64,
) -> i32 {
    let found = kernel(|k| {
        zw_call(k, "ZwWaitForSingleObject");
        look_up(k, handle)
    });
    match found {
        Some(Handle::Thread(id)) => {
            let object = id.address() as *mut crate::ke::dispatcher::Header;
            crate::ke::wait::ke_wait_for_single_object(object, 0, 0, alertable, timeout)
        }
        Some(Handle::Key(..)) => STATUS_OBJECT_TYPE_MISMATCH,
        None => STATUS_INVALID_HANDLE,
    }
}
