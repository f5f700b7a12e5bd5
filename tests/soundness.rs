// SPDX-License-Identifier: MIT OR Apache-2.0

//! Safe code that tries to get at what is gone, at another's, or at bytes that
//! nobody wrote. Each test was an exploit once.

#[path = "support/probe.rs"]
mod probe;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use dmf::module::{Create, Dynamic, DynamicInstance, Link, Module, ModuleConfig, Owner};
use dmf::prelude::*;
use dmf::wdf::{
    Claim, DefaultQueue, Interrupt, InterruptConfig, InterruptDpc, Isr, Offer, QueueCallback, Read,
    Request, Sender, Sent,
};
use ntsim::machine::{Hardware, Raised};
use ntsim::{Answer, Machine};
use probe::Probe;

thread_local! {
    static LATE: RefCell<Option<Dynamic<Late>>> = const { RefCell::new(None) };
    static CALLED: Cell<u32> = const { Cell::new(0) };
    static FIRST: RefCell<Option<Owner<Card>>> = const { RefCell::new(None) };
    static REFUSED: Cell<Option<Result>> = const { Cell::new(None) };
}

fn isr(cx: &mut Isr<'_, u32>) -> Claim {
    let _ = cx.defer();
    Claim::Mine
}

// ---- an interrupt of a module that is made at run time -----------------

/// Has an interrupt, and may go before the interrupt is disconnected.
#[derive(Clone)]
struct Late(Link<LateInstance>);
struct LateInstance {
    line: Interrupt<u32>,
}
struct LateConfig;

impl Module for Late {
    type Instance = LateInstance;
    fn over(instance: Link<LateInstance>) -> Self {
        Late(instance)
    }
}

impl DynamicInstance for LateInstance {}

impl LateInstance {
    fn dpc(&self, _cx: &mut InterruptDpc<'_>) {
        assert!(self.line.info().is_ok());
        CALLED.set(CALLED.get() + 1);
    }
}

impl<O: Send + Sync + 'static> ModuleConfig<O> for LateConfig {
    type Module = Late;
    fn create(self, cx: &mut Create<'_, O, LateInstance>) -> Result<LateInstance> {
        // The device may be working: it would deliver before it is ready.
        let queue = cx.default_queue(DefaultQueue::parallel());
        assert_eq!(queue.err(), Some(NtStatus::INVALID_DEVICE_REQUEST));
        let config = InterruptConfig::new(isr).dpc(LateInstance::dpc);
        Ok(LateInstance {
            line: Interrupt::declare(cx, config, 0)?,
        })
    }
}

dmf::driver!(Host);
struct Host {
    me: Owner<Host>,
}

impl Device for Host {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Host { me: add.owner() })
    }

    fn prepare_hardware(&self, cx: &mut PrepareHardware<'_>) -> Result {
        let late = self.me.create(cx.irql(), LateConfig)?;
        late.0.enter()?.line.create(cx, 0)?;
        LATE.set(Some(late));
        Ok(())
    }
}

/// The interrupt object is the device's, and outlives the module.
///
/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/creating-an-interrupt-object>
#[test]
fn the_interrupt_of_a_module_that_is_gone_calls_nobody() {
    let mut probe = Probe::new(Host::DRIVER_ENTRY, 1);
    let device = probe.device.clone();
    probe
        .machine
        .set_hardware(&device, Hardware::new().interrupt());
    probe.start().unwrap();
    let raise = |probe: &mut Probe| {
        let raised = probe.machine.raise_interrupt(&device, 0).unwrap();
        assert_eq!(raised, Raised::Delivered);
        probe.run_for(Duration::from_millis(1));
        CALLED.get()
    };
    assert_eq!(raise(&mut probe), 1);
    probe.thread(|_| drop(LATE.take()));
    assert_eq!(raise(&mut probe), 1);
    probe.remove();
}

// ---- an interrupt at another device's moment ---------------------------

dmf::driver!(Card);
struct Card {
    line: Interrupt<u32>,
    me: Owner<Card>,
}

impl Device for Card {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Card {
            line: Interrupt::declare(add, InterruptConfig::new(isr), 0)?,
            me: add.owner(),
        })
    }

    fn prepare_hardware(&self, cx: &mut PrepareHardware<'_>) -> Result {
        if let Some(first) = FIRST.take() {
            REFUSED.set(Some(first.enter()?.line.create(cx, 0)));
        } else {
            FIRST.set(Some(self.me.clone()));
        }
        Ok(())
    }
}

#[test]
fn an_interrupt_is_made_with_resources_of_its_own_device_only() {
    let mut probe = Probe::new(Card::DRIVER_ENTRY, 1);
    let hardware = || Hardware::new().interrupt();
    let device = probe.device.clone();
    probe.machine.set_hardware(&device, hardware());
    probe.start().unwrap();
    let second = probe.machine.plug_in(r"Root\Probe").unwrap();
    probe.machine.set_hardware(&second, hardware());
    probe.machine.start_device(&second).unwrap();
    let refused = REFUSED.take().unwrap();
    assert_eq!(refused, Err(NtStatus::INVALID_DEVICE_REQUEST));
    probe.machine.remove_device(&second).unwrap();
    probe.remove();
}

// ---- bytes that nobody wrote -------------------------------------------

dmf::driver!(Trusting);
struct Trusting {
    down: Sender<Read>,
}

impl Device for Trusting {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.default_queue(DefaultQueue::parallel())?;
        Ok(Trusting {
            down: add.sender(Trusting::back),
        })
    }

    fn io_read(&self, _cx: &mut QueueCallback<'_>, request: Request<Read>) -> Offer<Read> {
        let _ = self.down.send(request, Duration::from_secs(1));
        Offer::Handled
    }
}

impl Trusting {
    /// Does not look at how it ended.
    #[expect(clippy::unused_self, reason = "a function of the device")]
    fn back(&self, request: Request<Read>, _sent: Sent) {
        let length = request.len();
        request.complete(Ok(length));
    }
}

/// A driver that fails may leave any number in `IoStatus.Information`: the
/// system copies nothing then.
///
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/ns-wdm-_io_status_block>
#[test]
fn what_a_lower_driver_says_it_wrote_when_it_failed_does_not_reach_the_caller() {
    const DEVICE_NOT_CONNECTED: u32 = 0xC000_009D;
    let mut machine = Machine::with_seed(1);
    let device = machine
        .add_driver("Trusting", Trusting::DRIVER_ENTRY)
        .unwrap();
    machine.set_lower_driver(&device, |_| Answer::Transferred(DEVICE_NOT_CONNECTED, 8));
    machine.start_device(&device).unwrap();
    let file = machine.open(&device).unwrap();
    assert_eq!(machine.read(file, 8).unwrap().data, [0; 8]);
    machine.close(file).unwrap();
    machine.remove_device(&device).unwrap();
}
