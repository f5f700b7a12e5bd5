// SPDX-License-Identifier: MIT OR Apache-2.0

//! Compares the layouts of `openwdk`'s types with those of an independent set of kernel headers,
//! mingw-w64's `ddk`, as clang lays both out.
//!
//! bindgen writes the size and alignment of each type and the offset of each field into its
//! output as assertions; the comparison reads them from both outputs. A type that only one side
//! has is not compared; a difference must be in [`KNOWN`], with its reason, and an entry there
//! that no longer differs is an error too.

use bindgen::{Builder, Formatter};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

const MINGW: &str = "/usr/share/mingw-w64/include";

/// What differs, and why openwdk has it as it has.
const KNOWN: &[(&str, &str)] = &[
    ("Alignment of _DEVICE_OBJECT", ALLOCATION),
    ("Size of _DEVICE_OBJECT", ALLOCATION),
    ("Alignment of _IRP", ALLOCATION),
    ("Offset of field: _KWAIT_BLOCK::BlockState", WAIT_BLOCK),
    ("Offset of field: _KWAIT_BLOCK::Object", WAIT_BLOCK),
    ("Offset of field: _KWAIT_BLOCK::SpareLong", WAIT_BLOCK),
    ("Offset of field: _KWAIT_BLOCK::WaitKey", WAIT_BLOCK),
    ("Offset of field: _KWAIT_BLOCK::WaitType", WAIT_BLOCK),
    (
        "Size of _DEVOBJ_EXTENSION",
        "mingw has the first two fields only; windows-sys has the fields that we have",
    ),
    (
        "Size of _IO_COMPLETION_CONTEXT",
        "Windows 10 added UsageCount; mingw has the older structure",
    ),
    (
        "Size of _SCATTER_GATHER_LIST",
        "a flexible array, as documented; mingw gives it one element",
    ),
];

const ALLOCATION: &str =
    "documented as aligned to MEMORY_ALLOCATION_ALIGNMENT, 16 bytes; mingw does not align it";
const WAIT_BLOCK: &str =
    "Windows 8 moved the wait type in front of the object; mingw has the older structure";

/// Compares; `openwdk/include` must be up to date with `ntsim-sys`.
///
/// # Errors
/// The differences, each as `what: ours, mingw's`, or what is missing for the comparison.
pub fn check(root: &Path) -> Result<(), String> {
    if !Path::new(MINGW).join("ddk/ntifs.h").is_file() {
        return Err(format!(
            "{MINGW}/ddk: not found; the layouts of openwdk/include are compared with mingw's.\n\
             Run `apt-get install mingw-w64-common`."
        ));
    }
    let path = root.join("ntsim-sys/src/types/bindings.rs");
    let ours = layouts(&fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?);
    let theirs = layouts(&mingw()?);

    let mut compared = 0;
    let mut wrong = Vec::new();
    for (what, our) in &ours {
        let Some(their) = theirs.get(what) else {
            continue;
        };
        compared += 1;
        let known = KNOWN.iter().find(|(name, _)| name == what);
        if our != their && known.is_none() {
            wrong.push(format!("{what}: {our}, mingw {their}"));
        }
        if our == their
            && let Some((name, _)) = known
        {
            wrong.push(format!(
                "{name}: listed as a known difference, but equal ({our})"
            ));
        }
    }
    if compared < 500 {
        return Err(format!(
            "only {compared} layouts compared with mingw's: bindgen's output has changed"
        ));
    }
    if wrong.is_empty() {
        println!(
            "{compared} sizes, alignments and offsets compared with mingw's, {} known differences",
            KNOWN.len()
        );
        return Ok(());
    }
    Err(format!(
        "layouts differ from mingw's:\n  {}",
        wrong.join("\n  ")
    ))
}

/// Compiles `openwdk/abi-test/c/driver.c`, a KMDF driver in C, with every warning an error.
///
/// # Errors
/// clang's diagnostics.
pub fn compile_driver(root: &Path) -> Result<(), String> {
    let output = Command::new("clang")
        .args(super::bindings::clang_args(&root.join("openwdk/include")))
        .args(["-fsyntax-only", "-Wall", "-Wextra", "-Werror"])
        .arg(root.join("openwdk/abi-test/c/driver.c"))
        .output()
        .map_err(|e| format!("clang: {e}; run `apt-get install clang`"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "openwdk/abi-test/c/driver.c:\n{}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

fn mingw() -> Result<String, String> {
    // mingw's headers want the compiler's own (intrinsics), which libclang does not always find.
    let resources = Command::new("clang")
        .arg("-print-resource-dir")
        .output()
        .map_err(|e| format!("clang: {e}; run `apt-get install clang`"))?;
    let resources = String::from_utf8_lossy(&resources.stdout).trim().to_owned();
    Builder::default()
        .detect_include_paths(false)
        .clang_args([
            "--target=x86_64-w64-mingw32",
            &format!("-isystem{resources}/include"),
            &format!("-isystem{MINGW}/ddk"),
            &format!("-isystem{MINGW}"),
            "-D_WIN32_WINNT=0x0A00",
            "-DNTDDI_VERSION=0x0A000000",
        ])
        .formatter(Formatter::Prettyplease)
        .header_contents("mingw.h", "#include <ntifs.h>\n#include <wdm.h>\n")
        .generate()
        .map(|b| b.to_string())
        .map_err(|e| format!("{MINGW}/ddk: bindgen: {e}"))
}

/// `Size of _KEVENT` → 24 and so on, from the assertions in bindgen's output.
fn layouts(text: &str) -> BTreeMap<String, usize> {
    // `["Size of X"][size_of::<X>() - 24usize];`, broken over lines where it is long.
    let mut found = BTreeMap::new();
    let mut pieces = text.split('"').skip(1);
    while let (Some(what), Some(rest)) = (pieces.next(), pieces.next()) {
        let Some((before, _)) = rest.split_once("usize") else {
            continue;
        };
        let number = before
            .rsplit(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap_or_default();
        if let Ok(number) = number.parse()
            && (what.starts_with("Size of")
                || what.starts_with("Alignment of")
                || what.starts_with("Offset of"))
        {
            // Unnamed types are numbered in order of appearance, which need not be the same.
            if !what.contains("__bindgen") {
                found.insert(what.to_owned(), number);
            }
        }
    }
    found
}
