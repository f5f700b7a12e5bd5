// SPDX-License-Identifier: MIT OR Apache-2.0

//! UTF-16 strings: views ([`UnicodeStr`]), owned ones in pool
//! ([`UnicodeString`]), and literals that the compiler checks.
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
//! An owned string grows, formats, and fails instead of aborting:
//!
//! ```
//! use dmf::NtStatus;
//! use dmf::string::UnicodeString;
//!
//! # ntsim::run(|| {
//! let path = UnicodeString::format(format_args!(r"\Device\Sensor{}", 3))?;
//! assert_eq!(path.as_str(), dmf::unicode_string!(r"\Device\Sensor3"));
//! # Ok::<_, NtStatus>(())
//! # }).unwrap();
//! ```
//!
//! A literal that is too long, or has a NUL in it, does not compile:
//!
//! ```compile_fail,E0080
//! const NAME: dmf::string::UnicodeStr<'static> = dmf::unicode_string!("Times\0Run");
//! ```

use core::cmp::Ordering;
use core::fmt;

use crate::irql::{Irql, Passive};
use crate::pool::Vec;
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
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the invariant: it is below 65,536"
        )]
        let bytes = (self.units.len() * 2) as u16;
        sys::UNICODE_STRING {
            Length: bytes,
            MaximumLength: bytes,
            Buffer: self.units.as_ptr().cast_mut(),
        }
    }
}

impl UnicodeStr<'_> {
    /// The view of a string of the kernel's.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` if its length is odd, or it has a length and
    /// no buffer, or one at an odd address.
    ///
    /// # Safety
    /// As far as `raw.Length` goes, the buffer is valid and does not change as
    /// long as the view lives.
    pub unsafe fn from_raw(raw: &sys::UNICODE_STRING) -> Result<Self> {
        if raw.Length == 0 {
            return Ok(Self { units: &[] });
        }
        if !raw.Length.is_multiple_of(2) || raw.Buffer.is_null() || !raw.Buffer.is_aligned() {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        // SAFETY: the caller's promise; neither null nor crooked, as just checked.
        let units = unsafe { core::slice::from_raw_parts(raw.Buffer, raw.Length as usize / 2) };
        // INVARIANT: the length in bytes is at most 65,534.
        Ok(Self { units })
    }

    /// Compares with `other` without regard to case, by the system's table.
    ///
    /// ```
    /// use core::cmp::Ordering;
    /// use dmf::prelude::*;
    /// use dmf::unicode_string;
    ///
    /// # ntsim::run(|| {
    /// # let irql = &unsafe { Irql::<Passive>::assume() };
    /// let name = unicode_string!("TimesRun");
    /// assert!(name.eq_ignore_case(irql, unicode_string!("TIMESRUN")));
    /// assert!(name.starts_with_ignore_case(irql, unicode_string!("times")));
    /// assert_eq!(name.compare_ignore_case(irql, unicode_string!("timesset")), Ordering::Less);
    /// # });
    /// ```
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`: the table is paged.
    ///
    /// C counterpart: [`RtlCompareUnicodeString`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-rtlcompareunicodestring
    #[must_use]
    pub fn compare_ignore_case(self, _irql: &Irql<'_, Passive>, other: UnicodeStr<'_>) -> Ordering {
        let (a, b) = (self.to_raw(), other.to_raw());
        // SAFETY: both are valid for the length of the call, which does not
        // write; the token proves the level.
        let order = unsafe { sys::ntddk::RtlCompareUnicodeString(&raw const a, &raw const b, 1) };
        order.cmp(&0)
    }

    /// Whether it is `other`, without regard to case.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: [`RtlEqualUnicodeString`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-rtlequalunicodestring
    #[must_use]
    pub fn eq_ignore_case(self, _irql: &Irql<'_, Passive>, other: UnicodeStr<'_>) -> bool {
        let (a, b) = (self.to_raw(), other.to_raw());
        // SAFETY: as for `compare_ignore_case`.
        unsafe { sys::ntddk::RtlEqualUnicodeString(&raw const a, &raw const b, 1) != 0 }
    }

    /// Whether it starts with `prefix`, without regard to case.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: [`RtlPrefixUnicodeString`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-rtlprefixunicodestring
    #[must_use]
    pub fn starts_with_ignore_case(
        self,
        _irql: &Irql<'_, Passive>,
        prefix: UnicodeStr<'_>,
    ) -> bool {
        let (a, b) = (prefix.to_raw(), self.to_raw());
        // SAFETY: as for `compare_ignore_case`.
        unsafe { sys::ntddk::RtlPrefixUnicodeString(&raw const a, &raw const b, 1) != 0 }
    }

    /// Whether its text is `text`, exactly.
    #[must_use]
    pub fn eq_str(self, text: &str) -> bool {
        self.units.iter().copied().eq(text.encode_utf16())
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

/// A UTF-16 string that owns its units, in non-paged pool.
///
/// Each method that makes it longer can fail, and then leaves it as it was. It is
/// a [`fmt::Write`], whose error says that the pool is empty or the string full.
///
/// C counterpart: [`UNICODE_STRING`][ms] with a buffer of its own.
///
/// # Invariants
/// `units.len() <= MAXIMUM_UNITS`
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wudfwdm/ns-wudfwdm-_unicode_string
#[derive(Default)]
pub struct UnicodeString {
    units: Vec<u16>,
}

impl UnicodeString {
    /// An empty string. Does not allocate.
    #[must_use]
    pub const fn new() -> Self {
        Self { units: Vec::new() }
    }

    /// A copy of these units.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// As [`push_units`](Self::push_units).
    pub fn from_units(units: &[u16]) -> Result<Self> {
        let mut string = Self::new();
        string.push_units(units)?;
        Ok(string)
    }

    /// A string of the formatted text.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_INSUFFICIENT_RESOURCES` if the pool is empty.
    /// - `STATUS_OBJECT_NAME_INVALID` if the text is too long.
    /// - `STATUS_UNSUCCESSFUL` if an argument's own formatting failed.
    pub fn format(text: fmt::Arguments<'_>) -> Result<Self> {
        let mut formatter = Formatter {
            string: Self::new(),
            error: None,
        };
        match fmt::write(&mut formatter, text) {
            Ok(()) => Ok(formatter.string),
            Err(fmt::Error) => Err(formatter.error.unwrap_or(NtStatus::UNSUCCESSFUL)),
        }
    }

    /// Adds text.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_OBJECT_NAME_INVALID` if there would be more than [`MAXIMUM_UNITS`].
    /// - `STATUS_INSUFFICIENT_RESOURCES` if the pool is empty.
    pub fn push_str(&mut self, text: &str) -> Result {
        self.grow_by(text.encode_utf16().count())?;
        for unit in text.encode_utf16() {
            self.units.push(unit)?;
        }
        Ok(())
    }

    /// Adds units.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// As [`push_str`](Self::push_str).
    pub fn push_units(&mut self, units: &[u16]) -> Result {
        self.grow_by(units.len())?;
        self.units.extend_from_slice(units)
    }

    /// Makes room for `more` units.
    fn grow_by(&mut self, more: usize) -> Result {
        if more > MAXIMUM_UNITS - self.units.len() {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        }
        self.units.reserve(more)
    }

    /// Makes it empty, and keeps the memory.
    pub fn clear(&mut self) {
        self.units.clear();
    }

    /// The string, to look at.
    #[must_use]
    pub fn as_str(&self) -> UnicodeStr<'_> {
        // INVARIANT: that of this type.
        UnicodeStr { units: &self.units }
    }
}

impl TryFrom<&str> for UnicodeString {
    type Error = NtStatus;

    fn try_from(text: &str) -> Result<Self> {
        let mut string = Self::new();
        string.push_str(text)?;
        Ok(string)
    }
}

impl TryFrom<UnicodeStr<'_>> for UnicodeString {
    type Error = NtStatus;

    fn try_from(text: UnicodeStr<'_>) -> Result<Self> {
        Self::from_units(text.units())
    }
}

impl PartialEq for UnicodeString {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for UnicodeString {}

impl fmt::Write for UnicodeString {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text).map_err(|_| fmt::Error)
    }
}

impl fmt::Display for UnicodeString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Debug for UnicodeString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.as_str(), f)
    }
}

/// Keeps the status for which `fmt::Error` has no room.
struct Formatter {
    string: UnicodeString,
    error: Option<NtStatus>,
}

impl fmt::Write for Formatter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.string.push_str(text).map_err(|status| {
            self.error = Some(status);
            fmt::Error
        })
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
