// SPDX-License-Identifier: MIT OR Apache-2.0

//! Libraries and linker arguments of a driver, and how openwdk's libraries are
//! made: import libraries from `.def` files, static ones from C.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use ar_archive_writer::{
    ArchiveKind, COFFShortExport, DEFAULT_OBJECT_READER, MachineTypes, NewArchiveMember,
    write_archive_to_stream, write_import_library,
};

use crate::{
    ApiSubset, ConfigError, CpuArchitecture, DriverConfig, IoError,
    config::build_script_variable,
    definition::{Definition, Kind},
    headers,
    kit::Kit,
};

/// openwdk's import libraries: each has a `.def` file of its name.
const IMPORT_LIBRARIES: [&str; 4] = ["ntoskrnl", "hal", "wmilib", "WdfLdr"];

/// openwdk's static libraries: each has a `.c` file of its name.
const STATIC_LIBRARIES: [&str; 2] = ["BufferOverflowFastFailK", "WdfDriverEntry"];

/// Returns the libraries of a part of the API.
pub(crate) fn names(
    subset: ApiSubset,
    driver: &DriverConfig,
    processor: CpuArchitecture,
) -> Vec<&'static str> {
    let mut names = match (subset, driver) {
        (ApiSubset::Base, DriverConfig::Wdm | DriverConfig::Kmdf(_)) => {
            vec!["BufferOverflowFastFailK", "ntoskrnl", "hal", "wmilib"]
        }
        (ApiSubset::Base, DriverConfig::Umdf(umdf)) if umdf.umdf_version_major >= 2 => {
            vec!["WdfDriverStubUm", "ntdll", "OneCoreUAP"]
        }
        (ApiSubset::Base, DriverConfig::Umdf(_)) => vec!["OneCoreUAP"],
        (ApiSubset::Hid, DriverConfig::Umdf(_)) => vec!["VhfUm"],
        (ApiSubset::Hid, _) => vec!["VhfKm"],
        _ => Vec::new(),
    };
    if subset == ApiSubset::Base {
        if matches!(driver, DriverConfig::Kmdf(_)) {
            names.extend(["WdfLdr", "WdfDriverEntry"]);
        }
        if driver.is_kernel_mode() && processor == CpuArchitecture::Arm64 {
            names.push("arm64rt");
        }
    }
    names
}

/// Returns Rust code that links a library, except into tests.
///
/// `-bundle`, because the crate that says so is compiled before the driver's
/// build script has told where the library is.
pub(crate) fn link_block(name: &str) -> String {
    format!(
        "#[cfg(not(any(test, feature = \"suppress-wdk-linking\")))]\n\
         #[link(name = \"{name}\", kind = \"static\", modifiers = \"-bundle\")]\n\
         unsafe extern \"C\" {{}}\n"
    )
}

/// Returns the linker arguments that the WDK's own project files give.
pub(crate) fn linker_arguments(driver: &DriverConfig) -> Vec<&'static str> {
    let mut arguments = match driver {
        DriverConfig::Wdm | DriverConfig::Kmdf(_) => vec![
            "/DRIVER",
            "/NODEFAULTLIB",
            "/SUBSYSTEM:NATIVE",
            "/KERNEL",
            // rustc cannot mark its object files as compiled for the kernel.
            "/IGNORE:4257",
        ],
        DriverConfig::Umdf(_) => vec![
            "/NODEFAULTLIB:kernel32.lib",
            "/NODEFAULTLIB:user32.lib",
            "/SUBSYSTEM:WINDOWS",
        ],
    };
    match driver {
        // rustc cannot name a symbol without exporting it.
        DriverConfig::Wdm => arguments.extend(["/ENTRY:DriverEntry", "/IGNORE:4216"]),
        DriverConfig::Kmdf(_) => arguments.push("/ENTRY:FxDriverEntry"),
        DriverConfig::Umdf(_) => {}
    }
    arguments.extend([
        "/NXCOMPAT",
        "/DYNAMICBASE",
        "/MAP",
        "/MAPINFO:EXPORTS",
        "/OPT:REF,ICF",
        "/INTEGRITYCHECK",
        "/MANIFEST:NO",
        // Only the name of the PDB in the image, not where it was built.
        "/PDBALTPATH:%_PDB%",
    ]);
    arguments
}

/// Makes openwdk's libraries in `OUT_DIR` and returns their directory.
pub(crate) fn make_all(openwdk: &Path, driver: &DriverConfig) -> Result<PathBuf, ConfigError> {
    let out_dir = Path::new(&build_script_variable("OUT_DIR")?).join("openwdk");
    println!("cargo::rerun-if-changed={}", openwdk.join("lib").display());
    make_in(&out_dir, openwdk, driver, &build_script_variable("TARGET")?)?;
    Ok(out_dir)
}

/// Makes openwdk's libraries in a directory.
pub(crate) fn make_in(
    out_dir: &Path,
    openwdk: &Path,
    driver: &DriverConfig,
    target: &str,
) -> Result<(), ConfigError> {
    let source = openwdk.join("lib");
    fs::create_dir_all(out_dir).map_err(|source| IoError::with_path(out_dir, source))?;
    for name in IMPORT_LIBRARIES {
        let definition = Definition::read(&source.join(format!("{name}.def")))?;
        make_import_library(&definition, &out_dir.join(format!("{name}.lib")))?;
    }
    for name in STATIC_LIBRARIES {
        if name == "WdfDriverEntry" && !matches!(driver, DriverConfig::Kmdf(_)) {
            continue;
        }
        let file = source.join(format!("{name}.c"));
        make_static_library(&file, openwdk, driver, out_dir, name, target)?;
    }
    Ok(())
}

/// Writes the import library of a module.
fn make_import_library(definition: &Definition, library: &Path) -> Result<(), ConfigError> {
    let exports: Vec<COFFShortExport> = definition
        .exports
        .iter()
        .map(|(name, kind)| COFFShortExport {
            name: name.clone(),
            ext_name: None,
            symbol_name: None,
            import_name: None,
            export_as: None,
            ordinal: 0,
            noname: false,
            data: false,
            private: false,
            constant: *kind == Kind::Variable,
        })
        .collect();
    write(library, |file| {
        let machine = MachineTypes::AMD64;
        write_import_library(
            file,
            &definition.module,
            &exports,
            machine,
            false,
            false,
            &[],
        )
    })
}

/// Compiles a C file and writes a library with it.
fn make_static_library(
    file: &Path,
    openwdk: &Path,
    driver: &DriverConfig,
    out_dir: &Path,
    name: &str,
    target: &str,
) -> Result<(), ConfigError> {
    let mut build = cc::Build::new();
    build
        .file(file)
        .out_dir(out_dir)
        .target(target)
        // What a build script is told, and other programs are not.
        .host(&std::env::var("HOST").unwrap_or_else(|_| "x86_64-unknown-linux-gnu".to_owned()))
        .cargo_metadata(false)
        .warnings(false)
        .opt_level(2)
        .debug(true);
    let chosen = |name: String| std::env::var_os(name).is_some();
    if !cfg!(windows)
        && !chosen(format!("CC_{target}"))
        && !chosen(format!("CC_{}", target.replace('-', "_")))
    {
        // Without a word from the user `cc` looks for Microsoft's compiler.
        build.compiler("clang");
    }
    let kit = Kit::Open {
        root: openwdk.to_path_buf(),
    };
    for path in kit.include_paths(driver)? {
        build.include(path);
    }
    for (key, value) in headers::definitions(driver, CpuArchitecture::Amd64) {
        build.define(&key, value.as_deref());
    }
    // Flags of clang, in the form that both of its command lines accept.
    for flag in headers::COMPILER_FLAGS {
        build.flag_if_supported(flag);
    }
    build
        .flag_if_supported("-gcodeview")
        .flag_if_supported("-ffreestanding")
        .flag_if_supported("-fno-stack-protector")
        .flag_if_supported("-mno-red-zone")
        // No path of the build machine in the driver's debug information.
        .flag_if_supported(format!("-ffile-prefix-map={}=openwdk", openwdk.display()))
        .flag_if_supported("-fdebug-compilation-dir=.")
        .flag_if_supported("-gno-codeview-command-line");
    let objects = build
        .try_compile_intermediates()
        .map_err(|source| ConfigError::Stub {
            file: file.to_path_buf(),
            target: target.to_owned(),
            source,
        })?;
    let mut members = Vec::new();
    for object in &objects {
        let contents = fs::read(object).map_err(|source| IoError::with_path(object, source))?;
        members.push(NewArchiveMember::new(
            contents,
            &DEFAULT_OBJECT_READER,
            format!("{name}.obj"),
        ));
    }
    write(&out_dir.join(format!("{name}.lib")), |file| {
        write_archive_to_stream(file, &members, ArchiveKind::Coff, false, Some(false))
    })
}

fn write(
    path: &Path,
    contents: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), ConfigError> {
    File::create(path)
        .and_then(|mut file| contents(&mut file))
        .map_err(|source| IoError::with_path(path, source).into())
}

#[cfg(test)]
mod tests {
    use object::read::archive::ArchiveFile;

    use super::*;
    use crate::{KmdfConfig, UmdfConfig};

    fn lib_directory() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../lib")
    }

    #[test]
    fn import_library_has_a_symbol_for_each_export() {
        let definition = Definition::read(&lib_directory().join("WdfLdr.def")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("WdfLdr.lib");
        make_import_library(&definition, &library).unwrap();
        let contents = fs::read(library).unwrap();
        let archive = ArchiveFile::parse(&*contents).unwrap();
        let symbols: Vec<String> = archive
            .symbols()
            .unwrap()
            .unwrap()
            .map(|symbol| String::from_utf8(symbol.unwrap().name().to_vec()).unwrap())
            .collect();
        for name in definition.exports.keys() {
            assert!(symbols.contains(name), "{name}");
            assert!(symbols.contains(&format!("__imp_{name}")), "{name}");
        }
    }

    #[test]
    fn every_name_is_exported_by_one_module_only() {
        let mut seen = std::collections::BTreeMap::new();
        for library in IMPORT_LIBRARIES {
            let file = lib_directory().join(format!("{library}.def"));
            for name in Definition::read(&file).unwrap().exports.into_keys() {
                if let Some(other) = seen.insert(name.clone(), library) {
                    panic!("{name} is in {other}.def and {library}.def");
                }
            }
        }
    }

    #[test]
    fn every_function_and_variable_of_the_headers_is_exported_by_a_module() {
        let openwdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let driver = DriverConfig::Kmdf(KmdfConfig::new());
        let kit = Kit::Open {
            root: openwdk.clone(),
        };
        let base = headers::of(ApiSubset::Base, &driver, &kit, CpuArchitecture::Amd64).unwrap();
        let base = format!("#include \"{}\"\n", base.join("\"\n#include \""));
        let mut builder = bindgen::Builder::default()
            .header_contents("base.h", &base)
            .with_codegen_config(bindgen::CodegenConfig::FUNCTIONS | bindgen::CodegenConfig::VARS)
            .detect_include_paths(false)
            .clang_args(headers::COMPILER_FLAGS)
            .clang_args(["--target=x86_64-pc-windows-msvc", "-fno-builtin"]);
        for path in kit.include_paths(&driver).unwrap() {
            builder = builder.clang_arg(format!("-I{}", path.display()));
        }
        for (name, value) in headers::definitions(&driver, CpuArchitecture::Amd64) {
            builder = builder.clang_arg(format!("-D{name}={}", value.unwrap_or_default()));
        }
        let bindings = builder.generate().unwrap().to_string();
        let declared: Vec<&str> = bindings
            .split(['\n', ';'])
            .filter_map(|line| {
                let line = line.trim();
                let name = line
                    .strip_prefix("pub fn ")
                    .or(line.strip_prefix("pub static mut "));
                name?.split(['(', ':']).next()
            })
            .collect();
        assert!(declared.len() > 100, "{declared:?}");
        let exported: std::collections::BTreeSet<String> = ["ntoskrnl", "hal", "wmilib"]
            .into_iter()
            .flat_map(|name| {
                let file = lib_directory().join(format!("{name}.def"));
                Definition::read(&file).unwrap().exports.into_keys()
            })
            .collect();
        let missing: Vec<_> = declared
            .iter()
            .filter(|name| !exported.contains(**name))
            .collect();
        assert!(missing.is_empty(), "in no .def file: {missing:?}");
    }

    #[test]
    fn kmdf_links_the_loader_and_the_entry_stub_and_wdm_does_not() {
        let names = |driver: &DriverConfig| names(ApiSubset::Base, driver, CpuArchitecture::Amd64);
        let wdm = names(&DriverConfig::Wdm);
        assert_eq!(
            wdm,
            ["BufferOverflowFastFailK", "ntoskrnl", "hal", "wmilib"]
        );
        let kmdf = names(&DriverConfig::Kmdf(KmdfConfig::new()));
        assert_eq!(kmdf[..4], wdm[..]);
        assert_eq!(kmdf[4..], ["WdfLdr", "WdfDriverEntry"]);
        let umdf = names(&DriverConfig::Umdf(UmdfConfig::new()));
        assert_eq!(umdf, ["WdfDriverStubUm", "ntdll", "OneCoreUAP"]);
    }

    #[test]
    fn entry_point_follows_the_driver_model() {
        let kmdf = linker_arguments(&DriverConfig::Kmdf(KmdfConfig::new()));
        assert!(kmdf.contains(&"/ENTRY:FxDriverEntry") && kmdf.contains(&"/DRIVER"));
        assert!(linker_arguments(&DriverConfig::Wdm).contains(&"/ENTRY:DriverEntry"));
    }
}
