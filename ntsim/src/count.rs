// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counting the instructions that a driver's image executes, one by one.
//!
//! For comparing drivers without a clock: the counts of one seed are the same on
//! every run. Only instructions inside of an image count. What the simulator does
//! in the driver's place, and what it does between two calls, does not.
//!
//! # How
//!
//! The processor stops after each instruction while its trap flag is set, and
//! the system sends `SIGTRAP`. Stopping is slow (about a microsecond), so it is
//! on only between a door into the image and the next door out of it:
//!
//! ```text
//!            approach(): sets the flag            first instruction inside
//!   outside ─────────────────────────► approaching ──────────────────────► inside
//!      ▲                                                                   │ ▲ │ counted
//!      │               first instruction outside: clears the flag          │ └─┘
//!      └───────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The doors in are the calls of the driver's callbacks (the private module `abi`) and the
//! returns from the functions that it calls.
//!
//! A string instruction that repeats itself (`rep stosb`) stops after each
//! round, and is counted once.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

/// Instructions of one boot, by the RVA of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instructions {
    /// By image, in the order of loading; then by RVA.
    pub(crate) images: Vec<BTreeMap<u32, u64>>,
}

impl Instructions {
    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.images.iter().flat_map(BTreeMap::values).sum()
    }

    /// Those that came after `earlier` was taken.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let nothing = BTreeMap::new();
        let images = self.images.iter().enumerate().map(|(index, image)| {
            let before = earlier.images.get(index).unwrap_or(&nothing);
            image
                .iter()
                .map(|(rva, count)| (*rva, count - before.get(rva).copied().unwrap_or(0)))
                .filter(|(_, count)| *count > 0)
                .collect()
        });
        Self {
            images: images.collect(),
        }
    }
}

/// Counts instructions in some ranges of addresses.
#[derive(Debug)]
pub(crate) struct Counter {
    regions: Vec<Region>,
    phase: Cell<Phase>,
    /// Where the processor stopped last.
    last: Cell<usize>,
}

#[derive(Debug)]
struct Region {
    addresses: Range<usize>,
    /// For each address how often an instruction there was executed.
    counts: Vec<Cell<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The trap flag is clear.
    Outside,
    /// The flag is set, and the way into an image is not over.
    Approaching,
    /// The instruction that comes next is an image's.
    Inside,
}

/// What becomes of the trap flag after a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It stays set.
    Stop,
    /// It is cleared: the processor runs on.
    Run,
}

thread_local! {
    /// The counter of the machine that runs on this operating-system thread.
    /// Constant and without destructor, so that a signal handler may read it.
    static COUNTER: Cell<*const Counter> = const { Cell::new(std::ptr::null()) };
}

impl Counter {
    pub(crate) fn new() -> Self {
        Self {
            regions: Vec::new(),
            phase: Cell::new(Phase::Outside),
            last: Cell::new(0),
        }
    }

    /// Counts the instructions at these addresses from now on.
    pub(crate) fn add(&mut self, addresses: Range<usize>) {
        self.regions.push(Region {
            counts: vec![Cell::new(0); addresses.len()],
            addresses,
        });
    }

    /// What was counted.
    pub(crate) fn read(&self) -> Instructions {
        let images = self.regions.iter().map(|region| {
            let executed = region.counts.iter().zip(0_u32..);
            executed
                .map(|(count, rva)| (rva, count.get()))
                .filter(|(_, count)| *count > 0)
                .collect()
        });
        Instructions {
            images: images.collect(),
        }
    }

    /// The processor has stopped before the instruction at `rip`. Called by the
    /// signal handler: allocates nothing, and reads no memory but its own and
    /// that of an instruction which is about to be executed.
    fn stopped(&self, rip: usize) -> Next {
        let region = self
            .regions
            .iter()
            .find(|region| region.addresses.contains(&rip));
        let Some(region) = region else {
            if self.phase.get() == Phase::Approaching {
                return Next::Stop;
            }
            self.phase.set(Phase::Outside);
            return Next::Run;
        };
        let again = self.phase.get() == Phase::Inside && self.last.get() == rip && repeats(rip);
        if !again && let Some(count) = region.counts.get(rip - region.addresses.start) {
            count.set(count.get() + 1);
        }
        self.phase.set(Phase::Inside);
        self.last.set(rip);
        Next::Stop
    }
}

/// Whether the instruction at `rip` is a string instruction with a prefix to
/// repeat it.
fn repeats(rip: usize) -> bool {
    let byte = |index| crate::access::peek((rip + index) as *const u8);
    if !matches!(byte(0), 0xF2 | 0xF3) {
        return false;
    }
    let opcode = if matches!(byte(1), 0x40..=0x4F) {
        byte(2)
    } else {
        byte(1)
    };
    matches!(opcode, 0xA4..=0xA7 | 0xAA..=0xAF)
}

/// Uses `counter`, or none, while `action` runs drivers on this thread.
pub(crate) fn with<R>(counter: Option<&Counter>, action: impl FnOnce() -> R) -> R {
    struct Restore(*const Counter);
    impl Drop for Restore {
        fn drop(&mut self) {
            COUNTER.set(self.0);
        }
    }
    let counter = counter.map_or(std::ptr::null(), std::ptr::from_ref);
    let _restore = Restore(COUNTER.replace(counter));
    action()
}

/// The way into an image begins here: to be called as late as possible, with
/// nothing on the way that leaves this thread's stack.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "each instruction after it is a signal"
)]
pub(crate) fn approach() {
    let counter = COUNTER.get();
    if !counter.is_null() {
        start(counter);
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[inline(never)]
fn start(counter: *const Counter) {
    // SAFETY: `with` keeps the counter alive while it is the thread's.
    unsafe { &*counter }.phase.set(Phase::Approaching);
    // SAFETY: sets the trap flag and changes nothing else; the signal handler
    // takes the stops, and clears the flag when the image is left.
    unsafe {
        std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq");
    }
}

/// The call of an image's function, which [`approach`] announced, is over.
///
/// Most of the time that is known already. But a function whose last act is a
/// call leaves by a jump, and what it called returns to its caller:
///
/// ```text
///   callback ──call──► image ──jump──► WdfRequestComplete
///      ▲                                   │ approach()
///      └──────────────── return ───────────┘
/// ```
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "each instruction until then is a signal"
)]
pub(crate) fn leave() {
    // SAFETY: `with` keeps the counter alive while it is the thread's.
    if let Some(counter) = unsafe { COUNTER.get().as_ref() } {
        counter.phase.set(Phase::Outside);
    }
}

/// There is nothing to count with.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn start(_: *const Counter) {}

/// Whether instructions can be counted on this system.
pub(crate) const AVAILABLE: bool = cfg!(all(target_os = "linux", target_arch = "x86_64"));

/// The processor of this thread has stopped because of the trap flag. `None` if
/// it was not set here.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn stopped(rip: usize) -> Option<Next> {
    // SAFETY: `with` keeps the counter alive while it is the thread's.
    let counter = unsafe { COUNTER.get().as_ref() }?;
    Some(counter.stopped(rip))
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::memory::{Mapping, PAGE_SIZE, Protection};

    type Code = unsafe extern "win64" fn(extern "win64" fn(u64) -> u64, *mut u8) -> u64;

    extern "win64" fn double(value: u64) -> u64 {
        // Plenty of instructions that are not the image's.
        let result = (0..100).fold(value * 2, |sum, index| {
            std::hint::black_box(sum) + index - index
        });
        approach();
        result
    }

    /// Runs machine code that is called as `extern "win64"` with the address of
    /// `double` and of a buffer. Its result, and what was counted by offset.
    fn run(code: &[u8]) -> (u64, BTreeMap<u32, u64>) {
        let mut mapping = Mapping::reserve(PAGE_SIZE).unwrap();
        mapping
            .protect(0..PAGE_SIZE, Protection::ReadWrite)
            .unwrap();
        let start = mapping.base().as_ptr();
        // SAFETY: the page is ours and writable, and the code fits.
        unsafe { start.copy_from_nonoverlapping(code.as_ptr(), code.len()) };
        mapping
            .protect(0..PAGE_SIZE, Protection::ReadExecute)
            .unwrap();
        let mut counter = Counter::new();
        counter.add(mapping.addresses());
        let mut buffer = [0_u8; 64];
        // SAFETY: the bytes are a function of this signature.
        let function = unsafe { std::mem::transmute::<*mut u8, Code>(start) };
        let mut coroutine =
            corosensei::Coroutine::new(move |_: &corosensei::Yielder<(), ()>, ()| {
                approach();
                // SAFETY: as above; it keeps to the calling convention.
                let result = unsafe { function(double, buffer.as_mut_ptr()) };
                leave();
                RESULT.set(result);
            });
        let resumed = with(Some(&counter), || crate::fault::resume(&mut coroutine, ()));
        assert!(matches!(resumed, crate::fault::Resumed::Return(())));
        (RESULT.get(), counter.read().images.remove(0))
    }

    thread_local! {
        static RESULT: Cell<u64> = const { Cell::new(0) };
    }

    #[test]
    fn each_execution_of_an_instruction_counts_once() {
        let (result, counts) = run(&[
            0xB8, 5, 0, 0, 0, // 0: mov eax, 5
            0x83, 0xE8, 1, // 5: sub eax, 1
            0x75, 0xFB, // 8: jnz 5
            0xC3, // 10: ret
        ]);
        assert_eq!(result, 0);
        assert_eq!(counts, BTreeMap::from([(0, 1), (5, 5), (8, 5), (10, 1)]));
    }

    #[test]
    fn a_call_counts_and_what_it_calls_outside_does_not() {
        let (result, counts) = run(&[
            0x48, 0x83, 0xEC, 0x28, // 0: sub rsp, 40
            0x48, 0x89, 0xC8, // 4: mov rax, rcx
            0xB9, 21, 0, 0, 0, // 7: mov ecx, 21
            0xFF, 0xD0, // 12: call rax
            0x48, 0x83, 0xC4, 0x28, // 14: add rsp, 40
            0xC3, // 18: ret
        ]);
        assert_eq!(result, 42);
        let expected = [0, 4, 7, 12, 14, 18].map(|at| (at, 1));
        assert_eq!(counts, BTreeMap::from(expected));
    }

    #[test]
    fn what_a_jump_out_of_the_image_returns_to_is_not_stopped() {
        let (result, counts) = run(&[
            0x48, 0x89, 0xC8, // 0: mov rax, rcx
            0xB9, 21, 0, 0, 0, // 3: mov ecx, 21
            0xFF, 0xE0, // 8: jmp rax
        ]);
        assert_eq!(result, 42);
        assert_eq!(counts, BTreeMap::from([0, 3, 8].map(|at| (at, 1))));
        let flags: u64;
        // SAFETY: reads the flags.
        unsafe { std::arch::asm!("pushfq", "pop {}", out(reg) flags) };
        assert_eq!(flags & 0x100, 0);
    }

    #[test]
    fn a_repeated_string_instruction_counts_once() {
        let (result, counts) = run(&[
            0x57, // 0: push rdi
            0x48, 0x89, 0xD7, // 1: mov rdi, rdx
            0xB9, 64, 0, 0, 0, // 4: mov ecx, 64
            0xB0, 7, // 9: mov al, 7
            0xF3, 0xAA, // 11: rep stosb
            0x0F, 0xB6, 0x42, 63,   // 13: movzx eax, byte [rdx + 63]
            0x5F, // 17: pop rdi
            0xC3, // 18: ret
        ]);
        assert_eq!(result, 7);
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
        assert_eq!(counts.len(), 8);
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let image = |counts: &[(u32, u64)]| counts.iter().copied().collect::<BTreeMap<_, _>>();
        let earlier = Instructions {
            images: vec![image(&[(0, 1), (4, 2)])],
        };
        let later = Instructions {
            images: vec![image(&[(0, 1), (4, 5), (8, 1)])],
        };
        let since = later.since(&earlier);
        assert_eq!(since.images, [image(&[(4, 3), (8, 1)])]);
        assert_eq!(since.total(), 4);
    }
}
