// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counted strings: <https://learn.microsoft.com/windows-hardware/drivers/ddi/wudfwdm/ns-wudfwdm-_unicode_string>
//!
//! The ANSI code page is 1252, as on a Western machine.

use crate::access::{UnicodeString, peek, peek_bytes, peek_unicode, poke, poke_bytes};
use crate::ex::pool;
use crate::memory::Fill;
use crate::trap::kernel;

const STATUS_SUCCESS: i32 = 0;
const STATUS_BUFFER_OVERFLOW: i32 = 0x8000_0005_u32.cast_signed();
const STATUS_INVALID_PARAMETER: i32 = 0xC000_000D_u32.cast_signed();
const STATUS_NO_MEMORY: i32 = 0xC000_0017_u32.cast_signed();
const STATUS_BUFFER_TOO_SMALL: i32 = 0xC000_0023_u32.cast_signed();
const STATUS_INVALID_PARAMETER_2: i32 = 0xC000_00F0_u32.cast_signed();

/// The pool tag of strings that the run-time library allocates: `RtlS`.
const TAG: u32 = u32::from_le_bytes(*b"RtlS");

/// `ANSI_STRING`, `STRING`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct AnsiString {
    length: u16,
    maximum_length: u16,
    buffer: *mut u8,
}

fn peek_ansi(from: *const AnsiString) -> Vec<u8> {
    let string = peek(from);
    peek_bytes(string.buffer, usize::from(string.length))
}

fn to_bytes(units: &[u16]) -> Vec<u8> {
    units.iter().flat_map(|unit| unit.to_le_bytes()).collect()
}

fn c_units(from: *const u16) -> Vec<u16> {
    (0..0x7FFF)
        .map(|index| peek(from.wrapping_add(index)))
        .take_while(|unit| *unit != 0)
        .collect()
}

/// `RtlInitAnsiString`, `RtlInitString`.
pub(crate) fn rtl_init_ansi_string(to: *mut AnsiString, from: *const u8) {
    let length = if from.is_null() {
        0
    } else {
        (0..0xFFFE)
            .take_while(|index| peek(from.wrapping_add(*index)) != 0)
            .count()
    };
    let length = u16::try_from(length).expect("at most 0xFFFE");
    let maximum_length = if from.is_null() { 0 } else { length + 1 };
    poke(
        to,
        AnsiString {
            length,
            maximum_length,
            buffer: from.cast_mut(),
        },
    );
}

/// `RtlAppendUnicodeToString`: appends all of a NUL-terminated string, or nothing.
pub(crate) fn rtl_append_unicode_to_string(to: *mut UnicodeString, from: *const u16) -> i32 {
    if from.is_null() {
        STATUS_SUCCESS
    } else {
        append(to, &c_units(from))
    }
}

/// `RtlAppendUnicodeStringToString`.
pub(crate) fn rtl_append_unicode_string_to_string(
    to: *mut UnicodeString,
    from: *const UnicodeString,
) -> i32 {
    append(to, &peek_unicode(from))
}

fn append(to: *mut UnicodeString, units: &[u16]) -> i32 {
    let string = peek(to);
    let total = usize::from(string.length) + units.len() * 2;
    if total > usize::from(string.maximum_length) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    let end = string
        .buffer
        .cast::<u8>()
        .wrapping_add(usize::from(string.length));
    poke_bytes(end, &to_bytes(units));
    // Terminated where there is room for it.
    if total + 2 <= usize::from(string.maximum_length) {
        poke_bytes(end.wrapping_add(units.len() * 2), &[0, 0]);
    }
    let length = u16::try_from(total).expect("fits maximum_length");
    poke(to, UnicodeString { length, ..string });
    STATUS_SUCCESS
}

/// Allocates a buffer for a result.
fn allocate(size: usize, function: &'static str) -> Option<*mut u8> {
    let address = kernel(|k| pool::allocate(k, true, size.max(1), TAG, Fill::Zero, function));
    (address != 0).then_some(address as *mut u8)
}

/// Writes a result, terminated where there is room, to a string that is
/// allocated for it or was brought along.
fn give_unicode(
    to: *mut UnicodeString,
    units: &[u16],
    allocated: bool,
    terminator: bool,
    function: &'static str,
) -> i32 {
    let mut string = peek(to);
    let needed = units.len() * 2 + if terminator { 2 } else { 0 };
    let Ok(needed) = u16::try_from(needed) else {
        return STATUS_INVALID_PARAMETER_2;
    };
    if allocated {
        let Some(buffer) = allocate(usize::from(needed), function) else {
            return STATUS_NO_MEMORY;
        };
        string.buffer = buffer.cast();
        string.maximum_length = needed;
    } else if usize::from(string.maximum_length) < units.len() * 2 {
        return STATUS_BUFFER_OVERFLOW;
    }
    poke_bytes(string.buffer.cast(), &to_bytes(units));
    if usize::from(string.maximum_length) >= units.len() * 2 + 2 {
        poke(string.buffer.wrapping_add(units.len()), 0);
    }
    string.length = u16::try_from(units.len() * 2).expect("less than needed");
    poke(to, string);
    STATUS_SUCCESS
}

/// `RtlAnsiStringToUnicodeString`.
pub(crate) fn rtl_ansi_string_to_unicode_string(
    to: *mut UnicodeString,
    from: *const AnsiString,
    allocated: u8,
) -> i32 {
    const NAME: &str = "RtlAnsiStringToUnicodeString";
    let bytes = peek_ansi(from);
    let (text, _) = encoding_rs::WINDOWS_1252.decode_without_bom_handling(&bytes);
    let units: Vec<u16> = text.encode_utf16().collect();
    // The result is terminated, so a buffer that is brought along has room for that too.
    if allocated == 0 && usize::from(peek(to).maximum_length) < units.len() * 2 + 2 {
        return STATUS_BUFFER_OVERFLOW;
    }
    give_unicode(to, &units, allocated != 0, true, NAME)
}

/// `RtlUnicodeStringToAnsiString`: what the code page does not have becomes `?`.
pub(crate) fn rtl_unicode_string_to_ansi_string(
    to: *mut AnsiString,
    from: *const UnicodeString,
    allocated: u8,
) -> i32 {
    const NAME: &str = "RtlUnicodeStringToAnsiString";
    let mut bytes = Vec::new();
    for unit in char::decode_utf16(peek_unicode(from)) {
        let mut buffer = [0; 4];
        let text = unit.unwrap_or('?').encode_utf8(&mut buffer);
        match encoding_rs::WINDOWS_1252.encode(text) {
            (encoded, _, false) => bytes.extend_from_slice(&encoded),
            (_, _, true) => bytes.push(b'?'),
        }
    }
    let mut string = peek(to);
    let Ok(needed) = u16::try_from(bytes.len() + 1) else {
        return STATUS_INVALID_PARAMETER_2;
    };
    let mut status = STATUS_SUCCESS;
    if allocated != 0 {
        let Some(buffer) = allocate(usize::from(needed), NAME) else {
            return STATUS_NO_MEMORY;
        };
        string.buffer = buffer;
        string.maximum_length = needed;
    } else if string.maximum_length < needed {
        // What fits is given, terminated.
        if string.maximum_length == 0 {
            return STATUS_BUFFER_OVERFLOW;
        }
        bytes.truncate(usize::from(string.maximum_length) - 1);
        status = STATUS_BUFFER_OVERFLOW;
    }
    string.length = u16::try_from(bytes.len()).expect("less than needed");
    bytes.push(0);
    poke_bytes(string.buffer, &bytes);
    poke(to, string);
    status
}

/// `RtlFreeUnicodeString`.
pub(crate) fn rtl_free_unicode_string(string: *mut UnicodeString) {
    let read = peek(string);
    kernel(|k| {
        if !read.buffer.is_null() {
            pool::free(k, read.buffer as usize, None);
        }
    });
    poke(
        string,
        UnicodeString {
            length: 0,
            maximum_length: 0,
            buffer: std::ptr::null_mut(),
        },
    );
}

/// `RtlFreeAnsiString`.
pub(crate) fn rtl_free_ansi_string(string: *mut AnsiString) {
    let read = peek(string);
    kernel(|k| {
        if !read.buffer.is_null() {
            pool::free(k, read.buffer as usize, None);
        }
    });
    poke(
        string,
        AnsiString {
            length: 0,
            maximum_length: 0,
            buffer: std::ptr::null_mut(),
        },
    );
}

/// The digits of `value`, or nothing for a base that there is not.
fn digits(mut value: u64, base: u32) -> Option<Vec<u16>> {
    let base = match base {
        0 => 10,
        2 | 8 | 10 | 16 => u64::from(base),
        _ => return None,
    };
    let mut units = Vec::new();
    loop {
        let digit = usize::try_from(value % base).expect("below 16");
        units.push(u16::from(b"0123456789ABCDEF"[digit]));
        value /= base;
        if value == 0 {
            break;
        }
    }
    units.reverse();
    Some(units)
}

/// `RtlIntegerToUnicodeString`.
pub(crate) fn rtl_integer_to_unicode_string(value: u32, base: u32, to: *mut UnicodeString) -> i32 {
    const NAME: &str = "RtlIntegerToUnicodeString";
    digits(u64::from(value), base).map_or(STATUS_INVALID_PARAMETER, |units| {
        give_unicode(to, &units, false, false, NAME)
    })
}

/// `RtlInt64ToUnicodeString`.
pub(crate) fn rtl_int64_to_unicode_string(value: u64, base: u32, to: *mut UnicodeString) -> i32 {
    const NAME: &str = "RtlInt64ToUnicodeString";
    digits(value, base).map_or(STATUS_INVALID_PARAMETER, |units| {
        give_unicode(to, &units, false, false, NAME)
    })
}

/// `RtlUnicodeStringToInteger`: blanks, a sign, a prefix if the base is 0,
/// then digits for as long as there are any.
pub(crate) fn rtl_unicode_string_to_integer(
    from: *const UnicodeString,
    base: u32,
    to: *mut u32,
) -> i32 {
    match parse(&peek_unicode(from), base) {
        Some(value) => {
            poke(to, value);
            STATUS_SUCCESS
        }
        None => STATUS_INVALID_PARAMETER,
    }
}

fn parse(units: &[u16], base: u32) -> Option<u32> {
    let text: String = char::decode_utf16(units.iter().copied())
        .map(|unit| unit.unwrap_or('?'))
        .collect();
    let text = text.trim_start_matches(|c: char| c <= ' ');
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, text) = match base {
        0 => [("0x", 16), ("0o", 8), ("0b", 2)]
            .into_iter()
            .find_map(|(prefix, base)| text.strip_prefix(prefix).map(|rest| (base, rest)))
            .unwrap_or((10, text)),
        2 | 8 | 10 | 16 => (base, text),
        _ => return None,
    };
    let value = text
        .chars()
        .map_while(|c| c.to_digit(base))
        .fold(0_u32, |value, digit| {
            value.wrapping_mul(base).wrapping_add(digit)
        });
    Some(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}

/// `RtlUpcaseUnicodeChar`.
pub(crate) fn rtl_upcase_unicode_char(unit: u16) -> u16 {
    super::fold(&[unit], true)[0]
}

/// `RtlDowncaseUnicodeChar`.
pub(crate) fn rtl_downcase_unicode_char(unit: u16) -> u16 {
    let Some(c) = char::from_u32(u32::from(unit)) else {
        return unit;
    };
    let mut lower = c.to_lowercase();
    match (lower.next().map(u32::from), lower.next()) {
        (Some(lower), None) => u16::try_from(lower).unwrap_or(unit),
        _ => unit,
    }
}

/// `RtlUpcaseUnicodeString`.
pub(crate) fn rtl_upcase_unicode_string(
    to: *mut UnicodeString,
    from: *const UnicodeString,
    allocated: u8,
) -> i32 {
    const NAME: &str = "RtlUpcaseUnicodeString";
    let units = super::fold(&peek_unicode(from), true);
    give_unicode(to, &units, allocated != 0, false, NAME)
}

/// `RtlDowncaseUnicodeString`.
pub(crate) fn rtl_downcase_unicode_string(
    to: *mut UnicodeString,
    from: *const UnicodeString,
    allocated: u8,
) -> i32 {
    const NAME: &str = "RtlDowncaseUnicodeString";
    let units: Vec<u16> = peek_unicode(from)
        .into_iter()
        .map(rtl_downcase_unicode_char)
        .collect();
    give_unicode(to, &units, allocated != 0, false, NAME)
}

/// `RtlPrefixUnicodeString`: whether the first string starts the second.
pub(crate) fn rtl_prefix_unicode_string(
    prefix: *const UnicodeString,
    text: *const UnicodeString,
    insensitive: u8,
) -> u8 {
    let fold = |string| super::fold(&peek_unicode(string), insensitive != 0);
    u8::from(fold(text).starts_with(&fold(prefix)))
}

#[cfg(test)]
mod tests {
    use super::{digits, parse};

    #[test]
    fn integers_are_written_and_read_in_the_bases_that_there_are() {
        let text =
            |value, base| digits(value, base).map(|units| String::from_utf16(&units).unwrap());
        assert_eq!(text(0, 10).as_deref(), Some("0"));
        assert_eq!(text(0xBEEF, 16).as_deref(), Some("BEEF"));
        assert_eq!(text(5, 2).as_deref(), Some("101"));
        assert_eq!(text(5, 7), None);
        let number = |text: &str, base| parse(&text.encode_utf16().collect::<Vec<_>>(), base);
        assert_eq!(number("  42 apples", 10), Some(42));
        assert_eq!(number("0x1F", 0), Some(31));
        assert_eq!(number("-1", 0), Some(u32::MAX));
        assert_eq!(number("7", 3), None);
    }
}
