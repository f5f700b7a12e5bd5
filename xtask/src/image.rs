// SPDX-License-Identifier: MIT OR Apache-2.0

//! Builds a driver image (`.sys`) for x86-64 Windows and checks it.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use ntsim::inf::{Architecture, DriverDate, Inf, StampOptions, stamp};
use object::{
    LittleEndian as LE,
    pe::{
        IMAGE_DEBUG_TYPE_CODEVIEW, IMAGE_DIRECTORY_ENTRY_BASERELOC, IMAGE_DIRECTORY_ENTRY_DEBUG,
        IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE, IMAGE_DLLCHARACTERISTICS_NX_COMPAT,
        IMAGE_FILE_MACHINE_AMD64, IMAGE_SUBSYSTEM_NATIVE,
    },
    read::pe::{ImageNtHeaders, ImageOptionalHeader, Import, PeFile64},
};
use serde_json::Value;

use crate::{
    run::{Step, run_in},
    setup::{ImageToolchain, TARGET},
};

/// How a driver is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Optimised, as it ships; with debug information beside it.
    #[default]
    Driver,
    /// Not optimised, with overflow checks and debug assertions.
    DriverDev,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::DriverDev => "driver-dev",
        }
    }

    /// Returns the profile as `--config` arguments, so that a workspace whose
    /// manifest does not have it can be built as well.
    fn arguments(self) -> Vec<String> {
        let name = self.name();
        let base = match self {
            Self::Driver => "release",
            Self::DriverDev => "dev",
        };
        let mut arguments = vec![format!("--profile={name}")];
        // A driver cannot unwind. As a profile of its own, because on the host
        // the simulator catches panics.
        let mut settings = vec![
            format!("inherits={base:?}"),
            "panic=\"abort\"".to_owned(),
            "debug=\"full\"".to_owned(),
        ];
        if self == Self::Driver {
            // One unit, so that the small functions of the libraries are inlined.
            settings.extend(["lto=\"fat\"".to_owned(), "codegen-units=1".to_owned()]);
        }
        for setting in settings {
            arguments.push(format!("--config=profile.{name}.{setting}"));
        }
        arguments
    }
}

/// A driver that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The directory with all of it.
    pub directory: PathBuf,
    /// The image.
    pub sys: PathBuf,
    /// The INF made from the package's `.inx`, if it has one.
    pub inf: Option<PathBuf>,
}

/// Builds the `cdylib` of `package`, a member of `workspace`, as a driver.
///
/// The package's build script must call
/// `wdk_build::configure_wdk_binary_build()`.
///
/// # Errors
/// When the build fails, or does not give a library and its debug information.
pub fn build_driver(
    workspace: &Path,
    toolchain: &ImageToolchain,
    package: &str,
    profile: Profile,
) -> Result<Built> {
    let step = Step::begin(format!("building {package}.sys"));
    let mut cargo = toolchain.cargo(workspace);
    cargo
        .arg("rustc")
        .args([
            "--package",
            package,
            "--lib",
            // Alone: cargo does not optimise across crates what is an `rlib` too.
            "--crate-type=cdylib",
            "--message-format=json-render-diagnostics",
        ])
        .args(profile.arguments())
        .args(toolchain.build_arguments());
    let flags = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        TARGET.replace('-', "_").to_uppercase()
    );
    cargo.env(&flags, rust_flags(toolchain, env::var(&flags).ok()));
    // It would replace the flags above.
    cargo
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let messages = run_in(&step, &mut cargo)?;

    let library = Artifact::find(&messages, package)?;
    let target = toolchain
        .target_directory()
        .join(TARGET)
        .join(profile.name());
    let directory = package_directory(toolchain, profile, package)?;
    let copy = |from: &Path, extension: &str| -> Result<PathBuf> {
        let to = directory.join(&library.name).with_extension(extension);
        fs::copy(from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        Ok(to)
    };
    let sys = copy(&library.dll, "sys")?;
    let pdb = copy(&library.pdb, "pdb")?;
    let map = target
        .join("deps")
        .join(&library.name)
        .with_extension("map");
    if map.is_file() {
        copy(&map, "map")?;
    }
    reproducible(&sys, &pdb)?;
    let source = library.manifest.parent().unwrap_or(Path::new("."));
    let inf = stamp_inf(source, &library.name, &directory)?;
    step.finish();
    Ok(Built {
        directory,
        sys,
        inf,
    })
}

/// Builds the KMDF driver in C whose source is `NAME.c` in `source`, beside its
/// `NAME.inx`: with clang, as optimised as [`Profile::Driver`], on openwdk.
///
/// # Errors
/// When it does not compile or link.
pub fn build_c_driver(
    workspace: &Path,
    toolchain: &ImageToolchain,
    source: &Path,
    name: &str,
) -> Result<Built> {
    let Some(linker) = toolchain.linker() else {
        bail!("{name}: drivers in C are built with clang and lld, not on Windows");
    };
    let step = Step::begin(format!("building {name}.sys"));
    let directory = package_directory(toolchain, Profile::Driver, name)?;
    let openwdk = workspace.join("openwdk");
    let file = |extension: &str| directory.join(name).with_extension(extension);
    let c = format!("{name}.c");
    let mut clang = Command::new("clang");
    clang
        // The name of the source is all that the debug information says of it.
        .current_dir(source)
        .args(wdk_build::c::compiler_arguments(&openwdk, TARGET)?)
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-c", &c, "-o"])
        .arg(file("obj"))
        .arg(format!("-ffile-prefix-map={}=openwdk", openwdk.display()));
    run_in(&step, &mut clang)?;
    let libraries = directory.join("openwdk");
    let mut link = Command::new(linker);
    link.current_dir(&directory)
        .args(wdk_build::c::linker_arguments(
            &openwdk, &libraries, TARGET,
        )?)
        .args(["/DEBUG", "/Brepro", "/NOLOGO"])
        .arg(format!("{name}.obj"))
        .arg(format!("/OUT:{name}.sys"));
    run_in(&step, &mut link)?;
    let (sys, pdb) = (file("sys"), file("pdb"));
    reproducible(&sys, &pdb)?;
    let inf = stamp_inf(source, name, &directory)?;
    step.finish();
    Ok(Built {
        directory,
        sys,
        inf,
    })
}

/// Where all of a driver goes.
fn package_directory(
    toolchain: &ImageToolchain,
    profile: Profile,
    package: &str,
) -> Result<PathBuf> {
    let directory = toolchain
        .target_directory()
        .join(TARGET)
        .join(profile.name())
        .join("package")
        .join(package);
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}

/// Gives image and PDB an identity that depends on the image alone.
///
/// The linker's depends on the PDB, and the PDB on the random name of a
/// directory that the compiler passes to the linker.
pub(crate) fn reproducible(sys: &Path, pdb: &Path) -> Result<()> {
    let read =
        |file: &Path| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    let write = |file: &Path, data: &[u8]| {
        fs::write(file, data).with_context(|| format!("cannot write {}", file.display()))
    };
    let (mut image, mut symbols) = (read(sys)?, read(pdb)?);
    let identity =
        Identity::find(&image).with_context(|| format!("damaged image {}", sys.display()))?;
    let old_guid = image[identity.guid.clone()].to_vec();
    ensure!(
        !old_guid.iter().all(|byte| *byte == 0),
        "{} names no PDB",
        sys.display()
    );
    for field in identity
        .timestamps
        .iter()
        .chain([&identity.guid, &identity.checksum])
    {
        image[field.clone()].fill(0);
    }
    // FNV-1a, in two flavours for 128 bits.
    let hash = |seed: u64| {
        image.iter().fold(seed, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    let (low, high) = (hash(0xcbf2_9ce4_8422_2325), hash(0x9747_b28c_8422_2325));
    let guid = [low.to_le_bytes(), high.to_le_bytes()].concat();
    for field in &identity.timestamps {
        image[field.clone()].copy_from_slice(&low.to_le_bytes()[..4]);
    }
    image[identity.guid].copy_from_slice(&guid);
    let checksum = checksum(&image);
    image[identity.checksum].copy_from_slice(&checksum.to_le_bytes());
    let at = symbols
        .windows(old_guid.len())
        .position(|bytes| bytes == old_guid);
    let at =
        at.with_context(|| format!("{} does not belong to {}", pdb.display(), sys.display()))?;
    symbols[at..at + guid.len()].copy_from_slice(&guid);
    write(sys, &image)?;
    write(pdb, &symbols)
}

/// Where in the file of an image its identity is.
struct Identity {
    timestamps: Vec<Range<usize>>,
    checksum: Range<usize>,
    guid: Range<usize>,
}

impl Identity {
    fn find(data: &[u8]) -> Result<Self> {
        let image = PeFile64::parse(data)?;
        let headers = usize::try_from(image.dos_header().nt_headers_offset())?;
        let field = |offset: usize, size: usize| offset..offset + size;
        let mut timestamps = vec![field(headers + 8, 4)];
        let checksum = field(headers + 88, 4);
        let directory = image
            .data_directory(IMAGE_DIRECTORY_ENTRY_DEBUG)
            .context("no debug directory")?;
        let sections = image.section_table();
        let (offset, size) = directory.file_range(&sections)?;
        let mut guid = None;
        for entry in (0..size / 28).map(|index| offset + index * 28) {
            let entry = usize::try_from(entry)?;
            let number = |at: usize| -> Result<u32> {
                let bytes = data
                    .get(entry + at..entry + at + 4)
                    .context("damaged debug directory")?;
                Ok(u32::from_le_bytes(bytes.try_into()?))
            };
            timestamps.push(field(entry + 4, 4));
            if number(12)? == IMAGE_DEBUG_TYPE_CODEVIEW {
                // The GUID follows the signature "RSDS".
                guid = Some(field(usize::try_from(number(24)?)? + 4, 16));
            }
        }
        let guid = guid
            .filter(|guid| guid.end <= data.len())
            .context("no CodeView record")?;
        Ok(Self {
            timestamps,
            checksum,
            guid,
        })
    }
}

/// Returns the checksum of an image whose checksum field is zero.
fn checksum(image: &[u8]) -> u32 {
    let words = image
        .chunks(2)
        .map(|pair| u32::from(pair[0]) | u32::from(pair.get(1).copied().unwrap_or(0)) << 8);
    let sum = words.fold(0u32, |sum, word| {
        let sum = sum + word;
        (sum & 0xffff) + (sum >> 16)
    });
    // An image of 4 GiB or more cannot be.
    sum + u32::try_from(image.len()).unwrap_or(u32::MAX)
}

/// Returns the compiler's flags: what a driver needs, and what keeps the
/// machine out of the image so that equal sources give equal images.
fn rust_flags(toolchain: &ImageToolchain, user: Option<String>) -> OsString {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        // A hash in place of the time.
        "-Clink-arg=/Brepro".to_owned(),
    ];
    // Sources of the workspace are named relative to it already.
    let remap = [
        (home.map(|home| home.join("registry/src")), "registry"),
        (Some(toolchain.target_directory().to_path_buf()), "target"),
    ];
    for (from, to) in remap {
        // Flags are separated by blanks, which cannot be escaped.
        if let Some(from) = from.filter(|from| !from.to_string_lossy().contains(' ')) {
            flags.push(format!("--remap-path-prefix={}={to}", from.display()));
        }
    }
    flags.extend(user);
    flags.join(" ").into()
}

/// What cargo tells about the library that it built.
struct Artifact {
    name: String,
    manifest: PathBuf,
    dll: PathBuf,
    pdb: PathBuf,
}

impl Artifact {
    fn find(messages: &str, package: &str) -> Result<Self> {
        let file = |message: &Value, extension: &str| {
            let files = message["filenames"].as_array()?.iter();
            files
                .filter_map(|file| file.as_str().map(PathBuf::from))
                .find(|file| file.extension().is_some_and(|end| end == extension))
        };
        messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["reason"] == "compiler-artifact")
            .filter(|message| {
                let kinds = message["target"]["kind"].as_array();
                kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "cdylib"))
            })
            .filter_map(|message| {
                Some(Self {
                    name: message["target"]["name"].as_str()?.to_owned(),
                    manifest: message["manifest_path"].as_str()?.into(),
                    dll: file(&message, "dll")?,
                    pdb: file(&message, "pdb")?,
                })
            })
            .next_back()
            .with_context(|| {
                format!(
                    "package {package}: cargo built no DLL with a PDB; its Cargo.toml needs \
                     [lib] crate-type = [\"cdylib\"]"
                )
            })
    }
}

/// Makes the INF from the `.inx` in the directory `source`, as `stampinf` of
/// the WDK does.
fn stamp_inf(source: &Path, name: &str, directory: &Path) -> Result<Option<PathBuf>> {
    let inx = source.join(name).with_extension("inx");
    if !inx.is_file() {
        return Ok(None);
    }
    let text =
        fs::read_to_string(&inx).with_context(|| format!("cannot read {}", inx.display()))?;
    let name = format!("{name}.inf");
    let date = DriverDate::new(2026, 1, 1).context("a day of the calendar")?;
    // Always the same, so that equal sources give equal packages.
    let stamped = stamp(&text, &StampOptions::new(date, [0, 1, 0, 0]));
    Inf::parse(&name, stamped.as_bytes()).and_then(|inf| inf.validate_for(Architecture::Amd64))?;
    let inf = directory.join(&name);
    fs::write(&inf, stamped).with_context(|| format!("cannot write {}", inf.display()))?;
    Ok(Some(inf))
}

/// What [`verify`] found in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Imported names by module.
    pub imports: BTreeMap<String, Vec<String>>,
    /// Number of base relocation blocks' bytes.
    pub relocations: u32,
    /// Name of the PDB that the image names.
    pub pdb: String,
    /// The address of the entry point, from the base of the image.
    pub entry: u32,
}

/// Modules that a KMDF driver may import from.
const MODULES: [&str; 3] = ["ntoskrnl.exe", "WDFLDR.SYS", "HAL.dll"];

/// Names whose documentation page gives Hal.dll as their DLL.
const HAL: &str = include_str!("../../openwdk/lib/hal.def");

/// Checks that `sys` is what Windows loads as a KMDF driver: PE32+ for x86-64,
/// subsystem native, entry point `FxDriverEntry`, imports from the modules that
/// the documentation gives, relocations, and a PDB beside it.
///
/// # Errors
/// Names the field, its value and what was expected.
pub fn verify(sys: &Path) -> Result<Facts> {
    let data = fs::read(sys).with_context(|| format!("cannot read {}", sys.display()))?;
    check(&data, sys).with_context(|| format!("{} is not a proper KMDF driver", sys.display()))
}

fn check(data: &[u8], sys: &Path) -> Result<Facts> {
    let image = PeFile64::parse(data).context("not a PE32+ image")?;
    let headers = image.nt_headers();
    let machine = headers.file_header().machine.get(LE);
    ensure!(
        machine == IMAGE_FILE_MACHINE_AMD64,
        "machine = {machine:#x}: expected {IMAGE_FILE_MACHINE_AMD64:#x} (x86-64)"
    );
    let optional = headers.optional_header();
    let subsystem = optional.subsystem();
    ensure!(
        subsystem == IMAGE_SUBSYSTEM_NATIVE,
        "subsystem = {subsystem}: expected {IMAGE_SUBSYSTEM_NATIVE} (native)"
    );
    let wanted = IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE | IMAGE_DLLCHARACTERISTICS_NX_COMPAT;
    let characteristics = optional.dll_characteristics();
    ensure!(
        characteristics & wanted == wanted,
        "DLL characteristics = {characteristics:#x}: expected {wanted:#x} (dynamic base, no-execute) among them"
    );

    let imports = imports(&image)?;
    for (module, names) in &imports {
        ensure!(
            MODULES.contains(&module.as_str()),
            "imports from {module}: expected only {}",
            MODULES.join(", ")
        );
        for name in names {
            let documented = HAL.lines().any(|line| line.trim() == name);
            ensure!(
                documented == (module == "HAL.dll"),
                "imports {name} from {module}: its documentation page gives another module"
            );
        }
    }
    for (module, name) in [
        ("WDFLDR.SYS", "WdfVersionBind"),
        ("WDFLDR.SYS", "WdfVersionUnbind"),
    ] {
        let present = imports
            .get(module)
            .is_some_and(|names| names.iter().any(|other| other == name));
        ensure!(
            present,
            "does not import {name} from {module}: is it linked with WdfDriverEntry?"
        );
    }

    let directory = |index| {
        image
            .data_directory(index)
            .map_or(0, |directory| directory.size.get(LE))
    };
    let relocations = directory(IMAGE_DIRECTORY_ENTRY_BASERELOC);
    ensure!(
        relocations != 0,
        "no base relocations: the kernel could not load it"
    );
    ensure!(
        directory(IMAGE_DIRECTORY_ENTRY_DEBUG) != 0,
        "no debug directory"
    );
    let debug = object::Object::pdb_info(&image).context("damaged debug directory")?;
    let debug = debug.context("the debug directory names no PDB")?;
    let pdb = String::from_utf8_lossy(debug.path()).into_owned();
    ensure!(
        !pdb.contains(['/', '\\']),
        "PDB = {pdb:?}: expected a name without a path"
    );
    let beside = sys.with_file_name(&pdb);
    ensure!(
        beside.is_file(),
        "PDB = {pdb:?}: there is no {}",
        beside.display()
    );

    let entry = optional.address_of_entry_point();
    check_entry(sys, entry)?;
    Ok(Facts {
        imports,
        relocations,
        pdb,
        entry,
    })
}

/// Checks the entry point against the linker's map, which is where its name is.
fn check_entry(sys: &Path, entry: u32) -> Result<()> {
    ensure!(entry != 0, "entry point = 0: expected FxDriverEntry");
    let map = sys.with_extension("map");
    let Ok(text) = fs::read_to_string(&map) else {
        bail!(
            "cannot read {}, the map that names the entry point",
            map.display()
        );
    };
    // " 0001:00000abc  FxDriverEntry  0000000180001abc  WdfDriverEntry:WdfDriverEntry.obj"
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let base = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Preferred load address is "))
        .and_then(|address| number(address.trim()))
        .with_context(|| format!("{}: no line with the preferred load address", map.display()))?;
    let named = text
        .lines()
        .filter(|line| line.split_whitespace().nth(1) == Some("FxDriverEntry"))
        .find_map(|line| number(line.split_whitespace().nth(2)?))
        .with_context(|| format!("{}: no symbol FxDriverEntry", map.display()))?;
    ensure!(
        named == base + u64::from(entry),
        "entry point = {entry:#x}: expected FxDriverEntry at {:#x}",
        named.saturating_sub(base)
    );
    Ok(())
}

fn imports(image: &PeFile64<'_>) -> Result<BTreeMap<String, Vec<String>>> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut imports: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let Some(table) = image.import_table().context("damaged import table")? else {
        return Ok(imports);
    };
    let mut descriptors = table.descriptors().context("damaged import table")?;
    while let Some(descriptor) = descriptors.next().context("damaged import table")? {
        let module = text(
            table
                .name(descriptor.name.get(LE))
                .context("damaged import table")?,
        );
        let thunks = match descriptor.original_first_thunk.get(LE) {
            0 => descriptor.first_thunk.get(LE),
            thunks => thunks,
        };
        let mut thunks = table
            .thunks(thunks)
            .with_context(|| format!("damaged imports from {module}"))?;
        while let Some(thunk) = thunks
            .next::<object::pe::ImageNtHeaders64>()
            .with_context(|| format!("damaged imports from {module}"))?
        {
            match table.import::<object::pe::ImageNtHeaders64>(thunk) {
                Ok(Import::Name(_, name)) => {
                    imports.entry(module.clone()).or_default().push(text(name));
                }
                Ok(Import::Ordinal(ordinal)) => {
                    bail!("imports number {ordinal} of {module}: expected a name")
                }
                Err(error) => bail!("damaged imports from {module}: {error}"),
            }
        }
    }
    Ok(imports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_image_is_named() {
        let file = env::temp_dir().join(format!("xtask-no-image-{}.sys", std::process::id()));
        fs::write(&file, b"MZ").unwrap();
        let error = format!("{:#}", verify(&file).unwrap_err());
        fs::remove_file(&file).unwrap();
        assert!(
            error.contains("xtask-no-image") && error.contains("not a PE32+ image"),
            "{error}"
        );
    }
}
