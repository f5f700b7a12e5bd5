// SPDX-License-Identifier: MIT OR Apache-2.0

//! Signal handling on x86-64 Linux.
//!
//! What the handler may touch: [`ACTIVE`] (a constant-initialised thread-local
//! without destructor, so a plain load relative to FS), the [`Active`] it points
//! to, and the thread's [`Record`], allocated beforehand.

use std::cell::{Cell, OnceCell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::{self, MaybeUninit};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use corosensei::trap::{CoroutineTrapHandler, TrapHandlerRegs};

#[path = "watch.rs"]
mod watchdog;

pub(crate) use watchdog::{runs, watch};

use super::{
    Abandoned, Coroutine, Fault, RawFault, Registers, Resumed, Stack, TRAP_WATCHDOG, resumed,
};
use crate::count::Next;
use crate::memory::{Mapping, PAGE_SIZE, Protection};

/// How much of a stack is kept for the backtrace: more than any kernel stack has.
const STACK_COPY: usize = 1 << 20;
/// The signal handler's own stack; the system puts the vector registers there too.
const SIGNAL_STACK: usize = 64 << 10;

/// The processor stops after each instruction.
const TRAP_FLAG: i64 = 1 << 8;

const SIGNALS: [c_int; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
];

/// Who handled each of [`SIGNALS`] before.
static PREVIOUS: OnceLock<Result<[libc::sigaction; SIGNALS.len()], i32>> = OnceLock::new();

thread_local! {
    /// The coroutine that this thread is running now.
    static ACTIVE: Cell<*const Active> = const { Cell::new(ptr::null()) };
    static THREAD: OnceCell<Thread> = const { OnceCell::new() };
}

/// The coroutine being run, on the stack of [`resume`].
struct Active {
    trap: *const c_void,
    in_bounds: unsafe fn(*const c_void, usize) -> bool,
    redirect: unsafe fn(*const c_void) -> TrapHandlerRegs,
    host_stack: (usize, usize),
    record: NonNull<Record>,
    faulted: Cell<bool>,
}

/// Where the handler leaves what it saw.
struct Record {
    signal: c_int,
    address: usize,
    registers: [i64; 23],
    stack: (usize, usize),
    copied_from: usize,
    copied: usize,
    copy: Mapping,
}

/// What a thread needs to take signals while a coroutine overflows its stack.
struct Thread {
    signal_stack: Mapping,
    record: Box<UnsafeCell<Record>>,
    host_stack: (usize, usize),
}

/// Takes over the fault signals of the process, once; [`resume`] does it too.
///
/// # Errors
/// The system's, if it refuses a signal handler.
pub fn install() -> io::Result<()> {
    match PREVIOUS.get_or_init(take_over) {
        Ok(_) => Ok(()),
        Err(code) => Err(io::Error::from_raw_os_error(*code)),
    }
}

/// Resumes `coroutine`, and turns a processor fault in it into [`Resumed::Fault`].
///
/// After a fault the coroutine is done: its stack is gone without running
/// destructors, and resuming it again panics. A coroutine may itself call
/// `resume` on another one; the fault is the inner one's.
///
/// # Panics
/// If the system refuses the signal handler or the memory for its stack.
pub fn resume<I, Y, R: Abandoned, S: Stack>(
    coroutine: &mut Coroutine<I, Y, R, S>,
    input: I,
) -> Resumed<Y, R> {
    install().expect("the system lets a process handle its own faults");
    let (record, host_stack) = THREAD.with(|thread| {
        let thread = thread.get_or_init(|| {
            Thread::new().expect("memory for a signal stack of 64 KiB and a record")
        });
        (
            NonNull::new(thread.record.get()).expect("a box is not null"),
            thread.host_stack,
        )
    });
    let trap = coroutine.trap_handler();
    let active = Active {
        trap: (&raw const trap).cast(),
        in_bounds: in_bounds::<R>,
        redirect: redirect::<R>,
        host_stack,
        record,
        faulted: Cell::new(false),
    };
    let outer = ACTIVE.replace(&raw const active);
    runs();
    let result = coroutine.resume(input);
    ACTIVE.set(outer);
    // Volatile, because only the signal handler ever sets it.
    // SAFETY: reads our own variable.
    let faulted = unsafe { active.faulted.as_ptr().read_volatile() };
    if faulted {
        // SAFETY: the record is this thread's, and no coroutine of this thread
        // runs now that could fault and have the handler write it.
        let record = unsafe { record.as_ref() };
        Resumed::Fault(Box::new(Fault::new(record.to_raw())))
    } else {
        resumed(result)
    }
}

/// # Safety
/// `trap` points to a `CoroutineTrapHandler<R>`.
unsafe fn in_bounds<R>(trap: *const c_void, address: usize) -> bool {
    // SAFETY: passed on from the caller.
    let trap = unsafe { &*trap.cast::<CoroutineTrapHandler<R>>() };
    trap.stack_ptr_in_bounds(address)
}

/// # Safety
/// `trap` points to the `CoroutineTrapHandler<R>` of the coroutine that this
/// thread is running, and the caller makes it go on with the registers returned.
unsafe fn redirect<R: Abandoned>(trap: *const c_void) -> TrapHandlerRegs {
    // SAFETY: passed on from the caller.
    let trap = unsafe { &*trap.cast::<CoroutineTrapHandler<R>>() };
    // SAFETY: the coroutine is suspended by the signal, and its old stack
    // contents are given up. corosensei asks that the interrupted stack pointer
    // be in bounds since only then is it sure that the coroutine is running;
    // `Active::claims` knows it also for a driver that broke its stack pointer.
    unsafe { trap.setup_trap_handler(R::abandoned) }
}

impl Active {
    fn in_bounds(&self, address: usize) -> bool {
        // SAFETY: `resume` made `trap` and `in_bounds` for the same type.
        unsafe { (self.in_bounds)(self.trap, address) }
    }

    /// Whether a fault with this stack pointer is the coroutine's, and not one of
    /// host code that the coroutine called on the host's stack.
    fn claims(&self, rsp: usize) -> bool {
        let (low, high) = self.host_stack;
        self.in_bounds(rsp) || !(low..high).contains(&rsp)
    }

    /// The ends of the coroutine's stack, guard page included, found from an address
    /// in it: corosensei tells whether an address is inside, and nothing more.
    fn stack(&self, inside: usize) -> (usize, usize) {
        let edge = |forward: bool| {
            let at = |distance: usize| {
                if forward {
                    inside.checked_add(distance)
                } else {
                    inside.checked_sub(distance)
                }
            };
            let holds = |distance| at(distance).is_some_and(|address| self.in_bounds(address));
            let mut step = 1;
            while holds(step) && step < 1 << 40 {
                step *= 2;
            }
            // `known` is inside, `step` is not.
            let mut known = step / 2;
            while step - known > 1 {
                let middle = known + (step - known) / 2;
                if holds(middle) {
                    known = middle;
                } else {
                    step = middle;
                }
            }
            known
        };
        (inside - edge(false), inside + edge(true) + 1)
    }
}

extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if signal == libc::SIGTRAP && was_stepped(info, context) {
        return;
    }
    let active = ACTIVE.get();
    // SAFETY: `resume` keeps `ACTIVE` null or pointing to an `Active` that lives
    // until it is replaced; and this is the same thread.
    if let Some(active) = unsafe { active.as_ref() } {
        // SAFETY: the system passes a valid context to a handler with SA_SIGINFO.
        let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
        // SAFETY: likewise the information.
        let info = unsafe { &*info };
        if catch(active, signal, info, context) {
            return;
        }
    }
    pass_on(signal, info, context);
}

/// Whether the processor has only stopped after an instruction for
/// [`crate::count`], which then has counted it.
fn was_stepped(info: *mut libc::siginfo_t, context: *mut c_void) -> bool {
    // SAFETY: the system passes valid information to a handler with SA_SIGINFO.
    let code = unsafe { (*info).si_code };
    if code != libc::TRAP_TRACE {
        return false;
    }
    // SAFETY: likewise the context.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let registers = &mut context.uc_mcontext.gregs;
    let Ok(rip) = usize::try_from(register(registers, libc::REG_RIP)) else {
        return false;
    };
    match crate::count::stopped(rip) {
        Some(Next::Stop) => true,
        Some(Next::Run) => {
            registers[libc::REG_EFL.unsigned_abs() as usize] &= !TRAP_FLAG;
            true
        }
        None => false,
    }
}

fn catch(
    active: &Active,
    signal: c_int,
    info: &libc::siginfo_t,
    context: &mut libc::ucontext_t,
) -> bool {
    // Codes up to 0 are of signals that a process sent, not of faults.
    if info.si_code <= 0 {
        return false;
    }
    let Ok(rsp) = usize::try_from(register(&context.uc_mcontext.gregs, libc::REG_RSP)) else {
        return false;
    };
    if !active.claims(rsp) {
        return false;
    }
    // SAFETY: a fault's information has an address; for the others it is 0 or unused.
    let address = unsafe { info.si_addr() } as usize;
    abandon(active, signal, address, rsp, context);
    true
}

/// Ends the run that the watchdog's signal came into, as by a fault.
fn end_run(active: &Active, context: &mut libc::ucontext_t) {
    let registers = &mut context.uc_mcontext.gregs;
    registers[libc::REG_TRAPNO.unsigned_abs() as usize] = TRAP_WATCHDOG.cast_signed();
    if let Ok(rsp) = usize::try_from(register(registers, libc::REG_RSP)) {
        abandon(active, 0, 0, rsp, context);
    }
}

/// Records the state of the running coroutine, and makes it end.
fn abandon(
    active: &Active,
    signal: c_int,
    address: usize,
    rsp: usize,
    context: &mut libc::ucontext_t,
) {
    let registers = &mut context.uc_mcontext.gregs;
    // SAFETY: the record belongs to this thread, which is here and nowhere else.
    let record = unsafe { &mut *active.record.as_ptr() };
    record.signal = signal;
    record.address = address;
    record.registers = *registers;
    record.stack = (0, 0);
    record.copied = 0;
    let inside = [rsp, address]
        .into_iter()
        .find(|&address| active.in_bounds(address));
    if let Some(inside) = inside {
        let (limit, base) = active.stack(inside);
        record.stack = (limit + PAGE_SIZE, base);
        let from = if active.in_bounds(rsp) { rsp } else { limit };
        record.keep_stack(from.max(limit + PAGE_SIZE), base);
    }
    // SAFETY: the coroutine is the one that is running, since `ACTIVE` names it
    // and it claims the fault; the registers are set below.
    let to = unsafe { (active.redirect)(active.trap) };
    let TrapHandlerRegs {
        rip,
        rsp,
        rbp,
        rdi,
        rsi,
    } = to;
    for (index, value) in [
        (libc::REG_RIP, rip),
        (libc::REG_RSP, rsp),
        (libc::REG_RBP, rbp),
        (libc::REG_RDI, rdi),
        (libc::REG_RSI, rsi),
    ] {
        registers[index.unsigned_abs() as usize] = value.cast_signed();
    }
    // Trap, direction and alignment-check flag: the ABI wants them clear.
    registers[libc::REG_EFL.unsigned_abs() as usize] &= !(TRAP_FLAG | 1 << 10 | 1 << 18);
    // SAFETY: the system gives the floating-point state of the context, or null.
    if let Some(float) = unsafe { context.uc_mcontext.fpregs.as_mut() } {
        float.mxcsr = 0x1F80;
        float.cwd = 0x037F;
        float.swd = 0;
    }
    active.faulted.set(true);
}

fn register(registers: &[i64; 23], index: c_int) -> u64 {
    registers[index.unsigned_abs() as usize].cast_unsigned()
}

/// Gives the signal to whoever had it before, as if we were not there.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let previous = SIGNALS
        .iter()
        .position(|&ours| ours == signal)
        .zip(PREVIOUS.get().and_then(|previous| previous.as_ref().ok()))
        .map(|(index, previous)| previous[index]);
    let handler = previous.map_or(libc::SIG_DFL, |previous| previous.sa_sigaction);
    let flags = previous.map_or(0, |previous| previous.sa_flags);
    if handler == libc::SIG_IGN {
        return;
    }
    if handler == libc::SIG_DFL {
        // SAFETY: an all-zero sigaction is the default action.
        let default: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: gives the system's own handling back. A fault repeats itself when
        // this handler returns; a trap or a sent signal does not, hence the raise.
        unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
        // SAFETY: raises a signal that is blocked until the handler returns.
        unsafe { libc::raise(signal) };
        return;
    }
    if flags & libc::SA_SIGINFO == 0 {
        // SAFETY: without SA_SIGINFO the address is that of a one-argument handler.
        let handler: extern "C" fn(c_int) = unsafe { mem::transmute(handler) };
        handler(signal);
    } else {
        // SAFETY: with SA_SIGINFO it is that of a three-argument handler.
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
            unsafe { mem::transmute(handler) };
        handler(signal, info, context);
    }
}

fn take_over() -> Result<[libc::sigaction; SIGNALS.len()], i32> {
    let mut previous = Vec::with_capacity(SIGNALS.len());
    for signal in SIGNALS {
        // SAFETY: an all-zero sigaction is valid.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let mut old = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: both point to structures of ours, and the handler has the
        // signature that SA_SIGINFO asks for.
        let result = unsafe { libc::sigaction(signal, &raw const action, old.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
        }
        // SAFETY: sigaction succeeded, so it filled the structure.
        previous.push(unsafe { old.assume_init() });
    }
    previous.try_into().map_err(|_| 0)
}

impl Record {
    fn keep_stack(&mut self, from: usize, to: usize) {
        let len = to.saturating_sub(from).min(self.copy.len());
        let source: *const u8 = ptr::with_exposed_provenance(from);
        // SAFETY: the source is a part of the coroutine's stack without its guard
        // page, which stays mapped while the coroutine exists; the copy is ours.
        unsafe { ptr::copy_nonoverlapping(source, self.copy.base().as_ptr(), len) };
        self.copied_from = from;
        self.copied = len;
    }

    fn to_raw(&self) -> RawFault {
        let get = |index| register(&self.registers, index);
        // SAFETY: the handler wrote that many bytes of the copy.
        let bytes = unsafe { std::slice::from_raw_parts(self.copy.base().as_ptr(), self.copied) };
        RawFault {
            signal: self.signal,
            address: self.address as u64,
            trap: get(libc::REG_TRAPNO),
            error: get(libc::REG_ERR),
            registers: Registers {
                rip: get(libc::REG_RIP),
                rsp: get(libc::REG_RSP),
                rbp: get(libc::REG_RBP),
                rax: get(libc::REG_RAX),
                rbx: get(libc::REG_RBX),
                rcx: get(libc::REG_RCX),
                rdx: get(libc::REG_RDX),
                rsi: get(libc::REG_RSI),
                rdi: get(libc::REG_RDI),
                r8: get(libc::REG_R8),
                r9: get(libc::REG_R9),
                r10: get(libc::REG_R10),
                r11: get(libc::REG_R11),
                r12: get(libc::REG_R12),
                r13: get(libc::REG_R13),
                r14: get(libc::REG_R14),
                r15: get(libc::REG_R15),
                rflags: get(libc::REG_EFL),
            },
            stack: (self.stack.0 as u64, self.stack.1 as u64),
            stack_start: self.copied_from as u64,
            stack_bytes: bytes.to_vec(),
        }
    }
}

impl Thread {
    fn new() -> io::Result<Self> {
        // A page at the bottom stays inaccessible.
        let mut signal_stack = Mapping::reserve(SIGNAL_STACK + PAGE_SIZE)?;
        signal_stack.protect(PAGE_SIZE..SIGNAL_STACK + PAGE_SIZE, Protection::ReadWrite)?;
        let mut copy = Mapping::reserve(STACK_COPY)?;
        copy.protect(0..STACK_COPY, Protection::ReadWrite)?;
        let stack = libc::stack_t {
            ss_sp: signal_stack.base().as_ptr().wrapping_add(PAGE_SIZE).cast(),
            ss_flags: 0,
            ss_size: SIGNAL_STACK,
        };
        // SAFETY: the stack is mapped until `drop` takes it away from the system.
        if unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            signal_stack,
            record: Box::new(UnsafeCell::new(Record {
                signal: 0,
                address: 0,
                registers: [0; 23],
                stack: (0, 0),
                copied_from: 0,
                copied: 0,
                copy,
            })),
            host_stack: host_stack()?,
        })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let mut current = MaybeUninit::<libc::stack_t>::uninit();
        // SAFETY: asks for the current signal stack.
        if unsafe { libc::sigaltstack(ptr::null(), current.as_mut_ptr()) } != 0 {
            return;
        }
        // SAFETY: the call succeeded, so it filled the structure.
        let mut current = unsafe { current.assume_init() };
        if self
            .signal_stack
            .addresses()
            .contains(&(current.ss_sp as usize))
        {
            current.ss_flags = libc::SS_DISABLE;
            // SAFETY: takes the signal stack away before it is unmapped.
            unsafe { libc::sigaltstack(&raw const current, ptr::null_mut()) };
        }
    }
}

/// The range of the stack that the operating system gave this thread.
fn host_stack() -> io::Result<(usize, usize)> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: always valid.
    let me = unsafe { libc::pthread_self() };
    // SAFETY: fills the attributes of the calling thread.
    let code = unsafe { libc::pthread_getattr_np(me, attributes.as_mut_ptr()) };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    let mut low = ptr::null_mut();
    let mut size = 0;
    // SAFETY: the attributes were filled above.
    let code =
        unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut low, &raw mut size) };
    // SAFETY: they are not used any more.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    let low = low as usize;
    Ok((low, low + size))
}
