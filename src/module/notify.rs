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
//!
//! A module that is open while there is something else to talk to. Here a timer
//! stands for whatever notifies of that:
//!
//! ```
//! use dmf::module::{
//!     Create, Instance, Link, ModuleConfig, OpenPolicy, Opener, Register, Unregister,
//! };
//! use dmf::prelude::*;
//! use dmf::wdf::{Timer, TimerFired};
//!
//! #[derive(Clone)]
//! pub struct Peer(Link<Talk>);
//! pub struct Talk { arrival: Timer, opener: SpinLock<Option<Opener>> }
//! pub struct Config;
//!
//! impl Peer {
//!     pub fn is_there(&self) -> bool { self.0.enter().is_ok() }
//! }
//!
//! impl Instance for Talk {
//!     const OPEN: OpenPolicy = OpenPolicy::NotifyPrepareHardware;
//!
//!     fn register(&self, cx: &mut Register<'_>) -> Result {
//!         let opener = cx.opener();
//!         self.opener.with(|kept| kept.replace(opener));
//!         self.arrival.start(Duration::from_millis(100))?;
//!         Ok(())
//!     }
//!     fn unregister(&self, cx: &mut Unregister<'_>) {
//!         let _ = self.arrival.stop_and_wait(cx.irql());
//!         drop(self.opener.with(Option::take));
//!     }
//! }
//!
//! impl Talk {
//!     fn arrived(&self, fired: &mut TimerFired<'_>) {
//!         if let Some(opener) = self.opener.with(|kept| kept.clone()) {
//!             let _ = opener.open(fired.irql());
//!         }
//!     }
//! }
//! # impl Module for Peer {
//! #     type Instance = Talk;
//! #     fn over(instance: Link<Talk>) -> Self { Peer(instance) }
//! # }
//! # impl<O> ModuleConfig<O> for Config {
//! #     type Module = Peer;
//! #     fn create(self, cx: &mut Create<'_, O, Talk>) -> Result<Talk> {
//! #         Ok(Talk { arrival: cx.timer(Talk::arrived)?, opener: SpinLock::new(None) })
//! #     }
//! # }
//! # dmf::driver!(Pair);
//! # struct Pair { peer: Handle<Peer> }
//! # impl Device for Pair {
//! #     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
//! #         Ok(Pair { peer: add.module(Config)? })
//! #     }
//! #     fn d0_entry(&self, _cx: &mut D0Entry<'_>) -> Result {
//! #         assert!(!self.peer.is_there());
//! #         Ok(())
//! #     }
//! #     fn d0_exit(&self, _cx: &mut D0Exit<'_>) {
//! #         assert!(self.peer.is_there());
//! #     }
//! # }
//! # ntsim::run_driver(Pair::DRIVER_ENTRY, |machine, _| {
//! #     machine.run_for(std::time::Duration::from_secs(1)).unwrap();
//! # });
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

contexts! {
    /// What [`Instance::unregister`](super::Instance::unregister) is given.
    ///
    /// C counterpart: the argument of [`DMF_ModuleNotificationUnregister`][dmf].
    ///
    /// [dmf]: https://github.com/microsoft/DMF/blob/master/Dmf/Documentation/Driver%20Module%20Framework.md
    Unregister {}
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
