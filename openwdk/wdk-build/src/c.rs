// SPDX-License-Identifier: MIT OR Apache-2.0

//! KMDF drivers in C on openwdk, for programs that are no build scripts.
//!
//! The same headers, macros, libraries and linker arguments as a driver in Rust
//! gets, so that the two can be compared. Microsoft's crate has nothing like it.

use std::path::{Path, absolute};

use crate::{
    ApiSubset, ConfigError, CpuArchitecture, DriverConfig, IoError, KmdfConfig, headers, kit::Kit,
    library,
};

/// Returns clang's arguments for a C file of a KMDF driver, but for its name and
/// the output's.
///
/// # Errors
/// When `openwdk` is not the directory of that name of this tree.
pub fn compiler_arguments(openwdk: &Path, target: &str) -> Result<Vec<String>, ConfigError> {
    let driver = driver();
    let mut arguments = vec![
        format!("--target={target}"),
        "-nostdinc".to_owned(),
        "-ffreestanding".to_owned(),
        "-mno-red-zone".to_owned(),
        "-g".to_owned(),
        "-gcodeview".to_owned(),
        "-fdebug-compilation-dir=.".to_owned(),
    ];
    arguments.extend(headers::COMPILER_FLAGS.map(str::to_owned));
    for (name, value) in headers::definitions(&driver, CpuArchitecture::Amd64) {
        let value = value.map_or(String::new(), |value| format!("={value}"));
        arguments.push(format!("-D{name}{value}"));
    }
    let kit = Kit::Open {
        root: absolute(openwdk).map_err(|source| IoError::with_path(openwdk, source))?,
    };
    for path in kit.include_paths(&driver)? {
        arguments.push(format!("-I{}", path.display()));
    }
    Ok(arguments)
}

/// Makes the libraries of a KMDF driver in `directory`, and returns the linker's
/// arguments, but for the object files and the output.
///
/// # Errors
/// When a library cannot be made.
pub fn linker_arguments(
    openwdk: &Path,
    directory: &Path,
    target: &str,
) -> Result<Vec<String>, ConfigError> {
    let driver = driver();
    library::make_in(directory, openwdk, &driver, target)?;
    let mut arguments: Vec<String> = library::linker_arguments(&driver)
        .into_iter()
        .map(str::to_owned)
        .collect();
    arguments.push(format!("/LIBPATH:{}", directory.display()));
    let names = library::names(ApiSubset::Base, &driver, CpuArchitecture::Amd64);
    arguments.extend(names.iter().map(|name| format!("{name}.lib")));
    Ok(arguments)
}

fn driver() -> DriverConfig {
    DriverConfig::Kmdf(KmdfConfig::new())
}
