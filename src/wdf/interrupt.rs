// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Interrupt`]: a device's interrupt, and the state that it shares with its ISR.
//!
//! # Vocabulary
//!
//! - *ISR*: the function that runs when the device asks for attention: that of
//!   an interrupt at the device's own IRQL ([`Dirql`]) above `DISPATCH_LEVEL`,
//!   where next to nothing may be called; that of a *passive* one, for a device
//!   behind a slow bus, on a thread.
//! - *state*: what the ISR works on. It gets nothing else.
//! - *deferred function*: a DPC or a work item, to which the ISR leaves the work.
//!
//! ```text
//!   D0Entry ─► enable(state) ─► … interrupt: isr(state) ─► dpc(owner) … ─► disable(state) ─► D0Exit
//!                                    ▲
//!              with(|state| …) ──────┘  one at a time
//! ```
//!
//! # Example
//!
//! ```
//! use dmf::prelude::*;
//! use dmf::wdf::{Claim, Interrupt, InterruptConfig, InterruptDpc, Isr};
//!
//! dmf::driver!(Card);
//!
//! struct Card { line: Interrupt<u32> }
//!
//! impl Device for Card {
//!     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
//!         let config = InterruptConfig::new(Card::isr).dpc(Card::dpc);
//!         Ok(Card { line: Interrupt::new(add, config, 0)? })
//!     }
//! }
//!
//! impl Card {
//!     fn isr(cx: &mut Isr<'_, u32>) -> Claim {
//!         *cx.state() += 1;
//!         let _ = cx.defer();
//!         Claim::Mine
//!     }
//!
//!     fn dpc(&self, _cx: &mut InterruptDpc<'_>) {
//!         let count = self.line.with(|count| core::mem::take(count));
//!         dmf::println!("{count} interrupts");
//!     }
//! }
//! # use ntsim::machine::{Hardware, Machine, Raised};
//! # let mut machine = Machine::default();
//! # let device = machine.add_driver("Card", Card::DRIVER_ENTRY).unwrap();
//! # machine.set_hardware(&device, Hardware::new().interrupt());
//! # machine.start_device(&device).unwrap();
//! # assert_eq!(machine.raise_interrupt(&device, 0).unwrap(), Raised::Delivered);
//! # machine.remove_device(&device).unwrap();
//! ```
//!
//! # What an ISR may do
//!
//! Its state, and [`Isr::defer`]. At a device's IRQL nothing else of this crate
//! may be called, so what gets there is plain data, by type: ISRs and the
//! actions of [`Interrupt::with`] are functions that capture nothing, and
//! states are [`IsrState`]s, which locks, events, boxes and handles are not:
//!
//! ```compile_fail,E0277
//! use dmf::prelude::*;
//! use dmf::wdf::{Claim, Interrupt, InterruptConfig, Isr};
//!
//! fn refused<O: Send + Sync + 'static>(add: &mut Modules<'_, O>, event: Event) {
//!     let config = InterruptConfig::new(|cx: &mut Isr<'_, Event>| {
//!         let _ = cx.state().set();
//!         Claim::Mine
//!     });
//!     let _ = Interrupt::new(add, config, event);
//! }
//! ```
//!
//! ```compile_fail,E0308
//! use dmf::prelude::*;
//! use dmf::wdf::Interrupt;
//!
//! fn refused(line: &Interrupt<u32>, event: &Event) {
//!     line.with(|_| { let _ = event.set(); });
//! }
//! ```
//!
//! What is left are locks and events in `static`s. The compiler does not see
//! an ISR use one; `ntsim` and Driver Verifier do.
//!
//! # The lock
//!
//! The state of an interrupt at the device's IRQL has a lock of its own, always
//! taken above every device's IRQL. So [`Interrupt::with`] works whether or not
//! the interrupt is connected, where `WdfInterruptAcquireLock` does only while
//! it is. A passive interrupt has a [`WaitLock`], which KMDF
//! takes before it calls the ISR.
//!
//! # Which resource
//!
//! The n-th interrupt that is [added](Interrupt::new) gets the n-th interrupt
//! resource of the device. A driver that wants to choose
//! [declares](Interrupt::declare) the interrupt and
//! [creates](Interrupt::create) it in PrepareHardware, from a resource that it
//! found among those assigned; each message of a message-signaled interrupt is
//! a resource of its own.
//!
//! See [Handling hardware interrupts][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/handling-hardware-interrupts

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::time::Duration;

use super::bound::{self, Called};
use super::dpc::Queued;
use super::lock::WaitLock;
use super::object::{ContextInfo, attributes, no_handle};
use super::resources::Resource;
use crate::device::PrepareHardware;
use crate::irql::{Dispatch, Irql, Passive};
use crate::module::Modules;
use crate::module::node::{self, Header, Reference};
use crate::pool::{Arc, Box};
use crate::status::{NtStatus, Result};
use crate::sync::{SpinLock, finally};
use crate::sys;

/// Above the interrupts of all devices and below the clock, on x64.
const SYNCH_LEVEL: sys::KIRQL = 12;

/// Data that is safe to have at a device's IRQL: nothing that locks, signals,
/// allocates or frees.
///
/// Numbers, atomics, and arrays, tuples and options of such. For a structure
/// use [`isr_state!`](crate::isr_state!), which looks at the fields.
///
/// No C counterpart: there nothing keeps an ISR's data from holding a lock.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be used by an interrupt's ISR",
    label = "not plain data",
    note = "an ISR runs above DISPATCH_LEVEL, where locks, events, boxes and handles must not be used; declare a structure of plain data with `dmf::isr_state!`, or leave the work to the interrupt's DPC"
)]
pub trait IsrState: Send + 'static {
    /// Checks the fields.
    #[doc(hidden)]
    const FIELDS: ();
}

macro_rules! plain_data {
    ($($ty:ty)*) => {$(
        impl IsrState for $ty {
            const FIELDS: () = ();
        }
    )*};
}

plain_data! {
    () bool char u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize
    core::sync::atomic::AtomicBool
    core::sync::atomic::AtomicU8 core::sync::atomic::AtomicU16
    core::sync::atomic::AtomicU32 core::sync::atomic::AtomicU64
    core::sync::atomic::AtomicUsize
    core::sync::atomic::AtomicI32 core::sync::atomic::AtomicI64
    Duration NtStatus crate::time::Instant
}

impl<T: IsrState, const N: usize> IsrState for [T; N] {
    const FIELDS: () = T::FIELDS;
}
impl<T: IsrState> IsrState for Option<T> {
    const FIELDS: () = T::FIELDS;
}
impl<T: IsrState> IsrState for core::cell::Cell<T> {
    const FIELDS: () = T::FIELDS;
}
impl<A: IsrState, B: IsrState> IsrState for (A, B) {
    const FIELDS: () = ();
}
impl<A: IsrState, B: IsrState, C: IsrState> IsrState for (A, B, C) {
    const FIELDS: () = ();
}
impl<T: IsrState + Sync> IsrState for &'static T {
    const FIELDS: () = T::FIELDS;
}

/// Declares a structure of plain data, which an interrupt's ISR can work on.
///
/// ```
/// dmf::isr_state! {
///     /// What the ISR counts.
///     #[derive(Debug, Default)]
///     pub struct Counts {
///         /// Interrupts.
///         pub raised: u32,
///         pub errors: [u16; 4],
///     }
/// }
/// # let _ = Counts::default();
/// ```
///
/// A field that is more than data is refused:
///
/// ```compile_fail,E0277
/// dmf::isr_state! {
///     struct Counts {
///         done: dmf::sync::Event,
///     }
/// }
/// ```
#[macro_export]
macro_rules! isr_state {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $ty:ty),* $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $ty,)*
        }

        impl $crate::wdf::interrupt::IsrState for $name {
            const FIELDS: () = {
                $(<$ty as $crate::wdf::interrupt::IsrState>::FIELDS;)*
            };
        }
    };
}

/// What an ISR says of an interrupt; lines can be shared.
///
/// C counterpart: the `BOOLEAN` of [`EvtInterruptIsr`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nc-wdfinterrupt-evt_wdf_interrupt_isr
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The device had asked for it.
    Mine,
    /// It is another device's.
    NotMine,
}

/// At which level an interrupt is handled: [`Dirql`] or [`Passive`].
///
/// C counterpart: the `PassiveHandling` of [`WDF_INTERRUPT_CONFIG`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/ns-wdfinterrupt-_wdf_interrupt_config
pub trait Handling<S>: sealed::Handling<S> + 'static {}

/// The device's own IRQL, above `DISPATCH_LEVEL`.
///
/// C counterpart: [DIRQL][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/managing-hardware-priorities
#[derive(Debug)]
pub enum Dirql {}

impl<S: IsrState> Handling<S> for Dirql {}
impl<S: Send + 'static> Handling<S> for Passive {}

mod sealed {
    use super::{Dirql, Irql, IsrState, Passive, PhantomData, UnsafeCell, WaitLock, locked};
    use crate::status::Result;
    use crate::sys;

    pub trait Handling<S>: Sized {
        type Lock;
        /// What an ISR has to show for its level.
        type Token<'a>;
        const PASSIVE: bool;

        fn new_lock() -> Result<Self::Lock>;

        /// The lock that KMDF is to take before it calls the ISR.
        fn framework_lock(lock: &Self::Lock) -> sys::WDFWAITLOCK;

        /// # Safety
        /// The level is that of the interrupt's ISR for `'a`.
        unsafe fn token<'a>() -> Self::Token<'a>;

        /// Runs `action` as part of the ISR, or of the enable or disable function.
        ///
        /// # Safety
        /// KMDF has called one of these, of the interrupt whose lock it is; the
        /// state is touched only with the lock.
        unsafe fn in_callback<R>(
            lock: &Self::Lock,
            state: &UnsafeCell<S>,
            action: impl FnOnce(&mut S) -> R,
        ) -> R;
    }

    impl<S: IsrState> Handling<S> for Dirql {
        type Lock = UnsafeCell<sys::KSPIN_LOCK>;
        /// Not to be sent to another thread.
        type Token<'a> = PhantomData<*mut ()>;
        const PASSIVE: bool = false;

        fn new_lock() -> Result<Self::Lock> {
            Ok(UnsafeCell::new(0))
        }

        fn framework_lock(_: &Self::Lock) -> sys::WDFWAITLOCK {
            core::ptr::null_mut()
        }

        unsafe fn token<'a>() -> Self::Token<'a> {
            PhantomData
        }

        unsafe fn in_callback<R>(
            lock: &Self::Lock,
            state: &UnsafeCell<S>,
            action: impl FnOnce(&mut S) -> R,
        ) -> R {
            // SAFETY: KMDF calls these at the interrupt's level.
            unsafe { locked(lock, state, action) }
        }
    }

    impl<S: Send + 'static> Handling<S> for Passive {
        type Lock = WaitLock<()>;
        type Token<'a> = Irql<'a, Passive>;
        const PASSIVE: bool = true;

        fn new_lock() -> Result<Self::Lock> {
            WaitLock::new(())
        }

        fn framework_lock(lock: &Self::Lock) -> sys::WDFWAITLOCK {
            lock.as_raw()
        }

        unsafe fn token<'a>() -> Self::Token<'a> {
            // SAFETY: the caller's promise: the ISR runs at PASSIVE_LEVEL.
            unsafe { Irql::assume() }
        }

        unsafe fn in_callback<R>(
            _: &Self::Lock,
            state: &UnsafeCell<S>,
            action: impl FnOnce(&mut S) -> R,
        ) -> R {
            // SAFETY: KMDF took the lock, which the interrupt was created with,
            // before it called.
            action(unsafe { &mut *state.get() })
        }
    }
}

/// What an interrupt's ISR, and its enable and disable functions, are given.
///
/// C counterpart: the `WDFINTERRUPT` of [`EvtInterruptIsr`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nc-wdfinterrupt-evt_wdf_interrupt_isr
pub struct Isr<'a, S, K: Handling<S> = Dirql> {
    interrupt: sys::WDFINTERRUPT,
    state: &'a mut S,
    message: u32,
    deferred: Deferred,
    token: K::Token<'a>,
}

impl<S, K: Handling<S>> Isr<'_, S, K> {
    /// The state that the interrupt protects.
    pub fn state(&mut self) -> &mut S {
        self.state
    }

    /// The number of the message, for message-signaled interrupts; else 0.
    #[must_use]
    pub const fn message(&self) -> u32 {
        self.message
    }

    /// Queues the config's DPC or work item. `None`: it has neither.
    ///
    /// # IRQL
    /// Any: where an ISR runs.
    ///
    /// C counterpart: [`WdfInterruptQueueDpcForIsr`][dpc],
    /// [`WdfInterruptQueueWorkItemForIsr`][item].
    ///
    /// [dpc]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptqueuedpcforisr
    /// [item]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptqueueworkitemforisr
    pub fn defer(&mut self) -> Option<Queued> {
        let queued = match self.deferred {
            Deferred::None => return None,
            // SAFETY: KMDF gave the interrupt, which has a DPC; callable at any level.
            Deferred::Dpc(..) => unsafe { sys::kmdf::WdfInterruptQueueDpcForIsr(self.interrupt) },
            // SAFETY: as above, with a work item.
            Deferred::WorkItem(..) => unsafe {
                sys::kmdf::WdfInterruptQueueWorkItemForIsr(self.interrupt)
            },
        };
        Some(Queued::from_raw(queued))
    }
}

impl<'a, S: Send + 'static> Isr<'a, S, Passive> {
    /// The state, and the proof that the ISR runs at `PASSIVE_LEVEL`.
    pub fn parts(&mut self) -> (&mut S, &mut Irql<'a, Passive>) {
        (self.state, &mut self.token)
    }
}

impl<S, K: Handling<S>> fmt::Debug for Isr<'_, S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Isr")
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

/// What an interrupt's DPC is given.
///
/// C counterpart: the `WDFINTERRUPT` of [`EvtInterruptDpc`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nc-wdfinterrupt-evt_wdf_interrupt_dpc
pub type InterruptDpc<'a> = Called<'a, Dispatch>;
/// What an interrupt's work item is given.
///
/// C counterpart: the `WDFINTERRUPT` of [`EvtInterruptWorkItem`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nc-wdfinterrupt-evt_wdf_interrupt_workitem
pub type InterruptWork<'a> = Called<'a, Passive>;

type IsrFunction<S, K> = fn(&mut Isr<'_, S, K>) -> Claim;
type SwitchFunction<S, K> = fn(&mut Isr<'_, S, K>) -> Result;

/// To what an ISR leaves the work: the function, and what calls it.
#[derive(Clone, Copy)]
enum Deferred {
    None,
    Dpc(*const (), CallOwner),
    WorkItem(*const (), CallOwner),
}

/// Safety: the node is of the function's owner, and the level is that of the function.
type CallOwner = unsafe fn(NonNull<Header>, *const ());

/// To which processors an interrupt may go.
///
/// C counterpart: [`WDF_INTERRUPT_POLICY`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/ne-wdfinterrupt-_wdf_interrupt_policy
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// The system decides.
    #[default]
    MachineDefault,
    /// All that are close to the device.
    AllClose,
    /// One that is close to the device.
    OneClose,
    /// All.
    All,
    /// Those of this mask, of the processor group 0.
    Processors(u64),
    /// Each message to another, if possible.
    SpreadMessages,
}

/// How urgent an interrupt is to the system when it assigns IRQLs.
///
/// C counterpart: [`WDF_INTERRUPT_PRIORITY`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/ne-wdfinterrupt-_wdf_interrupt_priority
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// The system decides.
    #[default]
    Undefined,
    /// Less than others.
    Low,
    /// As others.
    Normal,
    /// More than others.
    High,
}

/// Whether other devices may use the interrupt's vector.
///
/// C counterpart: the `ShareVector` of [`WDF_INTERRUPT_CONFIG`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/ns-wdfinterrupt-_wdf_interrupt_config
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// As the bus says.
    #[default]
    Default,
    /// They may.
    Shared,
    /// They may not.
    Exclusive,
}

/// How an [`Interrupt`] of an owner `O`, with a state `S`, is handled at `K`.
///
/// C counterpart: `WDF_INTERRUPT_CONFIG_INIT`, [`WDF_INTERRUPT_CONFIG`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/ns-wdfinterrupt-_wdf_interrupt_config
pub struct InterruptConfig<O, S, K: Handling<S> = Dirql> {
    functions: Functions<S, K>,
    options: Options,
    owner: PhantomData<fn(&O)>,
}

struct Functions<S, K: Handling<S>> {
    isr: IsrFunction<S, K>,
    enable: Option<SwitchFunction<S, K>>,
    disable: Option<SwitchFunction<S, K>>,
    deferred: Deferred,
}

#[derive(Clone, Copy)]
struct Options {
    sharing: Sharing,
    can_wake: bool,
    stays_active: bool,
    policy: Option<(Affinity, Priority)>,
}

impl<S, K: Handling<S>> Copy for Functions<S, K> {}
impl<S, K: Handling<S>> Clone for Functions<S, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O, S, K: Handling<S>> Copy for InterruptConfig<O, S, K> {}
impl<O, S, K: Handling<S>> Clone for InterruptConfig<O, S, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O: Send + Sync + 'static, S: IsrState> InterruptConfig<O, S> {
    /// An interrupt with this ISR, which runs at the device's IRQL, and no more.
    #[must_use]
    pub const fn new(isr: IsrFunction<S, Dirql>) -> Self {
        Self::with_isr(isr)
    }
}

impl<O: Send + Sync + 'static, S: Send + 'static> InterruptConfig<O, S, Passive> {
    /// An interrupt with this ISR, which runs at `PASSIVE_LEVEL`, and no more:
    /// for a device that can be reached only by calls that wait. Its line should
    /// not be shared with devices whose ISRs run at their IRQL.
    ///
    /// C counterpart: [`PassiveHandling`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/supporting-passive-level-interrupts
    #[must_use]
    pub const fn passive(isr: IsrFunction<S, Passive>) -> Self {
        Self::with_isr(isr)
    }
}

impl<O: Send + Sync + 'static, S, K: Handling<S>> InterruptConfig<O, S, K> {
    const fn with_isr(isr: IsrFunction<S, K>) -> Self {
        Self {
            functions: Functions {
                isr,
                enable: None,
                disable: None,
                deferred: Deferred::None,
            },
            options: Options {
                sharing: Sharing::Default,
                can_wake: false,
                stays_active: false,
                policy: None,
            },
            owner: PhantomData,
        }
    }

    /// The function that [`Isr::defer`] queues, at `DISPATCH_LEVEL`. An
    /// interrupt has this or a work item: what is given last.
    #[must_use]
    pub fn dpc(mut self, dpc: fn(&O, &mut InterruptDpc<'_>)) -> Self {
        self.functions.deferred = Deferred::Dpc(dpc as *const (), bound::call_owner::<O, Dispatch>);
        self
    }

    /// The function that [`Isr::defer`] queues, at `PASSIVE_LEVEL`. An
    /// interrupt has this or a DPC: what is given last.
    #[must_use]
    pub fn work_item(mut self, item: fn(&O, &mut InterruptWork<'_>)) -> Self {
        self.functions.deferred =
            Deferred::WorkItem(item as *const (), bound::call_owner::<O, Passive>);
        self
    }

    /// The function that makes the device raise interrupts, called after each
    /// D0Entry at the ISR's level. If it fails, the device does not start.
    #[must_use]
    pub const fn enable(mut self, enable: SwitchFunction<S, K>) -> Self {
        self.functions.enable = Some(enable);
        self
    }

    /// The function that makes it cease, called before each D0Exit.
    #[must_use]
    pub const fn disable(mut self, disable: SwitchFunction<S, K>) -> Self {
        self.functions.disable = Some(disable);
        self
    }

    /// The interrupt can wake the device from a low-power state.
    #[must_use]
    pub const fn can_wake_device(mut self) -> Self {
        self.options.can_wake = true;
        self
    }

    /// The interrupt is not reported as inactive when the device leaves D0.
    ///
    /// C counterpart: `ReportInactiveOnPowerDown = WdfFalse`.
    #[must_use]
    pub const fn stays_active_in_low_power(mut self) -> Self {
        self.options.stays_active = true;
        self
    }

    /// Whether other devices may use the vector. As the bus says unless given.
    #[must_use]
    pub const fn sharing(mut self, sharing: Sharing) -> Self {
        self.options.sharing = sharing;
        self
    }

    /// To which processors the interrupt goes, and how urgent it is. Only for
    /// interrupts that are added, not for those that are declared: the policy of
    /// these is part of the resources.
    ///
    /// C counterpart: [`WdfInterruptSetPolicy`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptsetpolicy
    #[must_use]
    pub const fn policy(mut self, affinity: Affinity, priority: Priority) -> Self {
        self.options.policy = Some((affinity, priority));
        self
    }
}

impl<O, S, K: Handling<S>> fmt::Debug for InterruptConfig<O, S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InterruptConfig").finish_non_exhaustive()
    }
}

/// The state behind an interrupt, and what is done with it.
///
/// # Invariants
/// `state` is touched only while `lock` is held. At the device's IRQL that is
/// taken by an ISR, and at `SYNCH_LEVEL` by all others: who has it is not
/// interrupted by who wants it. `owner` is a node whose device the interrupt is of.
struct Shared<S, K: sealed::Handling<S>> {
    lock: K::Lock,
    state: UnsafeCell<S>,
    owner: NonNull<Header>,
    functions: Erased,
    options: Options,
    /// The object, or null while there is none: before `create`, and once KMDF
    /// deletes it, which waits for this lock.
    raw: SpinLock<RawInterrupt>,
}

/// [`Functions`] without its types.
#[derive(Clone, Copy)]
struct Erased {
    isr: *const (),
    enable: *const (),
    disable: *const (),
    deferred: Deferred,
}

// SAFETY: the lock lets one at a time at the state; the rest does not change,
// or has a lock of its own.
unsafe impl<S: Send, K: sealed::Handling<S>> Sync for Shared<S, K> {}
// SAFETY: a plain field would be; the pointers belong to no thread.
unsafe impl<S: Send, K: sealed::Handling<S>> Send for Shared<S, K> {}

/// Runs `action` on the state with the spin lock held.
///
/// # Safety
/// The level is the interrupt's, or `SYNCH_LEVEL`; the state is touched only
/// with the lock.
unsafe fn locked<S, R>(
    lock: &UnsafeCell<sys::KSPIN_LOCK>,
    state: &UnsafeCell<S>,
    action: impl FnOnce(&mut S) -> R,
) -> R {
    // SAFETY: the lock is valid, and the level above DISPATCH_LEVEL.
    unsafe { sys::ntddk::KeAcquireSpinLockAtDpcLevel(lock.get()) };
    finally(
        // SAFETY: the caller's promise: the lock is held.
        || action(unsafe { &mut *state.get() }),
        // SAFETY: taken above, by the same processor.
        || unsafe { sys::ntddk::KeReleaseSpinLockFromDpcLevel(lock.get()) },
    )
}

/// What KMDF's callbacks find in the object.
struct InterruptContext {
    /// A `Box<Arc<Shared<S, K>>>` given up by `Box::into_raw`.
    shared: NonNull<()>,
    table: &'static Table,
}

/// Which of the two switching functions.
#[derive(Clone, Copy)]
enum Switch {
    Enable,
    Disable,
}

/// What is done with a context whose types are known: those of the table.
struct Table {
    isr: unsafe fn(NonNull<()>, sys::WDFINTERRUPT, u32) -> Claim,
    switch: unsafe fn(NonNull<()>, sys::WDFINTERRUPT, Switch) -> Result,
    deferred: unsafe fn(NonNull<()>),
    forget: unsafe fn(NonNull<()>),
    drop: unsafe fn(NonNull<()>),
}

/// What the context's box holds.
struct Held<S, K: sealed::Handling<S>> {
    shared: Arc<Shared<S, K>>,
    /// An owner that was made at run time may go before the interrupt does.
    _owner: Reference,
}

struct TableOf<S, K>(PhantomData<(S, K)>);
impl<S: Send + 'static, K: Handling<S>> TableOf<S, K> {
    const TABLE: &'static Table = &Table {
        isr: isr::<S, K>,
        switch: switch::<S, K>,
        deferred: deferred::<S, K>,
        forget: forget::<S, K>,
        drop: drop_shared::<S, K>,
    };
}

static CONTEXT: ContextInfo = ContextInfo::new::<InterruptContext>(c"dmf::Interrupt", &CONTEXT);

/// An interrupt of the device, and the state `S` that its ISR works on at `K`.
///
/// See the [module documentation](self).
///
/// C counterpart: [`WDFINTERRUPT`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/creating-an-interrupt-object
pub struct Interrupt<S: Send + 'static, K: Handling<S> = Dirql> {
    /// Keeps the module's node, and so what the callbacks look at.
    owner: Reference,
    shared: Arc<Shared<S, K>>,
}

#[derive(Clone, Copy)]
struct RawInterrupt(sys::WDFINTERRUPT);

// SAFETY: a number.
unsafe impl Send for RawInterrupt {}
// SAFETY: a number.
unsafe impl Sync for RawInterrupt {}

/// The two descriptors that an interrupt is created from; null for none.
type Descriptors = (
    sys::PCM_PARTIAL_RESOURCE_DESCRIPTOR,
    sys::PCM_PARTIAL_RESOURCE_DESCRIPTOR,
);

impl<S: Send + 'static, K: Handling<S>> Interrupt<S, K> {
    /// Adds an interrupt, which gets the next interrupt resource of the device.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`: where modules are added.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`, and what [`WdfInterruptCreate`][ms] returns.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptcreate
    pub fn new<O: Send + Sync + 'static>(
        add: &mut Modules<'_, O>,
        config: InterruptConfig<O, S, K>,
        state: S,
    ) -> Result<Self> {
        let (owner, device) = add.raw_pnp()?;
        // SAFETY: the node is a `Node<O>`.
        let this = unsafe { Self::over(owner, config, state) }?;
        // SAFETY: adding is at PASSIVE_LEVEL in device-add.
        let raw = unsafe { this.create_raw(device, (ptr::null_mut(), ptr::null_mut())) }?;
        if let Some((affinity, priority)) = config.options.policy {
            let (policy, processors) = affinity.to_raw();
            // SAFETY: the interrupt was just created, in device-add.
            unsafe {
                sys::kmdf::WdfInterruptSetPolicy(raw, policy, priority.to_raw(), processors);
            }
        }
        Ok(this)
    }

    /// Declares an interrupt, which [`create`](Self::create) creates each time
    /// the device starts.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` if the config has a
    /// [`policy`](InterruptConfig::policy); `STATUS_INSUFFICIENT_RESOURCES`.
    pub fn declare<O: Send + Sync + 'static>(
        add: &mut Modules<'_, O>,
        config: InterruptConfig<O, S, K>,
        state: S,
    ) -> Result<Self> {
        if config.options.policy.is_some() {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        // SAFETY: the node is a `Node<O>`.
        unsafe { Self::over(add.raw().0, config, state) }
    }

    /// # Safety
    /// `owner` is a `Node<O>`.
    unsafe fn over<O: Send + Sync + 'static>(
        owner: NonNull<Header>,
        config: InterruptConfig<O, S, K>,
        state: S,
    ) -> Result<Self> {
        let Functions {
            isr,
            enable,
            disable,
            deferred,
        } = config.functions;
        let shared = Arc::new(Shared {
            lock: K::new_lock()?,
            state: UnsafeCell::new(state),
            owner,
            functions: Erased {
                isr: isr as *const (),
                enable: enable.map_or(ptr::null(), |function| function as *const ()),
                disable: disable.map_or(ptr::null(), |function| function as *const ()),
                deferred,
            },
            options: config.options,
            raw: SpinLock::new(RawInterrupt(no_handle())),
        })?;
        Ok(Self {
            // SAFETY: the caller's promise: the node is valid.
            owner: unsafe { Reference::to(owner) },
            shared,
        })
    }

    /// Creates a declared interrupt from the resource at `index` among those
    /// [assigned](PrepareHardware::assigned). KMDF deletes it when the hardware
    /// is released, and the next PrepareHardware creates it anew.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`, which the callback's context proves.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` if that resource is not an interrupt, or not
    /// there; `STATUS_INVALID_DEVICE_STATE` if the interrupt exists;
    /// `STATUS_INSUFFICIENT_RESOURCES`; what [`WdfInterruptCreate`][ms] returns.
    ///
    /// C counterpart: `WdfInterruptCreate` with `InterruptRaw` and `InterruptTranslated`;
    /// see [`WDF_INTERRUPT_CONFIG`][config].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptcreate
    /// [config]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/ns-wdfinterrupt-_wdf_interrupt_config
    pub fn create(&self, cx: &PrepareHardware<'_>, index: u32) -> Result {
        // SAFETY: the reference keeps the memory valid.
        let _alive = unsafe { node::enter_alive_erased(self.owner.node()) }?;
        let device = self.owner.header().device.get();
        // Another device's resources, at another device's moment.
        if cx.device() != device {
            return Err(NtStatus::INVALID_DEVICE_REQUEST);
        }
        let assigned = cx.assigned();
        if !matches!(
            assigned.get(index).map(|assigned| assigned.translated),
            Some(Resource::Interrupt { .. })
        ) {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        if self.shared.raw.with(|raw| !raw.0.is_null()) {
            return Err(NtStatus::INVALID_DEVICE_STATE);
        }
        // SAFETY: the device is in PrepareHardware, at PASSIVE_LEVEL, and the
        // descriptors are of the lists that it was given.
        unsafe { self.create_raw(device, assigned.descriptors(index)) }.map(drop)
    }

    /// # Safety
    /// `PASSIVE_LEVEL`, in device-add without descriptors, or in PrepareHardware
    /// with those of one of the device's interrupt resources.
    unsafe fn create_raw(
        &self,
        device: sys::WDFDEVICE,
        (raw_descriptor, translated): Descriptors,
    ) -> Result<sys::WDFINTERRUPT> {
        let shared = &*self.shared;
        let held = Box::new(Held {
            shared: self.shared.clone(),
            _owner: self.owner.clone(),
        })?;
        let mut config = sys::WDF_INTERRUPT_CONFIG {
            Size: sys::size_field::<sys::WDF_INTERRUPT_CONFIG>(),
            ShareVector: match shared.options.sharing {
                Sharing::Default => sys::_WDF_TRI_STATE::WdfUseDefault,
                Sharing::Shared => sys::_WDF_TRI_STATE::WdfTrue,
                Sharing::Exclusive => sys::_WDF_TRI_STATE::WdfFalse,
            },
            EvtInterruptIsr: Some(evt_isr),
            EvtInterruptEnable: Some(evt_enable),
            EvtInterruptDisable: Some(evt_disable),
            InterruptRaw: raw_descriptor,
            InterruptTranslated: translated,
            WaitLock: K::framework_lock(&shared.lock),
            PassiveHandling: K::PASSIVE.into(),
            ReportInactiveOnPowerDown: if shared.options.stays_active {
                sys::_WDF_TRI_STATE::WdfFalse
            } else {
                sys::_WDF_TRI_STATE::WdfUseDefault
            },
            CanWakeDevice: shared.options.can_wake.into(),
            ..sys::WDF_INTERRUPT_CONFIG::default()
        };
        match shared.functions.deferred {
            Deferred::None => {}
            Deferred::Dpc(..) => config.EvtInterruptDpc = Some(evt_dpc),
            Deferred::WorkItem(..) => config.EvtInterruptWorkItem = Some(evt_work_item),
        }
        let mut attributes = attributes(&CONTEXT, no_handle());
        attributes.EvtCleanupCallback = Some(evt_cleanup);
        attributes.EvtDestroyCallback = Some(evt_destroy);
        let mut raw = no_handle();
        // SAFETY: the structures are valid for the length of the call, and so is
        // the device; the caller's promise about the moment.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfInterruptCreate(
                device,
                &raw mut config,
                &raw mut attributes,
                &raw mut raw,
            )
        })
        .into_result()?;
        // SAFETY: the interrupt was created with this context.
        let context = unsafe { CONTEXT.of::<InterruptContext>(raw.cast()) };
        // SAFETY: the context is ours, and the interrupt is not connected.
        unsafe {
            context.write(InterruptContext {
                shared: Box::into_raw(held).cast(),
                table: TableOf::<S, K>::TABLE,
            });
        }
        let made = RawInterrupt(raw);
        shared.raw.with(move |raw| *raw = made);
        Ok(raw)
    }

    /// Runs `action` with the object while it is there.
    fn with_raw<R>(&self, action: impl FnOnce(sys::WDFINTERRUPT) -> R + Send) -> Result<R> {
        self.shared.raw.with(|raw| {
            if raw.0.is_null() {
                Err(NtStatus::INVALID_DEVICE_STATE)
            } else {
                Ok(action(raw.0))
            }
        })
    }

    /// What was assigned to the interrupt. All zero before the device's first
    /// PrepareHardware.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` while a declared interrupt is not created.
    ///
    /// C counterpart: [`WdfInterruptGetInfo`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptgetinfo
    pub fn info(&self) -> Result<InterruptInfo> {
        let mut info = sys::WDF_INTERRUPT_INFO {
            Size: sys::size_field::<sys::WDF_INTERRUPT_INFO>(),
            ..sys::WDF_INTERRUPT_INFO::default()
        };
        // SAFETY: the object is there, and the structure valid for the call.
        self.with_raw(|raw| unsafe { sys::kmdf::WdfInterruptGetInfo(raw, &raw mut info) })?;
        Ok(InterruptInfo {
            irql: info.Irql,
            vector: info.Vector,
            processors: info.TargetProcessorSet as _,
            group: info.Group,
            message: (info.MessageSignaled != 0).then_some(info.MessageNumber),
            trigger: if info.Mode == sys::_KINTERRUPT_MODE::Latched {
                Trigger::Edge
            } else {
                Trigger::Level
            },
        })
    }

    /// Tells the system that the device may raise the interrupt again. For
    /// drivers that manage the power of the device's functions.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` while a declared interrupt is not created.
    ///
    /// C counterpart: [`WdfInterruptReportActive`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptreportactive
    pub fn report_active(&self) -> Result {
        // SAFETY: the object is there.
        self.with_raw(|raw| unsafe { sys::kmdf::WdfInterruptReportActive(raw) })
    }

    /// Tells the system that the device does not raise the interrupt until
    /// [`report_active`](Self::report_active).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` while a declared interrupt is not created.
    ///
    /// C counterpart: [`WdfInterruptReportInactive`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptreportinactive
    pub fn report_inactive(&self) -> Result {
        // SAFETY: the object is there.
        self.with_raw(|raw| unsafe { sys::kmdf::WdfInterruptReportInactive(raw) })
    }

    /// The handle, for calls that this crate does not have; null while a
    /// declared interrupt is not created. It is valid as long as the device is,
    /// and that of a declared interrupt until the hardware is released.
    #[must_use]
    pub fn as_raw(&self) -> sys::WDFINTERRUPT {
        self.shared.raw.with(|raw| *raw).0
    }

    /// Gives up this link, of which there is one. The object stays KMDF's.
    /// [`from_raw`](Self::from_raw) takes the link back; if nobody does, the
    /// owner's memory is never freed. An interrupt that is not created has no
    /// handle and gives `self` back.
    ///
    /// # Errors
    /// `self`, while a declared interrupt is not created.
    pub fn into_raw(self) -> Result<sys::WDFINTERRUPT, Self> {
        let raw = self.as_raw();
        if raw.is_null() {
            return Err(self);
        }
        let _ = self.owner.into_raw();
        Ok(raw)
    }

    /// Takes back what [`into_raw`](Self::into_raw) gave up.
    ///
    /// # Safety
    /// The handle came from `into_raw` of the same `S` and `K`, was not taken
    /// back since, and the object was not deleted.
    #[must_use]
    pub unsafe fn from_raw(raw: sys::WDFINTERRUPT) -> Self {
        // SAFETY: the caller's promise.
        let context = unsafe { context(raw) };
        // SAFETY: the caller's promise: the context's types are these.
        let shared = unsafe { shared::<S, K>(context.shared) }.clone();
        Self {
            // SAFETY: the count that `into_raw` gave up.
            owner: unsafe { Reference::from_raw(shared.owner) },
            shared,
        }
    }
}

impl<S: IsrState> Interrupt<S> {
    /// Runs `action` on the state while no ISR runs.
    ///
    /// `action` must be short: the processor gets no interrupts meanwhile. It
    /// captures nothing; [`with_value`](Self::with_value) hands it a value.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `action` runs above every device's IRQL.
    ///
    /// C counterpart: [`WdfInterruptSynchronize`][ms], [`WdfInterruptAcquireLock`][lock].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptsynchronize
    /// [lock]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptacquirelock
    pub fn with<R>(&self, action: fn(&mut S) -> R) -> R {
        self.raised(action)
    }

    /// The same, with a value for `action`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `action` runs above every device's IRQL.
    pub fn with_value<T: IsrState, R>(&self, value: T, action: fn(&mut S, T) -> R) -> R {
        self.raised(|state| action(state, value))
    }

    fn raised<R>(&self, action: impl FnOnce(&mut S) -> R) -> R {
        // SAFETY: the caller is at most at DISPATCH_LEVEL.
        let before = unsafe { sys::ntddk::KfRaiseIrql(SYNCH_LEVEL) };
        finally(
            // SAFETY: just raised.
            || unsafe { locked(&self.shared.lock, &self.shared.state, action) },
            // SAFETY: the level before was lower.
            || unsafe { sys::ntddk::KeLowerIrql(before) },
        )
    }
}

impl<S: Send + 'static> Interrupt<S, Passive> {
    /// Runs `action` on the state while no ISR runs. Not to be called from the
    /// ISR itself.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: [`WdfInterruptSynchronize`][ms], [`WdfInterruptAcquireLock`][lock].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptsynchronize
    /// [lock]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptacquirelock
    pub fn with_passive<R>(&self, irql: &Irql<'_, Passive>, action: impl FnOnce(&mut S) -> R) -> R {
        let state = &self.shared.state;
        // SAFETY: the invariant: the lock is held.
        self.shared
            .lock
            .lock(irql, |()| action(unsafe { &mut *state.get() }))
    }
}

impl<S: Send + 'static, K: Handling<S>> fmt::Debug for Interrupt<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupt").finish_non_exhaustive()
    }
}

/// What was assigned to an interrupt.
///
/// C counterpart: [`WDF_INTERRUPT_INFO`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/ns-wdfinterrupt-_wdf_interrupt_info
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterruptInfo {
    /// The level at which the ISR runs.
    pub irql: u8,
    /// The vector.
    pub vector: u32,
    /// The processors of the group that it may interrupt, as a mask.
    pub processors: u64,
    /// Their group.
    pub group: u16,
    /// The number of the message, for message-signaled interrupts.
    pub message: Option<u32>,
    /// When it is raised.
    pub trigger: Trigger,
}

/// When an interrupt is raised.
///
/// C counterpart: `KINTERRUPT_MODE`, the flags of a [`CM_PARTIAL_RESOURCE_DESCRIPTOR`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/ns-wdm-_cm_partial_resource_descriptor
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// As long as the line is active: `LevelSensitive`.
    Level,
    /// When it becomes active, or when the message comes: `Latched`.
    Edge,
}

impl Affinity {
    /// KMDF's number, and the mask.
    const fn to_raw(self) -> (sys::WDF_INTERRUPT_POLICY, sys::KAFFINITY) {
        use sys::_WDF_INTERRUPT_POLICY as Raw;
        match self {
            Self::MachineDefault => (Raw::WdfIrqPolicyMachineDefault, 0),
            Self::AllClose => (Raw::WdfIrqPolicyAllCloseProcessors, 0),
            Self::OneClose => (Raw::WdfIrqPolicyOneCloseProcessor, 0),
            Self::All => (Raw::WdfIrqPolicyAllProcessorsInMachine, 0),
            Self::Processors(mask) => (Raw::WdfIrqPolicySpecifiedProcessors, mask as _),
            Self::SpreadMessages => (Raw::WdfIrqPolicySpreadMessagesAcrossAllProcessors, 0),
        }
    }
}

impl Priority {
    const fn to_raw(self) -> sys::WDF_INTERRUPT_PRIORITY {
        use sys::_WDF_INTERRUPT_PRIORITY as Raw;
        match self {
            Self::Undefined => Raw::WdfIrqPriorityUndefined,
            Self::Low => Raw::WdfIrqPriorityLow,
            Self::Normal => Raw::WdfIrqPriorityNormal,
            Self::High => Raw::WdfIrqPriorityHigh,
        }
    }
}

/// # Safety
/// `held` is a context's, of an interrupt with a state `S` at `K`, and valid for `'a`.
unsafe fn shared<'a, S, K: sealed::Handling<S>>(held: NonNull<()>) -> &'a Arc<Shared<S, K>> {
    // SAFETY: the caller's promise; the context holds the box.
    &unsafe { held.cast::<Held<S, K>>().as_ref() }.shared
}

/// Runs `function` on the state, under the lock.
///
/// # Safety
/// `shared` is that of `interrupt`, of which KMDF has called a callback at the
/// ISR's level.
unsafe fn in_callback<S, K: Handling<S>, R>(
    shared: &Shared<S, K>,
    interrupt: sys::WDFINTERRUPT,
    message: u32,
    function: fn(&mut Isr<'_, S, K>) -> R,
) -> R {
    let action = |state: &mut S| {
        function(&mut Isr {
            interrupt,
            state,
            message,
            deferred: shared.functions.deferred,
            // SAFETY: the caller's promise.
            token: unsafe { K::token() },
        })
    };
    // SAFETY: the caller's promise.
    unsafe { K::in_callback(&shared.lock, &shared.state, action) }
}

unsafe fn isr<S: Send + 'static, K: Handling<S>>(
    held: NonNull<()>,
    interrupt: sys::WDFINTERRUPT,
    message: u32,
) -> Claim {
    // SAFETY: the table's types.
    let shared = unsafe { shared::<S, K>(held) };
    // SAFETY: the table's types.
    let function: IsrFunction<S, K> = unsafe { core::mem::transmute(shared.functions.isr) };
    // SAFETY: KMDF calls ISRs at the interrupt's level.
    unsafe { in_callback(shared, interrupt, message, function) }
}

unsafe fn switch<S: Send + 'static, K: Handling<S>>(
    held: NonNull<()>,
    interrupt: sys::WDFINTERRUPT,
    which: Switch,
) -> Result {
    // SAFETY: the table's types.
    let shared = unsafe { shared::<S, K>(held) };
    let function = match which {
        Switch::Enable => shared.functions.enable,
        Switch::Disable => shared.functions.disable,
    };
    if function.is_null() {
        return Ok(());
    }
    // SAFETY: the table's types.
    let function: SwitchFunction<S, K> = unsafe { core::mem::transmute(function) };
    // SAFETY: KMDF calls these at the interrupt's level.
    unsafe { in_callback(shared, interrupt, 0, function) }
}

unsafe fn deferred<S: Send + 'static, K: Handling<S>>(held: NonNull<()>) {
    // SAFETY: the table's types.
    let shared = unsafe { shared::<S, K>(held) };
    match shared.functions.deferred {
        Deferred::None => {}
        Deferred::Dpc(function, call) | Deferred::WorkItem(function, call) => {
            // SAFETY: the box counts the owner, which may be dropped before the
            // interrupt is disconnected: nobody is called then. The two belong
            // together, and KMDF calls at the function's level.
            unsafe { call(shared.owner, function) };
        }
    }
}

unsafe fn forget<S: Send + 'static, K: Handling<S>>(held: NonNull<()>) {
    // SAFETY: the table's types.
    let shared = unsafe { shared::<S, K>(held) };
    shared.raw.with(|raw| *raw = RawInterrupt(no_handle()));
}

unsafe fn drop_shared<S: Send + 'static, K: Handling<S>>(held: NonNull<()>) {
    // SAFETY: the context's box, given up by `Box::into_raw`.
    drop(unsafe { Box::<Held<S, K>>::from_raw(held.cast()) });
}

/// # Safety
/// The interrupt is one of this crate's, and valid for the callback.
unsafe fn context<'a>(interrupt: sys::WDFINTERRUPT) -> &'a InterruptContext {
    // SAFETY: the caller's promise: it was created with this context.
    let context = unsafe { CONTEXT.of::<InterruptContext>(interrupt.cast()) };
    // SAFETY: it was written before the interrupt could be connected.
    unsafe { context.as_ref() }
}

callback! {
    unsafe fn evt_isr(interrupt: sys::WDFINTERRUPT, message: sys::ULONG) -> sys::BOOLEAN {
        // SAFETY: KMDF calls this for interrupts of this crate.
        let context = unsafe { context(interrupt) };
        // SAFETY: the context and its table belong together.
        let claim = unsafe { (context.table.isr)(context.shared, interrupt, message) };
        (claim == Claim::Mine).into()
    }
}

callback! {
    unsafe fn evt_dpc(interrupt: sys::WDFINTERRUPT, _device: sys::WDFOBJECT) {
        // SAFETY: KMDF calls this for interrupts of this crate.
        let context = unsafe { context(interrupt) };
        // SAFETY: the context and its table belong together.
        unsafe { (context.table.deferred)(context.shared) };
    }
}

callback! {
    unsafe fn evt_work_item(interrupt: sys::WDFINTERRUPT, _device: sys::WDFOBJECT) {
        // SAFETY: KMDF calls this for interrupts of this crate.
        let context = unsafe { context(interrupt) };
        // SAFETY: the context and its table belong together.
        unsafe { (context.table.deferred)(context.shared) };
    }
}

callback! {
    unsafe fn evt_enable(interrupt: sys::WDFINTERRUPT, _device: sys::WDFDEVICE) -> sys::NTSTATUS {
        // SAFETY: KMDF calls this for interrupts of this crate.
        let context = unsafe { context(interrupt) };
        // SAFETY: the context and its table belong together.
        let result = unsafe { (context.table.switch)(context.shared, interrupt, Switch::Enable) };
        NtStatus::from_result(result).to_raw()
    }
}

callback! {
    unsafe fn evt_disable(interrupt: sys::WDFINTERRUPT, _device: sys::WDFDEVICE) -> sys::NTSTATUS {
        // SAFETY: KMDF calls this for interrupts of this crate.
        let context = unsafe { context(interrupt) };
        // SAFETY: the context and its table belong together.
        let result = unsafe { (context.table.switch)(context.shared, interrupt, Switch::Disable) };
        NtStatus::from_result(result).to_raw()
    }
}

callback! {
    unsafe fn evt_cleanup(interrupt: sys::WDFOBJECT) {
        // SAFETY: the object was created with this context.
        if let Some(context) = unsafe { CONTEXT.find::<InterruptContext>(interrupt) } {
            // SAFETY: it was written when the object was made.
            let context = unsafe { context.as_ref() };
            // SAFETY: the context and its table belong together.
            unsafe { (context.table.forget)(context.shared) };
        }
    }
}

callback! {
    unsafe fn evt_destroy(interrupt: sys::WDFOBJECT) {
        // SAFETY: the object was created with this context, which is freed after this.
        let context = unsafe { context(interrupt.cast()) };
        // SAFETY: called once, and nothing uses the state through the context any more.
        unsafe { (context.table.drop)(context.shared) };
    }
}
