// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`ControlDevice`]: a device without hardware, PnP and power, by which programs
//! talk to the driver itself.
//!
//! # Vocabulary
//!
//! - *control device*: what programs open by name. A driver for devices may have
//!   one for all of them; a driver without devices ([`NonPnp`](crate::driver::NonPnp))
//!   has nothing else.
//! - *owner*: the device, module or driver that it was added to.
//!
//! ```text
//!   control_device(): create ─► make ─► opened to users ─► owner is dropped: name goes
//!        │               │                                      │
//!        └── fails ──────┴──► undone                            ▼
//!                                     files closed ─► modules closed ─► value dropped
//! ```
//!
//! Its queues, files, timers, work items and modules are those of any device
//! ([`Modules`]), less what needs PnP or power: a module that opens with the
//! hardware is refused, and so are interfaces, interrupts and power settings.
//! Queues are never power-managed.
//!
//! # Lifetime
//!
//! KMDF does not let a driver be unloaded before it deleted its control devices.
//! Here the owner does that, after its value was dropped. If programs have files
//! open then, no more are opened, and the value stays until the last is closed:
//! it may outlive its owner, and reaches it by an [`Owner`](crate::module::Owner).
//!
//! # Examples
//!
//! ```
//! use dmf::driver::{Load, NonPnp};
//! use dmf::prelude::*;
//! use dmf::unicode_string;
//! use dmf::wdf::*;
//!
//! dmf::driver!(Dice: NonPnp);
//!
//! struct Dice;
//!
//! impl NonPnp for Dice {
//!     fn load(add: &mut Load<'_, Self>) -> Result<Self> {
//!         let config = ControlConfig::new(
//!             unicode_string!(r"\Device\Dice"),
//!             Sddl::SYSTEM_AND_ADMINISTRATORS,
//!         );
//!         add.control_device(config, |add| {
//!             add.symbolic_link(unicode_string!(r"\DosDevices\Dice"))?;
//!             add.default_queue(DefaultQueue::parallel())?;
//!             Ok(Table)
//!         })?;
//!         Ok(Dice)
//!     }
//! }
//!
//! struct Table;
//!
//! impl ControlDevice for Table {
//!     fn io_read(&self, _cx: &mut QueueCallback<'_>, request: Request<Read>) -> Offer<Read> {
//!         request.complete_with_bytes(&[4]);
//!         Offer::Handled
//!     }
//! }
//!
//! # fn main() -> core::result::Result<(), Box<dyn std::error::Error>> {
//! let mut machine = ntsim::Machine::default();
//! machine.add_service("Dice", Dice::DRIVER_ENTRY)?;
//! machine.start_service("Dice")?;
//! let file = machine.open(r"\\.\Dice")?;
//! assert_eq!(machine.read(file, 1)?.data, [4]);
//! machine.close(file)?;
//! machine.stop_service("Dice")?;
//! # Ok(())
//! # }
//! ```
//!
//! See [Using control device objects][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/using-control-device-objects

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::bound::Called;
use super::device_init::{Characteristics, DeviceType, IoType};
use super::interface::Guid;
use super::security::Sddl;
use crate::irql::Passive;
use crate::module::node::{self, Header, Reference};
use crate::module::{InFlight, Modules};
use crate::status::{NtStatus, Result};
use crate::string::UnicodeStr;
use crate::sys;

/// The state behind a control device, and what KMDF calls on it.
///
/// All functions have defaults. Requests and files come as to a
/// [`Device`](crate::Device).
///
/// C counterpart: the device made of [`WdfControlDeviceInitAllocate`][c], with its context.
///
/// [c]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcontrol/nf-wdfcontrol-wdfcontroldeviceinitallocate
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the value of a control device",
    note = "write `impl ControlDevice for {Self} {{}}`"
)]
pub trait ControlDevice: Sized + Send + Sync + 'static {
    /// Called when the system shuts down, if
    /// [`ControlConfig::notify_shutdown`] asked for it.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: [`EvtDeviceShutdownNotification`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcontrol/nc-wdfcontrol-evt_wdf_device_shutdown_notification
    fn shutdown(&self, cx: &mut Called<'_, Passive>) {
        let _ = cx;
    }

    crate::wdf::dispatch::io_hooks!();
}

/// When a control device is told that the system shuts down.
///
/// C counterpart: [`WDF_DEVICE_SHUTDOWN_FLAGS`][c].
///
/// [c]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcontrol/ne-wdfcontrol-_wdf_device_shutdown_flags
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMoment {
    /// Before the file systems write what they hold.
    BeforeFlush,
    /// After that.
    LastChance,
    /// Both times.
    Both,
}

impl ShutdownMoment {
    const fn flags(self) -> sys::UCHAR {
        match self {
            Self::BeforeFlush => 1,
            Self::LastChance => 2,
            Self::Both => 3,
        }
    }
}

/// What is said of a control device before there is one.
///
/// C counterpart: [`WdfControlDeviceInitAllocate`][ms] and the functions that
/// fill in what it gives.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcontrol/nf-wdfcontrol-wdfcontroldeviceinitallocate
#[derive(Clone, Copy, Debug)]
#[must_use = "control_device creates the device"]
pub struct ControlConfig<'a> {
    name: UnicodeStr<'a>,
    security: Sddl<'a>,
    exclusive: bool,
    device_type: DeviceType,
    characteristics: Characteristics,
    class: Option<Guid>,
    io_type: IoType,
    shutdown: Option<ShutdownMoment>,
}

impl<'a> ControlConfig<'a> {
    /// A control device of this name, `\Device\...`, which these may open.
    pub const fn new(name: UnicodeStr<'a>, security: Sddl<'a>) -> Self {
        Self {
            name,
            security,
            exclusive: false,
            device_type: DeviceType::UNKNOWN,
            characteristics: Characteristics::NONE,
            class: None,
            io_type: IoType::Buffered,
            shutdown: None,
        }
    }

    /// Lets one file at a time be open.
    pub const fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Sets the device's type.
    pub const fn device_type(mut self, kind: DeviceType) -> Self {
        self.device_type = kind;
        self
    }

    /// Adds to the device's characteristics.
    pub const fn characteristics(mut self, more: Characteristics) -> Self {
        self.characteristics = self.characteristics.and(more);
        self
    }

    /// Names the setup class whose security an administrator may have changed.
    pub const fn class(mut self, class: Guid) -> Self {
        self.class = Some(class);
        self
    }

    /// Says how reads and writes get at their callers' bytes.
    pub const fn io_type(mut self, io_type: IoType) -> Self {
        self.io_type = io_type;
        self
    }

    /// Calls [`ControlDevice::shutdown`] when the system shuts down.
    pub const fn notify_shutdown(mut self, moment: ShutdownMoment) -> Self {
        self.shutdown = Some(moment);
        self
    }
}

/// A record that KMDF made for a control device, until a device is made of it.
struct Init(sys::PWDFDEVICE_INIT);

impl Drop for Init {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: KMDF made it, and did not take it back.
            unsafe { sys::kmdf::WdfDeviceInitFree(self.0) };
        }
    }
}

/// A control device that was added. It may be dropped: its owner deletes the device.
///
/// C counterpart: the `WDFDEVICE` made of [`WdfControlDeviceInitAllocate`][c].
///
/// [c]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcontrol/nf-wdfcontrol-wdfcontroldeviceinitallocate
///
/// # Invariants
/// The reference is to a `Node<C>`.
pub struct ControlHandle<C>(Reference, PhantomData<C>);

impl<C: ControlDevice> ControlHandle<C> {
    /// Gets at the value for as long as the returned value lives.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if it has not been made yet, or is gone.
    pub fn enter(&self) -> Result<InFlight<'_, C>> {
        // SAFETY: the invariant.
        unsafe { node::enter_alive(self.0.node()) }
    }
}

impl<C> Clone for ControlHandle<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<C> fmt::Debug for ControlHandle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ControlHandle")
            .field(&core::any::type_name::<C>())
            .finish()
    }
}

/// Creates a control device that `owner` deletes.
///
/// # Safety
/// `owner` is the header of a node that is being made, at `PASSIVE_LEVEL`.
pub(crate) unsafe fn create<C: ControlDevice>(
    owner: NonNull<Header>,
    config: &ControlConfig<'_>,
    make: impl FnOnce(&mut Modules<'_, C>) -> Result<C>,
) -> Result<ControlHandle<C>> {
    let root = node::allocate_control::<C>()?;
    let mut init = describe::<C>(config)?;
    root.header().io_type.set(config.io_type);
    // SAFETY: the caller's promise; the device is one of this crate from here on.
    let device = unsafe { crate::driver::create_device(&mut init.0, &root) }?;
    let control = ControlHandle(root.clone(), PhantomData);
    // SAFETY: the device is new and has the root in its context; `PASSIVE_LEVEL`.
    if let Err(status) = unsafe { crate::driver::furnish(root, device, make) } {
        // SAFETY: nobody can open the device yet, and its tree was taken down.
        unsafe { sys::kmdf::WdfObjectDelete(device.cast()) };
        return Err(status);
    }
    // SAFETY: the device has this context, its link is in no list, and the
    // caller's promise.
    unsafe { crate::driver::give_to(owner, device) };
    // SAFETY: the device is valid and a control device.
    unsafe { sys::kmdf::WdfControlFinishInitializing(device) };
    Ok(control)
}

/// Makes the record that the configuration describes.
fn describe<C: ControlDevice>(config: &ControlConfig<'_>) -> Result<Init> {
    let driver = super::driver::Driver::get().as_raw();
    let sddl = config.security.text().to_raw();
    // SAFETY: the driver is valid, the string for the length of the call, and
    // the level is PASSIVE_LEVEL by the contract of `create`.
    let init = Init(unsafe { sys::kmdf::WdfControlDeviceInitAllocate(driver, &raw const sddl) });
    if init.0.is_null() {
        return Err(NtStatus::INSUFFICIENT_RESOURCES);
    }
    // SAFETY: as above, and the record is new.
    let described = unsafe { super::DeviceInit::from_raw(init.0) }
        .name(config.name)?
        .device_type(config.device_type)
        .characteristics(config.characteristics)
        .io_type(config.io_type);
    let described = if config.exclusive {
        described.exclusive()
    } else {
        described
    };
    let _ = match config.class {
        Some(class) => described.class(class),
        None => described,
    };
    if let Some(moment) = config.shutdown {
        // SAFETY: the record is a control device's, and the callback is for
        // devices with a root of this type.
        unsafe {
            sys::kmdf::WdfControlDeviceInitSetShutdownNotification(
                init.0,
                Some(evt_shutdown::<C>),
                moment.flags(),
            );
        };
    }
    // SAFETY: the device is going to be one of this crate.
    unsafe { super::file::configure(init.0) };
    Ok(init)
}

callback! {
    unsafe fn evt_shutdown<C: ControlDevice>(device: sys::WDFDEVICE) {
        // SAFETY: KMDF calls this for a device of this crate, which is there.
        let root = unsafe { crate::driver::root_of(device) };
        // SAFETY: the root of a control device is a `Node<C>`. One that is not
        // made yet, or gone, need not be told.
        if let Ok(control) = unsafe { node::enter_alive::<C>(root) } {
            // SAFETY: KMDF calls this at PASSIVE_LEVEL.
            control.shutdown(&mut unsafe { Called::new(root) });
        }
    }
}

impl<O: Send + Sync + 'static> Modules<'_, O> {
    /// Adds a control device, whose value `make` makes; see the
    /// [module](crate::wdf::control). When this returns, programs can open it.
    ///
    /// All devices of a driver are described by the same code: with a fixed name
    /// the second one gets `STATUS_OBJECT_NAME_COLLISION`, and if the first goes,
    /// so does the control device.
    ///
    /// # Errors
    /// What `make` refuses; `STATUS_INVALID_PARAMETER` for a name that is no
    /// absolute path and for security that KMDF does not understand;
    /// `STATUS_OBJECT_NAME_COLLISION`; `STATUS_OBJECT_PATH_NOT_FOUND`,
    /// `STATUS_OBJECT_NAME_INVALID` for a name where there can be none;
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    ///
    /// C counterpart: [`WdfControlDeviceInitAllocate`][allocate],
    /// [`WdfDeviceCreate`][create], [`WdfControlFinishInitializing`][finish].
    ///
    /// [allocate]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcontrol/nf-wdfcontrol-wdfcontroldeviceinitallocate
    /// [create]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicecreate
    /// [finish]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcontrol/nf-wdfcontrol-wdfcontrolfinishinitializing
    pub fn control_device<C: ControlDevice>(
        &mut self,
        config: ControlConfig<'_>,
        make: impl FnOnce(&mut Modules<'_, C>) -> Result<C>,
    ) -> Result<ControlHandle<C>> {
        let (owner, _) = self.raw();
        // SAFETY: the node is that of the owner, which is being made.
        unsafe { create(owner, &config, make) }
    }
}
