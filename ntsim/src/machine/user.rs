// SPDX-License-Identifier: MIT OR Apache-2.0

//! What users do with a device: open it, read, write, send control codes, cancel.
//!
//! Everything exists twice. On a [`Machine`] the methods run the machine until
//! they are done, on a simulated thread of their own. [`File`] and [`Pending`]
//! have the same for code that is on a simulated thread already
//! ([`Machine::run_thread`], [`Machine::spawn_thread`]).
//!
//! # Vocabulary
//! - *name*: how a user finds a device: `\\.\Name` or another form of a symbolic
//!   link that the driver made, `\Device\Name`, the GUID of an interface in
//!   braces (the first enabled one), an interface's path, or the device's
//!   instance id.
//! - *pending*: a request that was begun; it may be completed already.
//!
//! ```text
//!          begin_*             the driver completes
//!   File ──────────► Pending ───────────────────────► Completion, taken by wait
//!                       │ cancel: asks the driver         ▲
//!                       └─────────────────────────────────┘
//! ```
//!
//! A [`File`] that is closed with requests pending goes when the last of them is
//! completed, as a Windows file object does. A device with open files is not
//! removed in good order (`PNP_VetoOutstandingOpen`); after a surprise removal
//! it stays until its files are closed.
//!
//! | status | when |
//! |---|---|
//! | `STATUS_OBJECT_NAME_NOT_FOUND` | open: no such name, or the interface is disabled |
//! | `STATUS_NO_SUCH_DEVICE` | open: the device failed or is gone |
//! | `STATUS_ACCESS_DENIED` | open: the device is exclusive and open |
//! | `STATUS_INVALID_DEVICE_REQUEST` | no queue or handler takes such requests |
//! | `STATUS_INVALID_DEVICE_STATE` | the queue was drained or purged, or the device is gone |
//! | `STATUS_CANCELLED` | the request was cancelled, or purged with its queue |

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::bugcheck::Stop;
use crate::hang;
use crate::io::irp::{self, Ask, FileId, IrpId};
use crate::ke::dispatcher::ThreadId;
use crate::ke::thread;
use crate::kernel::Ran;
use crate::memory::UNINITIALISED;
pub use crate::wdf::io_target::{Answer, LowerRequest};
use crate::wdf::{file, request};

use super::{Error, Machine, Result};

/// An open file of a simulated user.
///
/// Its methods are for code on a simulated thread; elsewhere use those of [`Machine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[must_use = "a device cannot be removed while a file is open"]
pub struct File(FileId);

/// A request that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[must_use = "only waiting tells how it ended"]
pub struct Pending(IrpId);

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The `NTSTATUS`.
    pub status: u32,
    /// `Information`: the bytes that the driver says it transferred.
    pub information: usize,
    /// The bytes that the user got: of a read, or of a control code's output.
    pub data: Vec<u8>,
}

impl Completion {
    /// `NT_SUCCESS` of the status.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status.cast_signed() >= 0
    }

    /// The bytes that the user got.
    ///
    /// # Errors
    /// The status of a request that did not succeed.
    pub fn bytes(self) -> Result<Vec<u8>, u32> {
        if self.is_success() {
            Ok(self.data)
        } else {
            Err(self.status)
        }
    }
}

impl From<irp::Completion> for Completion {
    fn from(from: irp::Completion) -> Self {
        Self {
            status: from.status.cast_unsigned(),
            information: from.information,
            data: from.data,
        }
    }
}

impl File {
    /// Opens a device by one of its names.
    ///
    /// # Errors
    /// The `NTSTATUS`; see the [module](self).
    pub fn open(name: &str) -> Result<Self, u32> {
        file::open(name).map(Self).map_err(i32::cast_unsigned)
    }

    /// Reads up to `length` bytes; waits for them.
    #[must_use]
    pub fn read(self, length: usize) -> Completion {
        self.begin_read(length).finish()
    }

    /// Writes `bytes`; waits until they are written.
    #[must_use]
    pub fn write(self, bytes: &[u8]) -> Completion {
        self.begin_write(bytes).finish()
    }

    /// Sends a control code with its input, for up to `output` bytes; waits for the answer.
    #[must_use]
    pub fn ioctl(self, code: u32, input: &[u8], output: usize) -> Completion {
        self.begin_ioctl(code, input, output).finish()
    }

    /// Begins a read.
    pub fn begin_read(self, length: usize) -> Pending {
        Pending(file::begin(self.0, &Ask::Read(length)))
    }

    /// Begins a write.
    pub fn begin_write(self, bytes: &[u8]) -> Pending {
        Pending(file::begin(self.0, &Ask::Write(bytes.to_vec())))
    }

    /// Begins a control code.
    pub fn begin_ioctl(self, code: u32, input: &[u8], output: usize) -> Pending {
        self.begin_ioctl_with(code, input, &vec![UNINITIALISED; output])
    }

    /// Begins a control code whose second buffer has these bytes in it, for
    /// methods with which the driver sees them: `METHOD_IN_DIRECT`,
    /// `METHOD_OUT_DIRECT`.
    pub fn begin_ioctl_with(self, code: u32, input: &[u8], buffer: &[u8]) -> Pending {
        self.begin_control(code, input, buffer, false)
    }

    /// Begins an internal control code (`IRP_MJ_INTERNAL_DEVICE_CONTROL`), as a
    /// driver above the device does.
    pub fn begin_internal_ioctl(self, code: u32, input: &[u8], output: usize) -> Pending {
        self.begin_control(code, input, &vec![UNINITIALISED; output], true)
    }

    fn begin_control(self, code: u32, input: &[u8], buffer: &[u8], internal: bool) -> Pending {
        Pending(file::begin(
            self.0,
            &Ask::Control {
                code,
                input: input.to_vec(),
                output: buffer.to_vec(),
                internal,
            },
        ))
    }

    /// The same; waits for the answer.
    #[must_use]
    pub fn internal_ioctl(self, code: u32, input: &[u8], output: usize) -> Completion {
        self.begin_internal_ioctl(code, input, output).finish()
    }

    /// Closes the file. Requests that are pending stay so, but those that wait in a
    /// queue are cancelled.
    pub fn close(self) {
        file::close(self.0);
    }
}

impl Pending {
    /// Asks for the request's cancellation, as `CancelIoEx` does. Tells whether it
    /// was still under way; [`wait`](Self::wait) tells how it ended.
    #[expect(clippy::must_use_candidate, reason = "how the request ends says more")]
    pub fn cancel(self) -> bool {
        request::cancel_irp(self.0)
    }

    /// Waits for the end of the request; nothing if it is still under way after
    /// `timeout`, or if its completion was taken before.
    #[must_use]
    pub fn wait(self, timeout: Duration) -> Option<Completion> {
        file::wait(self.0, Some(units(timeout))).map(Completion::from)
    }

    /// Changes the caller's own buffer while the driver works on it, as another
    /// thread of the program can: only with direct I/O. False if there is no
    /// such buffer, no such part of it, or the request is completed.
    #[must_use]
    pub fn scribble(self, offset: usize, bytes: &[u8]) -> bool {
        request::scribble(self.0, offset, bytes)
    }

    fn finish(self) -> Completion {
        let completion = file::wait(self.0, None);
        completion
            .expect("nobody else knows of this request")
            .into()
    }
}

fn units(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() / 100).unwrap_or(u64::MAX)
}

/// A simulated thread that was started with [`Machine::spawn_thread`].
#[must_use = "joining tells what the thread returned"]
pub struct Thread<R> {
    id: ThreadId,
    value: Rc<RefCell<Option<R>>>,
}

impl Machine {
    /// Starts a simulated thread; it runs whenever the machine does.
    pub fn spawn_thread<R: 'static>(
        &mut self,
        name: &str,
        body: impl FnOnce() -> R + 'static,
    ) -> Thread<R> {
        let value = Rc::new(RefCell::new(None));
        let slot = value.clone();
        let job = Box::new(move || {
            let result = body();
            *slot.borrow_mut() = Some(result);
        });
        let id = thread::spawn(&mut self.k, name.to_owned(), true, job);
        Thread { id, value }
    }

    /// Runs the machine until the thread returns, and gives its value.
    ///
    /// # Errors
    /// The bug check or other stop that ended the simulation; a deadlock or a lost
    /// wake-up if the thread can never return, and a watchdog's if it takes too long.
    ///
    /// # Panics
    /// If the thread was one of another machine.
    #[expect(clippy::needless_pass_by_value, reason = "a thread is joined once")]
    pub fn join<R>(&mut self, thread: Thread<R>) -> std::result::Result<R, Box<Stop>> {
        match self.k.run_to_end_of(thread.id)? {
            Ran::Until => {
                if self.k.threads[&thread.id].references == 0 {
                    self.k.forget_thread(thread.id);
                }
                Ok(thread
                    .value
                    .borrow_mut()
                    .take()
                    .expect("the thread returned its value"))
            }
            Ran::Idle => Err(Box::new(hang::stop(&self.k, thread.id))),
        }
    }

    /// Puts a driver below the device, for what its driver sends to its default
    /// I/O target. It stays over removal, not over a reboot.
    pub fn set_lower_driver(
        &mut self,
        device: &str,
        answer: impl Fn(&LowerRequest) -> Answer + 'static,
    ) {
        self.k
            .wdf
            .lower
            .insert(device.to_lowercase(), Rc::new(answer));
    }

    /// Runs `body` on a user's thread.
    fn user<R: 'static>(&mut self, body: impl FnOnce() -> R + 'static) -> Result<R> {
        Ok(self.run_thread("user", body)?)
    }

    /// Opens a device by one of its names; see the [module](self).
    ///
    /// # Errors
    /// [`Error::Driver`] with the status if the open is refused, [`Error::Stop`].
    pub fn open(&mut self, name: &str) -> Result<File> {
        let wanted = name.to_owned();
        self.user(move || File::open(&wanted))?
            .map_err(|status| Error::Driver {
                what: format!("opening {name}"),
                status,
            })
    }

    /// Reads up to `length` bytes.
    ///
    /// # Errors
    /// [`Error::Stop`]; a read that fails is a [`Completion`].
    pub fn read(&mut self, file: File, length: usize) -> Result<Completion> {
        self.user(move || file.read(length))
    }

    /// Writes `bytes`.
    ///
    /// # Errors
    /// [`Error::Stop`].
    pub fn write(&mut self, file: File, bytes: &[u8]) -> Result<Completion> {
        let bytes = bytes.to_vec();
        self.user(move || file.write(&bytes))
    }

    /// Sends a control code with its input, for up to `output` bytes.
    ///
    /// # Errors
    /// [`Error::Stop`].
    pub fn ioctl(
        &mut self,
        file: File,
        code: u32,
        input: &[u8],
        output: usize,
    ) -> Result<Completion> {
        let input = input.to_vec();
        self.user(move || file.ioctl(code, &input, output))
    }

    /// Begins a read; returns when the driver's handler did.
    ///
    /// # Errors
    /// [`Error::Stop`].
    pub fn begin_read(&mut self, file: File, length: usize) -> Result<Pending> {
        self.user(move || file.begin_read(length))
    }

    /// Begins a write; returns when the driver's handler did.
    ///
    /// # Errors
    /// [`Error::Stop`].
    pub fn begin_write(&mut self, file: File, bytes: &[u8]) -> Result<Pending> {
        let bytes = bytes.to_vec();
        self.user(move || file.begin_write(&bytes))
    }

    /// Begins a control code; returns when the driver's handler did.
    ///
    /// # Errors
    /// [`Error::Stop`].
    pub fn begin_ioctl(
        &mut self,
        file: File,
        code: u32,
        input: &[u8],
        output: usize,
    ) -> Result<Pending> {
        let input = input.to_vec();
        self.user(move || file.begin_ioctl(code, &input, output))
    }

    /// Begins a control code whose second buffer has these bytes in it; see
    /// [`File::begin_ioctl_with`].
    ///
    /// # Errors
    /// [`Error::Stop`].
    pub fn begin_ioctl_with(
        &mut self,
        file: File,
        code: u32,
        input: &[u8],
        buffer: &[u8],
    ) -> Result<Pending> {
        let (input, buffer) = (input.to_vec(), buffer.to_vec());
        self.user(move || file.begin_ioctl_with(code, &input, &buffer))
    }

    /// Begins an internal control code, as a driver above the device does.
    ///
    /// # Errors
    /// [`Error::Stop`].
    pub fn begin_internal_ioctl(
        &mut self,
        file: File,
        code: u32,
        input: &[u8],
        output: usize,
    ) -> Result<Pending> {
        let input = input.to_vec();
        self.user(move || file.begin_internal_ioctl(code, &input, output))
    }

    /// Asks for a request's cancellation. Tells whether it was still under way.
    ///
    /// # Errors
    /// [`Error::Stop`].
    pub fn cancel(&mut self, pending: Pending) -> Result<bool> {
        self.user(move || pending.cancel())
    }

    /// Waits for the end of a request, for at most `timeout` of virtual time.
    ///
    /// # Errors
    /// [`Error::Stop`].
    pub fn wait(&mut self, pending: Pending, timeout: Duration) -> Result<Option<Completion>> {
        self.user(move || pending.wait(timeout))
    }

    /// Closes a file. If it was the last one of a device that is gone, the device
    /// is deleted.
    ///
    /// # Errors
    /// [`Error::Stop`].
    pub fn close(&mut self, file: File) -> Result<()> {
        self.user(move || file.close())?;
        self.remove_ghosts()?;
        Ok(self.unload_lingering()?)
    }
}
