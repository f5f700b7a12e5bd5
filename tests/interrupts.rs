// SPDX-License-Identifier: MIT OR Apache-2.0

//! Interrupts at the device's IRQL and passive ones, and the resources that they
//! come from.

#[path = "support/probe.rs"]
mod probe;

use std::cell::RefCell;

use dmf::prelude::*;
use dmf::wdf::{Claim, Interrupt, InterruptConfig, InterruptDpc, Isr, Queued, Resource};
use ntsim::machine::{Hardware, Raised};
use ntsim::trace::Event as Traced;
use probe::Probe;

dmf::driver!(Card);

/// What the ISR counts, and what it was told.
#[derive(Default)]
struct CardState {
    raised: u32,
    enabled: bool,
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
        let _: Queued = cx.queue_dpc();
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
