// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Interrupt`]: a device's interrupt, and the state that it shares with its ISR.
//!
//! # Vocabulary
//!
//! - *ISR*: the function that the processor jumps to when the device asks for
//!   attention. It runs at the device's own IRQL, above `DISPATCH_LEVEL`, where
//!   next to nothing may be called.
//! - *state*: what the ISR works on. It gets nothing else.
//! - *DPC*: the function, at `DISPATCH_LEVEL`, to which the ISR leaves the work.
//!
//! ```text
//!   D0Entry ─► enable(state) ─► … interrupt: isr(state) ─► dpc(owner) … ─► disable(state) ─► D0Exit
//!                                    ▲
//!              with(|state| …) ──────┘  one at a time
//! ```
//!
//! # Example
//!
//! ```no_run
//! use dmf::prelude::*;
//! use dmf::wdf::{Claim, Interrupt, InterruptConfig, InterruptDpc, Isr};
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
//!         let _ = cx.queue_dpc();
//!         Claim::Mine
//!     }
//!
//!     fn dpc(&self, _cx: &mut InterruptDpc<'_>) {
//!         let count = self.line.with(|count| core::mem::take(count));
//!         dmf::println!("{count:?} interrupts");
//!     }
//! }
//! ```
//!
//! # What an ISR may do
//!
//! Its state, and [`Isr::queue_dpc`]. The functions of this crate that ask for
//! no token are for `DISPATCH_LEVEL` and below; an ISR that gets at an event or
//! a lock through its state or a `static` must not call them. The compiler does
//! not see that; `ntsim` and Driver Verifier do.
//!
//! # The lock
//!
//! The state has a lock of its own, always taken above every device's IRQL. So
//! [`Interrupt::with`] works whether or not the interrupt is connected, where
//! `WdfInterruptAcquireLock` does only while it is.
//!
//! See [Handling hardware interrupts][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/handling-hardware-interrupts

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::dpc::Queued;
use super::object::{ContextInfo, attributes, no_handle};
use crate::irql::{Dispatch, Irql};
use crate::module::Modules;
use crate::module::node::{self, Header, Reference};
use crate::pool::{Arc, Box};
use crate::status::{NtStatus, Result};
use crate::sync::finally;
use crate::sys;

/// Above the interrupts of all devices and below the clock, on x64.
const SYNCH_LEVEL: sys::KIRQL = 12;

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

/// What an interrupt's ISR, and its enable and disable functions, are given.
///
/// C counterpart: the `WDFINTERRUPT` of [`EvtInterruptIsr`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nc-wdfinterrupt-evt_wdf_interrupt_isr
pub struct Isr<'a, S> {
    interrupt: sys::WDFINTERRUPT,
    state: &'a mut S,
    message: u32,
    has_dpc: bool,
    /// Not to be sent to another thread.
    level: PhantomData<*mut ()>,
}

impl<S> Isr<'_, S> {
    /// The state that the interrupt protects.
    pub fn state(&mut self) -> &mut S {
        self.state
    }

    /// The number of the message, for message-signaled interrupts; else 0.
    #[must_use]
    pub const fn message(&self) -> u32 {
        self.message
    }

    /// Queues the DPC. Without one in the config it does nothing.
    ///
    /// C counterpart: [`WdfInterruptQueueDpcForIsr`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptqueuedpcforisr
    pub fn queue_dpc(&mut self) -> Queued {
        if !self.has_dpc {
            return Queued::Already;
        }
        // SAFETY: KMDF gave the interrupt; callable at any level.
        Queued::from_raw(unsafe { sys::kmdf::WdfInterruptQueueDpcForIsr(self.interrupt) })
    }
}

impl<S> fmt::Debug for Isr<'_, S> {
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
#[derive(Debug)]
pub struct InterruptDpc<'a> {
    irql: Irql<'a, Dispatch>,
}

impl<'a> InterruptDpc<'a> {
    /// The proof that the function runs at `DISPATCH_LEVEL`.
    pub fn irql(&mut self) -> &mut Irql<'a, Dispatch> {
        &mut self.irql
    }
}

type IsrFunction<S> = fn(&mut Isr<'_, S>) -> Claim;
type DpcFunction<O> = fn(&O, &mut InterruptDpc<'_>);
type SwitchFunction<S> = fn(&mut Isr<'_, S>) -> Result;

/// How an [`Interrupt`] of an owner `O`, with a state `S`, is handled.
///
/// C counterpart: `WDF_INTERRUPT_CONFIG_INIT`, [`WDF_INTERRUPT_CONFIG`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/ns-wdfinterrupt-_wdf_interrupt_config
pub struct InterruptConfig<O, S> {
    isr: IsrFunction<S>,
    dpc: Option<DpcFunction<O>>,
    enable: Option<SwitchFunction<S>>,
    disable: Option<SwitchFunction<S>>,
    can_wake: bool,
}

impl<O, S> Copy for InterruptConfig<O, S> {}

impl<O, S> Clone for InterruptConfig<O, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O, S> InterruptConfig<O, S> {
    /// An interrupt with this ISR, and no more.
    #[must_use]
    pub const fn new(isr: IsrFunction<S>) -> Self {
        Self {
            isr,
            dpc: None,
            enable: None,
            disable: None,
            can_wake: false,
        }
    }

    /// The function that [`Isr::queue_dpc`] queues.
    #[must_use]
    pub const fn dpc(mut self, dpc: DpcFunction<O>) -> Self {
        self.dpc = Some(dpc);
        self
    }

    /// The function that makes the device raise interrupts, called after each
    /// D0Entry at the device's IRQL. If it fails, the device does not start.
    #[must_use]
    pub const fn enable(mut self, enable: SwitchFunction<S>) -> Self {
        self.enable = Some(enable);
        self
    }

    /// The function that makes it cease, called before each D0Exit.
    #[must_use]
    pub const fn disable(mut self, disable: SwitchFunction<S>) -> Self {
        self.disable = Some(disable);
        self
    }

    /// The interrupt can wake the device from a low-power state.
    #[must_use]
    pub const fn can_wake_device(mut self) -> Self {
        self.can_wake = true;
        self
    }
}

impl<O, S> fmt::Debug for InterruptConfig<O, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InterruptConfig").finish_non_exhaustive()
    }
}

/// The state behind an interrupt.
///
/// # Invariants
/// `state` is touched only while `lock` is held, which is taken at the device's
/// IRQL by an ISR, and at `SYNCH_LEVEL` by all others: who has it is not
/// interrupted by who wants it.
struct Shared<S> {
    lock: UnsafeCell<sys::KSPIN_LOCK>,
    state: UnsafeCell<S>,
}

// SAFETY: the lock lets one processor at a time at the state.
unsafe impl<S: Send> Sync for Shared<S> {}
// SAFETY: a plain field would be.
unsafe impl<S: Send> Send for Shared<S> {}

impl<S> Shared<S> {
    /// # Safety
    /// The level is the interrupt's, or `SYNCH_LEVEL`.
    unsafe fn locked<R>(&self, action: impl FnOnce(&mut S) -> R) -> R {
        // SAFETY: the lock is valid, and the level above DISPATCH_LEVEL.
        unsafe { sys::ntddk::KeAcquireSpinLockAtDpcLevel(self.lock.get()) };
        finally(
            // SAFETY: the invariant: the lock is held.
            || action(unsafe { &mut *self.state.get() }),
            // SAFETY: taken above, by the same processor.
            || unsafe { sys::ntddk::KeReleaseSpinLockFromDpcLevel(self.lock.get()) },
        )
    }
}

/// What KMDF's callbacks find in the object.
struct InterruptContext {
    owner: NonNull<Header>,
    /// A `Box<Arc<Shared<S>>>` given up by `Box::into_raw`.
    shared: NonNull<()>,
    functions: Functions,
    table: &'static Table,
}

struct Functions {
    isr: *const (),
    dpc: Option<*const ()>,
    enable: Option<*const ()>,
    disable: Option<*const ()>,
}

/// What is done with a context whose types are known: those of the table.
struct Table {
    isr: unsafe fn(&InterruptContext, sys::WDFINTERRUPT, u32) -> Claim,
    switch: unsafe fn(&InterruptContext, sys::WDFINTERRUPT, *const ()) -> Result,
    dpc: unsafe fn(&InterruptContext, *const ()),
    drop: unsafe fn(NonNull<()>),
}

struct TableOf<O, S>(PhantomData<(O, S)>);
impl<O: Send + Sync + 'static, S: Send + 'static> TableOf<O, S> {
    const TABLE: &'static Table = &Table {
        isr: isr::<S>,
        switch: switch::<S>,
        dpc: dpc::<O>,
        drop: drop_shared::<S>,
    };
}

static CONTEXT: ContextInfo = ContextInfo::new::<InterruptContext>(c"dmf::Interrupt", &CONTEXT);

/// An interrupt of the device, and the state `S` that its ISR works on.
///
/// See the [module documentation](self). The n-th interrupt that is added gets the
/// n-th interrupt resource of the device.
///
/// C counterpart: [`WDFINTERRUPT`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/creating-an-interrupt-object
pub struct Interrupt<S> {
    /// Keeps the module's node, and so what the callbacks look at.
    _owner: Reference,
    shared: Arc<Shared<S>>,
    raw: RawInterrupt,
}

#[derive(Clone, Copy)]
struct RawInterrupt(sys::WDFINTERRUPT);

// SAFETY: a number.
unsafe impl Send for RawInterrupt {}
// SAFETY: a number.
unsafe impl Sync for RawInterrupt {}

impl<S: Send + 'static> Interrupt<S> {
    /// Adds an interrupt.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`, and what [`WdfInterruptCreate`][ms] returns.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptcreate
    pub fn new<O: Send + Sync + 'static>(
        add: &mut Modules<'_, O>,
        config: InterruptConfig<O, S>,
        state: S,
    ) -> Result<Self> {
        let (owner, device) = add.raw();
        let shared = Arc::new(Shared {
            lock: UnsafeCell::new(0),
            state: UnsafeCell::new(state),
        })?;
        let held = Box::new(shared.clone())?;
        let mut raw_config = sys::WDF_INTERRUPT_CONFIG {
            Size: sys::size_field::<sys::WDF_INTERRUPT_CONFIG>(),
            ShareVector: sys::_WDF_TRI_STATE::WdfUseDefault,
            EvtInterruptIsr: Some(evt_isr),
            EvtInterruptDpc: if config.dpc.is_some() {
                Some(evt_dpc)
            } else {
                None
            },
            EvtInterruptEnable: Some(evt_enable),
            EvtInterruptDisable: Some(evt_disable),
            ReportInactiveOnPowerDown: sys::_WDF_TRI_STATE::WdfUseDefault,
            CanWakeDevice: config.can_wake.into(),
            ..sys::WDF_INTERRUPT_CONFIG::default()
        };
        let mut attributes = attributes(&CONTEXT, no_handle());
        attributes.EvtDestroyCallback = Some(evt_destroy);
        let mut raw = no_handle();
        // SAFETY: the structures are valid for the length of the call, and so is
        // the device; adding is at PASSIVE_LEVEL in device-add.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfInterruptCreate(
                device,
                &raw mut raw_config,
                &raw mut attributes,
                &raw mut raw,
            )
        })
        .into_result()?;
        // SAFETY: the interrupt was created with this context.
        let context = unsafe { CONTEXT.of::<InterruptContext>(raw) };
        // SAFETY: the context is ours, and the interrupt is not connected.
        unsafe {
            context.write(InterruptContext {
                owner,
                shared: Box::into_raw(held).cast(),
                functions: Functions {
                    isr: config.isr as *const (),
                    dpc: config.dpc.map(|function| function as *const ()),
                    enable: config.enable.map(|function| function as *const ()),
                    disable: config.disable.map(|function| function as *const ()),
                },
                table: TableOf::<O, S>::TABLE,
            });
        }
        Ok(Self {
            // SAFETY: the node is valid.
            _owner: unsafe { Reference::to(owner) },
            shared,
            raw: RawInterrupt(raw),
        })
    }

    /// Runs `action` on the state while no ISR runs.
    ///
    /// `action` must be short: the processor gets no interrupts meanwhile. It is
    /// [`Send`], so it cannot use a token.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `action` runs above every device's IRQL.
    ///
    /// C counterpart: [`WdfInterruptSynchronize`][ms], [`WdfInterruptAcquireLock`][lock].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptsynchronize
    /// [lock]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptacquirelock
    pub fn with<R>(&self, action: impl FnOnce(&mut S) -> R + Send) -> R {
        // SAFETY: the caller is at most at DISPATCH_LEVEL.
        let before = unsafe { sys::ntddk::KfRaiseIrql(SYNCH_LEVEL) };
        finally(
            // SAFETY: just raised.
            || unsafe { self.shared.locked(action) },
            // SAFETY: the level before was lower.
            || unsafe { sys::ntddk::KeLowerIrql(before) },
        )
    }

    /// The handle, for calls that this crate does not have. It is valid as long
    /// as the device is.
    #[must_use]
    pub const fn as_raw(&self) -> sys::WDFINTERRUPT {
        self.raw.0
    }
}

impl<S> fmt::Debug for Interrupt<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupt").finish_non_exhaustive()
    }
}

/// # Safety
/// The context is that of an interrupt with a state `S`.
unsafe fn shared<S>(context: &InterruptContext) -> &Shared<S> {
    // SAFETY: the caller's promise; the context holds the box.
    unsafe { context.shared.cast::<Arc<Shared<S>>>().as_ref() }
}

unsafe fn isr<S>(context: &InterruptContext, interrupt: sys::WDFINTERRUPT, message: u32) -> Claim {
    // SAFETY: the table's types.
    let function: IsrFunction<S> = unsafe { core::mem::transmute(context.functions.isr) };
    // SAFETY: the table's types.
    let shared = unsafe { shared::<S>(context) };
    // SAFETY: KMDF calls ISRs at the interrupt's level.
    unsafe {
        shared.locked(|state| {
            function(&mut Isr {
                interrupt,
                state,
                message,
                has_dpc: context.functions.dpc.is_some(),
                level: PhantomData,
            })
        })
    }
}

unsafe fn switch<S>(
    context: &InterruptContext,
    interrupt: sys::WDFINTERRUPT,
    function: *const (),
) -> Result {
    // SAFETY: the table's types.
    let function: SwitchFunction<S> = unsafe { core::mem::transmute(function) };
    // SAFETY: the table's types.
    let shared = unsafe { shared::<S>(context) };
    // SAFETY: KMDF calls these at the interrupt's level.
    unsafe {
        shared.locked(|state| {
            function(&mut Isr {
                interrupt,
                state,
                message: 0,
                has_dpc: context.functions.dpc.is_some(),
                level: PhantomData,
            })
        })
    }
}

unsafe fn dpc<O: 'static>(context: &InterruptContext, function: *const ()) {
    // SAFETY: interrupts are disconnected and their DPCs done before the node
    // that owns the interrupt is freed.
    let Ok(owner) = (unsafe { node::enter_alive::<O>(context.owner) }) else {
        return;
    };
    // SAFETY: the table's types.
    let function: DpcFunction<O> = unsafe { core::mem::transmute(function) };
    let mut cx = InterruptDpc {
        // SAFETY: KMDF calls DPCs at DISPATCH_LEVEL.
        irql: unsafe { Irql::assume() },
    };
    function(&owner, &mut cx);
}

unsafe fn drop_shared<S>(shared: NonNull<()>) {
    // SAFETY: the context's box, given up by `Box::into_raw`.
    drop(unsafe { Box::<Arc<Shared<S>>>::from_raw(shared.cast()) });
}

/// # Safety
/// The interrupt is one of this crate's, and valid for the callback.
unsafe fn context<'a>(interrupt: sys::WDFINTERRUPT) -> &'a InterruptContext {
    // SAFETY: the caller's promise: it was created with this context.
    let context = unsafe { CONTEXT.of::<InterruptContext>(interrupt) };
    // SAFETY: it was written before the interrupt could be connected.
    unsafe { context.as_ref() }
}

callback! {
    unsafe fn evt_isr(interrupt: sys::WDFINTERRUPT, message: sys::ULONG) -> sys::BOOLEAN {
        // SAFETY: KMDF calls this for interrupts of this crate.
        let context = unsafe { context(interrupt) };
        // SAFETY: the context and its table belong together.
        let claim = unsafe { (context.table.isr)(context, interrupt, message) };
        (claim == Claim::Mine).into()
    }
}

callback! {
    unsafe fn evt_dpc(interrupt: sys::WDFINTERRUPT, _device: sys::WDFOBJECT) {
        // SAFETY: KMDF calls this for interrupts of this crate.
        let context = unsafe { context(interrupt) };
        if let Some(function) = context.functions.dpc {
            // SAFETY: the context and its table belong together.
            unsafe { (context.table.dpc)(context, function) };
        }
    }
}

callback! {
    unsafe fn evt_enable(interrupt: sys::WDFINTERRUPT, _device: sys::WDFDEVICE) -> sys::NTSTATUS {
        // SAFETY: KMDF calls this for interrupts of this crate.
        let context = unsafe { context(interrupt) };
        let result = match context.functions.enable {
            // SAFETY: the context and its table belong together.
            Some(function) => unsafe { (context.table.switch)(context, interrupt, function) },
            None => Ok(()),
        };
        NtStatus::from_result(result).to_raw()
    }
}

callback! {
    unsafe fn evt_disable(interrupt: sys::WDFINTERRUPT, _device: sys::WDFDEVICE) -> sys::NTSTATUS {
        // SAFETY: KMDF calls this for interrupts of this crate.
        let context = unsafe { context(interrupt) };
        let result = match context.functions.disable {
            // SAFETY: the context and its table belong together.
            Some(function) => unsafe { (context.table.switch)(context, interrupt, function) },
            None => Ok(()),
        };
        NtStatus::from_result(result).to_raw()
    }
}

callback! {
    unsafe fn evt_destroy(interrupt: sys::WDFOBJECT) {
        // SAFETY: the object was created with this context, which is freed after this.
        let context = unsafe { context(interrupt) };
        // SAFETY: called once, and nothing uses the state through the context any more.
        unsafe { (context.table.drop)(context.shared) };
    }
}
