// SPDX-License-Identifier: MIT OR Apache-2.0
//! Typed values.

use super::RegString;

/// No type.
pub const REG_NONE: u32 = 0;
/// A string.
pub const REG_SZ: u32 = 1;
/// A string with environment variables in it.
pub const REG_EXPAND_SZ: u32 = 2;
/// Bytes.
pub const REG_BINARY: u32 = 3;
/// A 32-bit number, little-endian.
pub const REG_DWORD: u32 = 4;
/// A 32-bit number, big-endian.
pub const REG_DWORD_BIG_ENDIAN: u32 = 5;
/// The target of a link.
pub const REG_LINK: u32 = 6;
/// Strings, one after the other.
pub const REG_MULTI_SZ: u32 = 7;
/// A 64-bit number, little-endian.
pub const REG_QWORD: u32 = 11;

/// A value of a key: any kind with any bytes.
///
/// The constructors make well-formed values, the accessors give [`None`] for a value of
/// another kind or with bytes that are not one of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// `REG_SZ`, `REG_DWORD`, … or any other number.
    pub kind: u32,
    /// The bytes as the driver gave them.
    pub data: Vec<u8>,
}

impl Value {
    /// Makes a value of any kind.
    #[must_use]
    pub fn new(kind: u32, data: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            data: data.into(),
        }
    }

    /// Makes a `REG_DWORD`.
    #[must_use]
    pub fn dword(number: u32) -> Self {
        Self::new(REG_DWORD, number.to_le_bytes())
    }

    /// Makes a `REG_QWORD`.
    #[must_use]
    pub fn qword(number: u64) -> Self {
        Self::new(REG_QWORD, number.to_le_bytes())
    }

    /// Makes a `REG_SZ`, with its terminator.
    #[must_use]
    pub fn sz(text: impl Into<RegString>) -> Self {
        Self::new(REG_SZ, terminated(&text.into()))
    }

    /// Makes a `REG_EXPAND_SZ`, with its terminator.
    #[must_use]
    pub fn expand_sz(text: impl Into<RegString>) -> Self {
        Self::new(REG_EXPAND_SZ, terminated(&text.into()))
    }

    /// Makes a `REG_MULTI_SZ`, each string and the whole terminated.
    #[must_use]
    pub fn multi_sz<S: Into<RegString>>(strings: impl IntoIterator<Item = S>) -> Self {
        let mut data: Vec<u8> = Vec::new();
        for text in strings {
            data.extend(terminated(&text.into()));
        }
        data.extend([0, 0]);
        Self::new(REG_MULTI_SZ, data)
    }

    /// Makes a `REG_BINARY`.
    #[must_use]
    pub fn binary(data: impl Into<Vec<u8>>) -> Self {
        Self::new(REG_BINARY, data)
    }

    /// The number of a `REG_DWORD`.
    #[must_use]
    pub fn as_dword(&self) -> Option<u32> {
        let bytes = self.data.as_slice().try_into().ok()?;
        (self.kind == REG_DWORD).then(|| u32::from_le_bytes(bytes))
    }

    /// The number of a `REG_QWORD`.
    #[must_use]
    pub fn as_qword(&self) -> Option<u64> {
        let bytes = self.data.as_slice().try_into().ok()?;
        (self.kind == REG_QWORD).then(|| u64::from_le_bytes(bytes))
    }

    /// The text of a `REG_SZ` or `REG_EXPAND_SZ`, up to its terminator if it has one.
    #[must_use]
    pub fn as_sz(&self) -> Option<RegString> {
        if !matches!(self.kind, REG_SZ | REG_EXPAND_SZ) {
            return None;
        }
        let units = self.units()?;
        let end = units
            .iter()
            .position(|&unit| unit == 0)
            .unwrap_or(units.len());
        Some(RegString::from(&units[..end]))
    }

    /// The strings of a `REG_MULTI_SZ`, up to the empty one that ends it.
    #[must_use]
    pub fn as_multi_sz(&self) -> Option<Vec<RegString>> {
        if self.kind != REG_MULTI_SZ {
            return None;
        }
        let units = self.units()?;
        Some(
            units
                .split(|&unit| unit == 0)
                .take_while(|text| !text.is_empty())
                .map(RegString::from)
                .collect(),
        )
    }

    /// The bytes of a `REG_BINARY`.
    #[must_use]
    pub fn as_binary(&self) -> Option<&[u8]> {
        (self.kind == REG_BINARY).then_some(self.data.as_slice())
    }

    /// The data as UTF-16 code units, if it has an even length.
    pub(super) fn units(&self) -> Option<Vec<u16>> {
        if !self.data.len().is_multiple_of(2) {
            return None;
        }
        let pairs = self.data.chunks_exact(2);
        Some(
            pairs
                .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
                .collect(),
        )
    }
}

fn terminated(text: &RegString) -> Vec<u8> {
    let units = text.units().iter().chain(&[0]);
    units.flat_map(|unit| unit.to_le_bytes()).collect()
}
