// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faults of driver code, turned into values.
//!
//! A driver runs as machine code of this process, inside a coroutine. When it
//! dereferences a stray pointer, runs `int3` or `cli`, or overflows its stack,
//! the processor faults and the system sends a signal. [`resume`] runs a
//! coroutine such that this ends the *coroutine* and comes back as a
//! [`Fault`]; a fault anywhere else goes to whoever handled it before.
//!
//! # Vocabulary
//!
//! - *claimed*: a fault between [`resume`] and the coroutine's next suspension,
//!   with the stack pointer not on the host thread's own stack.
//! - *abandoned*: a coroutine whose stack was thrown away by a fault. It counts as
//!   finished; destructors of what was on its stack do not run.
//!
//! # How
//!
//! ```text
//!  scheduler               coroutine              signal handler (own stack)
//!  resume ───────────────▶ driver code
//!                          fault ───────────────▶ registers → record
//!                                                 stack bytes → record
//!                          R::abandoned() ◀────── rip, rsp := trap handler
//!  Resumed::Fault ◀─────── return
//!  classify, symbolise
//! ```
//!
//! The handler copies and redirects, nothing else: no allocation, no lock, no
//! decoding. The copy of the stack is what backtraces are made from later,
//! since returning from the coroutine overwrites the outermost frames.
//!
//! On anything but x86-64 Linux, [`resume`] runs the coroutine unguarded.

use std::fmt;

use corosensei::stack::Stack;
use corosensei::{Coroutine, CoroutineResult};
use iced_x86::{Code, Decoder, DecoderOptions, FastFormatter, Instruction, OpAccess, Register};

use crate::image::Loaded;
use crate::image::unwind::Unwinder;
use crate::memory;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "fault/linux.rs"]
mod system;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[path = "fault/unguarded.rs"]
mod system;

pub use system::{install, resume};
pub(crate) use system::{runs, watch};

/// The result type of a guarded coroutine: it needs a value for "ended by a fault".
///
/// The value is made on the abandoned coroutine's stack, so it must not
/// allocate or panic; a unit variant is right.
pub trait Abandoned: 'static {
    /// The value a coroutine returns when a fault ended it. [`resume`] replaces
    /// it with [`Resumed::Fault`], nobody sees it.
    fn abandoned() -> Self;
}

impl Abandoned for () {
    fn abandoned() -> Self {}
}

/// What became of a coroutine that was resumed.
#[derive(Debug)]
#[must_use]
pub enum Resumed<Yield, Return> {
    /// It suspended itself.
    Yield(Yield),
    /// It ran to its end.
    Return(Return),
    /// A fault ended it.
    Fault(Box<Fault>),
}

/// A processor fault in driver code.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// The registers at the faulting instruction (for a breakpoint, at the `int3` itself).
    pub registers: Registers,
    /// The faulting instruction, if its bytes could be read: `mov rax,[rcx+10h]`.
    pub instruction: Option<String>,
    raw: RawFault,
}

/// What a driver did that the processor refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// It touched memory that is not there, or not for this kind of access.
    AccessViolation {
        /// The address that was accessed.
        address: u64,
        /// What it did with the address.
        access: Access,
    },
    /// It touched memory through the GS segment (the KPCR), which ntsim does not have.
    ProcessorControlRegion {
        /// The offset in the KPCR.
        offset: u64,
        /// What it did there.
        access: Access,
    },
    /// An aligned SSE access to an address that is not aligned.
    Misaligned {
        /// The address.
        address: u64,
    },
    /// `int3`.
    Breakpoint,
    /// An instruction that only runs in ring 0, such as `cli`, `hlt` or `mov cr8`.
    PrivilegedInstruction,
    /// An undefined instruction; `ud2` is what compilers emit for unreachable code and aborts.
    IllegalInstruction,
    /// The kernel stack is used up.
    StackOverflow {
        /// The address in the guard page.
        address: u64,
    },
    /// Division by zero, or a quotient that does not fit.
    Divide,
    /// A floating-point exception that the driver had unmasked.
    FloatingPoint,
    /// `int 29h`, `__fastfail`: the driver found itself corrupt.
    FastFail {
        /// The reason, from RCX.
        code: u64,
    },
    /// `int 2Ch`: a failed assertion (`NT_ASSERT`).
    Assertion,
    /// `int 2Dh`: a request to the kernel debugger (`DbgPrint` of the debug service).
    DebugService,
    /// No fault: it ran for too long without a call, and was stopped.
    Watchdog,
    /// Another software interrupt.
    Interrupt {
        /// The vector.
        vector: u8,
    },
    /// Something else that the processor or the system calls an error.
    Other {
        /// The signal number.
        signal: i32,
        /// The processor's trap number.
        trap: u64,
    },
}

/// The kind of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch: a call or jump to this address.
    Execute,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "reads",
            Self::Write => "writes",
            Self::Execute => "executes",
        })
    }
}

/// The general-purpose registers of x86-64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the processor's own names")]
pub struct Registers {
    pub rip: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rflags: u64,
}

impl Registers {
    /// Captures what an unwinder needs, at the place of the call: `rip`, `rsp` and the
    /// registers that a callee must preserve. The others are 0.
    ///
    /// A few nanoseconds; for the entry of each simulated kernel call, so that
    /// a bug check raised while the coroutine is suspended has a backtrace.
    #[must_use]
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "a frame of its own would be gone when the result is used"
    )]
    pub fn here() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let mut registers = Self::default();
            let saved: *mut Self = &raw mut registers;
            // SAFETY: stores the registers into our own variable and changes nothing else.
            unsafe {
                std::arch::asm!(
                    "mov [{to} + {rbx}], rbx",
                    "mov [{to} + {rbp}], rbp",
                    "mov [{to} + {rsp}], rsp",
                    "mov [{to} + {r12}], r12",
                    "mov [{to} + {r13}], r13",
                    "mov [{to} + {r14}], r14",
                    "mov [{to} + {r15}], r15",
                    "lea {scratch}, [rip]",
                    "mov [{to} + {rip}], {scratch}",
                    to = in(reg) saved,
                    scratch = out(reg) _,
                    rip = const std::mem::offset_of!(Self, rip),
                    rsp = const std::mem::offset_of!(Self, rsp),
                    rbp = const std::mem::offset_of!(Self, rbp),
                    rbx = const std::mem::offset_of!(Self, rbx),
                    r12 = const std::mem::offset_of!(Self, r12),
                    r13 = const std::mem::offset_of!(Self, r13),
                    r14 = const std::mem::offset_of!(Self, r14),
                    r15 = const std::mem::offset_of!(Self, r15),
                    options(nostack, preserves_flags),
                );
            }
            registers
        }
        #[cfg(not(target_arch = "x86_64"))]
        Self::default()
    }

    fn get(&self, register: Register) -> Option<u64> {
        let full = match register.full_register() {
            Register::RAX => self.rax,
            Register::RBX => self.rbx,
            Register::RCX => self.rcx,
            Register::RDX => self.rdx,
            Register::RSI => self.rsi,
            Register::RDI => self.rdi,
            Register::RBP => self.rbp,
            Register::RSP => self.rsp,
            Register::R8 => self.r8,
            Register::R9 => self.r9,
            Register::R10 => self.r10,
            Register::R11 => self.r11,
            Register::R12 => self.r12,
            Register::R13 => self.r13,
            Register::R14 => self.r14,
            Register::R15 => self.r15,
            // Flat in 64-bit mode; GS has base 0 here, and FS is nothing a driver uses.
            Register::ES | Register::CS | Register::SS | Register::DS | Register::GS => 0,
            _ => return None,
        };
        Some(if register.size() == 4 {
            full & 0xFFFF_FFFF
        } else {
            full
        })
    }
}

/// The fault as the signal handler saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawFault {
    pub(crate) signal: i32,
    pub(crate) address: u64,
    pub(crate) trap: u64,
    pub(crate) error: u64,
    pub(crate) registers: Registers,
    /// The first address behind the guard page, and the end, of the coroutine's
    /// stack; both 0 if the stack pointer was not on it.
    pub(crate) stack: (u64, u64),
    /// Where `stack_bytes` was.
    pub(crate) stack_start: u64,
    pub(crate) stack_bytes: Vec<u8>,
}

const TRAP_DIVIDE: u64 = 0;
const TRAP_BREAKPOINT: u64 = 3;
const TRAP_INVALID_OPCODE: u64 = 6;
const TRAP_STACK_SEGMENT: u64 = 12;
const TRAP_GENERAL_PROTECTION: u64 = 13;
const TRAP_PAGE_FAULT: u64 = 14;
const TRAP_X87: u64 = 16;
const TRAP_ALIGNMENT: u64 = 17;
const TRAP_SIMD: u64 = 19;
/// No trap of the processor's: the watchdog's signal.
pub(crate) const TRAP_WATCHDOG: u64 = u64::MAX;

/// Bits of the error code that the processor pushes for a page fault.
const PAGE_FAULT_WRITE: u64 = 1 << 1;
const PAGE_FAULT_FETCH: u64 = 1 << 4;

impl Fault {
    pub(crate) fn new(raw: RawFault) -> Self {
        let mut registers = raw.registers;
        if raw.trap == TRAP_BREAKPOINT {
            // The processor reports the address behind the instruction.
            let mut before = [0];
            let short = memory::peek(address(registers.rip.wrapping_sub(1)), &mut before) == 1
                && before[0] == 0xCC;
            registers.rip = registers.rip.wrapping_sub(if short { 1 } else { 2 });
        }
        let instruction = decode(registers.rip);
        let kind = classify(&raw, &registers, instruction.as_ref());
        let instruction = instruction.map(|instruction| {
            let mut text = String::new();
            FastFormatter::new().format(&instruction, &mut text);
            text
        });
        Self {
            kind,
            registers,
            instruction,
            raw,
        }
    }

    /// The code addresses of the calls that led to the fault, innermost first;
    /// the first is the faulting instruction, the others are return addresses.
    ///
    /// Goes through frames of `images` by their `.pdata` and through frames of
    /// the host program by its `.eh_frame`, and ends at the coroutine's first frame.
    #[must_use]
    pub fn backtrace(&self, images: &[&Loaded]) -> Vec<u64> {
        let mut registers = self.registers;
        // A call to a bad address has no frame of its own: go on from the return address.
        let executed_nowhere = matches!(
            self.kind,
            FaultKind::AccessViolation {
                access: Access::Execute,
                ..
            }
        );
        let mut addresses = Vec::new();
        if executed_nowhere {
            addresses.push(registers.rip);
            let Some(caller) = self.stack_u64(registers.rsp) else {
                return addresses;
            };
            registers.rip = caller;
            registers.rsp += 8;
        }
        addresses.extend(Unwinder::new(images).walk(&registers, |address| self.stack_u64(address)));
        addresses
    }

    /// The value on the coroutine's stack at `address`, as it was when the fault happened.
    #[must_use]
    pub fn stack_u64(&self, address: u64) -> Option<u64> {
        let offset = usize::try_from(address.checked_sub(self.raw.stack_start)?).ok()?;
        let bytes = self.raw.stack_bytes.get(offset..offset.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    /// The address that the driver accessed, if the fault is about one.
    #[must_use]
    pub fn address(&self) -> Option<u64> {
        match self.kind {
            FaultKind::AccessViolation { address, .. }
            | FaultKind::Misaligned { address }
            | FaultKind::StackOverflow { address } => Some(address),
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FaultKind::AccessViolation {
                address,
                access: Access::Execute,
            } => {
                write!(
                    f,
                    "access violation: calls or jumps to {address:#x}, where no code is"
                )?;
            }
            FaultKind::AccessViolation { address, access } => {
                write!(f, "access violation: {access} {address:#x}")?;
                if address < 0x1_0000 {
                    f.write_str(" (a null pointer)")?;
                } else if !is_canonical(address) {
                    f.write_str(" (not a canonical address)")?;
                }
            }
            FaultKind::ProcessorControlRegion { offset, access } => {
                write!(
                    f,
                    "{access} gs:[{offset:#x}] (KPCR), which ntsim does not have"
                )?;
            }
            FaultKind::Misaligned { address } => {
                write!(f, "misaligned access to {address:#x}")?;
            }
            FaultKind::Breakpoint => f.write_str("breakpoint (int 3)")?,
            FaultKind::PrivilegedInstruction => f.write_str(
                "privileged instruction: only a processor in ring 0 runs it, and ntsim is none",
            )?,
            FaultKind::IllegalInstruction => f.write_str("illegal instruction")?,
            FaultKind::StackOverflow { .. } => f.write_str("kernel stack overflow")?,
            FaultKind::Divide => {
                f.write_str("division by zero, or a quotient that does not fit")?;
            }
            FaultKind::FloatingPoint => f.write_str("unmasked floating-point exception")?,
            FaultKind::FastFail { code } => write!(f, "fast fail (int 29h), code {code}")?,
            FaultKind::Assertion => f.write_str("assertion failed (int 2Ch)")?,
            FaultKind::DebugService => {
                f.write_str("debug service (int 2Dh), which ntsim does not have")?;
            }
            FaultKind::Watchdog => f.write_str("it runs on and on without a call; stopped")?,
            FaultKind::Interrupt { vector } => write!(f, "software interrupt {vector:#x}")?,
            FaultKind::Other { signal, trap } => {
                write!(f, "signal {signal}, processor trap {trap}")?;
            }
        }
        match &self.instruction {
            Some(instruction) => write!(f, " at {:#x}: {instruction}", self.registers.rip),
            None => write!(f, " at {:#x}", self.registers.rip),
        }
    }
}

fn classify(raw: &RawFault, registers: &Registers, instruction: Option<&Instruction>) -> FaultKind {
    match raw.trap {
        TRAP_WATCHDOG => FaultKind::Watchdog,
        TRAP_DIVIDE => FaultKind::Divide,
        TRAP_BREAKPOINT => FaultKind::Breakpoint,
        TRAP_INVALID_OPCODE => match instruction {
            Some(instruction) if instruction.is_privileged() => FaultKind::PrivilegedInstruction,
            _ => FaultKind::IllegalInstruction,
        },
        TRAP_X87 | TRAP_SIMD => FaultKind::FloatingPoint,
        TRAP_PAGE_FAULT => page_fault(raw, instruction),
        TRAP_GENERAL_PROTECTION | TRAP_STACK_SEGMENT | TRAP_ALIGNMENT => {
            general_protection(raw, registers, instruction)
        }
        trap => FaultKind::Other {
            signal: raw.signal,
            trap,
        },
    }
}

fn page_fault(raw: &RawFault, instruction: Option<&Instruction>) -> FaultKind {
    let address = raw.address;
    let access = if raw.error & PAGE_FAULT_FETCH != 0 {
        Access::Execute
    } else if raw.error & PAGE_FAULT_WRITE != 0 {
        Access::Write
    } else {
        Access::Read
    };
    let (stack_start, _) = raw.stack;
    let guard = stack_start.saturating_sub(memory::PAGE_SIZE as u64)..stack_start;
    if guard.contains(&address) {
        return FaultKind::StackOverflow { address };
    }
    match instruction {
        Some(instruction)
            if access != Access::Execute && instruction.segment_prefix() == Register::GS =>
        {
            FaultKind::ProcessorControlRegion {
                offset: address,
                access,
            }
        }
        _ => FaultKind::AccessViolation { address, access },
    }
}

/// A #GP does not say what it is about; the instruction does.
fn general_protection(
    raw: &RawFault,
    registers: &Registers,
    instruction: Option<&Instruction>,
) -> FaultKind {
    // A selector error with the IDT bit: `int n` through a gate that ring 3 may not use.
    if raw.trap == TRAP_GENERAL_PROTECTION && raw.error & 2 != 0 {
        return match (raw.error >> 3) & 0xFF {
            0x29 => FaultKind::FastFail {
                code: registers.rcx,
            },
            0x2C => FaultKind::Assertion,
            0x2D => FaultKind::DebugService,
            vector => FaultKind::Interrupt {
                vector: u8::try_from(vector).unwrap_or(u8::MAX),
            },
        };
    }
    let other = FaultKind::Other {
        signal: raw.signal,
        trap: raw.trap,
    };
    let Some(instruction) = instruction else {
        return other;
    };
    if instruction.is_privileged() {
        return FaultKind::PrivilegedInstruction;
    }
    let mut info = iced_x86::InstructionInfoFactory::new();
    let mut found = None;
    for used in info.info(instruction).used_memory() {
        let value = |register, _, _| registers.get(register);
        let Some(address) = used.try_virtual_address(0, value) else {
            continue;
        };
        let access = match used.access() {
            OpAccess::Write
            | OpAccess::CondWrite
            | OpAccess::ReadWrite
            | OpAccess::ReadCondWrite => Access::Write,
            OpAccess::Read | OpAccess::CondRead => Access::Read,
            _ => continue,
        };
        if !is_canonical(address) {
            return FaultKind::AccessViolation { address, access };
        }
        let size = used.memory_size().size() as u64;
        if size >= 16 && !address.is_multiple_of(size) {
            found = Some(FaultKind::Misaligned { address });
        }
    }
    if let Some(kind) = found {
        return kind;
    }
    // `call rax` with a non-canonical target faults at the call itself, `ret` likewise.
    match target(raw, registers, instruction) {
        Some(address) if !is_canonical(address) => FaultKind::AccessViolation {
            address,
            access: Access::Execute,
        },
        _ => other,
    }
}

fn target(raw: &RawFault, registers: &Registers, instruction: &Instruction) -> Option<u64> {
    match instruction.code() {
        Code::Call_rm64 | Code::Jmp_rm64
            if instruction.op0_kind() == iced_x86::OpKind::Register =>
        {
            registers.get(instruction.op0_register())
        }
        Code::Call_rm64 | Code::Jmp_rm64 => {
            let at =
                instruction.try_virtual_address(0, 0, |register, _, _| registers.get(register))?;
            memory::peek_u64(address(at))
        }
        Code::Retnq | Code::Retnq_imm16 => {
            let offset = usize::try_from(registers.rsp.checked_sub(raw.stack_start)?).ok()?;
            let bytes = raw.stack_bytes.get(offset..offset.checked_add(8)?)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        }
        _ => None,
    }
}

fn decode(rip: u64) -> Option<Instruction> {
    let mut bytes = [0; 15];
    let readable = memory::peek(address(rip), &mut bytes);
    let mut decoder = Decoder::with_ip(64, &bytes[..readable], rip, DecoderOptions::NONE);
    decoder
        .can_decode()
        .then(|| decoder.decode())
        .filter(|instruction| !instruction.is_invalid())
}

fn is_canonical(address: u64) -> bool {
    let sign = address.cast_signed() >> 47;
    sign == 0 || sign == -1
}

fn address(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Shared by the guarded and the unguarded implementation.
fn resumed<Y, R>(result: CoroutineResult<Y, R>) -> Resumed<Y, R> {
    match result {
        CoroutineResult::Yield(value) => Resumed::Yield(value),
        CoroutineResult::Return(value) => Resumed::Return(value),
    }
}
