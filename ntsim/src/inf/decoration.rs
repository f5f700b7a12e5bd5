// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which sections are meant for which system: `NTamd64.10.0...16299`.

use std::fmt;

use super::{Inf, Section};

/// A machine's processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// x64, the one that ntsim simulates.
    Amd64,
    /// 64-bit Arm.
    Arm64,
    /// 32-bit x86.
    X86,
}

impl Architecture {
    /// The name that INF files use: `amd64`, `arm64`, `x86`.
    #[must_use]
    pub fn inf_name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::X86 => "x86",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.inf_name())
    }
}

/// The simulated system, as target versions are compared with it: Windows 11, where KMDF 1.33 is inbox.
const SYSTEM: [u32; 3] = [10, 0, 22621];
/// `VER_NT_WORKSTATION`.
const PRODUCT_TYPE: u32 = 1;

/// A decoration without its leading dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decoration {
    /// Lower case, empty if none is given.
    architecture: String,
    version: [u32; 3],
    product_type: Option<u32>,
}

impl Decoration {
    /// Reads `NT[architecture][.[major][.[minor][.[product][.[suite][.[build]]]]]]`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let first = parts.next()?.to_ascii_lowercase();
        let architecture = first.strip_prefix("nt")?;
        if !matches!(
            architecture,
            "" | "x86" | "amd64" | "arm64" | "arm" | "ia64"
        ) {
            return None;
        }
        let mut numbers = [None; 5];
        for (index, part) in parts.enumerate() {
            let slot = numbers.get_mut(index)?;
            if !part.is_empty() {
                *slot = Some(number(part)?);
            }
        }
        let [major, minor, product_type, _suite, build] = numbers;
        Some(Self {
            architecture: architecture.to_owned(),
            version: [major.unwrap_or(0), minor.unwrap_or(0), build.unwrap_or(0)],
            product_type,
        })
    }

    /// How well it fits: [`None`] if it is for another system, else larger is better.
    pub(super) fn rank(&self, architecture: Architecture) -> Option<([u32; 3], bool, bool)> {
        let named = !self.architecture.is_empty();
        let fits = (!named || self.architecture == architecture.inf_name())
            && self.version <= SYSTEM
            && self
                .product_type
                .is_none_or(|product| product == PRODUCT_TYPE);
        fits.then_some((self.version, named, self.product_type.is_some()))
    }

    /// The architecture that it names.
    pub(super) fn names_architecture(&self) -> bool {
        !self.architecture.is_empty()
    }
}

fn number(text: &str) -> Option<u32> {
    if !text.bytes().next()?.is_ascii_digit() {
        return None;
    }
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Finds the section of `base` that fits best: decorated for the system, else without decoration.
pub(super) fn best_section<'a>(
    inf: &'a Inf,
    base: &str,
    architecture: Architecture,
) -> Option<&'a Section> {
    let prefix = format!("{}.", base.to_ascii_lowercase());
    let decorated = inf.sections().filter_map(|section| {
        let lower = section.name.to_ascii_lowercase();
        let rank = Decoration::parse(lower.strip_prefix(&prefix)?)?.rank(architecture)?;
        Some((rank, section))
    });
    let best = decorated
        .max_by_key(|(rank, _)| *rank)
        .map(|(_, section)| section);
    best.or_else(|| inf.section(base))
}
