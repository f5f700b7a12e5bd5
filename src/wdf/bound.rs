// SPDX-License-Identifier: MIT OR Apache-2.0

//! What [`Timer`](super::Timer), [`WorkItem`](super::WorkItem) and
//! [`Dpc`](super::Dpc) have in common: a KMDF object that calls a function of
//! its owner, and that its owner's node stops and deletes.

use core::ptr::NonNull;

use super::object::{ContextInfo, ObjectLink, ObjectRef, attributes, no_handle};
use crate::irql::{Irql, Level};
use crate::module::Running;
use crate::module::node::{self, Header, Reference};
use crate::status::{NtStatus, Result};
use crate::sys;

/// What a function that KMDF calls is given: the proof of the level it runs at.
///
/// No C counterpart: there an annotation says at which level a callback runs.
// Transparent, so that it is the same for each level.
#[derive(Debug)]
#[repr(transparent)]
pub struct Called<'a, L: Level> {
    running: Running<'a>,
    irql: Irql<'a, L>,
}

impl<'a, L: Level> Called<'a, L> {
    /// # Safety
    /// As [`Irql::assume`], and as [`Running::new`] with the node whose function
    /// is called.
    pub(crate) const unsafe fn new(node: NonNull<Header>) -> Self {
        Self {
            // SAFETY: the caller's promise.
            running: unsafe { Running::new(node) },
            // SAFETY: the caller's promise.
            irql: unsafe { Irql::assume() },
        }
    }

    /// The proof that the function runs at that level.
    pub fn irql(&mut self) -> &mut Irql<'a, L> {
        &mut self.irql
    }

    /// The proof that a function of this owner runs.
    #[must_use]
    pub const fn running(&self) -> Running<'a> {
        self.running
    }
}

/// What the callback finds in the object.
#[repr(C)]
struct Context {
    /// First: the node's list is of links.
    link: ObjectLink,
    owner: NonNull<Header>,
    /// What is called: [`function`](Self::function), or [`call_counted`], which
    /// calls that.
    called: Target,
    function: Target,
}

/// A `fn(&O, &mut Called<'_, L>)` and its first argument, of whatever types.
/// Pointers to sized types are passed alike: [`fn`](primitive@fn#abi-compatibility).
#[derive(Clone, Copy)]
struct Target {
    function: Erased,
    this: NonNull<()>,
}

/// Safety: the first is the value or context of the function, the second a `Called`
/// of the level that it is to run at.
type Erased = unsafe fn(NonNull<()>, NonNull<()>);

static CONTEXT: ContextInfo = ContextInfo::new::<Context>(c"dmf::Bound", &CONTEXT);

/// The link to an object that calls a function of its owner.
///
/// # Invariants
/// `handle` was made by [`create`](Self::create), and is valid as long as the
/// node of `owner` is alive.
pub(super) struct Bound {
    owner: Reference,
    handle: sys::WDFOBJECT,
}

// SAFETY: KMDF synchronizes all access to these objects.
unsafe impl Send for Bound {}
// SAFETY: as above.
unsafe impl Sync for Bound {}

impl Bound {
    /// Makes an object below the device with `make`, which calls KMDF.
    ///
    /// # Errors
    /// What `make` returns.
    ///
    /// # Safety
    /// `owner` is the header of a `Node<O>` of `device`, and the caller is the
    /// device's device-add callback. `make` creates an object with the
    /// attributes, whose callback calls [`call`] at level `L`, and stores its handle. `stop` returns when that callback neither runs nor will.
    pub(super) unsafe fn create<O: 'static, L: Level>(
        owner: NonNull<Header>,
        device: sys::WDFDEVICE,
        function: fn(&O, &mut Called<'_, L>),
        stop: unsafe fn(sys::WDFOBJECT),
        make: impl FnOnce(&mut sys::WDF_OBJECT_ATTRIBUTES, &mut sys::WDFOBJECT) -> sys::NTSTATUS,
    ) -> Result<Self> {
        let mut attributes = attributes(&CONTEXT, device.cast());
        let mut handle = no_handle();
        NtStatus::from_raw(make(&mut attributes, &mut handle)).into_result()?;
        // SAFETY: the object was created with this context.
        let context = unsafe { CONTEXT.of::<Context>(handle) };
        let function = Target {
            // SAFETY: only pointers to sized types differ.
            function: unsafe {
                core::mem::transmute::<fn(&O, &mut Called<'_, L>), Erased>(function)
            },
            // SAFETY: the caller's promise.
            this: unsafe { node::place::<O>(owner) },
        };
        // SAFETY: the caller's promise: the node is valid.
        let called = if unsafe { owner.as_ref() }.is_destroyed_by_kmdf() {
            function
        } else {
            // The driver can have the owner destroyed from within the callback:
            // then stopping the object would not wait for it.
            Target {
                function: call_counted,
                this: context.cast(),
            }
        };
        // SAFETY: the context is ours, and the object has not been started.
        unsafe {
            context.write(Context {
                link: ObjectLink::new(handle, stop),
                owner,
                called,
                function,
            });
        }
        // SAFETY: the link is the context's first field, and new.
        unsafe { ObjectLink::push(owner, context.cast()) };
        // INVARIANT: the node deletes the object after it has ceased to be alive.
        Ok(Self {
            // SAFETY: the node is valid.
            owner: unsafe { Reference::to(owner) },
            handle,
        })
    }

    /// Runs `action` with the handle while the owner is alive, and with it the object.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    pub(super) fn with<R>(&self, action: impl FnOnce(sys::WDFOBJECT) -> R) -> Result<R> {
        // SAFETY: the reference keeps the memory valid.
        let _alive = unsafe { node::enter_alive_erased(self.owner.node()) }?;
        Ok(action(self.handle))
    }

    /// The same for one of the owner's own functions: that it runs keeps the
    /// owner, and nothing needs to be counted. What it starts while the owner is
    /// being destroyed is stopped after it.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    #[inline]
    pub(super) fn with_within<R>(
        &self,
        running: Running<'_>,
        action: impl Fn(sys::WDFOBJECT) -> R,
    ) -> Result<R> {
        if running.is_of(self.owner.node()) {
            Ok(action(self.handle))
        } else {
            self.with_counted(action)
        }
    }

    #[cold]
    fn with_counted<R>(&self, action: impl Fn(sys::WDFOBJECT) -> R) -> Result<R> {
        self.with(action)
    }

    /// The same, with the object as something that can carry values.
    pub(super) fn with_object<R>(&self, action: impl FnOnce(ObjectRef<'_>) -> R) -> Result<R> {
        // SAFETY: the invariant: the owner is alive during `action`, beyond
        // which the reference cannot be kept.
        self.with(|handle| action(unsafe { ObjectRef::from_raw(handle) }))
    }

    pub(super) const fn raw(&self) -> sys::WDFOBJECT {
        self.handle
    }

    /// Gives up the link; the reference to the owner goes with the handle.
    pub(super) fn into_raw(self) -> sys::WDFOBJECT {
        let _ = self.owner.into_raw();
        self.handle
    }

    /// # Safety
    /// `handle` came from [`into_raw`](Self::into_raw), was not taken back
    /// since, and the object's owner was not dropped.
    pub(super) unsafe fn from_raw(handle: sys::WDFOBJECT) -> Self {
        // SAFETY: the caller's promise: it was created with this context.
        let context = unsafe { CONTEXT.of::<Context>(handle) };
        // SAFETY: the context was written when the object was made.
        let owner = unsafe { context.as_ref() }.owner;
        // INVARIANT: the caller's promise.
        Self {
            // SAFETY: the reference that `into_raw` gave up.
            owner: unsafe { Reference::from_raw(owner) },
            handle,
        }
    }
}

/// Calls the function of an object's owner, unless the owner is being dropped:
/// then there is nobody to tell.
///
/// # Safety
/// The object was made by [`Bound::create`], and the level is that of its function.
#[inline]
pub(super) unsafe fn call(object: sys::WDFOBJECT) {
    // SAFETY: the caller's promise: it was created with this context.
    let context = unsafe { CONTEXT.of::<Context>(object) };
    // SAFETY: the context was written before the object could be started.
    let context = unsafe { context.as_ref() };
    // SAFETY: the object's owner, which deletes it, is there.
    if unsafe { context.owner.as_ref() }.is_alive() {
        // SAFETY: the caller's promise; KMDF destroys the owner in a callback of its
        // own, where stopping the object waits for this one, or else it is counted.
        // Which level it is the function knows: the type is the same for each.
        let mut called = unsafe { Called::<'_, crate::irql::Passive>::new(context.owner) };
        let Target { function, this } = context.called;
        // SAFETY: they belong together.
        unsafe { function(this, NonNull::from(&mut called).cast()) };
    }
}

/// Calls the function of the object with this context, counted.
///
/// # Safety
/// As [`Erased`].
unsafe fn call_counted(context: NonNull<()>, called: NonNull<()>) {
    // SAFETY: `create` gave the context along, which is there during its callback.
    let context = unsafe { context.cast::<Context>().as_ref() };
    // SAFETY: as above, and with it the owner.
    if let Ok(_alive) = unsafe { node::enter_alive_erased(context.owner) } {
        let Target { function, this } = context.function;
        // SAFETY: they belong together, and while this is inside the owner has a value.
        unsafe { function(this, called) };
    }
}

/// # Safety
/// `function` is a `fn(&O, &mut Called<'_, L>)`, `owner` is the header of a
/// `Node<O>` whose memory is valid, and the level is `L`.
pub(super) unsafe fn call_owner<O: 'static, L: Level>(node: NonNull<Header>, function: *const ()) {
    // SAFETY: the caller's promise.
    let Ok(owner) = (unsafe { node::enter_alive::<O>(node) }) else {
        return;
    };
    // SAFETY: the caller's promise.
    let function: fn(&O, &mut Called<'_, L>) = unsafe { core::mem::transmute(function) };
    // SAFETY: the caller's promise.
    function(&owner, &mut unsafe { Called::new(node) });
}

/// Makes a type over [`Bound`] convert to and from the raw handle.
macro_rules! bound_handle {
    ($name:ident, $raw:ident) => {
        impl $name {
            /// The handle, for calls that this crate does not have. It is valid
            /// until the owner was dropped.
            #[must_use]
            pub const fn as_raw(&self) -> $crate::sys::$raw {
                self.0.raw().cast()
            }

            /// Gives up this link, of which there is one. The object stays its
            /// owner's, which stops and deletes it.
            /// [`from_raw`](Self::from_raw) takes the link back; if nobody
            /// does, the owner's memory is never freed.
            #[must_use]
            pub fn into_raw(self) -> $crate::sys::$raw {
                self.0.into_raw().cast()
            }

            /// Takes back what [`into_raw`](Self::into_raw) gave up.
            ///
            /// # Safety
            /// The handle came from `into_raw` of this type and was not taken
            /// back since, and its owner was not dropped.
            #[must_use]
            pub unsafe fn from_raw(handle: $crate::sys::$raw) -> Self {
                // SAFETY: the caller's promise.
                Self(unsafe { $crate::wdf::bound::Bound::from_raw(handle.cast()) })
            }

            /// Runs `action` with the object, to which values can be
            /// [attached](crate::wdf::KmdfObject::attach).
            ///
            /// # IRQL
            /// `<= DISPATCH_LEVEL`
            ///
            /// # Errors
            /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made
            /// yet, or is gone.
            pub fn with_object<R>(
                &self,
                action: impl FnOnce($crate::wdf::ObjectRef<'_>) -> R,
            ) -> $crate::status::Result<R> {
                self.0.with_object(action)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}
pub(super) use bound_handle;
