// SPDX-License-Identifier: MIT OR Apache-2.0

//! The PnP and power engine: calls a driver's PnP and power callbacks in the
//! framework's order.
//!
//! The machine calls these functions on its PnP thread, one at a time per device.
//!
//! ```text
//!              start                             power_down
//!   Created ──────────► Working (D0) ◄──────────────────────► Sleeping (Dx)
//!     │                   │  │  ▲           power_up               │
//!     │      a failure    │  │  └───────────────────────┐          │
//!     │  ┌────────────────┘  └────────── stop ──► Stopped          │
//!     │  ▼                         start again ──────────┘         │
//!     │ Failed ◄───── surprise_remove ─────────────────────────────┤
//!     │  │                                                         │
//!     └──┴───────────────────── remove ◄───────────────────────────┘
//!                                 │
//!                                 ▼
//!                              (deleted)
//! ```
//!
//! | step | callbacks |
//! |---|---|
//! | start | PrepareHardware, D0Entry, interrupts enabled, `D0EntryPostInterruptsEnabled`, power-managed queues start, SelfManagedIoInit |
//! | power down | SelfManagedIoSuspend, `EvtIoStop`, armed for wake, `D0ExitPreInterruptsDisabled`, interrupts disabled, D0Exit |
//! | power up | D0Entry, interrupts enabled, `D0EntryPostInterruptsEnabled`, wake disarmed, `EvtIoResume`, SelfManagedIoRestart |
//! | stop | as power down, then ReleaseHardware |
//! | remove | as stop, then SelfManagedIoFlush, SelfManagedIoCleanup, deletion |
//! | surprise removal | SurpriseRemoval, then as remove |
//!
//! Sources: <https://learn.microsoft.com/windows-hardware/drivers/wdf/power-up-sequence-for-a-function-or-filter-driver>,
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/power-down-and-removal-sequence-for-a-function-or-filter-driver>,
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/surprise-removal-sequence>, and for what follows a
//! failure the state machines in `src/framework/shared/irphandlers/pnp` of Windows-Driver-Frameworks.

use crate::abi::{Param, callback, param};
use crate::inject::Blow;
use crate::io::DriverId;
use crate::kernel::{ContextId, Kernel};
use crate::report::DeviceReport;
use crate::rules::kmdf;
use crate::trace::Event;
use crate::trap::kernel;

use super::hardware::ResourceList;
use super::object::{self, Attributes, Data, Handle};
use super::queue::{self, PowerStop};
use super::raw::PnpPowerCallbacks;
use super::{
    STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_DEVICE_STATE, device, driver, interface,
    interrupt, power_policy, watchdog,
};

/// Names a device for as long as the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DeviceId(pub(crate) Handle);

/// `WDF_POWER_DEVICE_STATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PowerState {
    D3,
    D3Final,
    PrepareForHibernation,
}

impl PowerState {
    const fn number(self) -> i32 {
        match self {
            Self::D3 => 4,
            Self::D3Final => D3_FINAL,
            Self::PrepareForHibernation => 6,
        }
    }
}

const D3_FINAL: i32 = 5;

/// Why the system takes a device out of D0: `POWER_ACTION`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PowerAction {
    #[default]
    None,
    Sleep,
    Hibernate,
    Shutdown,
}

impl PowerAction {
    /// `PowerActionNone` and so on.
    pub(crate) const fn number(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Sleep => 2,
            Self::Hibernate => 3,
            Self::Shutdown => 4,
        }
    }
}

/// What `WDF_SPECIAL_FILE_TYPE` counts from 1: paging, hibernation, dump, boot.
const SPECIAL_FILES: usize = 4;
const HIBERNATION_FILE: i32 = 2;
const STATUS_NOT_IMPLEMENTED: i32 = 0xC000_0002_u32.cast_signed();
const STATUS_DEVICE_NOT_READY: i32 = 0xC000_00A3_u32.cast_signed();

/// How far a device's life has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// `EvtDriverDeviceAdd` made it.
    #[default]
    Created,
    /// In D0.
    Working,
    /// In a low-power state.
    Sleeping,
    /// In D3 for good, because the system shuts down.
    ShuttingDown,
    /// Its resources were taken away, to be given again.
    Stopped,
    /// It failed or is gone; its removal is all that can follow.
    Failed,
}

impl State {
    /// `WDF_DEVICE_PNP_STATE`.
    pub(crate) fn pnp_state(self) -> i32 {
        match self {
            Self::Created => 261,
            Self::Working | Self::Sleeping | Self::ShuttingDown => 281,
            Self::Stopped => 286,
            Self::Failed => 302,
        }
    }

    /// As the trace has it.
    const fn short_name(self) -> &'static str {
        match self {
            Self::Created => "added",
            Self::Working => "D0",
            Self::Sleeping => "Dx",
            Self::ShuttingDown => "off",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// The names of both.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Created => ("WdfDevStatePnpInit", "WdfDevStatePowerObjectCreated"),
            Self::Working => ("WdfDevStatePnpStarted", "WdfDevStatePowerD0"),
            Self::Sleeping | Self::ShuttingDown => ("WdfDevStatePnpStarted", "WdfDevStatePowerDx"),
            Self::Stopped => ("WdfDevStatePnpStopped", "WdfDevStatePowerStopped"),
            Self::Failed => ("WdfDevStatePnpFailedWaitForRemove", "WdfDevStatePowerFinal"),
        }
    }

    /// `WDF_DEVICE_POWER_STATE`.
    pub(crate) fn power_state(self) -> i32 {
        match self {
            Self::Created => 768,
            Self::Working => 775,
            Self::Sleeping | Self::ShuttingDown => 799,
            Self::Stopped => 789,
            Self::Failed => 849,
        }
    }
}

/// The self-managed I/O callbacks have a state of their own, as in KMDF's
/// `selfmanagediostatemachine.cpp`: Init is called once in a device's life, and
/// Flush and Cleanup only after Init was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SelfManagedIo {
    #[default]
    Created,
    InitFailed,
    Started,
    Stopped,
    /// Restart or Suspend failed.
    Failed,
    Flushed,
    Final,
}

/// The engine's part of a device.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about the device"
)]
pub(crate) struct Pnp {
    state: State,
    self_managed_io: SelfManagedIo,
    /// PrepareHardware was called, and ReleaseHardware not yet.
    owns_hardware: bool,
    /// PrepareHardware has returned.
    hardware_prepared: bool,
    /// The state that D0Exit named, which the next D0Entry comes from.
    came_from: i32,
    /// The device is between D0Entry and D0Exit.
    in_d0: bool,
    /// The driver called `WdfDeviceSetFailed`, with this `WDF_DEVICE_FAILED_ACTION`.
    failed_by_driver: Option<u32>,
    /// What the system does that the device is asleep for.
    action: PowerAction,
    /// The special files that the driver lets the device carry, and how many
    /// it does, by `WDF_SPECIAL_FILE_TYPE`.
    special_files: [(bool, u32); SPECIAL_FILES],
    /// A power or PnP change is under way on this context.
    changing: Option<ContextId>,
    /// It was removed; only its deletion is left.
    removed: bool,
}

impl Pnp {
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Whether it is too late to create an interrupt.
    pub(crate) fn is_past_hardware(&self) -> bool {
        self.hardware_prepared
    }

    /// Whether power-managed queues dispatch.
    pub(crate) fn is_in_d0(&self) -> bool {
        self.in_d0
    }

    pub(crate) fn set_failed(&mut self, action: u32) {
        self.failed_by_driver = Some(action);
    }

    /// Why the system has taken the device out of D0.
    pub(crate) fn power_action(&self) -> PowerAction {
        self.action
    }

    fn special_file(&mut self, file: i32) -> Option<&mut (bool, u32)> {
        let index = usize::try_from(file).ok()?.checked_sub(1)?;
        self.special_files.get_mut(index)
    }

    fn carries(&mut self, file: i32) -> bool {
        self.special_file(file).is_some_and(|(_, count)| *count > 0)
    }

    fn carries_any(&self) -> bool {
        self.special_files.iter().any(|(_, count)| *count > 0)
    }
}

fn pnp(k: &mut Kernel, device: DeviceId) -> &mut Pnp {
    &mut object::device(k, device.0, "the PnP manager").pnp
}

fn set_state(device: DeviceId, state: State) {
    kernel(|k| {
        let before = std::mem::replace(&mut pnp(k, device).state, state);
        if before != state {
            note(k, device, state.short_name());
        }
    });
}

/// Tells the trace where the device is.
fn note(k: &mut Kernel, device: DeviceId, state: &'static str) {
    if !k.settings.trace {
        return;
    }
    let device = k.name_of(device.0 as usize).unwrap_or("WDFDEVICE");
    let device = device.to_owned();
    k.log(Event::Device { device, state });
}

/// Every device that PnP knows and where it is, for a report.
pub(crate) fn describe(k: &Kernel) -> Vec<DeviceReport> {
    k.wdf
        .objects
        .iter()
        .filter_map(|(handle, object)| {
            let Data::Device(device) = &object.data else {
                return None;
            };
            if device.io.control.is_some() {
                return None;
            }
            let (pnp, power) = device.pnp.state.names();
            Some(DeviceReport {
                name: k
                    .name_of(*handle as usize)
                    .unwrap_or("WDFDEVICE")
                    .to_owned(),
                instance: device.instance.clone(),
                pnp,
                power,
            })
        })
        .collect()
}

/// Lets one change at a time happen to a device: the machine's, or one of the
/// power policy's own.
pub(crate) fn exclusively<R>(device: Handle, body: impl FnOnce() -> R) -> R {
    let id = DeviceId(device);
    let nested = kernel(|k| {
        let me = k.running();
        pnp(k, id).changing == Some(me)
    });
    if nested {
        return body();
    }
    kernel(|k| object::reference(k, device));
    super::wait_until(|k| {
        let me = k.running();
        let pnp = pnp(k, id);
        let free = pnp.changing.is_none();
        if free {
            pnp.changing = Some(me);
        }
        free
    });
    let result = body();
    kernel(|k| {
        pnp(k, id).changing = None;
        super::wake(k);
    });
    object::release(device);
    result
}

/// Whether the device is in D0.
pub(crate) fn is_working(k: &mut Kernel, device: Handle) -> bool {
    pnp(k, DeviceId(device)).state == State::Working
}

/// Whether there is no power to be had for the device any more, or not yet.
pub(crate) fn is_gone(k: &mut Kernel, device: Handle) -> bool {
    let pnp = pnp(k, DeviceId(device));
    pnp.removed || matches!(pnp.state, State::Created | State::Stopped | State::Failed)
}

/// The object of a device, for the machine.
pub(crate) fn handle_of(device: DeviceId) -> Handle {
    device.0
}

/// Takes an idle device out of D0. It stays if it cannot be armed.
pub(crate) fn idle_down(device: Handle, to: i32, can_wake: bool) {
    let id = DeviceId(device);
    let suspended = suspend_self_managed_io(id);
    if suspended.is_ok() && can_wake && power_policy::arm_for_s0(device).is_err() {
        kernel(|k| power_policy::set_awake(k, device));
        if start_self_managed_io(id).is_err() {
            stop_io(id, PowerStop::Purge);
            exit_d0(id, D3_FINAL).unwrap_or_default();
            fail(id);
        }
        return;
    }
    set_state(id, State::Sleeping);
    stop_io(id, PowerStop::Suspend);
    let left = exit_d0(id, to);
    if suspended.and(left).is_err() {
        fail(id);
    }
}

/// Brings an idle device back to D0.
pub(crate) fn idle_up(device: Handle) {
    power_up_now(DeviceId(device)).unwrap_or_default();
}

/// Where the device is.
pub(crate) fn state(k: &mut Kernel, device: DeviceId) -> State {
    pnp(k, device).state
}

/// What is to become of a device that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    Restart,
    Stay,
}

/// Whether the device has failed, because the driver said so
/// (`WdfDeviceSetFailed`) or one of its callbacks failed. The PnP manager then
/// is to remove it, and may try it again:
/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/reporting-device-failures>
pub(crate) fn failure(k: &mut Kernel, device: DeviceId) -> Option<Afterwards> {
    const NO_RESTART: u32 = 2;
    let pnp = pnp(k, device);
    match pnp.failed_by_driver {
        Some(NO_RESTART) => Some(Afterwards::Stay),
        Some(_) => Some(Afterwards::Restart),
        None => (pnp.state == State::Failed).then_some(Afterwards::Restart),
    }
}

/// Calls one of the driver's callbacks, if it has it; one that it does not have succeeds.
fn call(
    device: DeviceId,
    name: &'static str,
    which: impl FnOnce(&PnpPowerCallbacks) -> usize,
    more: &[Param<'_>],
) -> Result<(), i32> {
    let routine = kernel(|k| {
        let settings = &object::device(k, device.0, "the PnP manager").settings;
        which(&settings.callbacks)
    });
    if routine == 0 {
        return Ok(());
    }
    let blow = kernel(|k| befalls(k, Blow::FailedCallback, device));
    // What clears away does so and then says that it failed.
    let clears = ["Exit", "Release", "Suspend"];
    if blow.is_err() && !clears.iter().any(|part| name.contains(part)) {
        return blow;
    }
    let mut params = vec![param("Device", &device.0)];
    params.extend_from_slice(more);
    let status = callback::<i32>(name, routine, &params);
    if status < 0 { Err(status) } else { blow }
}

/// The same for a callback that returns nothing.
fn tell(device: DeviceId, name: &'static str, which: impl FnOnce(&PnpPowerCallbacks) -> usize) {
    let routine = kernel(|k| {
        which(
            &object::device(k, device.0, "the PnP manager")
                .settings
                .callbacks,
        )
    });
    if routine != 0 {
        callback::<()>(name, routine, &[param("Device", &device.0)]);
    }
}

/// Whether a failure that somebody has prepared falls here.
fn befalls(k: &mut Kernel, blow: Blow, device: DeviceId) -> Result<(), i32> {
    if !k.ambush.is_armed() {
        return Ok(());
    }
    let instance = object::device(k, device.0, "the PnP manager")
        .instance
        .clone();
    crate::inject::moment(k, blow, &instance)
}

/// Whether [`unplug`] has taken the device away.
fn check_plugged_in(k: &Kernel, device: DeviceId) -> Result<(), i32> {
    let pending = k.ambush.pending.as_ref();
    if pending.is_some_and(|gone| gone.told == Some(device)) {
        Err(super::STATUS_NO_SUCH_DEVICE)
    } else {
        Ok(())
    }
}

/// The PnP manager sends one request at a time; a power change may be under way
/// beside it.
fn request<R>(device: DeviceId, what: &'static str, body: impl FnOnce() -> R) -> R {
    super::wait_until(|k| {
        let (busy, wanted) = &mut k.wdf.pnp_request;
        *wanted |= *busy;
        !std::mem::replace(busy, true)
    });
    let result = watchdog::over_pnp(device.0, what, body);
    kernel(|k| {
        if std::mem::take(&mut k.wdf.pnp_request).1 {
            super::wake(k);
        }
    });
    result
}

/// Calls the driver's `EvtDriverDeviceAdd` for the device with this instance id.
///
/// # Errors
/// The callback's status, `STATUS_INVALID_DEVICE_REQUEST` if the driver has
/// none, `STATUS_INVALID_DEVICE_STATE` if it made no device. A device that it
/// made before it failed is deleted.
pub(crate) fn add_device(driver: DriverId, instance: &str) -> Result<DeviceId, i32> {
    let (evt, handle, init) = kernel(|k| {
        let object = k.io.driver(driver).object;
        let slot = driver::slot_of_object(k, object).ok_or(STATUS_INVALID_DEVICE_REQUEST)?;
        let evt = driver::bound(k, slot).evt_device_add;
        if evt == 0 {
            return Err(STATUS_INVALID_DEVICE_REQUEST);
        }
        Ok((
            evt,
            object::driver_handle(slot),
            device::new_init(k, slot, instance),
        ))
    })?;
    let status = callback::<i32>(
        "EvtDriverDeviceAdd",
        evt,
        &[param("Driver", &handle), param("DeviceInit", &init)],
    );
    let created = kernel(|k| device::end_init(k, init));
    match created {
        Some(device) if status >= 0 => {
            let device = DeviceId(device);
            kernel(|k| note(k, device, State::Created.short_name()));
            Ok(device)
        }
        Some(device) => {
            object::delete(device);
            object::flush_deferred_deletions();
            Err(status)
        }
        None => Err(if status < 0 {
            status
        } else {
            STATUS_INVALID_DEVICE_STATE
        }),
    }
}

/// Starts a device that was added, or starts one again that was stopped.
///
/// # Errors
/// The status of the callback that failed; what had been done is undone as KMDF
/// does it, the device is [`State::Failed`] and is to be removed.
pub(crate) fn start(device: DeviceId) -> Result<(), i32> {
    request(device, "the start", || {
        kernel(|k| check_plugged_in(k, device))?;
        // The driver's part comes after the bus driver's.
        kernel(|k| befalls(k, Blow::FailedStart, device))?;
        exclusively(device.0, || start_now(device))
    })
}

fn start_now(device: DeviceId) -> Result<(), i32> {
    kernel(|k| pnp(k, device).action = PowerAction::None);
    let result = prepare_hardware(device).and_then(|()| enter_d0(device, D3_FINAL));
    match result {
        Ok(()) => {
            now_working(device);
            kernel(|k| interface::enable(k, device.0));
        }
        Err(_) => fail(device),
    }
    result
}

fn now_working(device: DeviceId) {
    set_state(device, State::Working);
    kernel(|k| {
        power_policy::set_awake(k, device.0);
        power_policy::activity(k, device.0);
        super::wake(k);
    });
}

fn prepare_hardware(device: DeviceId) -> Result<(), i32> {
    let (raw, translated) = kernel(|k| {
        pnp(k, device).owns_hardware = true;
        interrupt::assign_resources(k, device.0);
        (
            resource_list(k, device, false),
            resource_list(k, device, true),
        )
    });
    let result = call(
        device,
        "EvtDevicePrepareHardware",
        |callbacks| callbacks.prepare_hardware,
        &[
            param("ResourcesRaw", &raw),
            param("ResourcesTranslated", &translated),
        ],
    );
    kernel(|k| pnp(k, device).hardware_prepared = true);
    object::delete(raw);
    object::delete(translated);
    result
}

/// Called also after a PrepareHardware that failed.
fn release_hardware(device: DeviceId) -> Result<(), i32> {
    let translated = kernel(|k| {
        std::mem::take(&mut pnp(k, device).owns_hardware).then(|| resource_list(k, device, true))
    });
    let Some(translated) = translated else {
        return Ok(());
    };
    let result = call(
        device,
        "EvtDeviceReleaseHardware",
        |callbacks| callbacks.release_hardware,
        &[param("ResourcesTranslated", &translated)],
    );
    object::delete(translated);
    for interrupt in kernel(|k| {
        pnp(k, device).hardware_prepared = false;
        interrupt::of_one_start(k, device.0)
    }) {
        object::delete(interrupt);
    }
    result
}

fn resource_list(k: &mut Kernel, device: DeviceId, translated: bool) -> Handle {
    let slot = object::get(k, device.0).driver;
    let instance = object::device(k, device.0, "the PnP manager")
        .instance
        .clone();
    let list = ResourceList::new(k, &instance, translated);
    object::create(
        k,
        slot,
        Some(device.0),
        &Attributes::default(),
        Data::ResourceList(list),
    )
    .expect("a device that is started or stopped is not being deleted, and a list has no context")
}

/// D0Entry and what follows it. What is undone after a failure is what KMDF undoes:
///
/// | failed | called then |
/// |---|---|
/// | D0Entry | nothing |
/// | `D0EntryPostInterruptsEnabled` | D0Exit |
/// | SelfManagedIoInit, SelfManagedIoRestart | `D0ExitPreInterruptsDisabled`, D0Exit |
fn enter_d0(device: DeviceId, from: i32) -> Result<(), i32> {
    let previous = [param("PreviousState", &from)];
    call(
        device,
        "EvtDeviceD0Entry",
        |callbacks| callbacks.d0_entry,
        &previous,
    )?;
    // KMDF treats a failure here as one of D0EntryPostInterruptsEnabled.
    let enabled = interrupt::enable_all(device.0).and_then(|()| {
        call(
            device,
            "EvtDeviceD0EntryPostInterruptsEnabled",
            |callbacks| callbacks.d0_entry_post_interrupts_enabled,
            &previous,
        )
    });
    // The device goes down again; the statuses of that do not matter any more.
    if let Err(status) = enabled {
        interrupt::disable_all(device.0).unwrap_or_default();
        d0_exit(device, D3_FINAL).unwrap_or_default();
        return Err(status);
    }
    power_policy::disarm(device.0);
    resume_io(device);
    start_self_managed_io(device).inspect_err(|_| {
        stop_io(device, PowerStop::Purge);
        exit_d0(device, D3_FINAL).unwrap_or_default();
    })
}

fn resume_io(device: DeviceId) {
    kernel(|k| pnp(k, device).in_d0 = true);
    queue::resume_for_power(device.0);
}

fn stop_io(device: DeviceId, why: PowerStop) {
    kernel(|k| pnp(k, device).in_d0 = false);
    queue::stop_for_power(device.0, why);
}

fn d0_exit(device: DeviceId, to: i32) -> Result<(), i32> {
    let result = call(
        device,
        "EvtDeviceD0Exit",
        |callbacks| callbacks.d0_exit,
        &[param("TargetState", &to)],
    );
    kernel(|k| pnp(k, device).came_from = to);
    result
}

/// `D0ExitPreInterruptsDisabled` and `D0Exit`; the second is called whatever the first says.
fn exit_d0(device: DeviceId, to: i32) -> Result<(), i32> {
    let target = [param("TargetState", &to)];
    let first = call(
        device,
        "EvtDeviceD0ExitPreInterruptsDisabled",
        |callbacks| callbacks.d0_exit_pre_interrupts_disabled,
        &target,
    );
    let disabled = interrupt::disable_all(device.0);
    let second = d0_exit(device, to);
    first.and(disabled).and(second)
}

fn start_self_managed_io(device: DeviceId) -> Result<(), i32> {
    let (result, failed) = match kernel(|k| pnp(k, device).self_managed_io) {
        SelfManagedIo::Created => (
            call(
                device,
                "EvtDeviceSelfManagedIoInit",
                |callbacks| callbacks.self_managed_io_init,
                &[],
            ),
            SelfManagedIo::InitFailed,
        ),
        SelfManagedIo::Stopped | SelfManagedIo::Flushed => (
            call(
                device,
                "EvtDeviceSelfManagedIoRestart",
                |callbacks| callbacks.self_managed_io_restart,
                &[],
            ),
            SelfManagedIo::Failed,
        ),
        _ => return Ok(()),
    };
    let next = if result.is_ok() {
        SelfManagedIo::Started
    } else {
        failed
    };
    kernel(|k| pnp(k, device).self_managed_io = next);
    result
}

fn suspend_self_managed_io(device: DeviceId) -> Result<(), i32> {
    if kernel(|k| pnp(k, device).self_managed_io) != SelfManagedIo::Started {
        return Ok(());
    }
    let result = call(
        device,
        "EvtDeviceSelfManagedIoSuspend",
        |callbacks| callbacks.self_managed_io_suspend,
        &[],
    );
    let next = if result.is_ok() {
        SelfManagedIo::Stopped
    } else {
        SelfManagedIo::Failed
    };
    kernel(|k| pnp(k, device).self_managed_io = next);
    result
}

fn flush_self_managed_io(device: DeviceId) {
    match kernel(|k| pnp(k, device).self_managed_io) {
        SelfManagedIo::InitFailed | SelfManagedIo::Stopped | SelfManagedIo::Failed => {
            tell(device, "EvtDeviceSelfManagedIoFlush", |callbacks| {
                callbacks.self_managed_io_flush
            });
            kernel(|k| pnp(k, device).self_managed_io = SelfManagedIo::Flushed);
        }
        _ => {}
    }
}

fn clean_up_self_managed_io(device: DeviceId) {
    if kernel(|k| pnp(k, device).self_managed_io) == SelfManagedIo::Flushed {
        tell(device, "EvtDeviceSelfManagedIoCleanup", |callbacks| {
            callbacks.self_managed_io_cleanup
        });
    }
    kernel(|k| pnp(k, device).self_managed_io = SelfManagedIo::Final);
}

/// What KMDF does at once with a device that failed: it releases the hardware
/// and flushes self-managed I/O. Cleanup comes with the removal.
fn fail(device: DeviceId) {
    kernel(|k| {
        power_policy::suspend(k, device.0);
        interface::disable(k, device.0);
    });
    release_hardware(device).unwrap_or_default();
    flush_self_managed_io(device);
    set_state(device, State::Failed);
    kernel(super::wake);
}

/// Takes a device out of D0 because the system goes to sleep or shuts down. Does
/// nothing with one that is not in D0, unless it has to wake the system: one
/// that idles is brought back to D0 first, to be armed for that.
///
/// A device that carries the hibernation file stays powered until the file is
/// written, and is told so by the state that it goes to:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/ne-wdfdevice-_wdf_power_device_state>
///
/// # Errors
/// The status of the callback that failed; the device is [`State::Failed`] then.
pub(crate) fn power_down(device: DeviceId, why: PowerAction) -> Result<(), i32> {
    exclusively(device.0, || {
        watchdog::over_power(device.0, "the power-down", || power_down_now(device, why))
    })
}

fn power_down_now(device: DeviceId, why: PowerAction) -> Result<(), i32> {
    kernel(|k| {
        power_policy::suspend(k, device.0);
        pnp(k, device).action = why;
    });
    if why != PowerAction::Shutdown && kernel(|k| power_policy::needs_d0_to_sleep(k, device.0)) {
        power_up_now(device)?;
        kernel(|k| pnp(k, device).action = why);
    }
    if kernel(|k| state(k, device)) != State::Working {
        return Ok(());
    }
    let to = match why {
        PowerAction::Shutdown => PowerState::D3Final,
        PowerAction::Hibernate if kernel(|k| pnp(k, device).carries(HIBERNATION_FILE)) => {
            PowerState::PrepareForHibernation
        }
        _ => PowerState::D3,
    };
    set_state(
        device,
        if to == PowerState::D3Final {
            State::ShuttingDown
        } else {
            State::Sleeping
        },
    );
    let suspended = suspend_self_managed_io(device);
    stop_io(device, PowerStop::Suspend);
    let mut number = to.number();
    if to != PowerState::D3Final
        && let Some(wakes_from) = power_policy::arm_for_sx(device.0)
        && to == PowerState::D3
    {
        number = wakes_from;
    }
    let left = exit_d0(device, number);
    let result = suspended.and(left);
    if result.is_err() {
        fail(device);
    }
    result
}

/// All of the way down is gone whatever the callbacks say; the first bad status counts.
fn leave_d0(device: DeviceId, to: i32, why: PowerStop) -> Result<(), i32> {
    let suspended = suspend_self_managed_io(device);
    stop_io(device, why);
    let left = exit_d0(device, to);
    suspended.and(left)
}

/// Brings a sleeping device back to D0. Does nothing in any other state.
///
/// # Errors
/// The status of the callback that failed; the device is [`State::Failed`] then.
pub(crate) fn power_up(device: DeviceId) -> Result<(), i32> {
    exclusively(device.0, || {
        watchdog::over_power(device.0, "the power-up", || power_up_now(device))
    })
}

/// The same because the system woke up: a device that idled before the system
/// went to sleep, and was not armed, stays as it is unless its driver asked for
/// the contrary.
///
/// # Errors
/// As [`power_up`].
pub(crate) fn system_woke(device: DeviceId) -> Result<(), i32> {
    exclusively(device.0, || {
        if kernel(|k| power_policy::sleeps_on(k, device.0)) {
            kernel(|k| pnp(k, device).action = PowerAction::None);
            return Ok(());
        }
        watchdog::over_power(device.0, "the power-up", || power_up_now(device))
    })
}

fn power_up_now(device: DeviceId) -> Result<(), i32> {
    let (state, from) = kernel(|k| {
        let pnp = pnp(k, device);
        (pnp.state, pnp.came_from)
    });
    if state != State::Sleeping {
        return Ok(());
    }
    kernel(|k| pnp(k, device).action = PowerAction::None);
    let result = enter_d0(device, from);
    match result {
        Ok(()) => now_working(device),
        Err(_) => fail(device),
    }
    result
}

/// Stops a device so that its resources can change (`IRP_MN_STOP_DEVICE`), after
/// asking the driver. [`start`] starts it again. One that idles comes to D0 first.
///
/// # Errors
/// The driver's refusal, or the framework's, with the device as it was; or the
/// status of the callback that failed, with the device [`State::Failed`].
pub(crate) fn stop(device: DeviceId) -> Result<(), i32> {
    request(device, "the stop", || {
        kernel(|k| check_plugged_in(k, device))?;
        may_leave(device)?;
        call(
            device,
            "EvtDeviceQueryStop",
            |callbacks| callbacks.query_stop,
            &[],
        )?;
        kernel(|k| befalls(k, Blow::RefusedQuery, device))?;
        exclusively(device.0, || stop_now(device))
    })
}

fn stop_now(device: DeviceId) -> Result<(), i32> {
    kernel(|k| power_policy::suspend(k, device.0));
    if kernel(|k| power_policy::is_idle(k, device.0)) {
        power_up_now(device)?;
        kernel(|k| power_policy::suspend(k, device.0));
    }
    let result = match kernel(|k| state(k, device)) {
        State::Working => {
            // Whoever looks meanwhile finds it on its way.
            set_state(device, State::Sleeping);
            leave_d0(device, D3_FINAL, PowerStop::Suspend)
        }
        _ => Ok(()),
    };
    let result = result.and_then(|()| release_hardware(device));
    match result {
        Ok(()) => set_state(device, State::Stopped),
        Err(_) => fail(device),
    }
    result
}

/// Whether the framework itself lets the device be stopped or removed:
/// `STATUS_INVALID_DEVICE_REQUEST` after `WdfDeviceSetStaticStopRemove(FALSE)`,
/// `STATUS_DEVICE_NOT_READY` while it carries a special file:
/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/supporting-special-files>
fn may_leave(device: DeviceId) -> Result<(), i32> {
    kernel(|k| {
        if !object::device(k, device.0, "the PnP manager").is_stoppable() {
            Err(STATUS_INVALID_DEVICE_REQUEST)
        } else if pnp(k, device).carries_any() {
            Err(STATUS_DEVICE_NOT_READY)
        } else {
            Ok(())
        }
    })
}

/// Asks whether the device may be removed.
///
/// # Errors
/// The driver's refusal, the status of `EvtDeviceQueryRemove`; or the framework's.
pub(crate) fn query_remove(device: DeviceId) -> Result<(), i32> {
    request(device, "the query for removal", || {
        kernel(|k| check_plugged_in(k, device))?;
        may_leave(device)?;
        call(
            device,
            "EvtDeviceQueryRemove",
            |callbacks| callbacks.query_remove,
            &[],
        )?;
        kernel(|k| befalls(k, Blow::RefusedQuery, device))
    })
}

/// Asks for the devices that have this relation to the device
/// (`IRP_MN_QUERY_DEVICE_RELATIONS`, `DEVICE_RELATION_TYPE`).
pub(crate) fn query_relations(device: DeviceId, relation: i32) {
    let routine = kernel(|k| {
        object::device(k, device.0, "the PnP manager")
            .settings
            .callbacks
            .relations_query
    });
    if routine != 0 {
        callback::<()>(
            "EvtDeviceRelationsQuery",
            routine,
            &[param("Device", &device.0), param("RelationType", &relation)],
        );
    }
}

/// Tells that the device is on the path to a special file from now on, or is not
/// any more (`IRP_MN_DEVICE_USAGE_NOTIFICATION`).
///
/// # Errors
/// `STATUS_NOT_IMPLEMENTED` for a file that the driver has not allowed with
/// `WdfDeviceSetSpecialFileSupport`; the status of `EvtDeviceUsageNotificationEx`.
pub(crate) fn notify_usage(device: DeviceId, file: i32, in_path: bool) -> Result<(), i32> {
    let (allowed, old, new) = kernel(|k| {
        let callbacks = object::device(k, device.0, "the PnP manager")
            .settings
            .callbacks;
        let allowed = pnp(k, device)
            .special_file(file)
            .is_some_and(|(allowed, _)| *allowed);
        (
            allowed,
            callbacks.usage_notification,
            callbacks.usage_notification_ex,
        )
    });
    if !allowed {
        return Err(STATUS_NOT_IMPLEMENTED);
    }
    let path = u8::from(in_path);
    let params = [
        param("Device", &device.0),
        param("NotificationType", &file),
        param("IsInNotificationPath", &path),
    ];
    let status = if new != 0 {
        callback::<i32>("EvtDeviceUsageNotificationEx", new, &params)
    } else {
        if old != 0 {
            callback::<()>("EvtDeviceUsageNotification", old, &params);
        }
        0
    };
    if status < 0 && in_path {
        return Err(status);
    }
    kernel(|k| {
        if let Some((_, count)) = pnp(k, device).special_file(file) {
            *count = if in_path {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
        }
    });
    Ok(())
}

/// `WdfDeviceSetSpecialFileSupport`. Callable at any level.
///
/// A type that is none ends the simulation, as it breaks into the debugger with
/// the framework's verifier.
pub(crate) fn set_special_file_support(_: super::Globals, device: Handle, file: i32, allowed: u8) {
    let function = "WdfDeviceSetSpecialFileSupport";
    kernel(
        |k| match object::device(k, device, function).pnp.special_file(file) {
            Some(entry) => entry.0 = allowed != 0,
            None => super::verifier_break(
                k,
                &kmdf::ENUMERATION,
                format!("{function} was given FileType {file}; it is 1 to {SPECIAL_FILES}"),
            ),
        },
    );
}

/// Takes notice that the device is gone. [`remove`] is to follow.
///
/// `EvtDeviceSurpriseRemoval` does not wait for a power change that is under
/// way: it runs beside that one's callbacks. What follows has its turn.
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_surprise_removal>
pub(crate) fn surprise_remove(device: DeviceId) {
    request(device, "the surprise removal", || {
        surprise_remove_alone(device);
    });
}

fn surprise_remove_alone(device: DeviceId) {
    kernel(|k| {
        power_policy::suspend(k, device.0);
        interface::disable(k, device.0);
    });
    tell(device, "EvtDeviceSurpriseRemoval", |callbacks| {
        callbacks.surprise_removal
    });
    exclusively(device.0, || surprise_remove_now(device));
}

/// The same for a device that is gone while the machine is busy: as soon as it
/// is started and no other PnP request is under way. [`Blow::SurpriseRemoval`].
pub(crate) fn unplug(instance: &str) {
    let mut found = None;
    super::wait_until(|k| {
        if k.ambush
            .pending
            .as_ref()
            .is_none_or(|gone| gone.is_called_off)
        {
            return true;
        }
        let device = device_at(k, instance)
            .filter(|device| !matches!(state(k, *device), State::Created | State::Failed));
        let (busy, wanted) = &mut k.wdf.pnp_request;
        let Some(device) = device.filter(|_| !*busy) else {
            *wanted = true;
            return false;
        };
        *busy = true;
        if let Some(gone) = &mut k.ambush.pending {
            gone.told = Some(device);
        }
        found = Some(device);
        true
    });
    if let Some(device) = found {
        surprise_remove_alone(device);
        kernel(|k| {
            k.wdf.pnp_request = (false, false);
            super::wake(k);
        });
    }
}

/// The device with this instance id, if its driver has made it.
fn device_at(k: &Kernel, instance: &str) -> Option<DeviceId> {
    let mut objects = k.wdf.objects.values();
    let found = objects.find(|object| match &object.data {
        Data::Device(device) => device.instance.eq_ignore_ascii_case(instance),
        _ => false,
    })?;
    Some(DeviceId(found.handle))
}

fn surprise_remove_now(device: DeviceId) {
    kernel(|k| {
        power_policy::suspend(k, device.0);
        interface::disable(k, device.0);
    });
    if kernel(|k| state(k, device)) == State::Working {
        leave_d0(device, D3_FINAL, PowerStop::Purge).unwrap_or_default();
    } else {
        stop_io(device, PowerStop::Purge);
    }
    if kernel(|k| state(k, device)) != State::Failed {
        fail(device);
    }
}

/// Removes the device, in whatever state it is, and deletes it.
pub(crate) fn remove(device: DeviceId) {
    request(device, "the removal", || {
        exclusively(device.0, || remove_now(device));
        object::delete(device.0);
        object::flush_deferred_deletions();
    });
}

fn remove_now(device: DeviceId) {
    kernel(|k| {
        power_policy::suspend(k, device.0);
        interface::disable(k, device.0);
    });
    if kernel(|k| state(k, device)) == State::Working {
        leave_d0(device, D3_FINAL, PowerStop::Purge).unwrap_or_default();
    }
    release_hardware(device).unwrap_or_default();
    flush_self_managed_io(device);
    queue::purge_all(device.0);
    clean_up_self_managed_io(device);
    kernel(|k| {
        pnp(k, device).removed = true;
        note(k, device, "removed");
        super::wake(k);
    });
}
