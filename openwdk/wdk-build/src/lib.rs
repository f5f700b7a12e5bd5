// SPDX-License-Identifier: MIT OR Apache-2.0

//! Configures a Cargo build that depends on the Windows Driver Kit, on any host.
//!
//! Stands in for Microsoft's crate of the same name through
//! `[patch.crates-io]`. That crate refuses to compile on a host that is not
//! Windows; this one has the part of its interface that `wdk-sys` 0.5.2,
//! `wdk`, `wdk-alloc`, `wdk-panic` and the build scripts of drivers call:
//!
//! - a driver's `build.rs` calls [`configure_wdk_binary_build`];
//! - a library that must know the driver model calls
//!   [`configure_wdk_library_build`];
//! - `wdk-sys` calls [`configure_wdk_library_build_and_then`], [`Config`] and
//!   [`BuilderExt`].
//!
//! # Where headers and libraries come from
//!
//! 1. `WDKContentRoot`, on every host: a WDK laid out as Microsoft lays it out
//!    (`Include/<version>/km`, `Lib/<version>/km/x64`, …). `Version_Number`
//!    chooses the version, else the newest one is taken.
//! 2. On Windows, `MicrosoftKitRoot`, then the kit that the registry names, if
//!    it has kernel-mode headers.
//! 3. `openwdk`, in the tree beside this crate. Its import libraries and entry
//!    stub are made in `OUT_DIR` when a driver is built.
//!
//! # What is not here
//!
//! The module `cargo_make`: packaging needs Microsoft's tools, and is done by
//! `cargo wdk` or by `rust-driver-makefile.toml` beside this crate, see its
//! README.

mod bindgen;
pub mod c;
mod config;
mod definition;
mod driver;
mod error;
mod headers;
mod kit;
mod library;
pub mod metadata;

use std::{
    env,
    path::{Path, PathBuf},
};

pub use crate::{
    bindgen::BuilderExt,
    config::Config,
    driver::{ApiSubset, CpuArchitecture, DriverConfig, KmdfConfig, UmdfConfig},
    error::{ConfigError, IoError, IoErrorMetadata},
};
use crate::{kit::Kit, metadata::TryFromCargoMetadataError};

/// Configures the build of a driver: linker arguments, library search paths
/// and the `cfg` settings of [`Config::emit_check_cfg_settings`].
///
/// To be called from the `build.rs` of the `cdylib` package.
///
/// # Errors
/// When the build graph does not name exactly one driver model, a directory
/// of the kit is missing, the C runtime is not linked statically, or openwdk's
/// libraries cannot be made.
pub fn configure_wdk_binary_build() -> Result<(), ConfigError> {
    Config::from_env_auto()?.configure_binary_build()
}

/// Configures the build of a library that depends on the WDK: emits the `cfg`
/// settings of the driver model that the build graph names.
///
/// A graph without a driver model is not an error, so that a library can be
/// built and tested on its own.
///
/// # Errors
/// When the build graph names several driver models, or one is malformed.
pub fn configure_wdk_library_build() -> Result<(), ConfigError> {
    configure_library(|_| Ok(()))
}

/// Like [`configure_wdk_library_build`], then calls `f` with the configuration
/// if the build graph names one.
///
/// # Errors
/// As [`configure_wdk_library_build`], and whatever `f` returns.
pub fn configure_wdk_library_build_and_then<F, E>(mut f: F) -> Result<(), E>
where
    F: FnMut(Config) -> Result<(), E>,
    E: From<ConfigError>,
{
    configure_library(|config| {
        forget_function_table(Path::new(&config::build_script_variable("OUT_DIR")?));
        f(config)
    })
}

fn configure_library<E: From<ConfigError>>(
    f: impl FnOnce(Config) -> Result<(), E>,
) -> Result<(), E> {
    match Config::from_env_auto() {
        Ok(config) => {
            config.configure_library_build();
            f(config)
        }
        Err(ConfigError::TryFromCargoMetadataError(
            TryFromCargoMetadataError::NoWdkConfigurationsDetected,
        )) => {
            Config::emit_check_cfg_settings();
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes `wdk-macros` read the framework's function table again.
///
/// It keeps what it read in a file that it never compares with the headers, so
/// that after a change of kit its macros know the functions of the old one. The
/// caller is `wdk-sys`, which is about to make new bindings; whatever expands
/// these macros is compiled after it.
fn forget_function_table(out_dir: &Path) {
    // TARGET_DIR[/TRIPLE]/PROFILE/build/wdk-sys-HASH/out; the macros are built
    // for the host, in TARGET_DIR/PROFILE/build.
    let Some(profile) = out_dir.ancestors().nth(3) else {
        return;
    };
    let for_host = profile.ancestors().nth(2).zip(profile.file_name());
    let for_host = for_host.map(|(target, name)| target.join(name));
    for directory in [Some(profile.to_path_buf()), for_host]
        .into_iter()
        .flatten()
    {
        for package in directory
            .join("build")
            .read_dir()
            .into_iter()
            .flatten()
            .flatten()
        {
            if package
                .file_name()
                .to_string_lossy()
                .starts_with("scratch-")
            {
                // Not there is as good as removed.
                let _ = std::fs::remove_file(
                    package
                        .path()
                        .join("out/wdk_macros_ast_fragments/cached_function_info_map.json"),
                );
            }
        }
    }
}

/// Finds the manifest of the workspace that is being built, from a build
/// script.
///
/// It is the one beside the `Cargo.lock` above `OUT_DIR`. With a target
/// directory outside of the workspace there is none; then the directory that
/// cargo was started in is searched, then the one that holds this crate.
///
/// # Errors
/// When none of these has a `Cargo.lock`.
pub fn find_top_level_cargo_manifest() -> Result<PathBuf, ConfigError> {
    let out_dir = PathBuf::from(config::build_script_variable("OUT_DIR")?);
    let started_in = env::var_os("PWD").map(PathBuf::from).unwrap_or_default();
    let found = [
        out_dir.as_path(),
        &started_in,
        Path::new(env!("CARGO_MANIFEST_DIR")),
    ]
    .into_iter()
    .flat_map(Path::ancestors)
    .find(|directory| directory.join("Cargo.lock").is_file())
    .map(|directory| directory.join("Cargo.toml"));
    found.ok_or(ConfigError::WorkspaceNotFound { out_dir })
}

/// Returns the build number of the WDK in use: the third part of its version,
/// as in 10.0.*26100*.0.
///
/// # Errors
/// When no WDK is found, or its version does not have four numbers.
pub fn detect_wdk_build_number() -> Result<u32, ConfigError> {
    match Kit::detect()? {
        Kit::Wdk { version, .. } => kit::build_number(&version),
        Kit::Open { .. } => Err(ConfigError::WdkContentRootDetectionError),
    }
}
