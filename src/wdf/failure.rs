// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Failure`]: a driver gives its device up.

use core::fmt;

use crate::module::Modules;
use crate::module::node::{self, Reference};
use crate::status::Result;
use crate::sys;

/// Whether PnP tries a device again that has failed.
///
/// C counterpart: [`WDF_DEVICE_FAILED_ACTION`][c].
///
/// [c]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/ne-wdfdevice-_wdf_device_failed_action
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It does, a few times.
    Restart,
    /// It does not.
    Stay,
}

/// By which a driver says that its device does not work any more.
///
/// ```
/// use dmf::prelude::*;
/// use dmf::wdf::{Afterwards, Failure, Timer, TimerFired};
///
/// # dmf::driver!(Meter);
/// struct Meter {
///     failure: Failure,
///     watchdog: Timer,
/// }
///
/// impl Device for Meter {
///     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
///         Ok(Meter {
///             failure: add.failure(),
///             watchdog: add.timer(Meter::silent)?,
///         })
///     }
///
///     fn d0_entry(&self, _cx: &mut D0Entry<'_>) -> Result {
///         self.watchdog.start(Duration::from_secs(1)).map(drop)
///     }
/// }
///
/// impl Meter {
///     fn silent(&self, _cx: &mut TimerFired<'_>) {
///         let _ = self.failure.report(Afterwards::Stay);
///     }
/// }
/// # let mut machine = ntsim::Machine::default();
/// # let device = machine.add_driver("Meter", Meter::DRIVER_ENTRY).unwrap();
/// # machine.start_device(&device).unwrap();
/// # machine.run_for(Duration::from_secs(2)).unwrap();
/// # assert!(machine.started_devices().is_empty());
/// ```
///
/// C counterpart: [`WdfDeviceSetFailed`][c].
///
/// [c]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicesetfailed
///
/// # Invariants
/// `device` is valid as long as the node of `owner` is alive.
pub struct Failure {
    owner: Reference,
    device: sys::WDFDEVICE,
}

// SAFETY: a handle is a number, and KMDF synchronizes what is done with it.
unsafe impl Send for Failure {}
// SAFETY: as above.
unsafe impl Sync for Failure {}

impl Failure {
    /// Says that the device has failed: PnP removes it as if it had been
    /// unplugged, and perhaps starts it again.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is
    /// gone; `STATUS_INVALID_DEVICE_REQUEST` for a control device.
    ///
    /// C counterpart: [`WdfDeviceSetFailed`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicesetfailed
    pub fn report(&self, afterwards: Afterwards) -> Result {
        use sys::_WDF_DEVICE_FAILED_ACTION as Action;
        // SAFETY: the reference keeps the memory valid.
        let _alive = unsafe { node::enter_pnp(self.owner.node()) }?;
        let action = match afterwards {
            Afterwards::Restart => Action::WdfDeviceFailedAttemptRestart,
            Afterwards::Stay => Action::WdfDeviceFailedNoRestart,
        };
        // SAFETY: the invariant.
        unsafe { sys::kmdf::WdfDeviceSetFailed(self.device, action) };
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").finish_non_exhaustive()
    }
}

impl<O: Send + Sync + 'static> Modules<'_, O> {
    /// The way to say that the device has failed.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let (owner, device) = self.raw();
        // INVARIANT: a node is destroyed before its device is.
        Failure {
            // SAFETY: the node is valid.
            owner: unsafe { Reference::to(owner) },
            device,
        }
    }
}
