// SPDX-License-Identifier: MIT OR Apache-2.0

//! Values of the driver's own types in KMDF objects: the list that a context of
//! this crate begins with.

use core::any::TypeId;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};

use super::object::{Context, ContextInfo, KmdfObject, attributes, no_handle};
use super::request::{Kind, Request};
use crate::pool::Box;
use crate::registry::Key;
use crate::status::{NtStatus, Result};
use crate::sys;

/// The values that were attached to an object, newest first.
///
/// All zero is an empty list, which is how KMDF makes a context. Values are
/// added and looked up at any level up to `DISPATCH_LEVEL` by any number of
/// threads, and stay until the object is destroyed.
///
/// # Invariants
/// Each slot came from `Box::into_raw` and is the head of a `Slot<T>` for the
/// `T` of its `kind`; no two have the same.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(super) struct Values(AtomicPtr<SlotHead>);

struct SlotHead {
    kind: TypeId,
    next: *mut SlotHead,
    /// Safety: the slot is of the right type.
    cleanup: unsafe fn(NonNull<SlotHead>),
    /// Safety: as above; the slot is not used any more.
    drop: unsafe fn(NonNull<SlotHead>),
}

#[repr(C)]
struct Slot<T> {
    head: SlotHead,
    value: T,
}

impl Values {
    /// The value of this type.
    pub(super) fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        let slot = find(self.0.load(Ordering::Acquire), TypeId::of::<T>())?;
        // SAFETY: a slot with this id is a `Slot<T>`, which begins with its
        // head, and stays until the list is dropped.
        Some(&unsafe { slot.cast::<Slot<T>>().as_ref() }.value)
    }

    /// Adds a value that is dropped with the object, and told of nothing before.
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_COLLISION` if there is one of this type already;
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    pub(super) fn attach<T: Send + Sync + 'static>(&self, value: T) -> Result<&T> {
        self.add(value, |_| {})
    }

    /// Adds a value that is told when the object is deleted.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub(super) fn attach_context<T: Context>(&self, value: T) -> Result<&T> {
        self.add(value, cleanup_slot::<T>)
    }

    fn add<T: Send + Sync + 'static>(
        &self,
        value: T,
        cleanup: unsafe fn(NonNull<SlotHead>),
    ) -> Result<&T> {
        let kind = TypeId::of::<T>();
        let mut slot = Box::new(Slot {
            head: SlotHead {
                kind,
                next: ptr::null_mut(),
                cleanup,
                drop: drop_slot::<T>,
            },
            value,
        })?;
        let mut newest = self.0.load(Ordering::Acquire);
        loop {
            if find(newest, kind).is_some() {
                return Err(NtStatus::OBJECT_NAME_COLLISION);
            }
            slot.head.next = newest;
            let new = Box::into_raw(slot);
            // Release: who finds the slot finds the value in it.
            match self.0.compare_exchange(
                newest,
                new.cast().as_ptr(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                // SAFETY: the list keeps the slot, which is a `Slot<T>`.
                // INVARIANT: `find` looked at all that are behind it.
                Ok(_) => return Ok(&unsafe { new.as_ref() }.value),
                Err(other) => {
                    newest = other;
                    // SAFETY: given up above, and in no list.
                    slot = unsafe { Box::from_raw(new) };
                }
            }
        }
    }

    /// Tells the values that the object is deleted, newest first.
    pub(super) fn cleanup(&self) {
        let mut at = self.0.load(Ordering::Acquire);
        while let Some(slot) = NonNull::new(at) {
            // SAFETY: slots stay until the list is dropped.
            let head = unsafe { slot.as_ref() };
            // SAFETY: the head says what it is the head of.
            unsafe { (head.cleanup)(slot) };
            at = head.next;
        }
    }

    /// Drops the values, newest first, and leaves the list empty.
    ///
    /// # Safety
    /// Nobody has a reference to a value.
    pub(super) unsafe fn drop_all(&self) {
        let mut at = self.0.swap(ptr::null_mut(), Ordering::AcqRel);
        while let Some(slot) = NonNull::new(at) {
            // SAFETY: slots are valid until they are dropped below.
            let head = unsafe { slot.as_ref() };
            let drop = head.drop;
            at = head.next;
            // SAFETY: the head says what it is the head of, and the caller's promise.
            unsafe { drop(slot) };
        }
    }
}

/// The slot of that type in the list that begins with `at`.
fn find(mut at: *mut SlotHead, kind: TypeId) -> Option<NonNull<SlotHead>> {
    while let Some(slot) = NonNull::new(at) {
        // SAFETY: slots stay until their list is dropped.
        let head = unsafe { slot.as_ref() };
        if head.kind == kind {
            return Some(slot);
        }
        at = head.next;
    }
    None
}

unsafe fn cleanup_slot<T: Context>(slot: NonNull<SlotHead>) {
    // SAFETY: the field's contract.
    unsafe { slot.cast::<Slot<T>>().as_ref() }.value.cleanup();
}

unsafe fn drop_slot<T>(slot: NonNull<SlotHead>) {
    // SAFETY: the field's contract; the slot came from `Box::into_raw`.
    drop(unsafe { Box::from_raw(slot.cast::<Slot<T>>()) });
}

static VALUES: ContextInfo = ContextInfo::new::<Values>(c"dmf::Values", &VALUES);

/// The object's own list, made if it has none yet.
///
/// # Errors
/// What [`WdfObjectAllocateContext`][ms] returns: `STATUS_INSUFFICIENT_RESOURCES`,
/// `STATUS_DELETE_PENDING`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfobject/nf-wdfobject-wdfobjectallocatecontext
///
/// # Safety
/// The object is valid for `'a`.
pub(super) unsafe fn of_object<'a>(object: sys::WDFOBJECT) -> Result<&'a Values> {
    // SAFETY: the caller's promise.
    if let Some(values) = unsafe { existing(object) } {
        return Ok(values);
    }
    let mut attributes = attributes(&VALUES, no_handle());
    attributes.EvtCleanupCallback = Some(evt_cleanup);
    attributes.EvtDestroyCallback = Some(evt_destroy);
    let mut made = ptr::null_mut();
    // SAFETY: the object is valid, and the arguments are for the length of the call.
    // Somebody else may be quicker; that the context exists is a success.
    NtStatus::from_raw(unsafe {
        sys::kmdf::WdfObjectAllocateContext(object, &raw mut attributes, &raw mut made)
    })
    .into_result()?;
    // SAFETY: it has the context now.
    let values = unsafe { VALUES.of::<Values>(object) };
    // SAFETY: KMDF zeroes contexts, and an empty list is zero.
    Ok(unsafe { values.as_ref() })
}

/// The object's own list, if it has one.
///
/// # Safety
/// The object is valid for `'a`.
pub(super) unsafe fn existing<'a>(object: sys::WDFOBJECT) -> Option<&'a Values> {
    // SAFETY: the caller's promise.
    let values = unsafe { VALUES.find::<Values>(object) }?;
    // SAFETY: contexts are valid as long as their object.
    Some(unsafe { values.as_ref() })
}

// SAFETY: a request is KMDF's, and stays until its owner completes it.
unsafe impl<K: Kind> KmdfObject for Request<K> {
    fn object(&self) -> sys::WDFOBJECT {
        self.as_raw().cast()
    }
}

// SAFETY: this value owns the key.
unsafe impl KmdfObject for Key<'_> {
    fn object(&self) -> sys::WDFOBJECT {
        self.as_raw().cast()
    }
}

callback! {
    unsafe fn evt_cleanup(object: sys::WDFOBJECT) {
        // SAFETY: KMDF calls this for objects with this context.
        if let Some(values) = unsafe { existing(object) } {
            values.cleanup();
        }
    }
}

callback! {
    unsafe fn evt_destroy(object: sys::WDFOBJECT) {
        // SAFETY: as in `evt_cleanup`; contexts are freed after this.
        if let Some(values) = unsafe { existing(object) } {
            // SAFETY: the last reference to the object is gone, and values are
            // borrowed from one.
            unsafe { values.drop_all() };
        }
    }
}
