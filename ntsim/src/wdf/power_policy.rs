// SPDX-License-Identifier: MIT OR Apache-2.0

//! S0 idle and wake:
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/supporting-idle-power-down>
//!
//! # Vocabulary
//! - *idle*: nobody uses the device: no power reference is held, and no
//!   activity was reported for the idle timeout.
//! - *power reference*: what `WdfDeviceStopIdle` takes and `WdfDeviceResumeIdle`
//!   gives back; a request in a power-managed queue takes one, too ([`acquire`]).
//!
//! ```text
//!            idle timeout, no reference
//!   in D0 ──────────────────────────────► SelfManagedIoSuspend ─► ArmWakeFromS0 ─► D0Exit ─► idle in Dx
//!     ▲                                                                                │
//!     └── SelfManagedIoRestart ◄─ DisarmWakeFromS0 ◄─ WakeFromS0Triggered ◄─ D0Entry ◄─┘
//!                                                     (if it woke by a signal)   a reference, or a wake signal
//! ```
//!
//! Order of the wake callbacks:
//! <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_disarm_wake_from_s0>.
//! A failing `EvtDeviceArmWakeFromS0` keeps the device in D0:
//! <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_arm_wake_from_s0>.
//! Idle power changes run on a system worker thread.

use crate::abi::{callback, param};
use crate::access::peek;
use crate::kernel::{Expiry, Kernel, MILLISECOND, TimerKey};
use crate::rules::kmdf;
use crate::trap::kernel;

use super::object::{self, Handle};
use super::pnp;
use super::raw::PowerPolicyCallbacks;
use super::{
    Globals, STATUS_INFO_LENGTH_MISMATCH, STATUS_INVALID_DEVICE_REQUEST,
    STATUS_INVALID_DEVICE_STATE, STATUS_INVALID_PARAMETER, STATUS_SUCCESS, required,
};

/// `WDF_DEVICE_POWER_POLICY_IDLE_SETTINGS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct IdleSettings {
    size: u32,
    caps: u32,
    dx_state: u32,
    timeout: u32,
    user_control: u32,
    enabled: u32,
    power_up_on_system_wake: u32,
    timeout_type: u32,
    exclude_d3_cold: u32,
}

/// `WDF_DEVICE_POWER_POLICY_WAKE_SETTINGS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct WakeSettings {
    size: u32,
    dx_state: u32,
    user_control: u32,
    enabled: u32,
    arm_if_children: u8,
    indicate_child_wake: u8,
}

/// `IdleCanWakeFromS0` and `IdleCannotWakeFromS0`.
const CANNOT_WAKE: u32 = 1;
const CAN_WAKE: u32 = 2;
/// `WdfFalse` and `WdfTrue`.
const FALSE: u32 = 0;
const TRUE: u32 = 1;
/// What `IdleTimeoutDefaultValue` (0) means, in milliseconds.
const DEFAULT_TIMEOUT: u32 = 5_000;
const STATUS_PENDING: i32 = 0x103;
const STATUS_POWER_STATE_INVALID: i32 = 0xC000_02D3_u32.cast_signed();

/// The power policy of a device.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are independent of each other"
)]
pub(crate) struct PowerPolicy {
    /// What the driver assigned; nothing yet.
    idle: Option<Idle>,
    /// The power state in which the device is to wake the system.
    wake_from_sx: Option<i32>,
    references: u32,
    timer: Option<TimerKey>,
    /// It is in Dx because it was idle.
    asleep: bool,
    armed_for_s0: bool,
    armed_for_sx: bool,
    /// A wake signal brought it back.
    signalled: bool,
}

#[derive(Clone, Copy)]
struct Idle {
    enabled: bool,
    can_wake: bool,
    timeout: u64,
    state: i32,
    /// `PowerUpIdleDeviceOnSystemWake`.
    up_on_system_wake: bool,
}

fn policy(k: &mut Kernel, device: Handle) -> &mut PowerPolicy {
    &mut object::device(k, device, "the power policy").policy
}

/// `DxState`: `PowerDeviceMaximum` stands for the deepest state.
fn target(dx_state: u32) -> Option<i32> {
    match dx_state {
        2..=4 => i32::try_from(dx_state).ok(),
        5 => Some(4),
        _ => None,
    }
}

/// `WdfDeviceAssignS0IdleSettings`. Needs `PASSIVE_LEVEL`.
///
/// # Errors
/// `STATUS_INFO_LENGTH_MISMATCH`; `STATUS_INVALID_DEVICE_REQUEST` if the driver
/// does not own the power policy; `STATUS_INVALID_PARAMETER` for a power state
/// or capability that is none.
pub(crate) fn assign_s0_idle_settings(
    _: Globals,
    device: Handle,
    from: *const IdleSettings,
) -> i32 {
    let function = "WdfDeviceAssignS0IdleSettings";
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        object::device(k, device, function);
    });
    required(from, function, "Settings");
    if peek(from.cast::<u32>()) as usize != size_of::<IdleSettings>() {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    let settings = peek(from);
    if !kernel(|k| object::device(k, device, function).is_power_policy_owner()) {
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    let (Some(state), CANNOT_WAKE | CAN_WAKE) = (target(settings.dx_state), settings.caps) else {
        return STATUS_INVALID_PARAMETER;
    };
    let milliseconds = match settings.timeout {
        0 => DEFAULT_TIMEOUT,
        milliseconds => milliseconds,
    };
    let idle = Idle {
        enabled: settings.enabled != FALSE,
        can_wake: settings.caps == CAN_WAKE,
        timeout: u64::from(milliseconds) * MILLISECOND,
        state,
        up_on_system_wake: settings.power_up_on_system_wake == TRUE,
    };
    kernel(|k| {
        policy(k, device).idle = Some(idle);
        activity(k, device);
        if !idle.enabled && policy(k, device).asleep {
            request_power_up(k, device);
        }
    });
    STATUS_SUCCESS
}

/// `WdfDeviceAssignSxWakeSettings`. Needs `PASSIVE_LEVEL`. Errors as above.
pub(crate) fn assign_sx_wake_settings(
    _: Globals,
    device: Handle,
    from: *const WakeSettings,
) -> i32 {
    let function = "WdfDeviceAssignSxWakeSettings";
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        object::device(k, device, function);
    });
    required(from, function, "Settings");
    if peek(from.cast::<u32>()) as usize != size_of::<WakeSettings>() {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    let settings = peek(from);
    if !kernel(|k| object::device(k, device, function).is_power_policy_owner()) {
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    let Some(state) = target(settings.dx_state) else {
        return STATUS_INVALID_PARAMETER;
    };
    kernel(|k| policy(k, device).wake_from_sx = (settings.enabled != FALSE).then_some(state));
    STATUS_SUCCESS
}

/// `WdfDeviceStopIdle`: takes a power reference and brings the device to D0.
/// Callable at `<= DISPATCH_LEVEL`, to wait at `PASSIVE_LEVEL`.
///
/// Returns `STATUS_PENDING` if the device is on its way and the caller did not
/// wait.
///
/// # Errors
/// `STATUS_INVALID_DEVICE_STATE` if the device is not started or failed;
/// `STATUS_POWER_STATE_INVALID` if it does not reach D0. No reference is taken.
pub(crate) fn stop_idle(
    g: Globals,
    device: Handle,
    wait: u8,
    _tag: crate::access::Addr,
    _line: i32,
    _file: crate::access::Addr,
) -> i32 {
    stop_idle_no_track(g, device, wait)
}

/// `WdfDeviceStopIdleNoTrack`: as above.
pub(crate) fn stop_idle_no_track(_: Globals, device: Handle, wait: u8) -> i32 {
    let function = "WdfDeviceStopIdle";
    kernel(|k| {
        if wait == 0 {
            crate::ke::irql::at_most_dispatch(k, function);
        } else {
            crate::ke::irql::passive(k, "WdfDeviceStopIdle with WaitForD0");
        }
        object::device(k, device, function);
    });
    let in_use = kernel(|k| {
        if pnp::is_gone(k, device) {
            return None;
        }
        Some(acquire(k, device))
    });
    match in_use {
        None => STATUS_INVALID_DEVICE_STATE,
        Some(true) => STATUS_SUCCESS,
        Some(false) if wait == 0 => STATUS_PENDING,
        Some(false) => {
            super::wait_until(|k| !policy(k, device).asleep || pnp::is_gone(k, device));
            if kernel(|k| pnp::is_gone(k, device)) {
                kernel(|k| release(k, device));
                STATUS_POWER_STATE_INVALID
            } else {
                STATUS_SUCCESS
            }
        }
    }
}

/// `WdfDeviceResumeIdle`. Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn resume_idle(
    g: Globals,
    device: Handle,
    _tag: crate::access::Addr,
    _line: i32,
    _file: crate::access::Addr,
) {
    resume_idle_no_track(g, device);
}

/// `WdfDeviceResumeIdleNoTrack`.
pub(crate) fn resume_idle_no_track(_: Globals, device: Handle) {
    let function = "WdfDeviceResumeIdle";
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        if object::device(k, device, function).policy.references == 0 {
            let name = k
                .name_of(device as usize)
                .unwrap_or("the device")
                .to_owned();
            super::verifier_break(
                k,
                &kmdf::RESUME_IDLE,
                format!("{function} was called on {name} more often than WdfDeviceStopIdle"),
            );
        }
        release(k, device);
    });
}

/// Takes a power reference. Returns whether the device is in D0 as far as idling
/// goes; if not, it is on its way there.
pub(crate) fn acquire(k: &mut Kernel, device: Handle) -> bool {
    let policy = policy(k, device);
    policy.references += 1;
    let asleep = policy.asleep;
    disarm_timer(k, device);
    if asleep {
        request_power_up(k, device);
    }
    !asleep
}

/// Gives a power reference back; after the last one the idle timeout begins.
pub(crate) fn release(k: &mut Kernel, device: Handle) {
    policy(k, device).references -= 1;
    activity(k, device);
}

/// Notes that the device was used: the idle timeout begins anew.
pub(crate) fn activity(k: &mut Kernel, device: Handle) {
    disarm_timer(k, device);
    let working = pnp::is_working(k, device);
    let now = k.now;
    let policy = policy(k, device);
    let Some(idle) = policy.idle else { return };
    if !idle.enabled || policy.references != 0 || policy.asleep || !working {
        return;
    }
    let key = k.insert_timer(
        now.saturating_add(idle.timeout),
        Expiry::Host(Box::new(move |k| timed_out(k, device))),
    );
    self::policy(k, device).timer = Some(key);
}

fn disarm_timer(k: &mut Kernel, device: Handle) {
    if let Some(key) = policy(k, device).timer.take() {
        k.remove_timer(key);
    }
}

/// The device leaves D0 for another reason, or for good: no idling until it is back.
pub(crate) fn suspend(k: &mut Kernel, device: Handle) {
    disarm_timer(k, device);
}

fn timed_out(k: &mut Kernel, device: Handle) {
    policy(k, device).timer = None;
    change(k, device, power_down);
}

fn request_power_up(k: &mut Kernel, device: Handle) {
    change(k, device, power_up);
}

/// Queues a power change.
fn change(k: &mut Kernel, device: Handle, how: fn(Handle)) {
    object::reference(k, device);
    crate::ex::queue_work(
        k,
        Box::new(move || {
            pnp::exclusively(device, || how(device));
            object::release(device);
        }),
    );
}

fn power_down(device: Handle) {
    let idle = kernel(|k| {
        let working = pnp::is_working(k, device);
        let policy = policy(k, device);
        let idle = policy
            .idle
            .filter(|idle| idle.enabled && working && policy.references == 0);
        policy.asleep = idle.is_some();
        idle
    });
    let Some(idle) = idle else { return };
    pnp::idle_down(device, idle.state, idle.can_wake);
    // A reference may have come meanwhile.
    kernel(|k| {
        if policy(k, device).references != 0 && policy(k, device).asleep {
            request_power_up(k, device);
        }
    });
}

fn power_up(device: Handle) {
    if kernel(|k| policy(k, device).asleep) {
        pnp::idle_up(device);
        kernel(|k| {
            policy(k, device).asleep = false;
            super::wake(k);
            activity(k, device);
        });
    }
}

/// The device's wake signal: brings it back to D0 if it is armed. Tells whether it was.
pub(crate) fn wake_signal(k: &mut Kernel, device: Handle) -> bool {
    let policy = policy(k, device);
    if policy.armed_for_s0 && policy.asleep {
        policy.signalled = true;
        request_power_up(k, device);
        true
    } else if policy.armed_for_sx {
        policy.signalled = true;
        true
    } else {
        false
    }
}

/// Whether the device is in Dx because it was idle.
pub(crate) fn is_idle(k: &mut Kernel, device: Handle) -> bool {
    policy(k, device).asleep
}

/// Whether an idle device has to come to D0 before the system sleeps: what armed
/// it for S0 is to be undone, or it is to be armed for Sx, both of which only a
/// device in D0 can.
pub(crate) fn needs_d0_to_sleep(k: &mut Kernel, device: Handle) -> bool {
    let policy = policy(k, device);
    policy.asleep && (policy.armed_for_s0 || policy.wake_from_sx.is_some())
}

/// Whether an idle device stays in Dx when the system wakes up.
pub(crate) fn sleeps_on(k: &mut Kernel, device: Handle) -> bool {
    let policy = policy(k, device);
    policy.asleep
        && policy.references == 0
        && policy.idle.is_some_and(|idle| !idle.up_on_system_wake)
}

/// It stays in D0 after all, or is back.
pub(crate) fn set_awake(k: &mut Kernel, device: Handle) {
    policy(k, device).asleep = false;
}

// ---- callbacks -------------------------------------------------------

fn routine(device: Handle, which: fn(&PowerPolicyCallbacks) -> usize) -> usize {
    kernel(|k| which(object::device(k, device, "the power policy").power_policy_callbacks()))
}

fn ask(
    device: Handle,
    name: &'static str,
    which: fn(&PowerPolicyCallbacks) -> usize,
) -> Result<(), i32> {
    let evt = routine(device, which);
    if evt == 0 {
        return Ok(());
    }
    let status = callback::<i32>(name, evt, &[param("Device", &device)]);
    if status < 0 { Err(status) } else { Ok(()) }
}

fn tell(device: Handle, name: &'static str, which: fn(&PowerPolicyCallbacks) -> usize) {
    let evt = routine(device, which);
    if evt != 0 {
        callback::<()>(name, evt, &[param("Device", &device)]);
    }
}

/// `EvtDeviceArmWakeFromS0`, on the way down of an idle device.
///
/// # Errors
/// The callback's: the device stays in D0.
pub(crate) fn arm_for_s0(device: Handle) -> Result<(), i32> {
    ask(device, "EvtDeviceArmWakeFromS0", |callbacks| {
        callbacks.arm_wake_from_s0
    })?;
    kernel(|k| policy(k, device).armed_for_s0 = true);
    Ok(())
}

/// `EvtDeviceArmWakeFromSx` or `EvtDeviceArmWakeFromSxWithReason`, on the way
/// down with the system, if the driver assigned wake settings. A failure leaves
/// the device unarmed, and it is disarmed at once:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_arm_wake_from_sx_with_reason>
///
/// Returns the power state that an armed device goes to: `DxState` of the settings.
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/ns-wdfdevice-_wdf_device_power_policy_wake_settings>
pub(crate) fn arm_for_sx(device: Handle) -> Option<i32> {
    let state = kernel(|k| policy(k, device).wake_from_sx)?;
    let with_reason = routine(device, |callbacks| callbacks.arm_wake_from_sx_with_reason);
    let armed = if with_reason == 0 {
        ask(device, "EvtDeviceArmWakeFromSx", |callbacks| {
            callbacks.arm_wake_from_sx
        })
        .is_ok()
    } else {
        // Devices of this machine have no children.
        let (device_wakes, children_wake) = (1_u8, 0_u8);
        let status = callback::<i32>(
            "EvtDeviceArmWakeFromSxWithReason",
            with_reason,
            &[
                param("Device", &device),
                param("DeviceWakeEnabled", &device_wakes),
                param("ChildrenArmedForWake", &children_wake),
            ],
        );
        status >= 0
    };
    if !armed {
        tell(device, "EvtDeviceDisarmWakeFromSx", |callbacks| {
            callbacks.disarm_wake_from_sx
        });
    }
    kernel(|k| policy(k, device).armed_for_sx = armed);
    armed.then_some(state)
}

/// The wake callbacks of the way up.
pub(crate) fn disarm(device: Handle) {
    let (s0, sx, signalled) = kernel(|k| {
        let policy = policy(k, device);
        (
            std::mem::take(&mut policy.armed_for_s0),
            std::mem::take(&mut policy.armed_for_sx),
            std::mem::take(&mut policy.signalled),
        )
    });
    if s0 {
        if signalled {
            tell(device, "EvtDeviceWakeFromS0Triggered", |callbacks| {
                callbacks.wake_from_s0_triggered
            });
        }
        tell(device, "EvtDeviceDisarmWakeFromS0", |callbacks| {
            callbacks.disarm_wake_from_s0
        });
    }
    if sx {
        if signalled {
            tell(device, "EvtDeviceWakeFromSxTriggered", |callbacks| {
                callbacks.wake_from_sx_triggered
            });
        }
        tell(device, "EvtDeviceDisarmWakeFromSx", |callbacks| {
            callbacks.disarm_wake_from_sx
        });
    }
}
