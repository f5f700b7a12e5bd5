// SPDX-License-Identifier: MIT OR Apache-2.0

//! A driver without devices, to compare its image with the linked driver: the
//! part of dmf that `tests/surface` cannot have.

#![no_std]
#![forbid(unsafe_code)]

use dmf::driver::{Load, NonPnp};
use dmf::ioctl::{Access, DeviceType, IoctlCode};
use dmf::module::Owner;
use dmf::prelude::*;
use dmf::registry::{Access as KeyAccess, Key};
use dmf::unicode_string;
use dmf::wdf::{
    Called, ControlConfig, ControlDevice, ControlHandle, DefaultQueue, Driver, File, FileAnswer,
    FileClose, FileCreate, Ioctl, ManualQueue, Offer, QueueCallback, Read, Request, Sddl,
    ShutdownMoment, Timer, TimerFired,
};

dmf::driver!(Service: NonPnp);

/// How programs find the control device.
pub const NAME: &str = r"\\.\DmfSurfaceService";

/// Adds to what the device counts, and answers the sum.
pub const ADD: IoctlCode<u32, u32> = IoctlCode::new(DeviceType::UNKNOWN, 0x800, Access::Any);

/// The driver's state.
#[derive(Debug)]
pub struct Service {
    desk: ControlHandle<Desk>,
    limit: u32,
}

/// Its control device.
#[derive(Debug)]
struct Desk {
    service: Owner<Service>,
    sum: SpinLock<u32>,
    waiting: ManualQueue<Read>,
    timer: Timer,
}

impl NonPnp for Service {
    fn load(add: &mut Load<'_, Self>) -> Result<Self> {
        let service = add.owner();
        dmf::println!("load: made already: {}", service.enter().is_ok());
        let version = Driver::get().version(add.irql())?;
        dmf::println!("load: framework {}", version.text(add.irql()));
        drop(version);
        let key = Key::parameters(add.irql(), KeyAccess::All)?;
        let limit = key.query_u32(unicode_string!("Limit"));
        dmf::println!("load: limit {limit:?}");
        key.assign_u32(unicode_string!("Limit"), 100)?;
        drop(key);
        let config = ControlConfig::new(
            unicode_string!(r"\Device\DmfSurfaceService"),
            Sddl::SYSTEM_AND_ADMINISTRATORS,
        )
        .notify_shutdown(ShutdownMoment::Both);
        let again = ControlConfig::new(unicode_string!(r"\Device\DmfSurfaceService"), Sddl::SYSTEM);
        let desk = add.control_device(config, |add| Desk::make(add, service.clone()))?;
        let twice = add.control_device(again, |add| Desk::make(add, service));
        dmf::println!("load: twice: {:?}", twice.err());
        Ok(Service {
            desk,
            limit: limit.unwrap_or(10),
        })
    }

    fn unload(&self, _cx: &mut Called<'_, Passive>) {
        let sum = self.desk.enter().map(|desk| desk.sum.with(|sum| *sum));
        dmf::println!("unload: {sum:?}");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        dmf::println!("dropped: desk: {}", self.desk.enter().is_ok());
    }
}

impl Desk {
    fn make(add: &mut Modules<'_, Self>, service: Owner<Service>) -> Result<Self> {
        add.symbolic_link(unicode_string!(r"\DosDevices\DmfSurfaceService"))?;
        add.default_queue(DefaultQueue::parallel())?;
        dmf::println!(
            "a control device has no interface: {:?}",
            add.device_interface(dmf::wdf::Guid::parse(
                "b5a7c5a0-9a59-4e0e-8f0e-6a3c1b6b8d12"
            ))
            .err()
        );
        Ok(Desk {
            service,
            sum: SpinLock::new(0),
            waiting: add.manual_queue(ManualQueue::config())?,
            timer: add.timer(Desk::fired)?,
        })
    }

    fn fired(&self, _cx: &mut TimerFired<'_>) {
        if let Ok(Some(read)) = self.waiting.next() {
            read.complete_with_bytes(b"later");
        }
    }
}

impl ControlDevice for Desk {
    fn shutdown(&self, _cx: &mut Called<'_, Passive>) {
        dmf::println!("shutdown: {}", self.sum.with(|sum| *sum));
    }

    fn file_create(&self, cx: &mut FileCreate<'_>) -> FileAnswer {
        dmf::println!("create {}", cx.file().name(cx.irql()));
        match cx.attach(7_u32) {
            Ok(()) => FileAnswer::Accepted,
            Err(status) => FileAnswer::Refused(status),
        }
    }

    fn file_close(&self, cx: &mut FileClose<'_>) {
        let file: File<'_> = cx.file();
        dmf::println!("close {:?}", file.context::<u32>());
    }

    fn io_read(&self, _cx: &mut QueueCallback<'_>, request: Request<Read>) -> Offer<Read> {
        let result = request
            .forward(&self.waiting)
            .map_err(NtStatus::from)
            .and_then(|()| self.timer.start(Duration::from_millis(20)));
        dmf::println!("read waits: {result:?}");
        Offer::Handled
    }

    fn device_control(&self, _cx: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
        request.on(ADD, |more| {
            let limit = self.service.enter()?.limit;
            self.sum.with(|sum| {
                let next = sum.checked_add(more).filter(|next| *next <= limit);
                *sum = next.ok_or(NtStatus::INVALID_PARAMETER)?;
                Ok(*sum)
            })
        })
    }
}
