// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can go wrong while a build is configured.

use std::{error::Error as _, fmt, io, path::PathBuf};

use thiserror::Error;

use crate::metadata::TryFromCargoMetadataError;

/// Why a build could not be configured.
///
/// `Debug` is written for people: it is what a build script prints whose `main`
/// returns this error.
#[derive(Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file or directory could not be read or written.
    #[error(transparent)]
    IoError(#[from] IoError),

    /// A directory that the kit should have is not there.
    #[error("{directory}: no such directory ({reason})")]
    DirectoryNotFound {
        /// The missing directory.
        directory: String,
        /// Who needs it, and what to do.
        reason: String,
    },

    /// No WDK is named by the environment or installed.
    #[error("no WDK found: set WDKContentRoot to the root of a WDK, or install one")]
    WdkContentRootDetectionError,

    /// The version of the WDK is not of the form `10.0.26100.0`.
    #[error("WDK version {version:?}: expected four numbers, as in 10.0.26100.0")]
    WdkVersionStringFormatError {
        /// The version as found.
        version: String,
    },

    /// The kit has nothing for this configuration.
    #[error("{field} = {value}: {reason}")]
    Unsupported {
        /// Which setting it is.
        field: &'static str,
        /// What it says.
        value: String,
        /// What would work.
        reason: String,
    },

    /// A variable that cargo sets for build scripts is missing.
    #[error("{name} is not set: this function is for build scripts that cargo runs")]
    NotInBuildScript {
        /// The variable.
        name: &'static str,
    },

    /// No `Cargo.lock` was found.
    #[error(
        "OUT_DIR = {}: no Cargo.lock in any directory above it; build with the default target \
         directory, or start cargo in the workspace", out_dir.display()
    )]
    WorkspaceNotFound {
        /// Where the search began.
        out_dir: PathBuf,
    },

    /// The driver model could not be taken from the build graph.
    #[error(transparent)]
    TryFromCargoMetadataError(#[from] TryFromCargoMetadataError),

    /// `cargo metadata` failed.
    #[error("cannot read the build graph with `cargo metadata`")]
    CargoMetadataError(#[from] cargo_metadata::Error),

    /// bindgen cannot generate code for the Rust version of this workspace.
    #[error("rust-version = {msrv}: bindgen cannot generate code for it: {reason}")]
    MsrvNotSupportedByBindgen {
        /// The version.
        msrv: String,
        /// What bindgen says.
        reason: String,
    },

    /// The C runtime would be linked dynamically.
    #[error(
        "target feature crt-static is off, but a driver must link the C runtime statically: set \
         RUSTFLAGS=\"-C target-feature=+crt-static\", or `[target.x86_64-pc-windows-msvc] \
         rustflags = [\"-C\", \"target-feature=+crt-static\"]` in .cargo/config.toml"
    )]
    StaticCrtNotEnabled,

    /// A `.def` file is malformed.
    #[error("{}:{line}: {text:?}: {reason}", file.display())]
    ModuleDefinition {
        /// The file.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What stands there.
        text: String,
        /// What was expected.
        reason: &'static str,
    },

    /// The entry stub did not compile.
    #[error(
        "cannot compile {} for {target} (is clang installed? Debian: apt-get install clang)",
        file.display()
    )]
    Stub {
        /// The C file.
        file: PathBuf,
        /// The target.
        target: String,
        /// What the compiler says.
        source: cc::Error,
    },
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut source = self.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// A failed operation on a file or directory, with its path.
#[derive(Debug, Error)]
#[error("{metadata}")]
pub struct IoError {
    metadata: IoErrorMetadata,
    source: io::Error,
}

/// Which paths a failed operation was about.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IoErrorMetadata {
    /// One path.
    #[error("cannot read or write {}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// A copy or a move.
    #[error("cannot copy or move {} to {}", from_path.display(), to_path.display())]
    SrcDestPaths {
        /// The source.
        from_path: PathBuf,
        /// The destination.
        to_path: PathBuf,
    },
}

impl IoError {
    /// Tells that an operation on `path` failed.
    pub fn with_path(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let metadata = IoErrorMetadata::Path { path: path.into() };
        Self { metadata, source }
    }

    /// Tells that copying or moving `from_path` to `to_path` failed.
    pub fn with_src_dest_paths(
        from_path: impl Into<PathBuf>,
        to_path: impl Into<PathBuf>,
        source: io::Error,
    ) -> Self {
        let metadata = IoErrorMetadata::SrcDestPaths {
            from_path: from_path.into(),
            to_path: to_path.into(),
        };
        Self { metadata, source }
    }
}
