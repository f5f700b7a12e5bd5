// SPDX-License-Identifier: MIT OR Apache-2.0

//! The run-time library (`Rtl`), debug output and bug checks.

pub(crate) mod string;
pub(crate) mod time;

use crate::access::{Addr, Slot, UnicodeString, peek, peek_bytes, peek_c_str, peek_unicode, poke};
use crate::bugcheck::{BugCheck, RUST_PANIC};
use crate::kernel::Kernel;
use crate::trace::Event;
use crate::trap::kernel;

/// `KeBugCheckEx`: ends the simulation.
pub(crate) fn ke_bug_check_ex(
    code: u32,
    Addr(p1): Addr,
    Addr(p2): Addr,
    Addr(p3): Addr,
    Addr(p4): Addr,
) {
    let parameters = [p1, p2, p3, p4].map(|parameter| parameter as u64);
    let message = if code == RUST_PANIC {
        // wdk-panic hands over the panic's place: file name, its length, line, column.
        let file = if p1 == 0 {
            Vec::new()
        } else {
            peek_bytes(p1 as *const u8, p2.min(512))
        };
        format!(
            "the driver panicked at {}:{p3}:{p4}",
            String::from_utf8_lossy(&file)
        )
    } else {
        "the driver called KeBugCheckEx".to_owned()
    };
    kernel(|k| k.bug_check(BugCheck::new(code, parameters, message)));
}

/// `KeBugCheck`.
pub(crate) fn ke_bug_check(code: u32) {
    ke_bug_check_ex(code, Addr(0), Addr(0), Addr(0), Addr(0));
}

/// `DbgPrint`: the arguments are those of a variadic call, as many as its
/// format asks for.
#[expect(
    clippy::too_many_arguments,
    reason = "the registers and stack slots of a variadic call"
)]
pub(crate) fn dbg_print(
    format: *const u8,
    a0: Slot,
    a1: Slot,
    a2: Slot,
    a3: Slot,
    a4: Slot,
    a5: Slot,
    a6: Slot,
    a7: Slot,
) -> i32 {
    print(
        format,
        &[a0, a1, a2, a3, a4, a5, a6, a7].map(|Slot(word)| word),
    )
}

/// `DbgPrintEx`; every component and level is shown.
#[expect(
    clippy::too_many_arguments,
    reason = "the registers and stack slots of a variadic call"
)]
pub(crate) fn dbg_print_ex(
    _component: u32,
    _level: u32,
    format: *const u8,
    a0: Slot,
    a1: Slot,
    a2: Slot,
    a3: Slot,
    a4: Slot,
    a5: Slot,
    a6: Slot,
) -> i32 {
    print(format, &[a0, a1, a2, a3, a4, a5, a6].map(|Slot(word)| word))
}

fn print(format: *const u8, arguments: &[usize]) -> i32 {
    let text = format_message(&peek_c_str(format), arguments);
    kernel(|k| message(k, &text));
    0
}

/// Adds to the debugger's output; every complete line becomes a trace line.
fn message(k: &mut Kernel, text: &str) {
    for line in text.split_inclusive('\n') {
        k.log(Event::Print(line.trim_end_matches(['\r', '\n']).to_owned()));
    }
}

/// `printf` as the kernel's debug output knows it: `d i u x X p c s S Z` with
/// flags, width, precision and the length prefixes `h l ll I64 w`.
fn format_message(format: &[u8], arguments: &[usize]) -> String {
    // Bytes, so that text which is UTF-8 already comes through whole.
    let mut out = Vec::new();
    let mut arguments = arguments.iter().copied();
    let mut rest = format.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut flags = Vec::new();
        while let Some(flag) = rest.next_if(|byte| b"-+ #0".contains(byte)) {
            flags.push(flag);
        }
        let mut number = |arguments: &mut dyn Iterator<Item = usize>| {
            let mut value = None;
            while let Some(digit) = rest.next_if(|byte| byte.is_ascii_digit() || *byte == b'*') {
                value = Some(if digit == b'*' {
                    arguments.next().unwrap_or(0)
                } else {
                    value.unwrap_or(0) * 10 + usize::from(digit - b'0')
                });
            }
            value
        };
        let width = number(&mut arguments).unwrap_or(0).min(256);
        let precision = if rest.next_if_eq(&b'.').is_some() {
            let mut value = 0;
            while let Some(digit) = rest.next_if(|byte| byte.is_ascii_digit() || *byte == b'*') {
                value = if digit == b'*' {
                    arguments.next().unwrap_or(0)
                } else {
                    value * 10 + usize::from(digit - b'0')
                };
            }
            Some(value.min(4096))
        } else {
            None
        };
        let mut wide = false;
        let mut long = 0;
        while let Some(prefix) = rest.next_if(|byte| b"hlwI".contains(byte)) {
            match prefix {
                b'l' => {
                    long += 1;
                    wide = true;
                }
                b'w' => wide = true,
                b'I' => {
                    while rest.next_if(|byte| b"64".contains(byte)).is_some() {}
                    long = 2;
                }
                _ => {}
            }
        }
        let Some(kind) = rest.next() else { break };
        let mut next = || arguments.next().unwrap_or(0);
        let text: Vec<u8> = match kind {
            b'%' => b"%".to_vec(),
            b'd' | b'i' => {
                let value = next();
                let value = if long >= 2 {
                    (value as u64).cast_signed()
                } else {
                    i64::from(low(value).cast_signed())
                };
                value.to_string().into()
            }
            b'u' => integer(next(), long).to_string().into(),
            b'x' => format!("{:x}", integer(next(), long)).into(),
            b'X' => format!("{:X}", integer(next(), long)).into(),
            b'p' | b'P' => {
                let address = next();
                kernel(|k| {
                    let mut text = String::new();
                    k.show_address(address, &mut text);
                    text.into()
                })
            }
            b'c' | b'C' => vec![next().to_le_bytes()[0]],
            b'Z' => String::from_utf16_lossy(&peek_unicode(next() as *const UnicodeString)).into(),
            b's' | b'S' => text_argument(next(), wide || kind == b'S', precision.unwrap_or(4096)),
            other => vec![b'%', other],
        };
        let fill = vec![
            if flags.contains(&b'0') && !flags.contains(&b'-') {
                b'0'
            } else {
                b' '
            };
            width.saturating_sub(String::from_utf8_lossy(&text).chars().count())
        ];
        if flags.contains(&b'-') {
            out.extend([text, fill].concat());
        } else {
            out.extend([fill, text].concat());
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The text of a `%s` argument, at most `limit` units of it.
fn text_argument(address: usize, wide: bool, limit: usize) -> Vec<u8> {
    if address == 0 {
        return b"(null)".to_vec();
    }
    if wide {
        let units = (0..limit)
            .map(|index| peek((address as *const u16).wrapping_add(index)))
            .take_while(|unit| *unit != 0)
            .collect::<Vec<_>>();
        return String::from_utf16_lossy(&units).into();
    }
    (0..limit)
        .map(|index| peek((address as *const u8).wrapping_add(index)))
        .take_while(|byte| *byte != 0)
        .collect()
}

fn low(value: usize) -> u32 {
    u32::try_from(value & 0xFFFF_FFFF).expect("masked to 32 bits")
}

fn integer(value: usize, long: u32) -> u64 {
    if long >= 2 {
        value as u64
    } else {
        u64::from(low(value))
    }
}

/// `RtlInitUnicodeString`.
pub(crate) fn rtl_init_unicode_string(to: *mut UnicodeString, from: *const u16) {
    let length = if from.is_null() {
        0
    } else {
        (0..0x7FFE)
            .take_while(|index| peek(from.wrapping_add(*index)) != 0)
            .count()
    };
    let length = u16::try_from(length * 2).expect("at most 0xFFFC");
    let maximum_length = if from.is_null() { 0 } else { length + 2 };
    poke(
        to,
        UnicodeString {
            length,
            maximum_length,
            buffer: from.cast_mut(),
        },
    );
}

fn fold(units: &[u16], fold: bool) -> Vec<u16> {
    if !fold {
        return units.to_vec();
    }
    char::decode_utf16(units.iter().copied())
        .flat_map(|unit| match unit {
            Ok(c) => {
                let mut upper = c.to_uppercase();
                let single = upper.next().filter(|_| upper.next().is_none()).unwrap_or(c);
                let mut buffer = [0; 2];
                single.encode_utf16(&mut buffer).to_vec()
            }
            Err(error) => vec![error.unpaired_surrogate()],
        })
        .collect()
}

/// `RtlCompareUnicodeString`.
pub(crate) fn rtl_compare_unicode_string(
    a: *const UnicodeString,
    b: *const UnicodeString,
    insensitive: u8,
) -> i32 {
    let (a, b) = (
        fold(&peek_unicode(a), insensitive != 0),
        fold(&peek_unicode(b), insensitive != 0),
    );
    a.cmp(&b) as i32
}

/// `RtlEqualUnicodeString`.
pub(crate) fn rtl_equal_unicode_string(
    a: *const UnicodeString,
    b: *const UnicodeString,
    insensitive: u8,
) -> u8 {
    u8::from(rtl_compare_unicode_string(a, b, insensitive) == 0)
}

/// `RtlCopyUnicodeString`: copies what fits.
pub(crate) fn rtl_copy_unicode_string(to: *mut UnicodeString, from: *const UnicodeString) {
    let source = if from.is_null() {
        Vec::new()
    } else {
        peek_unicode(from)
    };
    let mut destination = peek(to);
    let room = usize::from(destination.maximum_length) / 2;
    let count = source.len().min(room);
    for (index, unit) in source[..count].iter().enumerate() {
        poke(destination.buffer.wrapping_add(index), *unit);
    }
    destination.length = u16::try_from(count * 2).expect("fits maximum_length");
    poke(to, destination);
}

/// `RtlCompareMemory`. Returns how many bytes are equal before the first that is not.
pub(crate) fn rtl_compare_memory(a: *const u8, b: *const u8, length: usize) -> usize {
    (0..length)
        .position(|index| peek(a.wrapping_add(index)) != peek(b.wrapping_add(index)))
        .unwrap_or(length)
}

/// `RtlRandomEx`, `RtlRandom`: the next number below `MAXLONG`, and the next seed.
pub(crate) fn rtl_random_ex(seed: *mut u32) -> u32 {
    const MODULUS: u64 = 0x7FFF_FFFF;
    let next = (u64::from(peek(seed)) * 0x7FFF_FFED + 0x7FFF_FFC3) % MODULUS;
    let next = u32::try_from(next).expect("below the modulus");
    poke(seed, next);
    next
}

/// `RTL_OSVERSIONINFOW`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct VersionInfo {
    size: u32,
    major: u32,
    minor: u32,
    build: u32,
    platform: u32,
    service_pack: [u16; 128],
}

/// What `RTL_OSVERSIONINFOEXW` has behind that.
#[repr(C)]
#[derive(Clone, Copy)]
struct VersionInfoTail {
    service_pack_major: u16,
    service_pack_minor: u16,
    suite_mask: u16,
    product_type: u8,
    reserved: u8,
}

/// `RtlGetVersion`: Windows 11, version 22H2.
pub(crate) fn rtl_get_version(info: *mut VersionInfo) -> i32 {
    let size = peek(info.cast::<u32>());
    let (plain, tail) = (size_of::<VersionInfo>(), size_of::<VersionInfoTail>());
    let version = VersionInfo {
        size,
        major: 10,
        minor: 0,
        build: 22621,
        platform: 2,
        service_pack: [0; 128],
    };
    if size as usize >= plain {
        poke(info, version);
    } else {
        // A caller that forgot the size gets the numbers, as on Windows.
        poke(
            info.cast::<[u32; 5]>(),
            [
                size,
                version.major,
                version.minor,
                version.build,
                version.platform,
            ],
        );
    }
    if size as usize == plain + tail {
        let workstation = VersionInfoTail {
            service_pack_major: 0,
            service_pack_minor: 0,
            suite_mask: 0x100,
            product_type: 1,
            reserved: 0,
        };
        poke(info.wrapping_add(1).cast(), workstation);
    }
    0
}

/// `DbgBreakPoint`: nobody debugs a simulated machine.
pub(crate) fn dbg_break_point() {
    kernel(|k| {
        let code = if k.running_thread().is_some() {
            0x7E
        } else {
            0x1E
        };
        k.bug_check(BugCheck::new(
            code,
            [0x8000_0003, 0, 0, 0],
            "the driver called DbgBreakPoint",
        ))
    });
}

/// `DbgBreakPointWithStatus`.
pub(crate) fn dbg_break_point_with_status(_status: u32) {
    dbg_break_point();
}

/// `MmGetSystemRoutineAddress`: a function of ntoskrnl or HAL, or NULL.
pub(crate) fn mm_get_system_routine_address(name: *const UnicodeString) -> *const () {
    let name = String::from_utf16_lossy(&peek_unicode(name));
    let image = kernel(|k| k.calls_from_image());
    crate::exports::all()
        .find(|export| export.name == name && export.dll != "WDFLDR.SYS")
        .map_or(std::ptr::null(), |export| {
            if image { export.image } else { export.host }
        })
}

#[cfg(test)]
mod tests {
    use super::format_message;

    #[test]
    fn a_message_is_formatted_as_printf_does() {
        let text = c"abc";
        let cases: [(&[u8], &[usize], &str); 9] = [
            (b"%s!", &[text.as_ptr() as usize], "abc!"),
            (b"%d %u", &[usize::MAX, 7], "-1 7"),
            (b"%08X|%-4d|%4d", &[0xBEEF, 1, 2], "0000BEEF|1   |   2"),
            (b"%lld", &[usize::MAX - 1], "-2"),
            (b"100%%", &[], "100%"),
            (
                "Grüße, %s → %3d".as_bytes(),
                &[c"Jörg".as_ptr() as usize, 7],
                "Grüße, Jörg →   7",
            ),
            ("%6s|".as_bytes(), &[c"äöü".as_ptr() as usize], "   äöü|"),
            (b"%.2s", &[text.as_ptr() as usize], "ab"),
            (b"%c%c", &[b'h' as usize, b'i' as usize], "hi"),
        ];
        for (format, arguments, expected) in cases {
            assert_eq!(format_message(format, arguments), expected);
        }
    }
}
