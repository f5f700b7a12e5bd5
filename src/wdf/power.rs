// SPDX-License-Identifier: MIT OR Apache-2.0

//! Power policy: when an idle device goes to sleep, and what wakes it.
//!
//! ```text
//!              timeout, no reference
//!   in D0 ───────────────────────────► asleep
//!     ▲                                   │
//!     └───────────────────────────────────┘
//!       stop_idle, a request, a wake signal
//! ```
//!
//! ```
//! use dmf::prelude::*;
//! use dmf::wdf::{IdleSettings, PowerPolicy, WaitForD0};
//!
//! dmf::driver!(Meter);
//!
//! pub struct Meter { power: PowerPolicy }
//!
//! impl Device for Meter {
//!     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
//!         Ok(Meter { power: PowerPolicy::new(add) })
//!     }
//!
//!     fn self_managed_io_init(&self, cx: &mut SelfManagedIoInit<'_>) -> Result {
//!         let idle = IdleSettings::cannot_wake().timeout(Duration::from_secs(10));
//!         self.power.assign_idle(cx.irql(), &idle)
//!     }
//! }
//!
//! impl Meter {
//!     /// Called by a thread, or where a request is handled.
//!     pub fn measure(&self, irql: &Irql<'_, Passive>) -> Result {
//!         let _in_d0 = self.power.stop_idle(WaitForD0::Yes(irql))?;
//!         // The device is in D0 until `_in_d0` is dropped.
//!         Ok(())
//!     }
//! }
//! # ntsim::run_driver(Meter::DRIVER_ENTRY, |machine, device| {
//! #     assert!(machine.is_in_d0(device).unwrap());
//! #     machine.run_for(Duration::from_secs(30)).unwrap();
//! #     assert!(!machine.is_in_d0(device).unwrap());
//! # });
//! ```
//!
//! See [Supporting idle power-down][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/supporting-idle-power-down

use core::fmt;
use core::time::Duration;

use crate::irql::{Irql, Passive};
use crate::module::Modules;
use crate::module::node::{self, Reference};
use crate::status::{NtStatus, Result};
use crate::sys;

/// The low-power state that a device goes to.
///
/// C counterpart: [`DEVICE_POWER_STATE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/ne-wdm-_device_power_state
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SleepState {
    /// D1.
    D1,
    /// D2.
    D2,
    /// D3.
    D3,
    /// The deepest from which the device can wake itself, or else D3.
    #[default]
    Deepest,
}

impl SleepState {
    const fn to_raw(self) -> sys::DEVICE_POWER_STATE {
        use sys::_DEVICE_POWER_STATE as Raw;
        match self {
            Self::D1 => Raw::PowerDeviceD1,
            Self::D2 => Raw::PowerDeviceD2,
            Self::D3 => Raw::PowerDeviceD3,
            Self::Deepest => Raw::PowerDeviceMaximum,
        }
    }
}

/// Who decides whether the device idles or wakes.
///
/// C counterpart: [`WDF_POWER_POLICY_S0_IDLE_USER_CONTROL`][ms] and
/// `WDF_POWER_POLICY_SX_WAKE_USER_CONTROL`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/ne-wdfdevice-_wdf_power_policy_s0_idle_user_control
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserControl {
    /// The user may change it in Device Manager.
    #[default]
    Allowed,
    /// The driver alone.
    Refused,
}

/// When an idle device goes to sleep while the system works.
///
/// C counterpart: `WDF_DEVICE_POWER_POLICY_IDLE_SETTINGS_INIT`,
/// [`WDF_DEVICE_POWER_POLICY_IDLE_SETTINGS`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/ns-wdfdevice-_wdf_device_power_policy_idle_settings
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct IdleSettings {
    capability: sys::WDF_POWER_POLICY_S0_IDLE_CAPABILITIES,
    timeout: Option<Duration>,
    state: SleepState,
    user_control: UserControl,
    enabled: sys::WDF_TRI_STATE,
}

impl IdleSettings {
    const fn new(capability: sys::WDF_POWER_POLICY_S0_IDLE_CAPABILITIES) -> Self {
        Self {
            capability,
            timeout: None,
            state: SleepState::Deepest,
            user_control: UserControl::Allowed,
            enabled: sys::_WDF_TRI_STATE::WdfUseDefault,
        }
    }

    /// For a device that sleeps until the driver needs it.
    pub const fn cannot_wake() -> Self {
        Self::new(sys::_WDF_POWER_POLICY_S0_IDLE_CAPABILITIES::IdleCannotWakeFromS0)
    }

    /// For a device that can wake itself, by a signal on its bus.
    pub const fn can_wake() -> Self {
        Self::new(sys::_WDF_POWER_POLICY_S0_IDLE_CAPABILITIES::IdleCanWakeFromS0)
    }

    /// How long the device must be idle. Five seconds unless given.
    ///
    /// Rounded up to milliseconds, at least one, at most 2³² - 1.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The state that it goes to. [`SleepState::Deepest`] unless given.
    pub const fn state(mut self, state: SleepState) -> Self {
        self.state = state;
        self
    }

    /// Who decides. [`UserControl::Allowed`] unless given.
    pub const fn user_control(mut self, control: UserControl) -> Self {
        self.user_control = control;
        self
    }

    /// The device does not idle, until settings without this are assigned.
    pub const fn disabled(mut self) -> Self {
        self.enabled = sys::_WDF_TRI_STATE::WdfFalse;
        self
    }

    /// The device idles whatever the user has chosen.
    pub const fn enabled(mut self) -> Self {
        self.enabled = sys::_WDF_TRI_STATE::WdfTrue;
        self
    }

    fn to_raw(self) -> sys::WDF_DEVICE_POWER_POLICY_IDLE_SETTINGS {
        use sys::_WDF_POWER_POLICY_S0_IDLE_USER_CONTROL as Control;
        sys::WDF_DEVICE_POWER_POLICY_IDLE_SETTINGS {
            Size: sys::size_field::<sys::WDF_DEVICE_POWER_POLICY_IDLE_SETTINGS>(),
            IdleCaps: self.capability,
            DxState: self.state.to_raw(),
            // 0 is KMDF's default.
            IdleTimeout: self.timeout.map_or(0, milliseconds),
            UserControlOfIdleSettings: match self.user_control {
                UserControl::Allowed => Control::IdleAllowUserControl,
                UserControl::Refused => Control::IdleDoNotAllowUserControl,
            },
            Enabled: self.enabled,
            PowerUpIdleDeviceOnSystemWake: sys::_WDF_TRI_STATE::WdfUseDefault,
            IdleTimeoutType: sys::_WDF_POWER_POLICY_IDLE_TIMEOUT_TYPE::DriverManagedIdleTimeout,
            ExcludeD3Cold: sys::_WDF_TRI_STATE::WdfUseDefault,
        }
    }
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000))
        .unwrap_or(u32::MAX)
        .max(1)
}

/// Whether the device wakes the system.
///
/// C counterpart: `WDF_DEVICE_POWER_POLICY_WAKE_SETTINGS_INIT`,
/// [`WDF_DEVICE_POWER_POLICY_WAKE_SETTINGS`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/ns-wdfdevice-_wdf_device_power_policy_wake_settings
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct WakeSettings {
    state: SleepState,
    user_control: UserControl,
    enabled: sys::WDF_TRI_STATE,
}

impl WakeSettings {
    /// The device may wake the system, unless the user has chosen otherwise.
    pub const fn new() -> Self {
        Self {
            state: SleepState::Deepest,
            user_control: UserControl::Allowed,
            enabled: sys::_WDF_TRI_STATE::WdfUseDefault,
        }
    }

    /// The state in which it waits. [`SleepState::Deepest`] unless given.
    pub const fn state(mut self, state: SleepState) -> Self {
        self.state = state;
        self
    }

    /// Who decides. [`UserControl::Allowed`] unless given.
    pub const fn user_control(mut self, control: UserControl) -> Self {
        self.user_control = control;
        self
    }

    /// The device does not wake the system.
    pub const fn disabled(mut self) -> Self {
        self.enabled = sys::_WDF_TRI_STATE::WdfFalse;
        self
    }

    fn to_raw(self) -> sys::WDF_DEVICE_POWER_POLICY_WAKE_SETTINGS {
        use sys::_WDF_POWER_POLICY_SX_WAKE_USER_CONTROL as Control;
        sys::WDF_DEVICE_POWER_POLICY_WAKE_SETTINGS {
            Size: sys::size_field::<sys::WDF_DEVICE_POWER_POLICY_WAKE_SETTINGS>(),
            DxState: self.state.to_raw(),
            UserControlOfWakeSettings: match self.user_control {
                UserControl::Allowed => Control::WakeAllowUserControl,
                UserControl::Refused => Control::WakeDoNotAllowUserControl,
            },
            Enabled: self.enabled,
            ..sys::WDF_DEVICE_POWER_POLICY_WAKE_SETTINGS::default()
        }
    }
}

impl Default for WakeSettings {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether [`PowerPolicy::stop_idle`] waits for the device to be in D0.
///
/// C counterpart: the `WaitForD0` of [`WdfDeviceStopIdle`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicestopidle
#[derive(Clone, Copy, Debug)]
pub enum WaitForD0<'a> {
    /// Yes. Not from a PnP or power callback, which would wait for itself.
    Yes(&'a Irql<'a, Passive>),
    /// No.
    No,
}

/// The device's power policy.
///
/// See the [module documentation](self).
///
/// C counterpart: the functions that [take a device from idling][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/supporting-idle-power-down
///
/// # Invariants
/// `device` is valid as long as the node of `owner` is alive.
pub struct PowerPolicy {
    owner: Reference,
    device: sys::WDFDEVICE,
}

// SAFETY: KMDF synchronizes all access to a device's power policy.
unsafe impl Send for PowerPolicy {}
// SAFETY: as above.
unsafe impl Sync for PowerPolicy {}

impl PowerPolicy {
    /// The power policy of the device whose modules are being added.
    #[must_use]
    pub fn new<O: Send + Sync + 'static>(add: &Modules<'_, O>) -> Self {
        let (owner, device) = add.raw();
        // INVARIANT: a node is below its device.
        Self {
            // SAFETY: the node is valid.
            owner: unsafe { Reference::to(owner) },
            device,
        }
    }

    fn with<R>(&self, action: impl FnOnce() -> R) -> Result<R> {
        // SAFETY: the reference keeps the memory valid.
        let _alive = unsafe { node::enter_pnp(self.owner.node()) }?;
        Ok(action())
    }

    /// Says when the idle device goes to sleep. May be called again.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_REQUEST` if the driver does not own the device's
    /// power policy, `STATUS_INVALID_DEVICE_STATE` if the owner is gone, and
    /// what KMDF returns.
    ///
    /// C counterpart: [`WdfDeviceAssignS0IdleSettings`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceassigns0idlesettings
    pub fn assign_idle(&self, _irql: &Irql<'_, Passive>, settings: &IdleSettings) -> Result {
        let mut raw = settings.to_raw();
        // SAFETY: the invariant; the token proves the level; `raw` is valid for
        // the length of the call.
        let status = self.with(|| unsafe {
            sys::kmdf::WdfDeviceAssignS0IdleSettings(self.device, &raw mut raw)
        })?;
        NtStatus::from_raw(status).into_result()
    }

    /// Says whether the device wakes the system.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// As [`assign_idle`](Self::assign_idle).
    ///
    /// C counterpart: [`WdfDeviceAssignSxWakeSettings`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceassignsxwakesettings
    pub fn assign_wake(&self, _irql: &Irql<'_, Passive>, settings: &WakeSettings) -> Result {
        let mut raw = settings.to_raw();
        // SAFETY: as in `assign_idle`.
        let status = self.with(|| unsafe {
            sys::kmdf::WdfDeviceAssignSxWakeSettings(self.device, &raw mut raw)
        })?;
        NtStatus::from_raw(status).into_result()
    }

    /// Brings the device to D0 and keeps it there until the returned value is
    /// dropped.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; to wait, `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the device is not started, failed, or is
    /// gone, and what KMDF returns if it does not reach D0.
    ///
    /// C counterpart: [`WdfDeviceStopIdle`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicestopidle
    pub fn stop_idle(&self, wait: WaitForD0<'_>) -> Result<InD0> {
        let wait = matches!(wait, WaitForD0::Yes(_)).into();
        // The call may wait, and must not hold up the owner's end, which the
        // device itself waits for: so the device is referenced, not the owner entered.
        let device = self.with(|| DeviceReference::new(self.device))?;
        // SAFETY: the device is referenced; to wait there was a token.
        NtStatus::from_raw(unsafe { sys::kmdf::WdfDeviceStopIdleNoTrack(device.0, wait) })
            .into_result()?;
        Ok(InD0(device))
    }
}

impl fmt::Debug for PowerPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PowerPolicy").finish_non_exhaustive()
    }
}

/// Keeps the device in D0, or on its way there. Dropping it lets it idle again.
///
/// C counterpart: [`WdfDeviceResumeIdle`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceresumeidle
///
/// # Invariants
/// One successful `WdfDeviceStopIdle` has not been undone.
#[must_use = "the device may idle again when this is dropped"]
pub struct InD0(DeviceReference);

impl Drop for InD0 {
    fn drop(&mut self) {
        // SAFETY: the invariant; the device is referenced.
        unsafe { sys::kmdf::WdfDeviceResumeIdleNoTrack(self.0.0) };
    }
}

impl fmt::Debug for InD0 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InD0")
    }
}

/// A counted reference to a device.
struct DeviceReference(sys::WDFDEVICE);

// SAFETY: references are counted by KMDF, on any thread.
unsafe impl Send for DeviceReference {}
// SAFETY: as above.
unsafe impl Sync for DeviceReference {}

impl DeviceReference {
    fn new(device: sys::WDFDEVICE) -> Self {
        super::object::reference(device.cast());
        Self(device)
    }
}

impl Drop for DeviceReference {
    fn drop(&mut self) {
        super::object::dereference(self.0.cast());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_rounded_up_and_never_becomes_the_default() {
        assert_eq!(milliseconds(Duration::ZERO), 1);
        assert_eq!(milliseconds(Duration::from_micros(1_001)), 2);
        assert_eq!(milliseconds(Duration::MAX), u32::MAX);
    }
}
