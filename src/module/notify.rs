// SPDX-License-Identifier: MIT OR Apache-2.0

//! Modules that open and close themselves when they are notified of something.
//!
//! ```text
//!             register()              opener.open()
//!   created ─────────────► waiting ───────────────────► open
//!      ▲                     │ ▲      opener.close()      │
//!      │                     │ └──────────────────────────┘
//!      └─────────────────────┘
//!     unregister(): closed by the framework, if need be
//! ```

use core::fmt;
use core::ptr::NonNull;

use super::node::{self, Header, Reference};
use crate::irql::{Irql, Passive};
use crate::status::Result;

/// What [`Instance::register`](super::Instance::register) is given.
///
/// C counterpart: the argument of [`DMF_ModuleNotificationRegister`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
pub struct Register<'a> {
    node: NonNull<Header>,
    irql: Irql<'a, Passive>,
}

impl<'a> Register<'a> {
    /// # Safety
    /// The level is `PASSIVE_LEVEL`, and the node is valid for `'a`.
    pub(crate) unsafe fn new(node: NonNull<Header>) -> Self {
        Self {
            node,
            // SAFETY: the caller's promise.
            irql: unsafe { Irql::assume() },
        }
    }

    /// The proof that the call is at `PASSIVE_LEVEL`.
    pub fn irql(&mut self) -> &mut Irql<'a, Passive> {
        &mut self.irql
    }

    /// What the notification's callback opens and closes the instance with.
    #[must_use]
    pub fn opener(&self) -> Opener {
        // SAFETY: the node is valid.
        Opener(unsafe { Reference::to(self.node) })
    }
}

impl fmt::Debug for Register<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register").finish_non_exhaustive()
    }
}

/// What [`Instance::unregister`](super::Instance::unregister) is given.
///
/// C counterpart: the argument of [`DMF_ModuleNotificationUnregister`][dmf].
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
#[derive(Debug)]
pub struct Unregister<'a> {
    irql: Irql<'a, Passive>,
}

impl<'a> Unregister<'a> {
    /// # Safety
    /// The level is `PASSIVE_LEVEL`.
    pub(crate) unsafe fn new() -> Self {
        Self {
            // SAFETY: the caller's promise.
            irql: unsafe { Irql::assume() },
        }
    }

    /// The proof that the call is at `PASSIVE_LEVEL`.
    pub fn irql(&mut self) -> &mut Irql<'a, Passive> {
        &mut self.irql
    }
}

/// Opens and closes an instance whose policy is one of the `Notify` ones.
///
/// It may be used from any thread, also by several at once: one after the other
/// has its turn. It may outlive the instance, and is refused then.
///
/// C counterpart: [`DMF_ModuleOpen` and `DMF_ModuleClose`][dmf], as a notification
/// calls them.
///
/// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
#[derive(Clone)]
pub struct Opener(Reference);

impl Opener {
    /// Opens the instance. One that is open already stays as it is.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// What the instance's `open` returned; `STATUS_INVALID_DEVICE_STATE` if the
    /// instance is not registered, or if the call comes from its own `open` or
    /// `close` or from a client's callback there.
    ///
    /// C counterpart: `DMF_ModuleOpen`.
    pub fn open(&self, _irql: &Irql<'_, Passive>) -> Result {
        // SAFETY: the reference keeps the memory valid, and the token proves the level.
        unsafe { node::open_self(self.0.node()) }
    }

    /// Closes the instance, after its methods in flight have left. One that is
    /// closed already stays as it is. Not to be called from a method of the
    /// instance, which would wait for itself.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the instance is gone, or if the call
    /// comes from its own `open` or `close` or from a client's callback there.
    ///
    /// C counterpart: `DMF_ModuleClose`.
    pub fn close(&self, _irql: &Irql<'_, Passive>) -> Result {
        // SAFETY: the reference keeps the memory valid, and the token proves the level.
        unsafe { node::close_self(self.0.node()) }
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}
