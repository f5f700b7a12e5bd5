// SPDX-License-Identifier: MIT OR Apache-2.0

//! What all KMDF objects of this crate have in common: attributes, contexts,
//! and the list by which their owner's node deletes them.

use core::cell::Cell;
use core::ffi::CStr;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};

use super::values;
use crate::module::node::Header;
use crate::status::{NtStatus, Result};
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
        let context = unsafe { self.find(object) };
        // SAFETY: the object has this kind of context.
        unsafe { context.unwrap_unchecked() }
    }

    /// The context of this kind in an object, if it has one.
    ///
    /// # Safety
    /// The object is valid. This kind of context is a `T`.
    pub(crate) unsafe fn find<T>(&'static self, object: sys::WDFOBJECT) -> Option<NonNull<T>> {
        // SAFETY: the caller's promise.
        let context =
            unsafe { sys::kmdf::WdfObjectGetTypedContextWorker(object, &raw const self.0) };
        NonNull::new(context.cast())
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

    /// Stops the objects of a list, newest first, and waits for their callbacks.
    ///
    /// # Safety
    /// The list is its owner's; `PASSIVE_LEVEL`.
    pub(crate) unsafe fn stop_all(mut newest: Option<NonNull<Self>>) {
        while let Some(link) = newest {
            // SAFETY: a link is valid until its object is deleted.
            let link = unsafe { link.as_ref() };
            newest = link.older.get();
            // SAFETY: the caller's promise.
            unsafe { (link.stop)(link.object) };
        }
    }

    /// Deletes the objects of a list, newest first.
    ///
    /// # Safety
    /// The list was its owner's and is not used any more, and its objects do
    /// not run; `PASSIVE_LEVEL`.
    pub(crate) unsafe fn delete_all(mut newest: Option<NonNull<Self>>) {
        while let Some(link) = newest {
            // SAFETY: a link is valid until its object is deleted.
            let link = unsafe { link.as_ref() };
            newest = link.older.get();
            let object = link.object;
            // SAFETY: the object is valid and nobody uses it; `link` ends here.
            unsafe { sys::kmdf::WdfObjectDelete(object) };
        }
    }
}

/// A null handle of any kind, for out parameters.
pub(crate) const fn no_handle<T>() -> *mut T {
    ptr::null_mut()
}

/// Attributes of an object without a context; its parent is the driver.
///
/// C counterpart: `WDF_OBJECT_ATTRIBUTES_INIT`.
pub(crate) fn plain_attributes() -> sys::WDF_OBJECT_ATTRIBUTES {
    sys::WDF_OBJECT_ATTRIBUTES {
        Size: sys::size_field::<sys::WDF_OBJECT_ATTRIBUTES>(),
        ExecutionLevel: sys::_WDF_EXECUTION_LEVEL::WdfExecutionLevelInheritFromParent,
        SynchronizationScope:
            sys::_WDF_SYNCHRONIZATION_SCOPE::WdfSynchronizationScopeInheritFromParent,
        ..sys::WDF_OBJECT_ATTRIBUTES::default()
    }
}

/// A framework object that a value of this crate owns: dropping it deletes the object.
///
/// Its parent is the driver object, which outlives all code of the driver; so
/// the object is valid as long as this value, wherever that is kept.
///
/// # Invariants
/// The object is valid, its parent is the driver, and nobody else deletes it.
pub(crate) struct Owned(sys::WDFOBJECT);

// SAFETY: a handle is a number; KMDF synchronizes reference counts and deletion.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

impl Owned {
    /// # Safety
    /// As the invariants say.
    pub(crate) const unsafe fn new(object: sys::WDFOBJECT) -> Self {
        // INVARIANT: the caller's promise.
        Self(object)
    }

    pub(crate) const fn raw(&self) -> sys::WDFOBJECT {
        self.0
    }

    /// Gives up ownership.
    pub(crate) fn into_raw(self) -> sys::WDFOBJECT {
        core::mem::ManuallyDrop::new(self).0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the invariant. Callable up to DISPATCH_LEVEL, above which no
        // code of this crate's users drops anything.
        unsafe { sys::kmdf::WdfObjectDelete(self.0) };
    }
}

/// What an [`Object`] holds, and what can be attached to a [`KmdfObject`].
///
/// C counterpart: a [context][ms], made by `WDF_DECLARE_CONTEXT_TYPE`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-object-context-space
pub trait Context: Send + Sync + 'static {
    /// Called when the object is deleted, while others may still hold it.
    ///
    /// The place to stop what the value does. `Drop` comes later, once nobody
    /// holds the object.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`EvtCleanupCallback`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfobject/nc-wdfobject-evt_wdf_object_context_cleanup
    fn cleanup(&self) {}
}

/// A KMDF object, which can carry values of the driver's own types.
///
/// ```text
///   attach ──► attached ... ──► the object is deleted: cleanup() ──► no reference left: drop
/// ```
///
/// An object carries at most one value of each type, until it is destroyed.
/// When that is, the type of the object says; KMDF's own, such as requests and
/// queues, when KMDF is done with them.
///
/// ```
/// # use dmf::prelude::*;
/// # dmf::driver!(Example);
/// # struct Example;
/// # impl Device for Example {
/// #     fn modules(_: &mut Modules<'_, Self>) -> Result<Self> { Ok(Example) }
/// #     fn self_managed_io_init(&self, _: &mut SelfManagedIoInit<'_>) -> Result {
/// use dmf::wdf::{Context, KmdfObject, Memory};
///
/// /// Whose packet it is.
/// struct Sender(u32);
/// impl Context for Sender {}
///
/// let packet = Memory::new(64)?;
/// packet.attach(|| Ok(Sender(7)))?;
/// assert_eq!(packet.attached::<Sender>().map(|sender| sender.0), Some(7));
/// # Ok(())
/// #     }
/// # }
/// # ntsim::run_driver(Example::DRIVER_ENTRY, |_, _| ());
/// ```
///
/// See [Framework object context space][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-object-context-space
///
/// # Safety
/// The handle stays valid as long as the value is borrowed.
pub unsafe trait KmdfObject {
    /// The handle.
    fn object(&self) -> sys::WDFOBJECT;

    /// Attaches the value that `make` makes, in memory of its own that does not
    /// move.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_COLLISION` if the object carries one of this type
    /// already; `STATUS_DELETE_PENDING` if it is being deleted;
    /// `STATUS_INSUFFICIENT_RESOURCES`; what `make` returns. A value that was
    /// made is dropped.
    ///
    /// C counterpart: [`WdfObjectAllocateContext`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfobject/nf-wdfobject-wdfobjectallocatecontext
    fn attach<T: Context>(&self, make: impl FnOnce() -> Result<T>) -> Result<&T> {
        // SAFETY: the trait's contract.
        let values = unsafe { values::of_object(self.object()) }?;
        values.attach_context(make()?)
    }

    /// The value of this type, if one was attached.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: `WdfObjectGetTypedContext`, over [`WdfObjectGetTypedContextWorker`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfobject/nf-wdfobject-wdfobjectgettypedcontextworker
    fn attached<T: Context>(&self) -> Option<&T> {
        // SAFETY: the trait's contract.
        unsafe { values::existing(self.object()) }?.get()
    }
}

/// A KMDF object of any kind that is somebody else's.
///
/// C counterpart: [`WDFOBJECT`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-object-life-cycle
///
/// # Invariants
/// The object is valid for `'a`.
#[derive(Clone, Copy, Debug)]
pub struct ObjectRef<'a>(sys::WDFOBJECT, PhantomData<&'a ()>);

impl ObjectRef<'_> {
    /// The object of this handle.
    ///
    /// # Safety
    /// The handle is valid as long as the lifetime lasts.
    #[must_use]
    pub const unsafe fn from_raw(object: sys::WDFOBJECT) -> Self {
        // INVARIANT: the caller's promise.
        Self(object, PhantomData)
    }

    /// The handle, for calls that this crate does not have.
    #[must_use]
    pub const fn as_raw(self) -> sys::WDFOBJECT {
        self.0
    }
}

// SAFETY: the invariant.
unsafe impl KmdfObject for ObjectRef<'_> {
    fn object(&self) -> sys::WDFOBJECT {
        self.0
    }
}

/// What each [`Object`] starts with.
struct Held {
    owners: AtomicUsize,
    /// Safety: the header is that of a `HeldValue` of the right type.
    cleanup: unsafe fn(NonNull<Held>),
    /// Safety: as above; the value is not used any more.
    drop: unsafe fn(NonNull<Held>),
}

#[repr(C)]
struct HeldValue<T> {
    header: Held,
    value: T,
}

static HELD: ContextInfo = ContextInfo::new::<Held>(c"dmf::Object", &HELD);

/// A general framework object around a `T`, counted: it is deleted when the
/// last owner is dropped.
///
/// The value is made in the object's own memory, told of the deletion by
/// [`Context::cleanup`], and dropped exactly once, when the object is
/// destroyed. Use [`Arc`](crate::pool::Arc) unless something asks for a
/// framework object, such as a [`Collection`](super::Collection).
///
/// ```text
///   new ──► owners > 0 ──► last owner dropped: cleanup() ──► no reference left: drop
/// ```
///
/// ```
/// # use dmf::prelude::*;
/// # dmf::driver!(Example);
/// # struct Example;
/// # impl Device for Example {
/// #     fn modules(_: &mut Modules<'_, Self>) -> Result<Self> { Ok(Example) }
/// #     fn self_managed_io_init(&self, _: &mut SelfManagedIoInit<'_>) -> Result {
/// use dmf::wdf::{Context, Object};
///
/// struct Session(u32);
/// impl Context for Session {}
///
/// let session = Object::new(|| Ok(Session(7)))?;
/// let again = session.clone();
/// drop(session);
/// assert_eq!(again.0, 7);
/// # Ok(())
/// #     }
/// # }
/// # ntsim::run_driver(Example::DRIVER_ENTRY, |_, _| ());
/// ```
///
/// A type that is aligned to more than the framework's 16 bytes is refused:
///
/// ```compile_fail,E0080
/// use dmf::wdf::{Context, Object};
///
/// #[repr(align(64))]
/// struct Line([u8; 64]);
/// impl Context for Line {}
///
/// let refused = Object::new(|| Ok(Line([0; 64])));
/// ```
///
/// # IRQL
/// `<= DISPATCH_LEVEL`
///
/// C counterpart: [`WdfObjectCreate`][ms] with a context.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfobject/nf-wdfobject-wdfobjectcreate
///
/// # Invariants
/// The object has a context of kind `HELD` that is a `HeldValue<T>`; `owners`
/// and the object's references count this value.
pub struct Object<T: Context> {
    raw: sys::WDFOBJECT,
    held: NonNull<HeldValue<T>>,
}

// SAFETY: an owner can get at the value from its thread, and drop it there;
// `Context` requires both.
unsafe impl<T: Context> Send for Object<T> {}
// SAFETY: as above.
unsafe impl<T: Context> Sync for Object<T> {}

/// The alignment of contexts on 64-bit Windows (`MEMORY_ALLOCATION_ALIGNMENT`).
const CONTEXT_ALIGNMENT: usize = 16;

impl<T: Context> Object<T> {
    /// Makes an object, and its value by `make`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`, and what `make` returns; nothing is left behind.
    ///
    /// C counterpart: [`WdfObjectCreate`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfobject/nf-wdfobject-wdfobjectcreate
    pub fn new(make: impl FnOnce() -> Result<T>) -> Result<Self> {
        const {
            assert!(
                align_of::<HeldValue<T>>() <= CONTEXT_ALIGNMENT,
                "the framework aligns contexts to 16 bytes; a type that needs more cannot be one"
            );
        }
        let value = make()?;
        let mut attributes = attributes(&HELD, no_handle());
        attributes.ContextSizeOverride = size_of::<HeldValue<T>>();
        attributes.EvtCleanupCallback = Some(evt_cleanup);
        attributes.EvtDestroyCallback = Some(evt_destroy);
        let mut raw = no_handle();
        // SAFETY: the structure is valid for the length of the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfObjectCreate(&raw mut attributes, &raw mut raw)
        })
        .into_result()?;
        // SAFETY: the object was created with this context, as large as asked for.
        let held = unsafe { HELD.of::<HeldValue<T>>(raw) };
        // SAFETY: the context is ours and not used yet; its alignment was checked.
        unsafe {
            held.write(HeldValue {
                header: Held {
                    owners: AtomicUsize::new(1),
                    cleanup: cleanup::<T>,
                    drop: drop_value::<T>,
                },
                value,
            });
        }
        reference(raw);
        // INVARIANT: just made; one owner.
        Ok(Self { raw, held })
    }

    /// The handle, for calls that this crate does not have.
    #[must_use]
    pub const fn as_raw(&self) -> sys::WDFOBJECT {
        self.raw
    }

    /// Gives up this owner's count. [`from_raw`](Self::from_raw) takes it back.
    #[must_use]
    pub fn into_raw(self) -> sys::WDFOBJECT {
        core::mem::ManuallyDrop::new(self).raw
    }

    /// Takes back what [`into_raw`](Self::into_raw) gave up.
    ///
    /// # Safety
    /// The handle came from `into_raw` of the same `T`, once.
    #[must_use]
    pub unsafe fn from_raw(raw: sys::WDFOBJECT) -> Self {
        // SAFETY: the caller's promise: the object has this context.
        let held = unsafe { HELD.of::<HeldValue<T>>(raw) };
        // INVARIANT: the caller's promise.
        Self { raw, held }
    }

    fn held(&self) -> &HeldValue<T> {
        // SAFETY: the invariant.
        unsafe { self.held.as_ref() }
    }
}

// SAFETY: an owner keeps the object.
unsafe impl<T: Context> KmdfObject for Object<T> {
    fn object(&self) -> sys::WDFOBJECT {
        self.raw
    }
}

impl<T: Context> Clone for Object<T> {
    fn clone(&self) -> Self {
        self.held().header.owners.fetch_add(1, Ordering::Relaxed);
        reference(self.raw);
        Self {
            raw: self.raw,
            held: self.held,
        }
    }
}

impl<T: Context> Deref for Object<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.held().value
    }
}

impl<T: Context> Drop for Object<T> {
    fn drop(&mut self) {
        // AcqRel: what the other owners did happens before the deletion.
        if self.held().header.owners.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: the invariant; this was the last owner, so once.
            unsafe { sys::kmdf::WdfObjectDelete(self.raw) };
        }
        dereference(self.raw);
    }
}

impl<T: Context + fmt::Debug> fmt::Debug for Object<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

pub(super) fn reference(raw: sys::WDFOBJECT) {
    // SAFETY: the callers have a valid object; tag and file may be null.
    unsafe { sys::kmdf::WdfObjectReferenceActual(raw, ptr::null_mut(), 0, c"".as_ptr()) };
}

pub(super) fn dereference(raw: sys::WDFOBJECT) {
    // SAFETY: the callers give up a reference of their own.
    unsafe { sys::kmdf::WdfObjectDereferenceActual(raw, ptr::null_mut(), 0, c"".as_ptr()) };
}

unsafe fn cleanup<T: Context>(held: NonNull<Held>) {
    // SAFETY: `Held`'s contract.
    unsafe { held.cast::<HeldValue<T>>().as_ref() }
        .value
        .cleanup();
}

unsafe fn drop_value<T: Context>(held: NonNull<Held>) {
    // SAFETY: `Held`'s contract: the value is not used any more.
    unsafe { held.cast::<HeldValue<T>>().drop_in_place() };
}

callback! {
    unsafe fn evt_cleanup(object: sys::WDFOBJECT) {
        // SAFETY: KMDF calls this for objects that were created with this context.
        let held = unsafe { HELD.of::<Held>(object) };
        // SAFETY: the header was written before the object could be deleted.
        let cleanup = unsafe { held.as_ref() }.cleanup;
        // SAFETY: the header says what it is the header of.
        unsafe { cleanup(held) };
    }
}

callback! {
    unsafe fn evt_destroy(object: sys::WDFOBJECT) {
        // SAFETY: as in `evt_cleanup`; contexts are freed after this.
        let held = unsafe { HELD.of::<Held>(object) };
        // SAFETY: as above.
        let drop = unsafe { held.as_ref() }.drop;
        // SAFETY: the last reference is gone, so nobody uses the value.
        unsafe { drop(held) };
    }
}

/// Makes a type over [`Owned`] give its raw handle.
macro_rules! raw_handle {
    ($name:ident $(<$generic:ident $(: $bound:path)?>)?, $raw:ident) => {
        impl $(<$generic $(: $bound)?>)? $name $(<$generic>)? {
            /// The handle, for calls that this crate does not have. It is valid
            /// as long as this value.
            #[must_use]
            pub const fn as_raw(&self) -> $crate::sys::$raw {
                self.object.raw().cast()
            }
        }

        // SAFETY: this value owns the object.
        unsafe impl $(<$generic $(: $bound)?>)? $crate::wdf::KmdfObject for $name $(<$generic>)? {
            fn object(&self) -> $crate::sys::WDFOBJECT {
                self.object.raw()
            }
        }

        impl $(<$generic $(: $bound)?>)? core::fmt::Debug for $name $(<$generic>)? {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use raw_handle;
