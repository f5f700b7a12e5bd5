// SPDX-License-Identifier: MIT OR Apache-2.0

//! I/O requests on their way from a user's thread to a driver and back.
//!
//! An [`Irp`] here is what `IRP` and its stack location are to a driver, less
//! their layout: drivers of the framework see it as a `WDFREQUEST`.
//!
//! ```text
//!   begin ──► with the framework (queued or the driver's) ──► completed ──► taken by the user
//!                             │      ▲
//!                      cancel └──────┘ only asks
//! ```
//!
//! Buffers follow the transfer method: with buffered I/O the driver works on a
//! system buffer, of which the first `Information` bytes go back to the user
//! when the request does not fail; with direct I/O it works on the user's own
//! pages, so what it writes is there whatever the status says.
//! See <https://learn.microsoft.com/windows-hardware/drivers/kernel/methods-for-accessing-data-buffers>.

use std::collections::BTreeMap;

use crate::access::{peek_bytes, poke_bytes};
use crate::kernel::Kernel;
use crate::memory::Fill;
use crate::wdf::io_target::flight::FlightId;
use crate::wdf::object::{FRAMEWORK_TAG, Handle};

/// Names a request for as long as the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct IrpId(u32);

impl IrpId {
    /// Of no request.
    pub(crate) const NONE: Self = Self(0);
}

/// Names an open file for as long as the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId(pub(crate) u32);

/// What a request asks for; the numbers are `WDF_REQUEST_TYPE`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Create = 0,
    Read = 3,
    Write = 4,
    DeviceControl = 14,
    InternalDeviceControl = 15,
}

/// How the driver gets at a request's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Buffered,
    Direct,
    Neither,
}

/// A buffer that a driver works on; at address 0 there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Buffer {
    pub(crate) address: usize,
    pub(crate) length: usize,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) status: i32,
    pub(crate) information: usize,
    pub(crate) data: Vec<u8>,
}

/// A request.
pub(crate) struct Irp {
    pub(crate) file: FileId,
    /// The device it is for.
    pub(crate) device: Handle,
    pub(crate) kind: Kind,
    pub(crate) code: u32,
    pub(crate) method: Method,
    pub(crate) input: Buffer,
    pub(crate) output: Buffer,
    /// The block of memory behind the buffers; both may be in one.
    blocks: Vec<Buffer>,
    /// Its `WDFREQUEST`.
    pub(crate) request: Option<Handle>,
    pub(crate) cancelled: bool,
    pub(crate) completion: Option<Completion>,
    /// Which sending of another driver's brought it; none for a user's.
    pub(crate) flight: Option<FlightId>,
}

/// A file that a user opened.
pub(crate) struct OpenFile {
    pub(crate) device: Handle,
    /// Its `WDFFILEOBJECT`.
    pub(crate) object: Option<Handle>,
    /// Requests that are not completed.
    pub(crate) outstanding: u32,
    pub(crate) cleaned_up: bool,
    pub(crate) closed: bool,
}

/// Requests and files.
#[derive(Default)]
pub(crate) struct Irps {
    next: u32,
    next_file: u32,
    live: BTreeMap<IrpId, Irp>,
    files: BTreeMap<FileId, OpenFile>,
}

/// What a user asks of a file.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Create,
    Read(usize),
    Write(Vec<u8>),
    Control {
        code: u32,
        input: Vec<u8>,
        /// The caller's second buffer, as it is at first.
        output: Vec<u8>,
        /// From a driver above.
        internal: bool,
    },
}

const METHOD_BUFFERED: u32 = 0;
const METHOD_IN_DIRECT: u32 = 1;
const METHOD_NEITHER: u32 = 3;

fn block(k: &mut Kernel, length: usize, blocks: &mut Vec<Buffer>) -> Buffer {
    if length == 0 {
        return Buffer::default();
    }
    // Not zeroed, as Windows does not: a driver that says it wrote more than it
    // did gives the system's memory away.
    let address =
        crate::wdf::request::allocate_buffer(k, length, Fill::Uninitialised, FRAMEWORK_TAG);
    let buffer = Buffer { address, length };
    blocks.push(buffer);
    buffer
}

impl Irp {
    /// Has the memory go when the request does.
    pub(crate) fn keep(&mut self, memory: Buffer) {
        self.blocks.push(memory);
    }

    /// The pages that are the caller's own: of a direct read, write or control code.
    pub(crate) fn callers_pages(&self) -> Option<Buffer> {
        let buffer = if self.kind == Kind::Write {
            self.input
        } else {
            self.output
        };
        (self.method == Method::Direct && buffer.address != 0).then_some(buffer)
    }
}

/// Makes a request for the device of `file`.
pub(crate) fn begin(k: &mut Kernel, file: FileId, ask: &Ask, direct: bool) -> IrpId {
    let device = k.io.irps.files[&file].device;
    let mut blocks = Vec::new();
    let transfer = if direct {
        Method::Direct
    } else {
        Method::Buffered
    };
    let (kind, code, method, input, output) = match ask {
        Ask::Create => (
            Kind::Create,
            0,
            Method::Buffered,
            Buffer::default(),
            Buffer::default(),
        ),
        Ask::Read(length) => {
            let output = block(k, *length, &mut blocks);
            (Kind::Read, 0, transfer, Buffer::default(), output)
        }
        Ask::Write(bytes) => {
            let input = block(k, bytes.len(), &mut blocks);
            poke_bytes(input.address as *mut u8, bytes);
            (Kind::Write, 0, transfer, input, Buffer::default())
        }
        Ask::Control {
            code,
            input,
            output,
            internal,
        } => {
            let (method, from, to) = match code & 3 {
                METHOD_BUFFERED => {
                    // One buffer holds first the input, then the output.
                    let whole = block(k, input.len().max(output.len()), &mut blocks);
                    poke_bytes(whole.address as *mut u8, input);
                    (
                        Method::Buffered,
                        Buffer {
                            length: input.len(),
                            ..whole
                        },
                        Buffer {
                            length: output.len(),
                            ..whole
                        },
                    )
                }
                METHOD_NEITHER => (
                    Method::Neither,
                    Buffer {
                        address: 0,
                        length: input.len(),
                    },
                    Buffer {
                        address: 0,
                        length: output.len(),
                    },
                ),
                direct => {
                    let from = block(k, input.len(), &mut blocks);
                    poke_bytes(from.address as *mut u8, input);
                    let to = block(k, output.len(), &mut blocks);
                    poke_bytes(to.address as *mut u8, output);
                    debug_assert!(direct >= METHOD_IN_DIRECT);
                    (Method::Direct, from, to)
                }
            };
            let kind = if *internal {
                Kind::InternalDeviceControl
            } else {
                Kind::DeviceControl
            };
            (kind, *code, method, from, to)
        }
    };
    k.io.irps.next += 1;
    let id = IrpId(k.io.irps.next);
    let irp = Irp {
        file,
        device,
        kind,
        code,
        method,
        input,
        output,
        blocks,
        request: None,
        cancelled: false,
        completion: None,
        flight: None,
    };
    k.io.irps.live.insert(id, irp);
    k.io.irps.file_mut(file).outstanding += 1;
    id
}

impl Irps {
    /// The request of this name, until the user takes its completion.
    pub(crate) fn find(&mut self, id: IrpId) -> Option<&mut Irp> {
        self.live.get_mut(&id)
    }

    /// A request that the framework works on.
    pub(crate) fn get(&mut self, id: IrpId) -> &mut Irp {
        self.live
            .get_mut(&id)
            .expect("a request is in the table until it is completed")
    }

    /// Takes the completion of a request that has one; nothing is left of the request.
    pub(crate) fn take(&mut self, id: IrpId) -> Option<Completion> {
        self.live.get(&id)?.completion.as_ref()?;
        self.live.remove(&id)?.completion
    }

    /// Opens a file.
    pub(crate) fn add_file(&mut self, device: Handle) -> FileId {
        self.next_file += 1;
        let id = FileId(self.next_file);
        self.files.insert(
            id,
            OpenFile {
                device,
                object: None,
                outstanding: 0,
                cleaned_up: false,
                closed: false,
            },
        );
        id
    }

    /// Opens a file that does not hold its device, as a driver's pointer to a
    /// device object does not.
    pub(crate) fn add_hidden_file(&mut self, device: Handle) -> FileId {
        let id = self.add_file(device);
        self.file_mut(id).closed = true;
        id
    }

    pub(crate) fn file(&self, id: FileId) -> Option<&OpenFile> {
        self.files.get(&id)
    }

    pub(crate) fn file_mut(&mut self, id: FileId) -> &mut OpenFile {
        self.files.get_mut(&id).expect("a file is in the table")
    }

    pub(crate) fn forget_file(&mut self, id: FileId) {
        self.files.remove(&id);
    }

    /// The files that users have open.
    pub(crate) fn all_open(&self) -> Vec<FileId> {
        let open = self.files.iter().filter(|(_, file)| !file.closed);
        open.map(|(id, _)| *id).collect()
    }

    /// How many files of the device are open.
    pub(crate) fn open_files(&self, device: Handle) -> usize {
        self.files
            .values()
            .filter(|file| file.device == device && !file.closed)
            .count()
    }
}

/// Ends a request: gives the user what is the user's, and the buffers back.
pub(crate) fn complete(k: &mut Kernel, id: IrpId, status: i32, information: usize) {
    /// Statuses from here on are errors (`NT_ERROR`).
    const ERROR: u32 = 0xC000_0000;
    let irp = k.io.irps.get(id);
    let (output, blocks, file) = (irp.output, std::mem::take(&mut irp.blocks), irp.file);
    let length = match irp.method {
        Method::Buffered if status.cast_unsigned() >= ERROR => 0,
        Method::Buffered | Method::Direct if output.address != 0 => information.min(output.length),
        _ => 0,
    };
    let data = if length == 0 {
        Vec::new()
    } else {
        peek_bytes(output.address as *const u8, length)
    };
    for block in blocks {
        crate::wdf::object::free_memory(k, block.address, block.length);
    }
    let irp = k.io.irps.get(id);
    irp.request = None;
    irp.completion = Some(Completion {
        status,
        information,
        data,
    });
    k.io.irps.file_mut(file).outstanding -= 1;
    crate::wdf::wake(k);
}
