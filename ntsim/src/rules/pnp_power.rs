// SPDX-License-Identifier: MIT OR Apache-2.0

//! Plug and Play and power: what takes a driver too long.
//!
//! The watchdogs run in virtual time. They do not keep the machine alive: where
//! nothing can run and no timer is left, the wait that never ends is told at once,
//! by a rule of [`deadlock`](super::deadlock).

use super::Report::{BugCheck, BugCheckWith};

rules! { PnpPower;
    /// A power change of a device was not over after ten minutes.
    POWER_IRP_BLOCKED = "PowerIrpBlocked", BugCheckWith(0x9F, 0x3), ["physical device object", "nt!TRIAGE_9F_POWER", "blocked IRP"],
        apis: ["EvtDeviceD0Entry", "EvtDeviceD0Exit", "EvtDeviceSelfManagedIoSuspend", "EvtDeviceSelfManagedIoRestart", "EvtIoStop"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x9f--driver-power-state-failure";
    /// A PnP request of a device was not over after six minutes: a start, a stop or a removal.
    PNP_WATCHDOG = "PnpWatchdog", BugCheck(0x1D5), ["first characters of the service", "nt!TRIAGE_PNP_WATCHDOG", "thread", "milliseconds since the watchdog was armed"],
        apis: ["EvtDevicePrepareHardware", "EvtDeviceReleaseHardware", "EvtDeviceSurpriseRemoval", "EvtDeviceQueryRemove", "EvtIoStop"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x1d5--driver-pnp-watchdog";
}
