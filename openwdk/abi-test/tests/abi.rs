// SPDX-License-Identifier: MIT OR Apache-2.0

//! The whole interface against the data and against Microsoft's metadata.

use std::fmt::Write as _;

#[path = "abi/kmdf.rs"]
#[rustfmt::skip] // formatted by the generator
#[allow(
    clippy::too_many_lines,
    clippy::unreadable_literal,
    clippy::wildcard_imports,
    reason = "generated: a function per structure, as long as that is"
)]
mod kmdf;
#[path = "abi/nt.rs"]
#[rustfmt::skip] // a table
#[allow(clippy::too_many_lines, reason = "a table")]
mod nt;

/// Something measured in `ntsim-sys` that is not what the other source says.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    what: &'static str,
    ours: i64,
    theirs: i64,
}

/// A count that may be compared: sizes, offsets and constants of either source.
trait Number {
    fn number(self) -> i64;
}

macro_rules! number {
    ($($ty:ty),*) => { $(impl Number for $ty {
        #[allow(
            clippy::cast_lossless,
            clippy::cast_possible_truncation,
            clippy::cast_possible_wrap,
            clippy::cast_sign_loss,
            reason = "compared bit for bit"
        )]
        fn number(self) -> i64 {
            // Constants of 32 bits are signed in one source and unsigned in the other.
            if size_of::<$ty>() == 4 { self as u32 as i64 } else { self as i64 }
        }
    })* };
}
number!(i8, u8, i16, u16, i32, u32, i64, u64, isize, usize);

/// Appends a [`Difference`] unless the two are equal.
fn compare(
    found: &mut Vec<Difference>,
    what: &'static str,
    ours: impl Number,
    theirs: impl Number,
) {
    let (ours, theirs) = (ours.number(), theirs.number());
    if ours != theirs {
        found.push(Difference { what, ours, theirs });
    }
}

macro_rules! types {
    ($($name:ident, $theirs:ty: $($field:ident),*;)*) => {{
        let mut found = Vec::new();
        $(
            super::compare(
                &mut found,
                stringify!($name),
                size_of::<ntsim_sys::$name>(),
                size_of::<$theirs>(),
            );
            $(super::compare(
                &mut found,
                concat!(stringify!($name), ".", stringify!($field)),
                core::mem::offset_of!(ntsim_sys::$name, $field),
                core::mem::offset_of!($theirs, $field),
            );)*
        )*
        found
    }};
}
use types;

macro_rules! constants {
    ($($($ours:ident)::+, $($theirs:ident)::+;)*) => {{
        let mut found = Vec::new();
        $(super::compare(&mut found, stringify!($($ours)::+), ntsim_sys::$($ours)::+, $($theirs)::+);)*
        found
    }};
}
use constants;

/// Where `windows-sys` differs from us, by name or, with `*`, by how the name begins, and why we are
/// right. Its metadata was taken from the headers for 32-bit x86 in some places.
const KNOWN: &[(&str, &str)] = &[
    (
        "DEVICE_REGISTRY_PROPERTY :: *",
        "the metadata has the bits that the headers add for static analysis only",
    ),
    ("CLOCK_LEVEL", X86),
    ("IPI_LEVEL", X86),
    ("POWER_LEVEL", X86),
    ("PROFILE_LEVEL", X86),
    ("HIGH_LEVEL", X86),
    (
        "KTIMER.Period",
        "x64 has Processor and TimerType before it, as mingw's headers have too",
    ),
    (
        "ERESOURCE*",
        "x64 has one more pointer before CreatorBackTraceIndex, as mingw's headers have too",
    ),
    ("CM_PARTIAL_RESOURCE_*", PACKED),
    ("CM_FULL_RESOURCE_DESCRIPTOR", PACKED),
    ("CM_RESOURCE_LIST*", PACKED),
    (
        "SLIST_ENTRY",
        "documented as aligned to 16 bytes; the metadata has no alignment",
    ),
    (
        "DEVICE_OBJECT",
        "documented as aligned to 16 bytes; the metadata has no alignment",
    ),
    (
        "SCATTER_GATHER_LIST",
        "a flexible array, as documented; the metadata gives it one element",
    ),
];

const X86: &str = "the metadata has the level of 32-bit x86; on x64 there are 16";
const PACKED: &str = "packed to 4 bytes, as in mingw's headers; the metadata has no packing";

/// The differences that are not known; and the known ones that are none.
fn unexpected(
    found: &[Difference],
    relevant: fn(&str) -> bool,
) -> (Vec<&Difference>, Vec<&'static str>) {
    let is = |d: &Difference, known: &str| match known.strip_suffix('*') {
        Some(prefix) => d.what.starts_with(prefix),
        None => d.what == known,
    };
    let new = found
        .iter()
        .filter(|d| !KNOWN.iter().any(|(known, _)| is(d, known)))
        .collect();
    let gone = KNOWN
        .iter()
        .map(|(known, _)| *known)
        .filter(|known| relevant(known) && !found.iter().any(|d| is(d, known)))
        .collect();
    (new, gone)
}

/// Constants have a path, or are all in capitals and no type.
fn is_constant(name: &str) -> bool {
    name.contains("::") || name.ends_with("_LEVEL")
}

fn report<'a>(found: impl IntoIterator<Item = &'a Difference>) -> String {
    found.into_iter().fold(String::new(), |mut text, d| {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "
  {}: ours {}, theirs {}",
            d.what, d.ours, d.theirs
        );
        text
    })
}

#[test]
fn every_kmdf_structure_enumeration_constant_and_index_is_as_in_the_data() {
    let found = kmdf::numbers();
    assert!(
        found.is_empty(),
        "openwdk/abi/kmdf-1.33.json:{}",
        report(&found)
    );
}

#[test]
fn nt_constants_are_those_of_windows_sys() {
    let found = nt::constants();
    let (new, gone) = unexpected(&found, is_constant);
    assert!(new.is_empty(), "windows-sys:{}", report(new));
    assert!(gone.is_empty(), "known as different, but equal: {gone:?}");
}

#[test]
fn nt_types_are_laid_out_as_in_windows_sys() {
    let found = nt::types();
    let (new, gone) = unexpected(&found, |name| !is_constant(name));
    assert!(new.is_empty(), "windows-sys:{}", report(new));
    assert!(gone.is_empty(), "known as different, but equal: {gone:?}");
}
