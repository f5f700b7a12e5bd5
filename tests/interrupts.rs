// SPDX-License-Identifier: MIT OR Apache-2.0

//! Interrupts at the device's IRQL and passive ones, and the resources that they
//! come from.

#[path = "support/probe.rs"]
mod probe;

use std::cell::{Cell, RefCell};

use dmf::prelude::*;
use dmf::wdf::{
    Affinity, Claim, Interrupt, InterruptConfig, InterruptDpc, InterruptWork, Isr, Priority,
    Queued, Resource, Sharing, Trigger,
};
use ntsim::StopKind;
use ntsim::machine::{Error, Hardware, Raised};
use ntsim::trace::Event as Traced;
use probe::Probe;

dmf::driver!(Card);

dmf::isr_state! {
    /// What the ISR counts, and what it was told.
    #[derive(Default)]
    struct CardState {
        raised: u32,
        enabled: bool,
    }
}

struct Card {
    line: Interrupt<CardState>,
    served: SpinLock<u32>,
}

thread_local! {
    static CARD: RefCell<(Vec<Resource>, u32)> = RefCell::default();
}

impl Device for Card {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        let config = InterruptConfig::new(Card::isr)
            .dpc(Card::dpc)
            .enable(|cx| {
                cx.state().enabled = true;
                Ok(())
            })
            .disable(|cx| {
                cx.state().enabled = false;
                Ok(())
            });
        Ok(Card {
            line: Interrupt::new(add, config, CardState::default())?,
            served: SpinLock::new(0),
        })
    }

    fn prepare_hardware(&self, cx: &mut PrepareHardware<'_>) -> Result {
        let found = cx
            .assigned()
            .iter()
            .map(|assigned| assigned.translated)
            .collect();
        CARD.with_borrow_mut(|card| card.0 = found);
        // The state is there before the interrupt is connected, too.
        assert!(!self.line.with(|state| state.enabled));
        Ok(())
    }

    fn self_managed_io_init(&self, _cx: &mut SelfManagedIoInit<'_>) -> Result {
        assert!(self.line.with(|state| state.enabled));
        Ok(())
    }

    fn d0_exit(&self, _cx: &mut D0Exit<'_>) {
        assert!(!self.line.with(|state| state.enabled));
        let served = self.served.with(|served| *served);
        CARD.with_borrow_mut(|card| card.1 = served);
    }
}

impl Card {
    fn isr(cx: &mut Isr<'_, CardState>) -> Claim {
        assert!(cx.state().enabled);
        cx.state().raised += 1;
        let _: Option<Queued> = cx.defer();
        Claim::Mine
    }

    fn dpc(&self, cx: &mut InterruptDpc<'_>) {
        let raised = self.line.with(|state| std::mem::take(&mut state.raised));
        self.served.lock(cx.irql(), |served, _| *served += raised);
    }
}

#[test]
fn every_interrupt_is_served_under_any_schedule() {
    for seed in 0..64 {
        let mut probe = Probe::new(Card::DRIVER_ENTRY, seed);
        let device = probe.device.clone();
        probe.machine.set_hardware(
            &device,
            Hardware::new()
                .memory(0xFEB0_0000, 0x1000)
                .port(0x3F8, 8)
                .interrupt(),
        );
        probe
            .start()
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        CARD.with_borrow(|card| {
            assert!(matches!(
                card.0[..],
                [
                    Resource::Memory {
                        start: 0xFEB0_0000,
                        length: 0x1000,
                        ..
                    },
                    Resource::Port {
                        start: 0x3F8,
                        length: 8,
                        ..
                    },
                    Resource::Interrupt { .. }
                ]
            ));
        });
        for _ in 0..10 {
            assert_eq!(
                probe.machine.raise_interrupt(&device, 0).unwrap(),
                Raised::Delivered
            );
        }
        assert_eq!(
            probe.machine.raise_interrupt(&device, 1).unwrap(),
            Raised::Unconnected
        );
        probe.run_for(Duration::from_millis(1));
        probe.remove();
        CARD.with_borrow(|card| assert_eq!(card.1, 10, "seed {seed}"));
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/enabling-and-disabling-interrupts>
#[test]
fn interrupts_are_on_from_after_d0_entry_until_before_d0_exit() {
    let mut probe = Probe::new(Card::DRIVER_ENTRY, 5);
    let device = probe.device.clone();
    probe
        .machine
        .set_hardware(&device, Hardware::new().interrupt());
    probe.start().unwrap();
    probe.power_down();
    assert_eq!(
        probe.callbacks(),
        [
            "EvtDeviceD0Entry",
            "EvtInterruptEnable",
            "EvtDeviceD0EntryPostInterruptsEnabled",
            "EvtDeviceSelfManagedIoInit",
            "EvtDeviceSelfManagedIoSuspend",
            "EvtDeviceD0ExitPreInterruptsDisabled",
            "EvtInterruptDisable",
            "EvtDeviceD0Exit",
        ]
    );
    probe.remove();
}

/// ISRs run at the line's IRQL, which the trace shows.
#[test]
fn an_isr_runs_above_dispatch_level_and_its_dpc_at_it() {
    let mut probe = Probe::new(Card::DRIVER_ENTRY, 5);
    let device = probe.device.clone();
    probe
        .machine
        .set_hardware(&device, Hardware::new().interrupt());
    probe.start().unwrap();
    let _ = probe.machine.raise_interrupt(&device, 0).unwrap();
    probe.run_for(Duration::from_millis(1));
    let irql = |wanted| {
        let mut lines = probe.machine.trace().iter();
        lines.find_map(|line| match line.what {
            Traced::Callback { name, .. } if name == wanted => Some(line.irql),
            _ => None,
        })
    };
    assert_eq!(irql("EvtInterruptIsr"), Some(5));
    assert_eq!(irql("EvtInterruptDpc"), Some(2));
    assert_eq!(irql("EvtInterruptEnable"), Some(5));
    probe.remove();
}

#[test]
fn power_goes_down_amid_interrupts() {
    for seed in 0..64 {
        let mut probe = Probe::new(Card::DRIVER_ENTRY, seed);
        let device = probe.device.clone();
        probe
            .machine
            .set_hardware(&device, Hardware::new().interrupt());
        probe
            .start()
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for _ in 0..3 {
            let _ = probe.machine.raise_interrupt(&device, 0).unwrap();
        }
        probe.power_down();
        assert_eq!(
            probe.machine.raise_interrupt(&device, 0).unwrap(),
            Raised::Pending
        );
        probe.power_up();
        probe.run_for(Duration::from_millis(1));
        probe.remove();
        // At least the one that was pending; what came during the way down may have been.
        CARD.with_borrow(|card| assert!(card.1 >= 2, "seed {seed}: {}", card.1));
    }
}

/// A device that is there and not started, made of `hardware`.
fn made_of(entry: dmf::driver::DriverEntry, seed: u64, hardware: Hardware) -> Probe {
    let mut probe = Probe::new(entry, seed);
    let device = probe.device.clone();
    probe.machine.set_hardware(&device, hardware);
    probe
}

fn raise(probe: &mut Probe, line: u32) -> Raised {
    let device = probe.device.clone();
    probe.machine.raise_interrupt(&device, line).unwrap()
}

/// The IRQL at which a callback was called first.
fn irql_of(probe: &Probe, wanted: &str) -> Option<u8> {
    let mut lines = probe.machine.trace().iter();
    lines.find_map(|line| match line.what {
        Traced::Callback { name, .. } if name == wanted => Some(line.irql),
        _ => None,
    })
}

// ---- passive interrupts --------------------------------------------------

dmf::driver!(Sensor);

/// A device behind a slow bus: its ISR waits.
struct Sensor {
    line: Interrupt<SensorState, Passive>,
    reports: SpinLock<u32>,
}

#[derive(Default)]
struct SensorState {
    readings: Vec<u32>,
    busy: bool,
}

thread_local! {
    static SENSOR: RefCell<Option<dmf::module::Owner<Sensor>>> = RefCell::default();
    static REPORTS: Cell<u32> = const { Cell::new(0) };
}

impl Device for Sensor {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        SENSOR.set(Some(add.owner()));
        let config = InterruptConfig::passive(Sensor::isr)
            .sharing(Sharing::Exclusive)
            .work_item(|this: &Self, cx: &mut InterruptWork<'_>| {
                this.reports.lock(cx.irql(), |reports, _| *reports += 1);
            })
            .enable(|cx| {
                let (state, irql) = cx.parts();
                dmf::sync::delay(irql, Duration::from_millis(1));
                state.readings.push(0);
                Ok(())
            });
        Ok(Sensor {
            line: Interrupt::new(add, config, SensorState::default())?,
            reports: SpinLock::new(0),
        })
    }

    fn d0_exit(&self, _cx: &mut D0Exit<'_>) {
        REPORTS.set(self.reports.with(|reports| *reports));
    }
}

impl Sensor {
    fn isr(cx: &mut Isr<'_, SensorState, Passive>) -> Claim {
        let (state, irql) = cx.parts();
        assert!(!state.busy);
        state.busy = true;
        dmf::sync::delay(irql, Duration::from_millis(20));
        state.busy = false;
        state.readings.push(1);
        let _ = cx.defer();
        Claim::Mine
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/supporting-passive-level-interrupts>
#[test]
fn a_passive_isr_waits_and_nobody_sees_its_state_meanwhile() {
    for seed in 0..32 {
        let mut probe = made_of(Sensor::DRIVER_ENTRY, seed, Hardware::new().interrupt());
        probe
            .start()
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let sensor = SENSOR.take().unwrap();
        for _ in 0..3 {
            assert_eq!(raise(&mut probe, 0), Raised::Delivered);
        }
        let user = sensor.clone();
        probe.thread(move |irql| {
            let sensor = user.enter().unwrap();
            for _ in 0..4 {
                sensor.line.with_passive(irql, |state| assert!(!state.busy));
                dmf::sync::delay(irql, Duration::from_millis(5));
            }
        });
        probe.run_for(Duration::from_secs(1));
        let readings = probe.thread(move |irql| {
            let sensor = sensor.enter().unwrap();
            sensor
                .line
                .with_passive(irql, |state| state.readings.iter().sum::<u32>())
        });
        assert_eq!(readings, 3, "seed {seed}");
        assert_eq!(irql_of(&probe, "EvtInterruptIsr"), Some(0));
        assert_eq!(irql_of(&probe, "EvtInterruptWorkItem"), Some(0));
        probe.remove();
        assert!(REPORTS.get() >= 1, "seed {seed}");
    }
}

// ---- interrupts that are created from assigned resources -------------------

dmf::driver!(Chooser);

/// A driver that takes the second interrupt of its device.
struct Chooser {
    line: Interrupt<u32>,
}

thread_local! {
    static CHOOSER: RefCell<Option<dmf::module::Owner<Chooser>>> = RefCell::default();
}

fn count(cx: &mut Isr<'_, u32>) -> Claim {
    assert_eq!(cx.defer(), None);
    *cx.state() += 1;
    Claim::Mine
}

impl Device for Chooser {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        CHOOSER.set(Some(add.owner()));
        let config = InterruptConfig::new(count).can_wake_device();
        let refused = config.policy(Affinity::All, Priority::High);
        assert_eq!(
            Interrupt::declare(add, refused, 0).err(),
            Some(NtStatus::INVALID_PARAMETER)
        );
        Ok(Chooser {
            line: Interrupt::declare(add, config, 0)?,
        })
    }

    fn prepare_hardware(&self, cx: &mut PrepareHardware<'_>) -> Result {
        assert_eq!(self.line.info(), Err(NtStatus::INVALID_DEVICE_STATE));
        assert!(self.line.as_raw().is_null());
        assert_eq!(self.line.create(cx, 0), Err(NtStatus::INVALID_PARAMETER));
        assert_eq!(self.line.create(cx, 3), Err(NtStatus::INVALID_PARAMETER));
        self.line.create(cx, 2)?;
        assert_eq!(self.line.create(cx, 1), Err(NtStatus::INVALID_DEVICE_STATE));
        Ok(())
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptcreate>
#[test]
fn a_declared_interrupt_is_made_anew_at_each_start_from_the_chosen_resource() {
    let hardware = Hardware::new()
        .memory(0xFEB0_0000, 0x1000)
        .interrupt()
        .interrupt();
    let mut probe = made_of(Chooser::DRIVER_ENTRY, 1, hardware);
    probe.start().unwrap();
    let device = probe.device.clone();
    let chooser = CHOOSER.take().unwrap();
    for round in 1..=2 {
        assert_eq!(raise(&mut probe, 0), Raised::Unconnected);
        assert_eq!(raise(&mut probe, 1), Raised::Delivered);
        probe.run_for(Duration::from_millis(1));
        let user = chooser.clone();
        probe.thread(move |_| {
            let chooser = user.enter().unwrap();
            assert_eq!(chooser.line.with(|raised| *raised), round);
            let info = chooser.line.info().unwrap();
            assert_eq!((info.irql, info.vector), (6, 0x60));
            assert_eq!((info.message, info.trigger), (None, Trigger::Level));
        });
        probe.machine.stop_device(&device).unwrap();
        assert_eq!(raise(&mut probe, 1), Raised::Unconnected);
        probe.machine.restart_device(&device).unwrap();
    }
    probe.thread(move |_| drop(chooser));
    probe.remove();
}

// ---- messages, policy, activity --------------------------------------------

dmf::driver!(Messages);

/// A device with two messages, in the order of its resources.
struct Messages {
    first: Interrupt<[u32; 2]>,
    second: Interrupt<[u32; 2]>,
}

thread_local! {
    static MESSAGES: RefCell<Option<dmf::module::Owner<Messages>>> = RefCell::default();
}

impl Device for Messages {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        MESSAGES.set(Some(add.owner()));
        let config = InterruptConfig::new(|cx: &mut Isr<'_, [u32; 2]>| {
            let message = cx.message() as usize;
            cx.state()[message] += 1;
            Claim::Mine
        })
        .policy(Affinity::Processors(0b10), Priority::High)
        .stays_active_in_low_power();
        Ok(Messages {
            first: Interrupt::new(add, config, [0; 2])?,
            second: Interrupt::new(add, config, [0; 2])?,
        })
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/creating-an-interrupt-object>
#[test]
fn each_message_has_an_interrupt_that_knows_its_number() {
    let hardware = Hardware::new().message_interrupt().message_interrupt();
    let mut probe = made_of(Messages::DRIVER_ENTRY, 3, hardware);
    probe.start().unwrap();
    let messages = MESSAGES.take().unwrap();
    assert_eq!(raise(&mut probe, 1), Raised::Delivered);
    probe.run_for(Duration::from_millis(1));
    probe.thread(move |_| {
        let messages = messages.enter().unwrap();
        assert_eq!(messages.first.with(|counts| *counts), [0, 0]);
        assert_eq!(messages.second.with(|counts| *counts), [0, 1]);
        let info = messages.second.info().unwrap();
        assert_eq!((info.message, info.trigger), (Some(1), Trigger::Edge));
    });
    let policies = probe.machine.trace().iter().filter(|line| {
        matches!(&line.what, Traced::Call { name: "WdfInterruptSetPolicy", args, .. }
            if args.contains("Policy=4, Priority=3, TargetProcessorSet=2"))
    });
    assert_eq!(policies.count(), 2);
    probe.remove();
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptreportinactive>
#[test]
fn an_inactive_interrupt_is_served_once_it_is_active() {
    let hardware = Hardware::new().message_interrupt().message_interrupt();
    let mut probe = made_of(Messages::DRIVER_ENTRY, 3, hardware);
    probe.start().unwrap();
    let messages = MESSAGES.take().unwrap();
    let user = messages.clone();
    probe.thread(move |_| user.enter().unwrap().first.report_inactive().unwrap());
    assert_eq!(raise(&mut probe, 0), Raised::Pending);
    assert_eq!(raise(&mut probe, 1), Raised::Delivered);
    probe.run_for(Duration::from_millis(1));
    let user = messages.clone();
    probe.thread(move |_| {
        let messages = user.enter().unwrap();
        assert_eq!(messages.first.with(|counts| counts[0]), 0);
        messages.first.report_active().unwrap();
    });
    probe.run_for(Duration::from_millis(1));
    probe.thread(move |_| {
        let messages = messages.enter().unwrap();
        assert_eq!(messages.first.with(|counts| counts[0]), 1);
        assert_eq!(
            messages.first.with_value(7, |counts, more| {
                counts[0] += more;
                counts[0]
            }),
            8
        );
    });
    probe.remove();
}

// ---- misuse ------------------------------------------------------------------

dmf::driver!(Careless);

struct Careless {
    _line: Interrupt<u32>,
}

static SHARED: SpinLock<u32> = SpinLock::new(0);

thread_local! {
    static FAILS: Cell<bool> = const { Cell::new(false) };
}

impl Device for Careless {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        let config = InterruptConfig::new(|cx: &mut Isr<'_, u32>| {
            *cx.state() += SHARED.with(|shared| *shared);
            Claim::Mine
        })
        .enable(|_| {
            if FAILS.get() {
                return Err(NtStatus::DEVICE_NOT_READY);
            }
            Ok(())
        });
        let line = Interrupt::new(add, config, 0)?;
        // There and back: the link is the same.
        let raw = line.into_raw().unwrap();
        // SAFETY: just given up.
        let line = unsafe { Interrupt::from_raw(raw) };
        assert_eq!(line.as_raw(), raw);
        Ok(Careless { _line: line })
    }
}

/// What types cannot see: a lock in a `static` that an ISR takes.
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquirespinlock>
#[test]
fn an_isr_that_takes_a_lock_of_dispatch_level_is_a_bug_check() {
    let mut probe = made_of(Careless::DRIVER_ENTRY, 1, Hardware::new().interrupt());
    probe.start().unwrap();
    let _ = raise(&mut probe, 0);
    let stop = probe
        .machine
        .run_for(Duration::from_millis(1))
        .expect_err("the ISR is above DISPATCH_LEVEL");
    assert!(matches!(stop.kind, StopKind::BugCheck { .. }), "{stop}");
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nc-wdfinterrupt-evt_wdf_interrupt_enable>
#[test]
fn a_device_whose_interrupt_cannot_be_enabled_does_not_start() {
    FAILS.set(true);
    let mut probe = made_of(Careless::DRIVER_ENTRY, 1, Hardware::new().interrupt());
    match probe.start() {
        Err(Error::Driver { status, .. }) => {
            assert_eq!(status, NtStatus::DEVICE_NOT_READY.to_raw().cast_unsigned());
        }
        other => panic!("{other:?}"),
    }
    FAILS.set(false);
    probe.start().unwrap();
    probe.remove();
}
