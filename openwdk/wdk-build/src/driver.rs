// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is built: driver model, processor, and subset of the API.

use std::{fmt, str::FromStr};

/// The driver model, with its version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DriverConfig {
    /// Windows Driver Model: no framework.
    Wdm,
    /// Kernel-Mode Driver Framework.
    Kmdf(KmdfConfig),
    /// User-Mode Driver Framework.
    Umdf(UmdfConfig),
}

/// The version of KMDF that a driver is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KmdfConfig {
    /// Major version.
    pub kmdf_version_major: u8,
    /// Minor version whose headers are used.
    pub target_kmdf_version_minor: u8,
    /// Oldest minor version that the driver runs on; the target if `None`.
    pub minimum_kmdf_version_minor: Option<u8>,
}

/// The version of UMDF that a driver is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UmdfConfig {
    /// Major version.
    pub umdf_version_major: u8,
    /// Minor version whose headers are used.
    pub target_umdf_version_minor: u8,
    /// Oldest minor version that the driver runs on; the target if `None`.
    pub minimum_umdf_version_minor: Option<u8>,
}

/// The processor that a driver is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuArchitecture {
    /// x86-64.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

/// A part of the WDK's API, with headers and libraries of its own.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum ApiSubset {
    /// What every driver needs.
    Base,
    /// The driver frameworks.
    Wdf,
    /// General-purpose I/O.
    Gpio,
    /// Human interface devices.
    Hid,
    /// Parallel ports.
    ParallelPorts,
    /// Simple peripheral bus.
    Spb,
    /// Storage.
    Storage,
    /// USB.
    Usb,
}

impl DriverConfig {
    /// Returns the name that Cargo metadata and `cfg` use.
    pub(crate) fn driver_type(&self) -> &'static str {
        match self {
            Self::Wdm => "WDM",
            Self::Kmdf(_) => "KMDF",
            Self::Umdf(_) => "UMDF",
        }
    }

    /// Returns whether the driver runs in the kernel.
    pub(crate) fn is_kernel_mode(&self) -> bool {
        matches!(self, Self::Wdm | Self::Kmdf(_))
    }
}

impl KmdfConfig {
    /// Returns KMDF 1.33.
    #[must_use]
    pub fn new() -> Self {
        Self {
            kmdf_version_major: 1,
            target_kmdf_version_minor: 33,
            minimum_kmdf_version_minor: None,
        }
    }

    /// Returns the oldest minor version that the driver runs on.
    pub(crate) fn minimum(self) -> u8 {
        self.minimum_kmdf_version_minor
            .unwrap_or(self.target_kmdf_version_minor)
    }
}

impl Default for KmdfConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl UmdfConfig {
    /// Returns UMDF 2.33.
    #[must_use]
    pub fn new() -> Self {
        Self {
            umdf_version_major: 2,
            target_umdf_version_minor: 33,
            minimum_umdf_version_minor: None,
        }
    }
}

impl Default for UmdfConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl CpuArchitecture {
    /// Returns the name of the WDK's directories for this processor.
    #[must_use]
    pub const fn as_windows_str(&self) -> &str {
        match self {
            Self::Amd64 => "x64",
            Self::Arm64 => "ARM64",
        }
    }

    /// Takes the value of `CARGO_CFG_TARGET_ARCH`.
    #[must_use]
    pub fn try_from_cargo_str<S: AsRef<str>>(cargo_str: S) -> Option<Self> {
        match cargo_str.as_ref() {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }
}

impl fmt::Display for CpuArchitecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        })
    }
}

impl FromStr for CpuArchitecture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Amd64, Self::Arm64]
            .into_iter()
            .find(|known| known.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("processor {text:?}: expected amd64 or arm64"))
    }
}
