// SPDX-License-Identifier: MIT OR Apache-2.0

//! UTF-16 strings, checked at compile time.
//!
//! The kernel's strings are counted UTF-16: a `UNICODE_STRING` with a length in
//! bytes of at most 65,534. A literal made by [`unicode_string!`](crate::unicode_string)
//! is converted and checked by the compiler and lies in the image.
//!
//! ```
//! use dmf::string::UnicodeStr;
//!
//! const NAME: UnicodeStr<'static> = dmf::unicode_string!("TimesRun");
//! assert_eq!(NAME.units().len(), 8);
//! assert_eq!(format!("{NAME}"), "TimesRun");
//! ```
//!
//! A literal that is too long, or has a NUL in it, does not compile:
//!
//! ```compile_fail,E0080
//! const NAME: dmf::string::UnicodeStr<'static> = dmf::unicode_string!("Times\0Run");
//! ```

use core::fmt;

use crate::status::{NtStatus, Result};
use crate::sys;

/// The most UTF-16 units that a `UNICODE_STRING` can count.
pub const MAXIMUM_UNITS: usize = u16::MAX as usize / 2;

/// A borrowed UTF-16 string, at most [`MAXIMUM_UNITS`] long.
///
/// C counterpart: [`UNICODE_STRING`][ms], without its spare capacity.
///
/// # Invariants
/// `units.len() <= MAXIMUM_UNITS`
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wudfwdm/ns-wudfwdm-_unicode_string
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnicodeStr<'a> {
    units: &'a [u16],
}

impl<'a> UnicodeStr<'a> {
    /// A string of these units.
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_INVALID` if there are more than [`MAXIMUM_UNITS`].
    pub const fn new(units: &'a [u16]) -> Result<Self> {
        if units.len() > MAXIMUM_UNITS {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        }
        // INVARIANT: checked above.
        Ok(Self { units })
    }

    /// The string of a literal. Fails to compile if it is too long.
    #[doc(hidden)]
    #[must_use]
    pub const fn literal(units: &'a [u16]) -> Self {
        assert!(
            units.len() <= MAXIMUM_UNITS,
            "a UNICODE_STRING holds at most 32,767 UTF-16 units"
        );
        // INVARIANT: checked above.
        Self { units }
    }

    /// The UTF-16 units.
    #[must_use]
    pub const fn units(self) -> &'a [u16] {
        self.units
    }

    /// Whether there are no units.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.units.is_empty()
    }

    /// The kernel's view of the string, valid as long as the units are.
    ///
    /// It must only be read through: the kernel's type has no `const`.
    #[must_use]
    pub fn to_raw(self) -> sys::UNICODE_STRING {
        // The invariant keeps this below 65,536.
        let bytes = u16::try_from(self.units.len() * 2).unwrap_or(u16::MAX - 1);
        sys::UNICODE_STRING {
            Length: bytes,
            MaximumLength: bytes,
            Buffer: self.units.as_ptr().cast_mut(),
        }
    }
}

impl fmt::Display for UnicodeStr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        char::decode_utf16(self.units.iter().copied())
            .try_for_each(|unit| f.write_char(unit.unwrap_or(char::REPLACEMENT_CHARACTER)))
    }
}

impl fmt::Debug for UnicodeStr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// How many UTF-16 units `text` has.
#[doc(hidden)]
#[must_use]
pub const fn utf16_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut units = 0;
    let mut at = 0;
    while at < bytes.len() {
        let (character, length) = decode(bytes, at);
        units += if character < 0x1_0000 { 1 } else { 2 };
        at += length;
    }
    units
}

/// The `N` UTF-16 units of `text`. Fails to compile if `text` has a NUL.
#[doc(hidden)]
#[must_use]
pub const fn utf16_units<const N: usize>(text: &str) -> [u16; N] {
    let bytes = text.as_bytes();
    let mut units = [0; N];
    let mut at = 0;
    let mut unit = 0;
    while at < bytes.len() {
        let (character, length) = decode(bytes, at);
        assert!(
            character != 0,
            "a NUL inside a string ends it for some readers"
        );
        if character < 0x1_0000 {
            units[unit] = low_half(character);
            unit += 1;
        } else {
            let above = character - 0x1_0000;
            units[unit] = low_half(0xD800 | (above >> 10));
            units[unit + 1] = low_half(0xDC00 | (above & 0x3FF));
            unit += 2;
        }
        at += length;
    }
    units
}

/// The lower sixteen bits.
const fn low_half(value: u32) -> u16 {
    let [low, high, ..] = value.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// The character that starts at `at`, and how many bytes it has. `bytes` is the
/// UTF-8 of a `str`, so no sequence is cut off.
const fn decode(bytes: &[u8], at: usize) -> (u32, usize) {
    let first = bytes[at] as u32;
    let (mut character, length) = match first {
        0..0x80 => return (first, 1),
        0x80..0xE0 => (first & 0x1F, 2),
        0xE0..0xF0 => (first & 0x0F, 3),
        _ => (first & 0x07, 4),
    };
    let mut next = 1;
    while next < length {
        character = (character << 6) | (bytes[at + next] as u32 & 0x3F);
        next += 1;
    }
    (character, length)
}

/// The UTF-16 units of a literal, as `&'static [u16; N]`, without a final NUL.
///
/// ```
/// assert_eq!(dmf::utf16!("a€😀"), &[0x61, 0x20AC, 0xD83D, 0xDE00]);
/// ```
#[macro_export]
macro_rules! utf16 {
    ($text:expr) => {{
        const TEXT: &str = $text;
        const UNITS: [u16; $crate::string::utf16_length(TEXT)] = $crate::string::utf16_units(TEXT);
        &UNITS
    }};
}

/// A literal as a [`UnicodeStr<'static>`](crate::string::UnicodeStr).
///
/// C counterpart: `DECLARE_CONST_UNICODE_STRING`.
#[macro_export]
macro_rules! unicode_string {
    ($text:expr) => {
        const { $crate::string::UnicodeStr::literal($crate::utf16!($text)) }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::vec::Vec;

    #[test]
    fn literals_agree_with_the_standard_library() {
        macro_rules! check {
            ($($text:literal)*) => {$(
                assert_eq!(utf16!($text).as_slice(), $text.encode_utf16().collect::<Vec<_>>());
            )*};
        }
        check!("" "TimesRun" "\\Registry\\Machine" "é߿" "ࠀ€\u{FFFD}\u{FFFF}" "😀\u{10FFFF}\u{10000}");
    }

    #[test]
    fn the_raw_form_counts_bytes() {
        let raw = unicode_string!("abc").to_raw();
        assert_eq!((raw.Length, raw.MaximumLength), (6, 6));
    }

    #[test]
    fn the_longest_string_fits_and_one_more_does_not() {
        let units = std::vec![0x61_u16; MAXIMUM_UNITS + 1];
        let longest = UnicodeStr::new(&units[..MAXIMUM_UNITS]).unwrap();
        assert_eq!(longest.to_raw().Length, 65_534);
        assert_eq!(UnicodeStr::new(&units), Err(NtStatus::OBJECT_NAME_INVALID));
    }

    #[test]
    fn a_lone_surrogate_is_shown_as_a_replacement() {
        assert_eq!(
            format!("{}", UnicodeStr::new(&[0x61, 0xD800]).unwrap()),
            "a\u{FFFD}"
        );
    }
}
