// SPDX-License-Identifier: MIT OR Apache-2.0

//! What all KMDF objects of this crate have in common: attributes, contexts,
//! and the list by which their owner's node deletes them.

use core::cell::Cell;
use core::ffi::CStr;
use core::ptr::{self, NonNull};

use crate::module::node::Header;
use crate::sys;

/// The kind of a context, by whose address KMDF knows it.
#[repr(transparent)]
pub(crate) struct ContextInfo(sys::WDF_OBJECT_CONTEXT_TYPE_INFO);

// SAFETY: the structure is not changed, and its pointers are to statics.
unsafe impl Sync for ContextInfo {}

impl ContextInfo {
    /// The kind of context that is a `T`. Only for a `static`, whose own
    /// address is `unique`.
    pub(crate) const fn new<T>(name: &'static CStr, unique: &'static Self) -> Self {
        Self(sys::WDF_OBJECT_CONTEXT_TYPE_INFO {
            Size: sys::size_field::<sys::WDF_OBJECT_CONTEXT_TYPE_INFO>(),
            ContextName: name.as_ptr(),
            ContextSize: size_of::<T>(),
            UniqueType: &raw const unique.0,
            EvtDriverGetUniqueContextType: None,
        })
    }

    /// The context of this kind in an object.
    ///
    /// # Safety
    /// The object is valid and was created with this kind of context, a `T`.
    pub(crate) unsafe fn of<T>(&'static self, object: sys::WDFOBJECT) -> NonNull<T> {
        // SAFETY: the caller's promise.
        let context =
            unsafe { sys::kmdf::WdfObjectGetTypedContextWorker(object, &raw const self.0) };
        // SAFETY: the object has this kind of context.
        unsafe { NonNull::new_unchecked(context.cast()) }
    }
}

/// Attributes of an object with a context of this kind, below `parent`.
///
/// C counterpart: `WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE`.
pub(crate) fn attributes(
    context: &'static ContextInfo,
    parent: sys::WDFOBJECT,
) -> sys::WDF_OBJECT_ATTRIBUTES {
    sys::WDF_OBJECT_ATTRIBUTES {
        Size: sys::size_field::<sys::WDF_OBJECT_ATTRIBUTES>(),
        ExecutionLevel: sys::_WDF_EXECUTION_LEVEL::WdfExecutionLevelInheritFromParent,
        SynchronizationScope:
            sys::_WDF_SYNCHRONIZATION_SCOPE::WdfSynchronizationScopeInheritFromParent,
        ParentObject: parent,
        ContextTypeInfo: &raw const context.0,
        ..sys::WDF_OBJECT_ATTRIBUTES::default()
    }
}

/// An object in the list of its owner's node. It is the first field of the
/// object's context.
#[repr(C)]
pub(crate) struct ObjectLink {
    object: sys::WDFOBJECT,
    /// Stops the object and waits until its callback does not run.
    ///
    /// Safety: the object is valid, and the level is `PASSIVE_LEVEL`.
    stop: unsafe fn(sys::WDFOBJECT),
    older: Cell<Option<NonNull<ObjectLink>>>,
}

impl ObjectLink {
    pub(crate) const fn new(object: sys::WDFOBJECT, stop: unsafe fn(sys::WDFOBJECT)) -> Self {
        Self {
            object,
            stop,
            older: Cell::new(None),
        }
    }

    /// Puts an object into its owner's list.
    ///
    /// # Safety
    /// Both are valid, `link` is in no list, and the caller is the device's
    /// device-add callback.
    pub(crate) unsafe fn push(owner: NonNull<Header>, link: NonNull<Self>) {
        // SAFETY: the caller's promise.
        let owner = unsafe { owner.as_ref() };
        // SAFETY: the caller's promise.
        unsafe { link.as_ref() }.older.set(owner.objects.get());
        owner.objects.set(Some(link));
    }

    /// Stops and deletes the objects of a list, newest first.
    ///
    /// # Safety
    /// The list was its owner's and is not used any more; `PASSIVE_LEVEL`.
    pub(crate) unsafe fn delete_all(mut newest: Option<NonNull<Self>>) {
        while let Some(link) = newest {
            // SAFETY: a link is valid until its object is deleted.
            let link = unsafe { link.as_ref() };
            newest = link.older.get();
            let object = link.object;
            // SAFETY: the caller's promise.
            unsafe { (link.stop)(object) };
            // SAFETY: the object is valid and nobody uses it; `link` ends here.
            unsafe { sys::kmdf::WdfObjectDelete(object) };
        }
    }
}

/// A null handle, for out parameters.
pub(crate) const fn no_handle() -> sys::WDFOBJECT {
    ptr::null_mut()
}
