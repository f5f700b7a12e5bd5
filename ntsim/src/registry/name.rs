// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names and paths as the kernel has them: any sequence of UTF-16 code units.

use std::fmt::{self, Write};

/// A name or a path: UTF-16 code units, which need not be well-formed.
///
/// Equality is to the letter; [`fold`](Self::fold) and
/// [`eq_ignore_case`](Self::eq_ignore_case) compare as the registry does.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RegString(Vec<u16>);

/// A name in upper case: what the registry finds and sorts keys and values by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FoldedName(Vec<u16>);

impl RegString {
    /// The code units, without a terminator.
    #[must_use]
    pub fn units(&self) -> &[u16] {
        &self.0
    }

    /// The text, if the code units are well-formed UTF-16.
    #[must_use]
    pub fn to_utf8(&self) -> Option<String> {
        String::from_utf16(&self.0).ok()
    }

    /// Upper-cases unit by unit.
    #[must_use]
    pub fn fold(&self) -> FoldedName {
        FoldedName(self.0.iter().copied().map(upcase).collect())
    }

    /// Compares without regard to case.
    #[must_use]
    pub fn eq_ignore_case(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .zip(&other.0)
                .all(|(&a, &b)| upcase(a) == upcase(b))
    }
}

/// The simple upper case of one code unit, as `RtlUpcaseUnicodeChar` has it: one unit
/// stays one unit, and nothing beyond ASCII becomes ASCII (the dotless i, the long s).
fn upcase(unit: u16) -> u16 {
    if unit < 0x80 {
        return match u8::try_from(unit) {
            Ok(byte) => u16::from(byte.to_ascii_uppercase()),
            Err(_) => unit,
        };
    }
    let Some(letter) = char::from_u32(u32::from(unit)) else {
        return unit;
    };
    let mut upper = letter.to_uppercase();
    match (
        upper.next().map(|letter| u16::try_from(u32::from(letter))),
        upper.next(),
    ) {
        (Some(Ok(upper)), None) if upper >= 0x80 => upper,
        _ => unit,
    }
}

/// Well-formed text as it is; an unpaired surrogate or a control character as `\u{…}`.
impl fmt::Display for RegString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in char::decode_utf16(self.0.iter().copied()) {
            match letter {
                Ok(letter) if letter.is_control() => write!(f, "{}", letter.escape_unicode())?,
                Ok(letter) => f.write_char(letter)?,
                Err(unpaired) => write!(f, "\\u{{{:x}}}", unpaired.unpaired_surrogate())?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RegString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl From<&str> for RegString {
    fn from(text: &str) -> Self {
        Self(text.encode_utf16().collect())
    }
}

impl From<String> for RegString {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&String> for RegString {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Vec<u16>> for RegString {
    fn from(units: Vec<u16>) -> Self {
        Self(units)
    }
}

impl From<&[u16]> for RegString {
    fn from(units: &[u16]) -> Self {
        Self(units.to_vec())
    }
}

impl From<&RegString> for RegString {
    fn from(name: &RegString) -> Self {
        name.clone()
    }
}
