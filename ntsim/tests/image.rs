// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reading, checking and loading of kernel images.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use ntsim::fault::Registers;
use ntsim::image::symbols::{Location, Symbols, SymbolsError, locate};
use ntsim::image::unwind::Unwinder;
use ntsim::image::{Image, ImageError, Loaded, Problem};
use ntsim::memory::{self, Protection};
use proptest::prelude::*;

const SAMPLE: &[u8] = include_bytes!("fixtures/image/sample.sys");
const PDB: &[u8] = include_bytes!("fixtures/image/sample.pdb.z");

fn sample() -> Image {
    Image::parse("sample.sys", SAMPLE).unwrap()
}

fn error(bytes: &[u8]) -> ImageError {
    Image::parse("x.sys", bytes).expect_err("a broken image is refused")
}

/// Where the PE header of the sample is.
fn pe() -> usize {
    u32::from_le_bytes(SAMPLE[0x3C..0x40].try_into().unwrap()) as usize
}

fn optional() -> usize {
    pe() + 24
}

fn directory(index: usize) -> usize {
    optional() + 112 + 8 * index
}

fn section(index: usize) -> usize {
    optional() + 240 + 40 * index
}

/// The sample with other bytes at some offset.
fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = SAMPLE.to_vec();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The offset in the file of what is at an RVA when loaded.
fn file_offset(rva: u32) -> usize {
    (0..5)
        .map(section)
        .find_map(|header| {
            let start = u32_at(SAMPLE, header + 12);
            let size = u32_at(SAMPLE, header + 16);
            (start..start + size)
                .contains(&rva)
                .then(|| (rva - start + u32_at(SAMPLE, header + 20)) as usize)
        })
        .unwrap()
}

#[track_caller]
fn refused(bytes: &[u8], problem: Problem, message: &str) {
    let error = error(bytes);
    assert_eq!(error.problem, problem, "{error}");
    let text = error.to_string();
    assert!(text.starts_with("x.sys: "), "{text}");
    assert!(text.contains(message), "{text}\nexpected: {message}");
}

extern "win64" fn allocate(size: u64) -> u64 {
    size * 100
}

extern "win64" fn sample_call(value: u64) -> u64 {
    value + 1000
}

fn resolve(dll: &str, name: &str) -> Option<*const ()> {
    assert_eq!(dll, "ntoskrnl.exe");
    match name {
        "ExAllocateSample" => Some(allocate as *const ()),
        "KeSample" => Some(sample_call as *const ()),
        _ => None,
    }
}

fn loaded() -> Loaded {
    Loaded::load(&sample(), &mut resolve).unwrap()
}

#[test]
fn a_kernel_image_tells_what_is_in_it() {
    let image = sample();
    assert_eq!(image.name(), "sample.sys");
    let names: Vec<_> = image
        .imports()
        .iter()
        .map(|import| (import.dll.as_str(), import.name.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            ("ntoskrnl.exe", "ExAllocateSample"),
            ("ntoskrnl.exe", "KeSample")
        ]
    );
    assert_eq!(image.exports().len(), 1);
    assert_eq!(image.exports()[0].name, "outer");
    assert_eq!(image.sections()[0].name, ".text");
    assert_eq!(image.sections()[0].protection, Protection::ReadExecute);
    assert!(image.sections()[0].rva.contains(&image.entry()));
    assert_eq!(image.functions().len(), 5);
    let codeview = image.codeview().unwrap();
    assert_eq!(codeview.pdb, "sample.pdb");
    assert_eq!(codeview.age, 1);
    assert_eq!(codeview.guid_text().len(), 38);
    assert_eq!(image.relocation_count(), 1);
}

#[test]
fn a_loaded_image_runs_with_its_imports_and_relocations() {
    let image = loaded();
    // SAFETY: the entry point has this signature, see sample.c.
    let entry: extern "win64" fn(u64, u64) -> u64 = unsafe { std::mem::transmute(image.entry()) };
    // KeSample(0 + 3) + counter, + 1 from middle, + ExAllocateSample(16).
    assert_eq!(entry(0, 0), 1003 + 7 + 1 + 1600);
    assert_eq!(
        image.export("outer").and_then(|at| image.rva(at)),
        Some(image.image().exports()[0].rva)
    );
    assert_eq!(image.export("inner"), None);
    assert!(image.contains(image.base()) && !image.contains(image.base() - 1));
    assert_eq!(image.rva(image.addresses().end), None);
}

#[test]
fn two_copies_of_an_image_do_not_share_data() {
    let (first, second) = (loaded(), loaded());
    assert_ne!(first.base(), second.base());
    let counter = |image: &Loaded| {
        let data = image
            .image()
            .sections()
            .iter()
            .find(|s| s.name == ".data")
            .unwrap();
        image.pointer(data.rva.start).unwrap()
    };
    // SAFETY: the start of .data, writable, and nothing runs in the image.
    unsafe { counter(&first).write(8) };
    // SAFETY: likewise.
    assert_eq!(unsafe { counter(&second).read() }, 7);
}

#[test]
fn the_stack_cookie_is_set_and_the_same_in_every_run() {
    const DEFAULT: u64 = 0x2B99_2DDF_A232;
    let data = section(2);
    let (rva, file) = (
        u32_at(SAMPLE, data + 12),
        u32_at(SAMPLE, data + 20) as usize,
    );
    let base = sample().preferred_base();
    let mut bytes = patched(data + 8, &0x200_u32.to_le_bytes());
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    // A load configuration at .data+0x100 that names a cookie at .data+0x80.
    put(directory(10), &(rva + 0x100).to_le_bytes());
    put(directory(10) + 4, &0x60_u32.to_le_bytes());
    put(file + 0x100, &0x60_u32.to_le_bytes());
    put(file + 0x158, &(base + u64::from(rva) + 0x80).to_le_bytes());
    put(file + 0x80, &DEFAULT.to_le_bytes());
    let image = Image::parse("x.sys", &bytes).unwrap();
    let cookie = || {
        let loaded = Loaded::load(&image, &mut resolve).unwrap();
        memory::peek_u64(loaded.base() + rva as usize + 0x80).unwrap()
    };
    assert_ne!(
        cookie(),
        DEFAULT,
        "a driver built with /GS stops on the default"
    );
    assert_ne!(cookie(), 0);
    assert_eq!(cookie(), cookie());
}

#[test]
fn every_missing_import_is_named_at_once() {
    let error = Loaded::load(&sample(), &mut |_, _| None).unwrap_err();
    assert_eq!(error.problem, Problem::UnknownImport);
    assert_eq!(
        error.to_string(),
        "sample.sys: it imports ExAllocateSample from ntoskrnl.exe, KeSample from ntoskrnl.exe, \
         which ntsim does not have"
    );
}

#[test]
fn the_addresses_of_an_unloaded_image_stay_unreadable() {
    let image = loaded();
    let base = image.base();
    assert!(memory::peek_u64(base).is_some());
    let unloaded = image.unload();
    assert_eq!(memory::peek_u64(base), None);
    assert!(unloaded.contains(base));
    assert_eq!(unloaded.rva(base + 5), Some(5));
    assert_eq!(unloaded.image().name(), "sample.sys");
}

#[test]
fn memory_around_an_image_is_unreadable() {
    let image = loaded();
    assert_eq!(memory::peek_u64(image.base() - 8), None);
    assert_eq!(memory::peek_u64(image.addresses().end), None);
}

#[test]
fn a_file_that_is_no_image_is_refused() {
    refused(b"", Problem::Truncated, "the file is empty");
    refused(
        b"M",
        Problem::Truncated,
        "DOS header needs 64 bytes at offset 0x0",
    );
    refused(
        b"\x7fELF rest of it",
        Problem::NotPe,
        "7f 45, expected 4d 5a",
    );
    refused(&patched(pe(), b"NE"), Problem::NotPe, "no \"PE\" signature");
    refused(
        &patched(0x3C, &u32::MAX.to_le_bytes()),
        Problem::Truncated,
        "PE header (e_lfanew)",
    );
}

#[test]
fn every_truncation_is_refused_with_one_sentence() {
    for len in 0..SAMPLE.len() {
        let error = error(&SAMPLE[..len]);
        assert!(!error.to_string().contains('\n'));
        assert_eq!(error.problem, Problem::Truncated, "{len}: {error}");
    }
}

#[test]
fn an_image_for_another_machine_is_refused_by_its_name() {
    refused(
        &patched(pe() + 4, &[0x64, 0xAA]),
        Problem::Machine,
        "Machine = 0xaa64 (ARM64), expected 0x8664 (x64)",
    );
    refused(
        &patched(pe() + 4, &[0x4C, 0x01]),
        Problem::Machine,
        "0x014c (x86, 32-bit)",
    );
    refused(
        &patched(optional(), &[0x0B, 0x01]),
        Problem::Format,
        "0x10b (PE32, 32-bit), expected 0x20b",
    );
}

#[test]
fn a_user_mode_program_or_dll_is_refused_as_such() {
    refused(
        &patched(optional() + 68, &[3]),
        Problem::Subsystem,
        "this is a user-mode program (subsystem 3, console)",
    );
    refused(
        &patched(optional() + 68, &[2]),
        Problem::Subsystem,
        "(subsystem 2, graphical)",
    );
    refused(
        &patched(optional() + 68, &[10]),
        Problem::Subsystem,
        "EFI application",
    );
    let mut dll = patched(optional() + 68, &[3]);
    dll[pe() + 23] = 0x20;
    refused(
        &dll,
        Problem::Subsystem,
        "this is a user-mode DLL (subsystem 3, console)",
    );
    refused(
        &patched(pe() + 22, &[0x20, 0]),
        Problem::Format,
        "lacks 0x0002",
    );
}

#[test]
fn a_driver_linked_as_a_library_is_a_driver() {
    // rustc links a cdylib with /DLL, and the kernel does not mind.
    assert!(Image::parse("x.sys", &patched(pe() + 22, &[0x22, 0x20])).is_ok());
}

#[test]
fn sections_out_of_place_are_refused_by_name() {
    refused(
        &patched(section(0) + 12, &[0x10]),
        Problem::Section,
        "section .text: VirtualAddress = 0x1010, expected a multiple",
    );
    refused(
        &patched(section(1) + 12, &0x1000_u32.to_le_bytes()),
        Problem::Section,
        "section .rdata: VirtualAddress = 0x1000 overlaps section .text",
    );
    refused(
        &patched(section(1) + 8, &0x1000_0000_u32.to_le_bytes()),
        Problem::Section,
        "behind SizeOfImage",
    );
    refused(
        &patched(section(2) + 20, &0x9000_u32.to_le_bytes()),
        Problem::Truncated,
        "data of section .data",
    );
    refused(
        &patched(pe() + 6, &[0, 0]),
        Problem::Section,
        "NumberOfSections = 0",
    );
}

#[test]
fn absurd_sizes_are_refused_before_anything_is_allocated() {
    refused(
        &patched(optional() + 56, &u32::MAX.to_le_bytes()),
        Problem::Size,
        "SizeOfImage = 0xffffffff",
    );
    refused(
        &patched(optional() + 32, &0x20_u32.to_le_bytes()),
        Problem::Size,
        "SectionAlignment = 0x20",
    );
    refused(
        &patched(optional() + 60, &0x10_u32.to_le_bytes()),
        Problem::Size,
        "SizeOfHeaders = 0x10",
    );
}

#[test]
fn an_entry_point_outside_of_code_is_refused() {
    for entry in [0_u32, 0x10, 0x3000, 0x9000_0000] {
        refused(
            &patched(optional() + 16, &entry.to_le_bytes()),
            Problem::EntryPoint,
            &format!("AddressOfEntryPoint = {entry:#x}"),
        );
    }
}

#[test]
fn an_image_that_cannot_be_relocated_is_refused() {
    refused(
        &patched(pe() + 22, &[0x23, 0]),
        Problem::Relocation,
        "0x0001 (relocations stripped)",
    );
    let mut fixed = patched(directory(5), &[0; 8]);
    assert!(
        Image::parse("x.sys", &fixed).is_ok(),
        "no absolute address, but dynamic base"
    );
    fixed[optional() + 70] &= !0x40;
    refused(&fixed, Problem::Relocation, "no base relocation directory");
    let block = file_offset(u32_at(SAMPLE, directory(5)));
    refused(
        &patched(block + 9, &[0x30]),
        Problem::Relocation,
        "type 3, expected 0 (ABSOLUTE) or 10 (DIR64)",
    );
    refused(
        &patched(block, &0x7000_0000_u32.to_le_bytes()),
        Problem::Relocation,
        "outside of the image",
    );
    refused(
        &patched(block + 4, &[0xFF]),
        Problem::Relocation,
        "malformed",
    );
    refused(
        &patched(directory(5), &0x9000_u32.to_le_bytes()),
        Problem::Relocation,
        "outside of the image",
    );
}

#[test]
fn imports_by_ordinal_and_malformed_imports_are_refused() {
    let imports = file_offset(u32_at(SAMPLE, directory(1)));
    let names = file_offset(u32_at(SAMPLE, imports));
    refused(
        &patched(names, &(1_u64 << 63 | 0x2A).to_le_bytes()),
        Problem::Import,
        "it imports ordinal 42 from ntoskrnl.exe",
    );
    refused(
        &patched(imports + 12, &0x9000_u32.to_le_bytes()),
        Problem::Import,
        "the module name at 0x9000",
    );
    refused(
        &patched(names, &0x9000_u64.to_le_bytes()),
        Problem::Import,
        "a name imported from ntoskrnl.exe at 0x9000",
    );
    refused(
        &patched(imports + 16, &0x9000_u32.to_le_bytes()),
        Problem::Import,
        "the address slot of",
    );
}

#[test]
fn what_the_kernel_does_not_load_is_refused() {
    let some = [0, 0x20, 0, 0, 8, 0, 0, 0];
    refused(
        &patched(directory(9), &some),
        Problem::Unsupported,
        "thread-local storage",
    );
    refused(
        &patched(directory(13), &some),
        Problem::Unsupported,
        "delay-loaded imports",
    );
    refused(
        &patched(directory(14), &some),
        Problem::Unsupported,
        "managed code",
    );
}

#[test]
fn malformed_unwind_information_is_refused() {
    let pdata = file_offset(u32_at(SAMPLE, directory(3)));
    refused(
        &patched(directory(3) + 4, &[13]),
        Problem::UnwindInfo,
        "multiple of 12",
    );
    refused(
        &patched(pdata, &0x9000_u32.to_le_bytes()),
        Problem::UnwindInfo,
        ".pdata entry 0",
    );
    refused(
        &patched(pdata + 8, &0x9000_u32.to_le_bytes()),
        Problem::UnwindInfo,
        "unwind info at 0x9000",
    );
    let info = u32_at(SAMPLE, pdata + 8);
    refused(
        &patched(file_offset(info), &[7]),
        Problem::UnwindInfo,
        "version 7",
    );
    refused(
        &patched(pdata + 12, &SAMPLE[pdata..pdata + 12]),
        Problem::UnwindInfo,
        "not behind the entry before it",
    );
}

fn pdb_file() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.pdb");
    let bytes = miniz_oxide::inflate::decompress_to_vec_zlib(PDB).unwrap();
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn symbols_name_functions_files_lines_and_inlined_code() {
    let (_folder, path) = pdb_file();
    let image = sample();
    let symbols = Symbols::open(&path, image.codeview().unwrap()).unwrap();
    let entry = symbols.lookup(image.entry());
    assert_eq!(entry[0].function, "DriverEntry");
    assert_eq!(entry[0].offset, 0);
    assert!(entry[0].file.as_deref().unwrap().ends_with("sample.c"));
    let touch = (0x1000..0x1100)
        .map(|rva| symbols.lookup(rva))
        .find(|frames| frames.len() == 2)
        .expect("touch is inlined into innermost");
    assert_eq!(touch[0].function, "touch");
    assert!(touch[0].inlined);
    assert_eq!(touch[1].function, "innermost");
    assert!(!touch[1].inlined);
    assert_eq!(touch[0].line, Some(16));
    assert!(symbols.lookup(0x4000_0000).is_empty());
}

#[test]
fn the_pdb_is_found_beside_the_image() {
    let (_folder, path) = pdb_file();
    let symbols = Symbols::find(&sample(), &path.with_file_name("renamed.sys")).unwrap();
    assert_eq!(symbols.path(), path);
    let error = Symbols::find(&sample(), std::path::Path::new("/nowhere/sample.sys")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/sample.pdb"), "{error}");
}

#[test]
fn a_pdb_of_another_build_is_named_and_not_used() {
    let (_folder, path) = pdb_file();
    let mut codeview = sample().codeview().unwrap().clone();
    codeview.guid[0] ^= 1;
    let error = Symbols::open(&path, &codeview).unwrap_err();
    assert!(matches!(error, SymbolsError::Mismatch { .. }));
    assert!(error.to_string().contains("of another build"), "{error}");
    std::fs::write(&path, "not a PDB").unwrap();
    let error = Symbols::open(&path, &codeview).unwrap_err();
    assert!(matches!(error, SymbolsError::Unreadable { .. }), "{error}");
}

thread_local! {
    static SEEN: std::cell::RefCell<(Registers, Vec<u64>)> = const { std::cell::RefCell::new((Registers {
        rip: 0, rsp: 0, rbp: 0, rax: 0, rbx: 0, rcx: 0, rdx: 0, rsi: 0, rdi: 0,
        r8: 0, r9: 0, r10: 0, r11: 0, r12: 0, r13: 0, r14: 0, r15: 0, rflags: 0,
    }, Vec::new())) };
    static IMAGE: std::cell::RefCell<Option<Loaded>> = const { std::cell::RefCell::new(None) };
}

extern "win64" fn backtrace_from_here(value: u64) -> u64 {
    let registers = Registers::here();
    IMAGE.with_borrow(|image| {
        let addresses = Unwinder::new(&[image.as_ref().unwrap()]).walk_live(&registers);
        SEEN.set((registers, addresses));
    });
    value
}

#[test]
fn a_backtrace_from_a_kernel_call_goes_through_host_and_image_frames() {
    let image = Loaded::load(&sample(), &mut |_, name| {
        Some(if name == "KeSample" {
            backtrace_from_here as *const ()
        } else {
            allocate as *const ()
        })
    })
    .unwrap();
    // SAFETY: the entry point has this signature, see sample.c.
    let entry: extern "win64" fn(u64, u64) -> u64 = unsafe { std::mem::transmute(image.entry()) };
    IMAGE.set(Some(image));
    entry(0, 0);
    let (_, addresses) = SEEN.take();
    let image = IMAGE.take().unwrap();
    let (_folder, path) = pdb_file();
    let symbols = Symbols::find(image.image(), &path).unwrap();
    let locations = locate(&addresses, &[(&image, Some(&symbols))]);
    let names: Vec<_> = locations
        .iter()
        .flat_map(|location| location.frames.iter().map(|frame| frame.function.as_str()))
        .collect();
    let expected = ["backtrace_from_here", "innermost", "middle", "DriverEntry"];
    let mut names = names.iter();
    for expected in expected {
        assert!(
            names.any(|name| name.ends_with(expected)),
            "{expected} is missing or out of order in\n{}",
            lines(&locations)
        );
    }
    assert!(
        names.any(|name| name.contains("a_backtrace_from_a_kernel_call")),
        "the host frames that called the driver are missing"
    );
}

#[test]
fn a_frame_pointer_of_zero_ends_a_backtrace_without_a_panic() {
    let pdata = file_offset(u32_at(SAMPLE, directory(3)));
    let info = file_offset(u32_at(SAMPLE, pdata + 8));
    let mut bytes = SAMPLE.to_vec();
    // Frame register RBP at offset 240, established by the first unwind code.
    bytes[info + 3] = 0xF5;
    bytes[info + 4..info + 6].copy_from_slice(&[0, 3]);
    let image = Image::parse("x.sys", &bytes).unwrap();
    let loaded = Loaded::load(&image, &mut resolve).unwrap();
    for rbp in [0, 8, u64::MAX] {
        let registers = Registers {
            rip: (loaded.base() + image.functions()[0].begin as usize + 9) as u64,
            rsp: u64::MAX - 7,
            rbp,
            ..Registers::default()
        };
        let walked = Unwinder::new(&[&loaded]).walk(&registers, |_| None);
        assert_eq!(walked, [registers.rip]);
    }
}

#[test]
fn code_of_no_known_module_ends_a_backtrace() {
    let registers = Registers {
        rip: 0x1234_5678,
        rsp: 0x10_0000,
        rbp: 0x10_0000,
        ..Registers::default()
    };
    let walked = Unwinder::new(&[]).walk(&registers, |_| Some(0x4444_4444));
    assert_eq!(walked, [0x1234_5678]);
}

fn lines(locations: &[Location]) -> String {
    let lines: Vec<_> = locations.iter().map(Location::to_string).collect();
    lines.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_changes_to_an_image_never_panic(
        changes in prop::collection::vec((0..SAMPLE.len(), any::<u8>()), 1..12),
        len in 0..=SAMPLE.len(),
        cut in prop::bool::weighted(0.1),
    ) {
        let mut bytes = SAMPLE.to_vec();
        for (at, value) in changes {
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(len);
        }
        if let Ok(image) = Image::parse("x.sys", &bytes)
            && let Ok(loaded) = Loaded::load(&image, &mut |_, _| Some(std::ptr::null()))
        {
            // Unwinding reads what the file says as well.
            let unwinder = Unwinder::new(&[&loaded]);
            for function in image.functions() {
                for at in [function.begin, function.end - 1] {
                    let registers = Registers {
                        rip: (loaded.base() + at as usize) as u64,
                        rsp: 0x1000,
                        ..Registers::default()
                    };
                    let _ = unwinder.walk(&registers, |address| (address < 0x2000).then_some(0));
                }
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let mut bytes = bytes;
        prop_assert!(Image::parse("x.sys", &bytes).is_err());
        if bytes.len() > 64 {
            bytes[..2].copy_from_slice(b"MZ");
            prop_assert!(Image::parse("x.sys", &bytes).is_err());
        }
    }
}
