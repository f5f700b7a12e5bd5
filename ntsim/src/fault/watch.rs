// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stops a driver that runs on and on without a call.
//!
//! A timer of the operating system ticks with the processor time of the thread,
//! so that a machine that is busy otherwise, or a debugger that holds the
//! process, stops nobody. The handler looks whether the coroutine has been the
//! same run without a call since the last [`STRIKES`] ticks; if so, it makes the run
//! end as by a fault.
//!
//! ```text
//!  call: RUNS += 1              tick          tick    …     tick
//!  ──────────┬──────────────────┼─────────────┼─────────────┼──► processor time
//!            └ driver: for (;;);  RUNS is the same: strike 1, 2, … STRIKES: out
//! ```
//!
//! A linked-in driver may be interrupted inside of the host's libraries, which hold
//! locks (the allocator's). It is not stopped there but at a later tick.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::{self, MaybeUninit};
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;
use std::time::Duration;

use super::{ACTIVE, end_run};

/// How many ticks a limit has.
const STRIKES: u32 = 4;
/// Nothing else of ntsim or of Rust's library uses it.
const SIGNAL: c_int = libc::SIGVTALRM;

thread_local! {
    /// How often a coroutine of this thread began to run or made a call.
    static RUNS: Cell<u64> = const { Cell::new(0) };
    /// That number at the last tick.
    static SEEN: Cell<u64> = const { Cell::new(0) };
    /// Ticks since then.
    static STRIKE: Cell<u32> = const { Cell::new(0) };
    /// The limit that the timer runs for.
    static LIMIT: Cell<Option<Duration>> = const { Cell::new(None) };
    static TIMER: Timer = const { Timer(Cell::new(None)) };
}

/// Where the code of the shared libraries is.
static LIBRARIES: OnceLock<Vec<Range<usize>>> = OnceLock::new();

struct Timer(Cell<Option<libc::timer_t>>);

/// Notes that a coroutine runs from here, or made a call.
#[inline]
pub(crate) fn runs() {
    RUNS.set(RUNS.get().wrapping_add(1));
}

/// From now on, ends coroutines of this thread that run for longer without
/// suspending themselves.
///
/// # Panics
/// If the system refuses a timer.
#[inline]
pub(crate) fn watch(limit: Option<Duration>) {
    if LIMIT.get() != limit {
        change(limit);
    }
}

#[cold]
fn change(limit: Option<Duration>) {
    LIBRARIES.get_or_init(libraries);
    let timer = TIMER.with(|timer| {
        let made = timer.0.get().unwrap_or_else(make);
        timer.0.set(Some(made));
        made
    });
    let tick = limit.map_or(Duration::ZERO, |limit| {
        (limit / STRIKES).max(Duration::from_millis(1))
    });
    let tick = libc::timespec {
        tv_sec: libc::time_t::try_from(tick.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: tick.subsec_nanos().into(),
    };
    let setting = libc::itimerspec {
        it_interval: tick,
        it_value: tick,
    };
    // SAFETY: the timer is this thread's, and the setting is ours.
    let result = unsafe { libc::timer_settime(timer, 0, &raw const setting, ptr::null_mut()) };
    assert_eq!(result, 0, "the system sets a timer that it made");
    STRIKE.set(0);
    LIMIT.set(limit);
}

/// A timer that signals the calling thread, after the handler is in place.
fn make() -> libc::timer_t {
    // SAFETY: an all-zero sigaction is valid.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = tick as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for.
    let result = unsafe { libc::sigaction(SIGNAL, &raw const action, ptr::null_mut()) };
    assert_eq!(
        result, 0,
        "the system lets a process handle its own signals"
    );
    // SAFETY: an all-zero sigevent is valid.
    let mut event: libc::sigevent = unsafe { mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = SIGNAL;
    // SAFETY: always valid.
    event.sigev_notify_thread_id = unsafe { libc::gettid() };
    let mut timer = MaybeUninit::<libc::timer_t>::uninit();
    // SAFETY: both point to structures of ours.
    let result = unsafe {
        libc::timer_create(
            libc::CLOCK_THREAD_CPUTIME_ID,
            &raw mut event,
            timer.as_mut_ptr(),
        )
    };
    assert_eq!(result, 0, "the system has a timer for each thread");
    // SAFETY: the call succeeded, so it filled the variable.
    unsafe { timer.assume_init() }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(timer) = self.0.take() {
            // SAFETY: this thread made it, and nobody uses it any more.
            unsafe { libc::timer_delete(timer) };
        }
    }
}

extern "C" fn tick(_signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes valid information to a handler with SA_SIGINFO.
    if unsafe { (*info).si_code } != libc::SI_TIMER {
        return;
    }
    let runs = RUNS.get();
    if SEEN.replace(runs) != runs {
        STRIKE.set(0);
        return;
    }
    let strike = STRIKE.get().saturating_add(1);
    STRIKE.set(strike);
    if strike < STRIKES {
        return;
    }
    // SAFETY: `resume` keeps `ACTIVE` null or pointing to an `Active` that lives
    // until it is replaced; and this is the same thread.
    let Some(active) = (unsafe { ACTIVE.get().as_ref() }) else {
        return;
    };
    // SAFETY: the system passes a valid context to a handler with SA_SIGINFO.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let at = |index: c_int| super::register(&context.uc_mcontext.gregs, index);
    let (Ok(rip), Ok(rsp)) = (
        usize::try_from(at(libc::REG_RIP)),
        usize::try_from(at(libc::REG_RSP)),
    ) else {
        return;
    };
    let in_library = LIBRARIES
        .get()
        .is_none_or(|all| all.iter().any(|range| range.contains(&rip)));
    if in_library || !active.in_bounds(rsp) {
        return;
    }
    STRIKE.set(0);
    end_run(active, context);
}

/// The executable segments of everything but the program itself.
fn libraries() -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    // SAFETY: the callback gets our vector back and the call ends before it does.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut ranges).cast()) };
    ranges
}

/// # Safety
/// `info` is a valid description of a module, `ranges` points to the vector of `libraries()`.
unsafe extern "C" fn collect(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    ranges: *mut c_void,
) -> c_int {
    // SAFETY: passed on from the caller.
    let info = unsafe { &*info };
    // SAFETY: likewise.
    let ranges = unsafe { &mut *ranges.cast::<Vec<Range<usize>>>() };
    // SAFETY: the name is a string, or null.
    let named = !info.dlpi_name.is_null() && unsafe { *info.dlpi_name } != 0;
    // The program itself has no name.
    if !named || info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the dynamic linker gives that many program headers.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    for header in headers {
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0 {
            let start = usize::try_from(info.dlpi_addr + header.p_vaddr).unwrap_or(usize::MAX);
            let size = usize::try_from(header.p_memsz).unwrap_or(0);
            ranges.push(start..start.saturating_add(size));
        }
    }
    0
}
