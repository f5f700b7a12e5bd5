// SPDX-License-Identifier: MIT OR Apache-2.0

//! Idle power-down and wake in S0, as a driver in C sees them:
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/supporting-idle-power-down>.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a driver in C would not be checked either; the machine checks this one"
)]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "as above")]
#![allow(clippy::missing_safety_doc, reason = "as above")]

#[macro_use]
#[path = "support/raw.rs"]
mod raw;

use std::cell::Cell;

use ntsim::StopKind;
use ntsim::machine::Sleep;
use ntsim_sys::{
    NTSTATUS, WDF_DEVICE_POWER_POLICY_IDLE_SETTINGS, WDF_DEVICE_POWER_POLICY_WAKE_SETTINGS,
    WDFDEVICE,
};
use raw::{Bench, sized};

const INFO_LENGTH_MISMATCH: NTSTATUS = 0xC000_0004_u32.cast_signed();
const INVALID_PARAMETER: NTSTATUS = 0xC000_000D_u32.cast_signed();
const UNSUCCESSFUL: NTSTATUS = 0xC000_0001_u32.cast_signed();
const PENDING: NTSTATUS = 0x103;

const CANNOT_WAKE: i32 = 1;
const CAN_WAKE: i32 = 2;

thread_local! {
    static DEVICE: Cell<WDFDEVICE> = const { Cell::new(std::ptr::null_mut()) };
}

/// `WDF_DEVICE_POWER_POLICY_IDLE_SETTINGS_INIT`, with a second to wait.
fn settings(caps: i32) -> WDF_DEVICE_POWER_POLICY_IDLE_SETTINGS {
    WDF_DEVICE_POWER_POLICY_IDLE_SETTINGS {
        IdleCaps: caps,
        // PowerDeviceMaximum
        DxState: 5,
        IdleTimeout: 1_000,
        UserControlOfIdleSettings: 2,
        Enabled: 2,
        PowerUpIdleDeviceOnSystemWake: 2,
        ExcludeD3Cold: 2,
        ..sized()
    }
}

fn assign(mut settings: WDF_DEVICE_POWER_POLICY_IDLE_SETTINGS) -> NTSTATUS {
    wdf!(WdfDeviceAssignS0IdleSettings: WdfDeviceAssignS0IdleSettingsTableIndex
        as PFN_WDFDEVICEASSIGNS0IDLESETTINGS(DEVICE.get(), &raw mut settings))
}

fn stop_idle(wait: bool) -> NTSTATUS {
    wdf!(WdfDeviceStopIdleNoTrack: WdfDeviceStopIdleNoTrackTableIndex
        as PFN_WDFDEVICESTOPIDLENOTRACK(DEVICE.get(), u8::from(wait)))
}

fn resume_idle() {
    wdf!(WdfDeviceResumeIdleNoTrack: WdfDeviceResumeIdleNoTrackTableIndex
        as PFN_WDFDEVICERESUMEIDLENOTRACK(DEVICE.get()));
}

/// A device that idles with these capabilities once it is started.
fn idler(seed: u64, caps: i32) -> Bench {
    Bench::new(seed)
        .on("DeviceAdd", |device| {
            DEVICE.set(device.cast());
            0
        })
        .on("SelfManagedIoInit", move |_| assign(settings(caps)))
}

fn in_d0(bench: &mut Bench) -> bool {
    let device = bench.device.clone();
    bench.machine.is_in_d0(&device).unwrap()
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceassigns0idlesettings>
/// and <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceassignsxwakesettings>
#[test]
fn settings_of_another_size_or_for_d0_are_refused() {
    let mut bench = idler(1, CANNOT_WAKE).on("SelfManagedIoInit", |_| {
        let mut small = settings(CANNOT_WAKE);
        small.Size -= 1;
        assert_eq!(assign(small), INFO_LENGTH_MISMATCH);
        let working = WDF_DEVICE_POWER_POLICY_IDLE_SETTINGS {
            // PowerDeviceD0
            DxState: 1,
            ..settings(CANNOT_WAKE)
        };
        assert_eq!(assign(working), INVALID_PARAMETER);
        let mut wake = WDF_DEVICE_POWER_POLICY_WAKE_SETTINGS {
            DxState: 1,
            ..sized()
        };
        let status = wdf!(WdfDeviceAssignSxWakeSettings: WdfDeviceAssignSxWakeSettingsTableIndex
            as PFN_WDFDEVICEASSIGNSXWAKESETTINGS(DEVICE.get(), &raw mut wake));
        assert_eq!(status, INVALID_PARAMETER);
        0
    });
    bench.start();
    bench.run_for(10_000);
    assert!(in_d0(&mut bench), "nothing was assigned");
    bench.remove();
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicestopidle>
#[test]
fn a_device_without_users_sleeps_until_somebody_needs_it() {
    for seed in 0..32 {
        let mut bench = idler(seed, CANNOT_WAKE);
        bench.start();
        bench.run_for(900);
        assert!(in_d0(&mut bench));
        bench.run_for(200);
        assert!(!in_d0(&mut bench), "seed {seed}");

        // Without waiting it is on its way; with it, it is there.
        assert_eq!(bench.run(|| stop_idle(false)), PENDING);
        assert_eq!(bench.run(|| stop_idle(true)), 0);
        assert!(in_d0(&mut bench));
        bench.run(resume_idle);
        bench.run_for(10_000);
        assert!(in_d0(&mut bench), "one of the two references is left");
        bench.run(resume_idle);
        bench.run_for(1_100);
        assert!(!in_d0(&mut bench), "seed {seed}");
        let names = bench.device_callbacks();
        assert!(
            !names.iter().any(|name| name == "ArmWakeFromS0"),
            "it cannot wake"
        );
        bench.remove();
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_wake_from_s0_triggered>
#[test]
fn a_wake_signal_brings_the_device_back() {
    for seed in 0..32 {
        let mut bench = idler(seed, CAN_WAKE);
        bench.start();
        bench.run_for(1_100);
        assert!(!in_d0(&mut bench));
        let device = bench.device.clone();
        assert!(bench.machine.signal_wake(&device).unwrap());
        bench.run_for(10);
        assert!(in_d0(&mut bench), "seed {seed}");
        let names = bench.device_callbacks();
        let from = names
            .iter()
            .position(|name| name == "SelfManagedIoSuspend")
            .unwrap();
        assert_eq!(
            names[from..],
            [
                "SelfManagedIoSuspend",
                "ArmWakeFromS0",
                "D0Exit",
                "D0Entry",
                "WakeFromS0Triggered",
                "DisarmWakeFromS0",
                "SelfManagedIoRestart",
            ]
        );
        bench.remove();
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_arm_wake_from_s0>
#[test]
fn a_device_that_cannot_be_armed_stays_in_d0() {
    let mut bench = idler(1, CAN_WAKE).on("ArmWakeFromS0", |_| UNSUCCESSFUL);
    bench.start();
    bench.run_for(5_000);
    assert!(in_d0(&mut bench));
    let names = bench.device_callbacks();
    assert!(names.iter().any(|name| name == "ArmWakeFromS0"));
    assert!(!names.iter().any(|name| name == "D0Exit"));
    bench.remove();
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceresumeidle>
#[test]
fn giving_back_a_reference_that_was_not_taken_is_stopped_by_the_verifier() {
    let mut bench = idler(1, CANNOT_WAKE);
    bench.start();
    let stop = bench.machine.run_thread("test", resume_idle).unwrap_err();
    assert!(matches!(stop.kind, StopKind::BugCheck { .. }), "{stop}");
}

/// The states that the driver was told to take the device to: `WDF_POWER_DEVICE_STATE`.
fn targets(bench: &Bench) -> Vec<String> {
    let lines = bench.machine.trace().iter().map(ToString::to_string);
    let exits = lines.filter(|line| line.contains("-> EvtDeviceD0Exit("));
    exits
        .map(|line| {
            let (_, state) = line.split_once("TargetState=").unwrap();
            state.trim_end_matches(')').to_owned()
        })
        .collect()
}

/// `DxState` of <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/ns-wdfdevice-_wdf_device_power_policy_wake_settings>:
/// for a device that is armed; one that is not goes to D3.
#[test]
fn a_device_that_is_to_wake_the_system_goes_to_the_state_of_its_settings() {
    // (PowerDeviceD2, D3, Maximum; whether it can be armed; where it goes)
    for (state, armed, target) in [
        (3, 0, "3"),
        (4, 0, "4"),
        (5, 0, "4"),
        (3, UNSUCCESSFUL, "4"),
    ] {
        let mut bench = Bench::new(1)
            .on("DeviceAdd", |device| {
                DEVICE.set(device.cast());
                0
            })
            .on("SelfManagedIoInit", move |_| {
                let mut wake = WDF_DEVICE_POWER_POLICY_WAKE_SETTINGS {
                    DxState: state,
                    UserControlOfWakeSettings: 2,
                    Enabled: 2,
                    ..sized()
                };
                wdf!(WdfDeviceAssignSxWakeSettings: WdfDeviceAssignSxWakeSettingsTableIndex
                    as PFN_WDFDEVICEASSIGNSXWAKESETTINGS(DEVICE.get(), &raw mut wake))
            })
            .on("ArmWakeFromSx", move |_| armed);
        bench.start();
        bench.machine.sleep(Sleep::S3).unwrap();
        bench.machine.wake().unwrap();
        assert_eq!(
            targets(&bench),
            [target],
            "DxState {state}, armed: {armed:#x}"
        );
        assert!(in_d0(&mut bench));
        bench.remove();
    }
}

/// `DxState` of <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/ns-wdfdevice-_wdf_device_power_policy_idle_settings>
#[test]
fn a_device_that_idles_goes_to_the_state_of_its_settings() {
    for (state, target) in [(2, "2"), (3, "3"), (5, "4")] {
        let mut bench = idler(1, CAN_WAKE).on("SelfManagedIoInit", move |_| {
            assign(WDF_DEVICE_POWER_POLICY_IDLE_SETTINGS {
                DxState: state,
                ..settings(CAN_WAKE)
            })
        });
        bench.start();
        bench.run_for(1_100);
        assert_eq!(targets(&bench), [target]);
        bench.remove();
    }
}

/// `PowerUpIdleDeviceOnSystemWake` of
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/ns-wdfdevice-_wdf_device_power_policy_idle_settings>:
/// by default a device that idles stays in its low-power state.
#[test]
fn an_idle_device_comes_back_with_the_system_if_it_is_to() {
    // WdfFalse, WdfTrue, WdfUseDefault
    for (wanted, back) in [(0, false), (1, true), (2, false)] {
        let mut bench = idler(1, CANNOT_WAKE).on("SelfManagedIoInit", move |_| {
            assign(WDF_DEVICE_POWER_POLICY_IDLE_SETTINGS {
                PowerUpIdleDeviceOnSystemWake: wanted,
                ..settings(CANNOT_WAKE)
            })
        });
        bench.start();
        bench.run_for(1_100);
        assert!(!in_d0(&mut bench));
        bench.machine.sleep(Sleep::S3).unwrap();
        bench.machine.wake().unwrap();
        assert_eq!(in_d0(&mut bench), back, "{wanted}");
        // Either can be used again.
        assert_eq!(bench.run(|| stop_idle(true)), 0);
        assert!(in_d0(&mut bench));
        bench.run(resume_idle);
        bench.remove();
    }
}
