// SPDX-License-Identifier: MIT OR Apache-2.0

//! A driver whose only purpose is to go through the whole surface of dmf once.
//!
//! It tells each result with [`dmf::println!`], so that the trace of its life has
//! results beside calls. `tests/` plays that life with the driver linked and as
//! its image, and compares the traces. What only a driver without devices has is
//! in `surface_service`.

#![no_std]
#![forbid(unsafe_code)]
#![allow(
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "chapters have one signature, and callbacks are functions of the device"
)]

mod foundations;
mod hooks;
pub mod interface;
mod interrupts;
mod io;
mod modules;
mod objects;
mod registry;
mod targets;
mod tell;
mod waits;

use core::sync::atomic::Ordering;

use dmf::device::SpecialFile;
use dmf::prelude::*;
use dmf::registry::{Access, Key};
use dmf::unicode_string;
use dmf::wdf::{
    Afterwards, Characteristics, DefaultQueue, DeviceInit, DeviceInterface, DeviceType, Failure,
    FileAnswer, FileCleanup, FileClose, FileCreate, IdleSettings, InterfaceState, IoType, Ioctl,
    Offer, PowerOwnership, PowerPaging, PowerPolicy, Property, QueueCallback, Read, Request, Sddl,
    WaitForD0, WakeSettings, Write,
};

use interface as codes;
use io::Opening;
use tell::Teller;

dmf::driver!(Surface);

/// What goes through a part of the surface.
type Body = fn(&Surface, &mut Irql<'_, Passive>, &mut Teller) -> Result;

const BODIES: [(&str, Body); 14] = [
    ("time", foundations::time),
    ("strings", foundations::strings),
    ("pool", foundations::pool),
    ("traces", foundations::traces),
    ("registry", registry::registry),
    ("waits", waits::waits),
    ("locks", waits::locks),
    ("threads", waits::threads),
    ("objects", objects::objects),
    ("deferred", objects::deferred),
    ("modules", modules::modules),
    ("queues", io::queues),
    ("targets", targets::targets),
    ("power", power),
];

/// The names of what [`codes::CHAPTER`] goes through; after these, the interrupts.
pub const CHAPTERS: [&str; BODIES.len()] = {
    let mut names = [""; BODIES.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = BODIES[index].0;
        index += 1;
    }
    names
};

/// The device.
pub struct Surface {
    owner: Owner<Surface>,
    interface: DeviceInterface,
    failure: Failure,
    power: PowerPolicy,
    tasks: objects::Tasks,
    parts: modules::Parts,
    lines: interrupts::Lines,
    queues: io::Queues,
    targets: targets::Targets,
}

impl Device for Surface {
    fn describe(init: DeviceInit<'_>) -> Result<DeviceInit<'_>> {
        init.io_type(IoType::Direct)
            .device_type(DeviceType::UNKNOWN)
            .characteristics(Characteristics::SECURE_OPEN)
            .class(codes::SURFACE)
            .power(PowerPaging::Pageable)
            .power(PowerPaging::NotPageable)
            .power_policy(PowerOwnership::Owner)
            .name(unicode_string!(r"\Device\DmfSurface"))?
            .security(Sddl::SYSTEM_AND_ADMINISTRATORS)
    }

    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        known(add)?;
        add.support_special_file(SpecialFile::Hibernation)?;
        add.support_special_file(SpecialFile::Dump)?;
        add.default_queue(DefaultQueue::parallel())?;
        add.symbolic_link(unicode_string!(r"\DosDevices\DmfSurface"))?;
        Ok(Surface {
            owner: add.owner(),
            interface: add.device_interface(codes::SURFACE)?,
            failure: add.failure(),
            power: PowerPolicy::new(add),
            tasks: objects::Tasks::new(add)?,
            parts: modules::Parts::new(add)?,
            lines: interrupts::Lines::new(add)?,
            queues: io::Queues::new(add)?,
            targets: targets::Targets::new(add)?,
        })
    }

    fn prepare_hardware(&self, cx: &mut PrepareHardware<'_>) -> Result {
        self.lines.prepare(cx);
        let path = self.interface.path(cx.irql())?;
        dmf::println!("device: prepare, {}", path.text(cx.irql()));
        Ok(())
    }

    fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
        dmf::println!("device: from {}", cx.previous_state());
        Ok(())
    }

    fn self_managed_io_init(&self, cx: &mut SelfManagedIoInit<'_>) -> Result {
        let idle = IdleSettings::can_wake().timeout(Duration::from_secs(10));
        let idle = self.power.assign_idle(cx.irql(), &idle);
        let wake = self.power.assign_wake(cx.irql(), &WakeSettings::new());
        dmf::println!("device: io init: {idle:?}, {wake:?}");
        Ok(())
    }

    fn surprise_removal(&self, cx: &mut SurpriseRemoval<'_>) {
        dmf::println!("device: gone");
        self.queues.give_up(cx.irql());
    }

    hooks::hooks!("device");

    fn file_create(&self, cx: &mut FileCreate<'_>) -> FileAnswer {
        let file = cx.file();
        dmf::println!("create: {:?}", file.name(cx.irql()));
        match cx.attach(Opening::default()) {
            Ok(()) => FileAnswer::Accepted,
            Err(status) => FileAnswer::Refused(status),
        }
    }

    fn file_cleanup(&self, cx: &mut FileCleanup<'_>) {
        let reads = self.queues.reads.next_of_file(cx.file());
        dmf::println!("cleanup: a read: {:?}", reads.map(|read| read.is_some()));
    }

    fn file_close(&self, cx: &mut FileClose<'_>) {
        let opening = cx.file().context::<Opening>();
        let written = opening.map(|opening| opening.written.load(Ordering::Relaxed));
        dmf::println!("close: written {written:?}");
    }

    fn io_read(&self, _cx: &mut QueueCallback<'_>, request: Request<Read>) -> Offer<Read> {
        let result = request.forward(&self.queues.reads).map_err(NtStatus::from);
        dmf::println!("a read waits: {result:?}");
        if let Ok(Some(first)) = self.queues.reads.next() {
            let result = first.requeue().map_err(NtStatus::from);
            dmf::println!("put back: {result:?}");
        }
        // The queue says so only if it was empty.
        self.ready();
        Offer::Handled
    }

    /// The queue for writes has them all.
    fn io_write(&self, _cx: &mut QueueCallback<'_>, request: Request<Write>) -> Offer<Write> {
        Offer::Declined(request)
    }

    fn device_control(&self, cx: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
        request
            .on(codes::CHAPTER, |number| {
                let bodies = BODIES
                    .iter()
                    .chain(&[("interrupts", interrupts::interrupts as Body)]);
                let (name, body) = usize::try_from(number)
                    .ok()
                    .and_then(|number| bodies.into_iter().nth(number))
                    .ok_or(NtStatus::INVALID_PARAMETER)?;
                let mut tell = Teller::new(name);
                body(self, cx.irql(), &mut tell)?;
                Ok(tell.count())
            })
            .on(codes::ADD, |[a, b]| {
                a.checked_add(b).ok_or(NtStatus::INTEGER_OVERFLOW)
            })
            .on(codes::FAIL, |()| self.failure.report(Afterwards::Stay))
            .on_request(codes::KEEP, |(), request| {
                self.queues.forward(request.into_untyped());
            })
            .on_direct(codes::FILL, |value, request| {
                let filled = request.buffer().and_then(|pages| {
                    for offset in 0..pages.len() {
                        pages.copy_from(offset, &[value])?;
                    }
                    Ok(pages.len())
                });
                request.complete(filled);
            })
            .on_direct(codes::SUM, |(), request| {
                let sum = request.buffer().and_then(|pages| {
                    let (mut sum, mut byte) = (0, [0]);
                    for offset in 0..pages.len() {
                        pages.copy_to(offset, &mut byte)?;
                        sum += usize::from(byte[0]);
                    }
                    dmf::println!("past the end: {:?}", pages.copy_to(pages.len(), &mut byte));
                    Ok(sum)
                });
                dmf::println!("sum: {sum:?}");
                request.complete(sum.map(|_| 0));
            })
    }
}

/// What the system knows of the device.
fn known(add: &Modules<'_, Surface>) -> Result {
    let text = add.property(Property::HARDWARE_IDS);
    match text {
        Ok(ids) => ids.iter().for_each(|id| dmf::println!("id: {id}")),
        Err(status) => dmf::println!("no ids: {status:?}"),
    }
    dmf::println!("bus: {:?}", add.property(Property::BUS_NUMBER));
    dmf::println!("slot: {:?}", add.property(Property::UI_NUMBER));
    let key = Key::device(add, Access::All)?;
    let starts = key.query_u32(unicode_string!("Starts")).unwrap_or(0);
    dmf::println!("starts: {starts}");
    key.assign_u32(unicode_string!("Starts"), starts + 1)?;
    let software = Key::driver(add, Access::All)?;
    for value in software.values() {
        dmf::println!("software: {value:?}");
    }
    Ok(())
}

fn power(me: &Surface, irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    let held = me.power.stop_idle(WaitForD0::Yes(irql))?;
    tell.value("held", &held);
    drop(held);
    let held = me.power.stop_idle(WaitForD0::No)?;
    drop(held);
    let idle = IdleSettings::can_wake().timeout(Duration::from_secs(5));
    tell.value("idle", me.power.assign_idle(irql, &idle));
    tell.value(
        "a wake device that cannot",
        me.power.assign_idle(irql, &IdleSettings::cannot_wake()),
    );
    tell.value("idle", me.power.assign_idle(irql, &idle));
    for state in [InterfaceState::Disabled, InterfaceState::Enabled] {
        tell.value("interface", me.interface.set_state(irql, state));
    }
    Ok(())
}
