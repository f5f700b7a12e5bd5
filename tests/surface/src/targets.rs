// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests of the driver's own: to the driver below, and to its control device
//! by its name.

use dmf::prelude::*;
use dmf::string::UnicodeStr;
use dmf::sync::EventKind;
use dmf::unicode_string;
use dmf::wdf::{
    ControlConfig, ControlDevice, ControlHandle, DefaultQueue, FileAnswer, FileClose, FileCreate,
    IoTarget, Ioctl, Memory, Offer, OwnRequest, OwnSender, QueueCallback, Read, RemoteTarget,
    Request, Sddl, Sender, Sent, SentIo, ShutdownMoment, TargetAccess, Write,
};

use crate::tell::Teller;
use crate::{Surface, interface};

const NAME: UnicodeStr<'static> = unicode_string!(r"\Device\DmfSurfaceDesk");
const SOON: Duration = Duration::from_millis(100);

pub struct Targets {
    lower: IoTarget,
    remote: RemoteTarget,
    own: OwnSender,
    passer: Sender<Write>,
    landed: Event,
    desk: ControlHandle<Desk>,
}

impl Targets {
    pub fn new(add: &mut Modules<'_, Surface>) -> Result<Self> {
        let config = ControlConfig::new(NAME, Sddl::SYSTEM_AND_ADMINISTRATORS)
            .exclusive()
            .notify_shutdown(ShutdownMoment::BeforeFlush);
        let desk = add.control_device(config, |add| {
            add.symbolic_link(unicode_string!(r"\DosDevices\DmfSurfaceDesk"))?;
            add.default_queue(DefaultQueue::sequential())?;
            Ok(Desk(SpinLock::new(0)))
        })?;
        let again = ControlConfig::new(NAME, Sddl::KERNEL_ONLY);
        let again = add.control_device(again, |_| Ok(Desk(SpinLock::new(0))));
        dmf::println!("desk: twice: {:?}", again.err());
        Ok(Self {
            desk,
            lower: add.io_target(),
            remote: add.remote_target()?,
            own: add.own_sender(Surface::landed),
            passer: add.sender(Surface::passed),
            landed: Event::new(EventKind::Synchronization)?,
        })
    }

    /// Sends a write of a user's on to the driver below.
    pub fn pass(&self, request: Request<Write>) {
        let sent = self.passer.send(request, Timeout::Never);
        dmf::println!("passed on: {:?}", sent.map_err(NtStatus::from));
    }
}

/// The control device.
pub struct Desk(SpinLock<u32>);

impl ControlDevice for Desk {
    fn file_create(&self, _: &mut FileCreate<'_>) -> FileAnswer {
        dmf::println!("desk: create");
        FileAnswer::Accepted
    }
    fn file_close(&self, _: &mut FileClose<'_>) {
        dmf::println!("desk: close");
    }
    fn io_read(&self, _: &mut QueueCallback<'_>, mut request: Request<Read>) -> Offer<Read> {
        let filled = request.output().map(|bytes| bytes.fill(7));
        dmf::println!("desk: read: {filled:?}");
        request.complete_with_bytes(b"desk");
        Offer::Handled
    }
    fn io_write(&self, _: &mut QueueCallback<'_>, request: Request<Write>) -> Offer<Write> {
        dmf::println!("desk: write {:?}", request.input());
        let length = request.len();
        request.complete(Ok(length));
        Offer::Handled
    }
    fn device_control(&self, _: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
        request.on(interface::ADD, |[a, b]| {
            self.0.with(|count| *count += 1);
            a.checked_add(b).ok_or(NtStatus::INTEGER_OVERFLOW)
        })
    }
}

impl Surface {
    fn landed(&self, request: OwnRequest, sent: Sent) {
        dmf::println!(
            "landed: {:?}, {}, {:?}",
            sent.status(),
            sent.information(),
            request.output()
        );
        self.targets.landed.set();
    }

    fn passed(&self, request: Request<Write>, sent: Sent) {
        dmf::println!("passed: {:?}", sent.status());
        request.complete_with(sent.status(), sent.information());
    }
}

pub fn targets(me: &Surface, irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    let Targets {
        lower,
        remote,
        own,
        landed,
        desk,
        ..
    } = &me.targets;
    tell.value("state", lower.state());
    tell.value("ioctl", lower.ioctl(irql, interface::DOUBLE, 21, SOON));
    tell.value("unknown", lower.ioctl(irql, interface::ADD, [1, 2], SOON));
    let mut buffer = [0; 4];
    tell.value("read", lower.read(irql, &mut buffer, 0, SOON));
    tell.value("bytes", buffer);
    tell.value("write", lower.write(irql, b"abc", 3, SOON));
    let mut request = OwnRequest::new()?;
    request.set_ioctl(interface::DOUBLE, 4)?;
    let sent = request.send_and_wait(irql, lower, SOON)?;
    tell.value("answer", request.answer(interface::DOUBLE, sent));
    request.set_read(Memory::new(4)?, 8);
    tell.value(
        "own read",
        request.send_and_wait(irql, lower, SOON).map(Sent::bytes),
    );
    tell.value("output", request.output());
    tell.value("taken", request.take_output().map(|memory| memory.len()));
    // What nobody answers.
    request.set_control(0x0022_3FFC, None, Some(Memory::new(2)?));
    tell.value(
        "timed out",
        request.send_and_wait(irql, lower, SOON).map(Sent::status),
    );
    request.set_internal_control(interface::DOUBLE.value(), Some(Memory::new(4)?), None);
    tell.value(
        "internal",
        request.send_and_wait(irql, lower, SOON).map(Sent::status),
    );
    request.set_write(Memory::new(3)?, 0);
    tell.value(
        "sent",
        own.send(lower, request, SOON).map_err(NtStatus::from),
    );
    tell.value("landed", landed.wait(irql, Duration::from_secs(1)));
    let mut request = OwnRequest::new()?;
    request.set_control(0x0022_3FFC, None, None);
    match own.send_cancelable(lower, request, Timeout::Never) {
        Ok(canceller) => tell.value("cancelled", canceller.cancel()),
        Err(unsent) => tell.value("not sent", unsent.status()),
    }
    tell.value("landed", landed.wait(irql, Duration::from_secs(1)));
    tell.value("stopped", lower.stop(irql, SentIo::Wait));
    tell.value("state", lower.state());
    tell.value("started", lower.start(irql));

    tell.value("closed", remote.state());
    tell.value(
        "not there",
        remote.open(irql, unicode_string!(r"\Device\Nobody"), TargetAccess::Read),
    );
    tell.value("open", remote.open(irql, NAME, TargetAccess::ReadWrite));
    tell.value("state", remote.state());
    tell.value("ioctl", remote.ioctl(irql, interface::ADD, [40, 2], SOON));
    tell.value("read", remote.read(irql, &mut buffer, 0, SOON));
    tell.value("bytes", buffer);
    tell.value("write", remote.write(irql, b"xyz", 0, SOON));
    tell.value("purged", remote.purge(irql));
    tell.value("refused", remote.write(irql, b"xyz", 0, SOON));
    tell.value("started", remote.start(irql));
    tell.value("written", remote.write(irql, b"xyz", 0, SOON));
    tell.value("close", remote.close(irql));
    tell.value("state", remote.state());
    tell.value(
        "asked",
        desk.enter().map(|desk| desk.0.with(|count| *count)),
    );
    Ok(())
}
