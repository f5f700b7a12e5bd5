// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faults of driver code come back as values, with the place where they happened.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(
    clippy::cast_possible_truncation,
    reason = "an address has 64 bits where this is compiled"
)]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use corosensei::Coroutine;
use corosensei::stack::DefaultStack;
use ntsim::fault::{self, Abandoned, Access, Fault, FaultKind, Registers, Resumed};
use ntsim::image::symbols::{Symbols, locate};
use ntsim::image::unwind::Unwinder;
use ntsim::image::{Image, Loaded};
use ntsim::memory::{Fill, GuardedPool, Place, PoolOptions};

const SAMPLE: &[u8] = include_bytes!("fixtures/image/sample.sys");
const PDB: &[u8] = include_bytes!("fixtures/image/sample.pdb.z");
const KERNEL_STACK: usize = 24 << 10;

#[derive(Debug, PartialEq, Eq)]
enum Exit {
    Value(u64),
    Abandoned,
}

impl Abandoned for Exit {
    fn abandoned() -> Self {
        Self::Abandoned
    }
}

type Thread = Coroutine<(), u64, Exit, DefaultStack>;

extern "win64" fn allocate(size: u64) -> u64 {
    size
}

fn load() -> Loaded {
    let image = Image::parse("sample.sys", SAMPLE).unwrap();
    Loaded::load(&image, &mut |_, _| Some(allocate as *const ())).unwrap()
}

/// Runs the sample's entry point with `what` on a kernel-sized stack.
fn run(image: &Loaded, what: u64) -> Resumed<u64, Exit> {
    let entry = image.entry();
    let stack = DefaultStack::new(KERNEL_STACK).unwrap();
    let mut thread = Thread::with_stack(stack, move |_, ()| {
        // SAFETY: the entry point has this signature, see sample.c.
        let entry: extern "win64" fn(u64, u64) -> u64 = unsafe { std::mem::transmute(entry) };
        Exit::Value(entry(0, what))
    });
    fault::resume(&mut thread, ())
}

#[track_caller]
fn fault(image: &Loaded, what: u64) -> Fault {
    match run(image, what) {
        Resumed::Fault(fault) => *fault,
        other => panic!("expected a fault, got {other:?}"),
    }
}

/// Runs a closure in a coroutine.
#[track_caller]
fn fault_of(body: impl FnOnce() + 'static) -> Fault {
    let mut thread = Thread::new(move |_, ()| {
        body();
        Exit::Value(0)
    });
    match fault::resume(&mut thread, ()) {
        Resumed::Fault(fault) => *fault,
        other => panic!("expected a fault, got {other:?}"),
    }
}

#[test]
fn code_without_a_fault_returns_its_value() {
    let image = load();
    assert!(matches!(run(&image, 0), Resumed::Return(Exit::Value(27))));
}

#[test]
fn a_coroutine_suspends_and_resumes_and_faults_later() {
    let mut thread = Thread::new(|yielder, ()| {
        yielder.suspend(1);
        yielder.suspend(2);
        // SAFETY: not sound, on purpose.
        unsafe { std::ptr::without_provenance_mut::<u64>(0x20).write_volatile(1) };
        Exit::Value(0)
    });
    assert!(matches!(fault::resume(&mut thread, ()), Resumed::Yield(1)));
    assert!(matches!(fault::resume(&mut thread, ()), Resumed::Yield(2)));
    let Resumed::Fault(fault) = fault::resume(&mut thread, ()) else {
        panic!("the third part faults")
    };
    assert_eq!(
        fault.kind,
        FaultKind::AccessViolation {
            address: 0x20,
            access: Access::Write
        }
    );
    assert!(thread.done());
}

#[test]
fn memory_faults_tell_address_and_access() {
    let image = load();
    let fault = self::fault(&image, 1);
    assert_eq!(
        fault.kind,
        FaultKind::AccessViolation {
            address: 0x10,
            access: Access::Read
        }
    );
    assert!(image.contains(fault.registers.rip as usize));
    assert!(
        fault
            .to_string()
            .starts_with("access violation: reads 0x10 (a null pointer) at 0x"),
        "{fault}"
    );

    let rdata = image
        .image()
        .sections()
        .iter()
        .find(|s| s.name == ".rdata")
        .unwrap();
    let Fault {
        kind:
            FaultKind::AccessViolation {
                address,
                access: Access::Write,
            },
        ..
    } = self::fault(&image, 2)
    else {
        panic!("a write to a constant faults")
    };
    assert!(rdata.rva.contains(&image.rva(address as usize).unwrap()));
    assert_eq!(
        self::fault(&image, 12).kind,
        FaultKind::AccessViolation {
            address: 0x1234_5678_1234_5678,
            access: Access::Read
        }
    );
}

#[test]
fn calls_into_nowhere_and_into_data_are_execute_faults() {
    let image = load();
    let fault = self::fault(&image, 10);
    assert_eq!(
        fault.kind,
        FaultKind::AccessViolation {
            address: 0x0012_3456_7000,
            access: Access::Execute
        }
    );
    assert_eq!(fault.registers.rip, 0x0012_3456_7000);
    // The caller is found all the same.
    assert!(image.contains(fault.backtrace(&[&image])[1] as usize));
    assert!(matches!(
        self::fault(&image, 13).kind,
        FaultKind::AccessViolation {
            access: Access::Execute,
            ..
        }
    ));
}

#[test]
fn software_interrupts_are_told_apart() {
    let image = load();
    let breakpoint = fault(&image, 3);
    assert_eq!(breakpoint.kind, FaultKind::Breakpoint);
    assert_eq!(breakpoint.instruction.as_deref(), Some("int3"));
    assert_eq!(fault(&image, 6).kind, FaultKind::FastFail { code: 7 });
    assert_eq!(fault(&image, 7).kind, FaultKind::Assertion);
}

#[test]
fn privileged_and_illegal_instructions_are_named() {
    let image = load();
    for (what, instruction) in [(4, "cli"), (5, "mov rax,cr8")] {
        let fault = fault(&image, what);
        assert_eq!(fault.kind, FaultKind::PrivilegedInstruction);
        assert_eq!(fault.instruction.as_deref(), Some(instruction));
    }
    let illegal = fault(&image, 8);
    assert_eq!(illegal.kind, FaultKind::IllegalInstruction);
    assert_eq!(illegal.instruction.as_deref(), Some("ud2"));
}

#[test]
fn division_by_zero_is_a_fault() {
    let image = load();
    assert_eq!(fault(&image, 9).kind, FaultKind::Divide);
}

#[test]
fn the_processor_control_region_is_named() {
    let image = load();
    let fault = fault(&image, 11);
    assert_eq!(
        fault.kind,
        FaultKind::ProcessorControlRegion {
            offset: 0x188,
            access: Access::Read
        }
    );
    assert!(
        fault
            .to_string()
            .starts_with("reads gs:[0x188] (KPCR), which ntsim does not have"),
        "{fault}"
    );
}

#[test]
fn a_stack_overflow_is_told_from_other_faults() {
    let image = load();
    let fault = fault(&image, 20);
    assert!(
        matches!(fault.kind, FaultKind::StackOverflow { .. }),
        "{fault}"
    );
    let backtrace = fault.backtrace(&[&image]);
    assert!(
        backtrace.len() > 20,
        "recursion has many frames: {}",
        backtrace.len()
    );
}

#[test]
fn a_broken_stack_pointer_is_a_fault_too() {
    let image = load();
    let fault = fault(&image, 14);
    assert_eq!(fault.registers.rsp, 0);
    assert!(image.contains(fault.registers.rip as usize));
    assert!(!fault.backtrace(&[&image]).is_empty());
}

#[test]
fn a_misaligned_vector_access_is_named() {
    let buffer = [0_u8; 64];
    let fault = fault_of(move || {
        let address = (buffer.as_ptr() as usize).next_multiple_of(16) + 8;
        // SAFETY: not sound, on purpose: movaps wants 16.
        unsafe { std::arch::asm!("movaps xmm0, [{}]", in(reg) address, out("xmm0") _) };
    });
    assert!(
        matches!(fault.kind, FaultKind::Misaligned { address } if address % 16 == 8),
        "{fault}"
    );
}

#[test]
fn the_backtrace_has_functions_and_lines_of_the_driver_and_of_the_host() {
    let image = load();
    let fault = fault(&image, 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.pdb");
    std::fs::write(
        &path,
        miniz_oxide::inflate::decompress_to_vec_zlib(PDB).unwrap(),
    )
    .unwrap();
    let symbols = Symbols::find(image.image(), &path).unwrap();
    let locations = locate(&fault.backtrace(&[&image]), &[(&image, Some(&symbols))]);
    let lines: Vec<_> = locations.iter().map(ToString::to_string).collect();
    let text = lines.join("\n");
    let driver: Vec<_> = text
        .lines()
        .take(5)
        .map(|line| line.split(['+', ' ']).next().unwrap())
        .collect();
    assert_eq!(
        driver,
        [
            "sample.sys!touch",
            "sample.sys!innermost",
            "sample.sys!middle",
            "sample.sys!outer",
            "sample.sys!DriverEntry"
        ],
        "{text}"
    );
    assert!(text.contains("at sample.c:"), "{text}");
    assert!(
        text.contains("fault::run::{closure#0}") || text.contains("fault::run::{{closure}}"),
        "{text}"
    );
    // Without symbols, module and offset remain.
    let bare = locate(&fault.backtrace(&[&image]), &[(&image, None)]);
    assert_eq!(
        bare[0].to_string(),
        format!(
            "sample.sys+{:#x}",
            image.rva(fault.registers.rip as usize).unwrap()
        )
    );
}

#[test]
fn the_backtrace_of_a_suspended_coroutine_ends_at_its_first_frame() {
    type Suspended = Coroutine<(), Registers, Exit, DefaultStack>;
    let mut thread = Suspended::new(|yielder, ()| {
        yielder.suspend(Registers::here());
        Exit::Value(0)
    });
    let Resumed::Yield(registers) = fault::resume(&mut thread, ()) else {
        panic!("it suspends first")
    };
    let addresses = Unwinder::new(&[]).walk_live(&registers);
    let text: Vec<_> = locate(&addresses, &[])
        .iter()
        .map(ToString::to_string)
        .collect();
    let text = text.join("\n");
    assert!(
        text.contains("the_backtrace_of_a_suspended_coroutine"),
        "{text}"
    );
    assert!(
        !text.contains("fault::system::resume") && !text.contains("thread_start"),
        "{text}"
    );
    assert!(matches!(fault::resume(&mut thread, ()), Resumed::Return(_)));
}

#[test]
fn faults_in_nested_coroutines_end_the_inner_one() {
    let mut outer = Thread::new(|_, ()| {
        let inner = fault_of(|| {
            // SAFETY: not sound, on purpose.
            unsafe { std::ptr::without_provenance::<u64>(8).read_volatile() };
        });
        let FaultKind::AccessViolation { address, .. } = inner.kind else {
            return Exit::Value(0);
        };
        Exit::Value(address)
    });
    assert!(matches!(
        fault::resume(&mut outer, ()),
        Resumed::Return(Exit::Value(8))
    ));
}

#[test]
fn many_threads_fault_at_the_same_time() {
    let image = load();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let image = &image;
            scope.spawn(move || {
                for round in 0..200 {
                    let what = [1, 3, 4, 8, 9, 20][(thread + round) % 6];
                    let fault = fault(image, what);
                    let expected = match what {
                        1 => matches!(fault.kind, FaultKind::AccessViolation { address: 0x10, .. }),
                        3 => fault.kind == FaultKind::Breakpoint,
                        4 => fault.kind == FaultKind::PrivilegedInstruction,
                        8 => fault.kind == FaultKind::IllegalInstruction,
                        9 => fault.kind == FaultKind::Divide,
                        _ => matches!(fault.kind, FaultKind::StackOverflow { .. }),
                    };
                    assert!(expected, "{what}: {fault}");
                }
            });
        }
    });
}

#[test]
fn use_after_free_of_a_pool_block_is_explained() {
    let mut pool = GuardedPool::new(PoolOptions::default());
    let block = pool
        .allocate(24, u32::from_le_bytes(*b"Sens"), Fill::Zero)
        .unwrap();
    pool.free(block).unwrap();
    let address = block.as_ptr() as usize;
    let fault = fault_of(move || {
        let block: *const u64 = std::ptr::with_exposed_provenance(address + 8);
        // SAFETY: not sound, on purpose.
        unsafe { block.read_volatile() };
    });
    let info = pool.describe(fault.address().unwrap() as usize).unwrap();
    assert_eq!(
        info.to_string(),
        "pool block #1 (tag 'Sens', 24 bytes, freed), at offset 8"
    );
}

#[test]
fn an_overrun_of_a_pool_block_is_explained() {
    let mut pool = GuardedPool::new(PoolOptions::default());
    let block = pool
        .allocate(32, u32::from_le_bytes(*b"Sens"), Fill::Uninitialised)
        .unwrap();
    let address = block.as_ptr() as usize;
    let fault = fault_of(move || {
        let block: *mut u8 = std::ptr::with_exposed_provenance_mut(address);
        for at in 0.. {
            let byte = block.wrapping_add(at);
            // SAFETY: not sound, on purpose.
            unsafe { byte.write_volatile(0) };
        }
    });
    let info = pool.describe(fault.address().unwrap() as usize).unwrap();
    assert_eq!(info.place, Place::Past(0));
}

/// Faults of the host itself: each in a process of its own, this test with a variable set.
#[test]
fn faults_outside_of_driver_code_still_end_the_process() {
    const VARIABLE: &str = "NTSIM_TEST_HOST_FAULT";
    match std::env::var(VARIABLE).as_deref() {
        Ok(which) => {
            fault::install().unwrap();
            // Once, so that this thread has everything that a simulation sets up.
            drop(fault_of(|| {
                // SAFETY: not sound, on purpose.
                unsafe { std::arch::asm!("ud2") };
            }));
            match which {
                // SAFETY: not sound, on purpose.
                "segv" => unsafe { std::ptr::without_provenance_mut::<u64>(8).write_volatile(1) },
                // SAFETY: likewise.
                "trap" => unsafe { std::arch::asm!("int3") },
                // SAFETY: likewise.
                "ill" => unsafe { std::arch::asm!("ud2") },
                // SAFETY: sends a signal to ourselves.
                "sent" => unsafe { assert_eq!(libc::raise(libc::SIGFPE), 0) },
                "parent" => {
                    // Host code that driver code called on the host's stack.
                    let mut thread = Thread::new(|yielder, ()| {
                        yielder.on_parent_stack(|| {
                            // SAFETY: not sound, on purpose.
                            unsafe { std::ptr::without_provenance_mut::<u64>(8).write_volatile(1) };
                        });
                        Exit::Value(0)
                    });
                    let _ = fault::resume(&mut thread, ());
                }
                other => panic!("{other}"),
            }
            std::process::exit(0);
        }
        Err(_) => {
            for (which, signal) in [
                ("segv", libc::SIGSEGV),
                ("trap", libc::SIGTRAP),
                ("ill", libc::SIGILL),
                ("sent", libc::SIGFPE),
                ("parent", libc::SIGSEGV),
            ] {
                let status = Command::new(std::env::current_exe().unwrap())
                    .args([
                        "--exact",
                        "faults_outside_of_driver_code_still_end_the_process",
                    ])
                    .env(VARIABLE, which)
                    .output()
                    .unwrap()
                    .status;
                assert_eq!(status.signal(), Some(signal), "{which}: {status}");
            }
        }
    }
}
