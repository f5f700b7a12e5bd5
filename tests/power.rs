// SPDX-License-Identifier: MIT OR Apache-2.0

//! Power policy: a device that sleeps when it is idle, and wakes.

#[path = "support/probe.rs"]
mod probe;

use std::cell::RefCell;

use dmf::prelude::*;
use dmf::wdf::{IdleSettings, InD0, PowerPolicy, WaitForD0};
use probe::Probe;

dmf::driver!(Meter);

struct Meter {
    power: PowerPolicy,
    held: SpinLock<Option<InD0>>,
}

thread_local! {
    static METER: RefCell<Option<dmf::module::Owner<Meter>>> = RefCell::default();
}

impl Device for Meter {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        METER.set(Some(add.owner()));
        Ok(Meter {
            power: PowerPolicy::new(add),
            held: SpinLock::new(None),
        })
    }

    fn self_managed_io_init(&self, cx: &mut SelfManagedIoInit<'_>) -> Result {
        let idle = IdleSettings::can_wake().timeout(Duration::from_secs(10));
        self.power.assign_idle(cx.irql(), &idle)
    }
}

#[test]
fn an_idle_device_sleeps_and_wakes() {
    for seed in 0..16 {
        let mut probe = Probe::started(Meter::DRIVER_ENTRY, seed);
        let device = probe.device.clone();
        let meter = METER.take().unwrap();
        probe.run_for(Duration::from_secs(9));
        assert!(probe.machine.is_in_d0(&device).unwrap());
        probe.run_for(Duration::from_secs(2));
        assert!(!probe.machine.is_in_d0(&device).unwrap(), "seed {seed}");

        // Somebody needs it, for a minute.
        let user = meter.clone();
        probe.thread(move |irql| {
            let meter = user.enter().unwrap();
            let in_d0 = meter.power.stop_idle(WaitForD0::Yes(irql)).unwrap();
            meter.held.with(|held| *held = Some(in_d0));
        });
        assert!(probe.machine.is_in_d0(&device).unwrap());
        probe.run_for(Duration::from_mins(1));
        assert!(probe.machine.is_in_d0(&device).unwrap());
        let user = meter.clone();
        probe.thread(move |_| {
            let held = user.enter().unwrap().held.with(Option::take);
            drop(held);
        });
        probe.run_for(Duration::from_secs(11));
        assert!(!probe.machine.is_in_d0(&device).unwrap(), "seed {seed}");

        assert!(probe.machine.signal_wake(&device).unwrap());
        probe.run_for(Duration::from_secs(1));
        assert!(probe.machine.is_in_d0(&device).unwrap(), "seed {seed}");
        probe.thread(move |_| drop(meter));
        probe.remove();
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_disarm_wake_from_s0>
#[test]
fn an_idle_device_is_armed_before_d0_exit_and_disarmed_after_d0_entry() {
    let mut probe = Probe::started(Meter::DRIVER_ENTRY, 9);
    let device = probe.device.clone();
    probe.run_for(Duration::from_secs(11));
    assert!(probe.machine.signal_wake(&device).unwrap());
    probe.run_for(Duration::from_secs(1));
    assert_eq!(
        probe.callbacks()[3..],
        [
            "EvtDeviceSelfManagedIoSuspend",
            "EvtDeviceArmWakeFromS0",
            "EvtDeviceD0ExitPreInterruptsDisabled",
            "EvtDeviceD0Exit",
            "EvtDeviceD0Entry",
            "EvtDeviceD0EntryPostInterruptsEnabled",
            "EvtDeviceWakeFromS0Triggered",
            "EvtDeviceDisarmWakeFromS0",
            "EvtDeviceSelfManagedIoRestart",
        ]
    );
    drop(METER.take());
    probe.remove();
}

#[test]
fn a_reference_that_the_device_holds_goes_with_it() {
    let mut probe = Probe::started(Meter::DRIVER_ENTRY, 3);
    let meter = METER.take().unwrap();
    probe.thread(move |_| {
        let meter = meter.enter().unwrap();
        let in_d0 = meter.power.stop_idle(WaitForD0::No).unwrap();
        meter.held.with(|held| *held = Some(in_d0));
    });
    probe.remove();
}
