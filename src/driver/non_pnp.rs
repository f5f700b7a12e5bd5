// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`NonPnp`]: a driver without devices.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use crate::irql::{Irql, Passive};
use crate::module::node::{self, Header, Reference};
use crate::module::{Modules, Owner};
use crate::status::{NtStatus, Result};
use crate::sys;
use crate::wdf::object::{ContextInfo, attributes, no_handle};
use crate::wdf::{Called, ControlConfig, ControlDevice, ControlHandle, control};

/// A driver that has no devices: it is loaded by a service control program, and
/// programs talk to it through control devices.
///
/// Register the type with `dmf::driver!(Name: NonPnp)`. There is an example at
/// [`control`].
///
/// A type that is none is refused:
///
/// ```compile_fail,E0277
/// dmf::driver!(Dice: NonPnp);
///
/// struct Dice;
/// ```
///
/// C counterpart: a driver with `WdfDriverInitNonPnpDriver` in its
/// [`WDF_DRIVER_CONFIG`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/using-kernel-mode-driver-framework-with-non-pnp-drivers
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a driver without devices",
    note = "write `impl NonPnp for {Self}` with `fn load(add: &mut Load<'_, Self>) -> Result<Self>`"
)]
pub trait NonPnp: Sized + Send + Sync + 'static {
    /// Called when the driver is loaded. Adds control devices and makes the
    /// driver's state.
    ///
    /// # Errors
    /// Any: the driver is not loaded, and what was added is deleted.
    ///
    /// C counterpart: `DriverEntry`.
    fn load(add: &mut Load<'_, Self>) -> Result<Self>;

    /// Called when the driver is unloaded, before the value is dropped and the
    /// control devices are deleted. Nobody has a file open then, and callbacks of
    /// control devices' timers and work items may still run.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: [`EvtDriverUnload`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdriver/nc-wdfdriver-evt_wdf_driver_unload
    fn unload(&self, cx: &mut Called<'_, Passive>) {
        let _ = cx;
    }
}

/// Adds control devices to a driver that is being loaded.
///
/// C counterpart: `DriverEntry` after [`WdfDriverCreate`][c].
///
/// [c]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdriver/nf-wdfdriver-wdfdrivercreate
pub struct Load<'a, D> {
    node: NonNull<Header>,
    irql: Irql<'a, Passive>,
    driver: PhantomData<&'a mut D>,
}

impl<'a, D: NonPnp> Load<'a, D> {
    /// # Safety
    /// `node` is the header of a `Node<D>` that is valid for `'a`, and the level
    /// is `PASSIVE_LEVEL`.
    unsafe fn new(node: NonNull<Header>) -> Self {
        Self {
            node,
            // SAFETY: the caller's promise.
            irql: unsafe { Irql::assume() },
            driver: PhantomData,
        }
    }

    /// The proof that the call is at `PASSIVE_LEVEL`.
    pub fn irql(&mut self) -> &mut Irql<'a, Passive> {
        &mut self.irql
    }

    /// A link to the driver's value. It gives access once the value has been
    /// made, and until it is dropped.
    #[must_use]
    pub fn owner(&self) -> Owner<D> {
        // SAFETY: the node is valid, and a `Node<D>`.
        unsafe { Owner::to(self.node) }
    }

    /// Adds a control device; see [`Modules::control_device`].
    ///
    /// # Errors
    /// As there.
    pub fn control_device<C: ControlDevice>(
        &mut self,
        config: ControlConfig<'_>,
        make: impl FnOnce(&mut Modules<'_, C>) -> Result<C>,
    ) -> Result<ControlHandle<C>> {
        // SAFETY: the node is that of the driver, which is being made.
        unsafe { control::create(self.node, &config, make) }
    }
}

impl<D> fmt::Debug for Load<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load").finish_non_exhaustive()
    }
}

/// The context of the driver object.
struct DriverContext {
    /// What to take down, once it is complete.
    root: Cell<Option<NonNull<Header>>>,
}

static DRIVER: ContextInfo = ContextInfo::new::<DriverContext>(c"dmf::Driver", &DRIVER);

callback! {
    /// The entry point of the driver `D`, which has no devices.
    ///
    /// # Safety
    /// To be called once, by the kernel, with what it calls a driver's entry
    /// point with.
    pub unsafe fn entry_non_pnp<D: NonPnp>(
        driver: sys::PDRIVER_OBJECT,
        path: sys::PCUNICODE_STRING,
    ) -> sys::NTSTATUS {
        // SAFETY: the caller's promise; entry points are called at PASSIVE_LEVEL.
        NtStatus::from_result(unsafe { load::<D>(driver, path) }).to_raw()
    }
}

/// # Safety
/// As [`entry_non_pnp`].
unsafe fn load<D: NonPnp>(driver: sys::PDRIVER_OBJECT, path: sys::PCUNICODE_STRING) -> Result {
    // Without memory of its own the crate has nothing to undo.
    let root = node::allocate_driver::<D>()?;
    let mut config = sys::WDF_DRIVER_CONFIG {
        Size: sys::size_field::<sys::WDF_DRIVER_CONFIG>(),
        EvtDriverUnload: Some(evt_unload::<D>),
        DriverInitFlags: sys::_WDF_DRIVER_INIT_FLAGS::WdfDriverInitNonPnpDriver.cast_unsigned(),
        ..sys::WDF_DRIVER_CONFIG::default()
    };
    let mut attributes = attributes(&DRIVER, ptr::null_mut());
    let mut handle = no_handle();
    // SAFETY: the arguments are the kernel's, and the structures are valid for
    // the length of the call.
    NtStatus::from_raw(unsafe {
        sys::kmdf::WdfDriverCreate(
            driver,
            path,
            &raw mut attributes,
            &raw mut config,
            &raw mut handle,
        )
    })
    .into_result()?;
    // SAFETY: the driver object was created with this context.
    let context = unsafe { DRIVER.of::<DriverContext>(handle.cast()) };
    // SAFETY: the context is ours, and not used yet.
    unsafe {
        context.write(DriverContext {
            root: Cell::new(None),
        });
    }
    // SAFETY: the node is new and of this type, and this is PASSIVE_LEVEL.
    match D::load(&mut unsafe { Load::new(root.node()) }) {
        // SAFETY: the node is of this type and has no value yet.
        Ok(value) => unsafe { node::construct(root.node(), value) },
        Err(status) => {
            // SAFETY: the node has no value, and this is PASSIVE_LEVEL.
            unsafe { node::abandon(root.node()) };
            return Err(status);
        }
    }
    // SAFETY: a context is valid as long as its object.
    unsafe { context.as_ref() }.root.set(Some(root.into_raw()));
    Ok(())
}

callback! {
    unsafe fn evt_unload<D: NonPnp>(driver: sys::WDFDRIVER) {
        // SAFETY: KMDF calls this for the object that was created with this context.
        let context = unsafe { DRIVER.of::<DriverContext>(driver.cast()) };
        // SAFETY: a context is valid as long as its object.
        let Some(root) = unsafe { context.as_ref() }.root.take() else {
            return;
        };
        // SAFETY: `load` left a `Node<D>` here.
        if let Ok(value) = unsafe { node::enter_alive::<D>(root) } {
            // SAFETY: KMDF calls this at PASSIVE_LEVEL.
            value.unload(&mut unsafe { Called::new(root) });
        }
        // SAFETY: the node has a value and does not open; PASSIVE_LEVEL.
        unsafe { node::destroy(root) };
        // SAFETY: `load` left its count here.
        drop(unsafe { Reference::from_raw(root) });
    }
}
