// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Sddl`]: who may open a device.

use crate::status::{NtStatus, Result};
use crate::string::UnicodeStr;

/// A security descriptor for a device, in text: who may open it, for what.
///
/// ```
/// use dmf::wdf::Sddl;
///
/// const READERS: Sddl = Sddl::literal(dmf::unicode_string!(
///     "D:P(A;;GA;;;SY)(A;;GR;;;BU)"
/// ));
/// assert!(Sddl::new(dmf::unicode_string!("everybody")).is_err());
/// ```
///
/// A literal that is none does not compile:
///
/// ```compile_fail,E0080
/// use dmf::wdf::Sddl;
///
/// const READERS: Sddl = Sddl::literal(dmf::unicode_string!("D:P(A;;GA;;SY)"));
/// ```
///
/// Only the form is checked: that there are entries `(A;;rights;;;who)` and that
/// their fields are not empty. What KMDF does not know then fails the device's
/// creation with `STATUS_INVALID_PARAMETER`.
///
/// C counterpart: the constants `SDDL_DEVOBJ_…`; [SDDL for device objects][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/sddl-for-device-objects
#[derive(Clone, Copy, Debug)]
pub struct Sddl<'a>(UnicodeStr<'a>);

macro_rules! constants {
    ($($(#[$meta:meta])* $name:ident = $text:literal;)*) => {
        impl Sddl<'static> {
            $($(#[$meta])* pub const $name: Self = Self::literal(crate::unicode_string!($text));)*
        }
    };
}

constants! {
    /// Nobody but the kernel. `SDDL_DEVOBJ_KERNEL_ONLY`.
    KERNEL_ONLY = "D:P";
    /// The system, everything. `SDDL_DEVOBJ_SYS_ALL`.
    SYSTEM = "D:P(A;;GA;;;SY)";
    /// The system and administrators, everything. `SDDL_DEVOBJ_SYS_ALL_ADM_ALL`.
    SYSTEM_AND_ADMINISTRATORS = "D:P(A;;GA;;;SY)(A;;GA;;;BA)";
    /// Administrators read and execute only. `SDDL_DEVOBJ_SYS_ALL_ADM_RX`.
    ADMINISTRATORS_READ = "D:P(A;;GA;;;SY)(A;;GRGX;;;BA)";
    /// Everybody reads. `SDDL_DEVOBJ_SYS_ALL_ADM_RWX_WORLD_R`.
    EVERYBODY_READS = "D:P(A;;GA;;;SY)(A;;GRGWGX;;;BA)(A;;GR;;;WD)";
    /// Everybody reads and writes, restricted code reads.
    /// `SDDL_DEVOBJ_SYS_ALL_ADM_RWX_WORLD_RW_RES_R`.
    EVERYBODY_READS_AND_WRITES = "D:P(A;;GA;;;SY)(A;;GRGWGX;;;BA)(A;;GRGW;;;WD)(A;;GR;;;RC)";
}

impl<'a> Sddl<'a> {
    /// The descriptor that `text` spells.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` if it is none.
    pub const fn new(text: UnicodeStr<'a>) -> Result<Self> {
        if is_descriptor(text.units()) {
            Ok(Self(text))
        } else {
            Err(NtStatus::INVALID_PARAMETER)
        }
    }

    /// The same for a constant.
    ///
    /// # Panics
    /// If it is none; in a constant that is a compile error.
    #[must_use]
    pub const fn literal(text: UnicodeStr<'a>) -> Self {
        assert!(
            is_descriptor(text.units()),
            "a security descriptor is D:P(A;;rights;;;who)..."
        );
        Self(text)
    }

    /// The text.
    #[must_use]
    pub const fn text(self) -> UnicodeStr<'a> {
        self.0
    }
}

const fn is(units: &[u16], at: usize, byte: u8) -> bool {
    at < units.len() && units[at] == byte as u16
}

/// `D:` or `D:P`, then entries: `(A;;rights;;;who)`.
const fn is_descriptor(units: &[u16]) -> bool {
    if !is(units, 0, b'D') || !is(units, 1, b':') {
        return false;
    }
    let mut at = if is(units, 2, b'P') { 3 } else { 2 };
    while at < units.len() {
        let is_entry = is(units, at, b'(')
            && is(units, at + 1, b'A')
            && is(units, at + 2, b';')
            && is(units, at + 3, b';');
        if !is_entry {
            return false;
        }
        let rights = at + 4;
        at = word_end(units, rights);
        if at == rights
            || !is(units, at, b';')
            || !is(units, at + 1, b';')
            || !is(units, at + 2, b';')
        {
            return false;
        }
        let who = at + 3;
        at = word_end(units, who);
        if at == who || !is(units, at, b')') {
            return false;
        }
        at += 1;
    }
    true
}

/// The end of the letters, digits and hyphens that begin at `at`.
const fn word_end(units: &[u16], mut at: usize) -> usize {
    while at < units.len() {
        let unit = units[at];
        let is_word = unit < 0x80 && {
            let [byte, _] = unit.to_le_bytes();
            byte.is_ascii_alphanumeric() || byte == b'-'
        };
        if !is_word {
            break;
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unicode_string;

    #[test]
    fn what_is_no_descriptor_is_refused() {
        for text in [
            unicode_string!(""),
            unicode_string!("D"),
            unicode_string!("P:D"),
            unicode_string!("D:P("),
            unicode_string!("D:P(A;;GA;;;SY"),
            unicode_string!("D:P(A;;GA;;;)"),
            unicode_string!("D:P(A;;;;;SY)"),
            unicode_string!("D:P(A;;GA;;;SY)x"),
            unicode_string!("D:P(A;;é;;;SY)"),
        ] {
            assert!(Sddl::new(text).is_err(), "{text}");
        }
        assert!(Sddl::new(unicode_string!("D:(A;;0x1F;;;S-1-1-0)")).is_ok());
    }
}
