// SPDX-License-Identifier: MIT OR Apache-2.0

//! Security descriptors in text, in the part of SDDL that device objects may use:
//! <https://learn.microsoft.com/windows-hardware/drivers/kernel/sddl-for-device-objects>
//!
//! ```text
//!   D:P(A;;GA;;;SY)(A;;GRGW;;;BA)
//!      type;flags;rights;object;inherited;who
//! ```

/// What the simulator looks at in a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// It lets an administrator open the device, whatever for.
    pub(crate) administrators: bool,
}

/// Who may be named, besides `S-1-...`.
const PEOPLE: [&str; 15] = [
    "AN", "AU", "BA", "BG", "BU", "CO", "IU", "LS", "NS", "NU", "PU", "RC", "SU", "SY", "WD",
];
/// Those of them that an administrator who logged on is, too.
const ADMINISTRATORS: [&str; 10] = [
    "BA",
    "AU",
    "BU",
    "IU",
    "WD",
    "S-1-5-32-544",
    "S-1-5-11",
    "S-1-5-32-545",
    "S-1-5-4",
    "S-1-1-0",
];

const RIGHTS: [&str; 25] = [
    "GA", "GR", "GW", "GX", "RC", "SD", "WD", "WO", "FA", "FR", "FW", "FX", "KA", "KR", "KW", "KX",
    "CC", "DC", "LC", "SW", "RP", "WP", "DT", "LO", "CR",
];

/// Reads a descriptor; nothing if it is none.
pub(crate) fn parse(text: &str) -> Option<Descriptor> {
    let mut left = text.strip_prefix("D:")?;
    left = left.strip_prefix('P').unwrap_or(left);
    let mut administrators = false;
    while let Some(rest) = left.strip_prefix('(') {
        let (entry, rest) = rest.split_once(')')?;
        left = rest;
        let [kind, flags, rights, object, inherited, who]: [&str; 6] =
            entry.split(';').collect::<Vec<_>>().try_into().ok()?;
        let known = flags.is_empty()
            && object.is_empty()
            && inherited.is_empty()
            && are_rights(rights)
            && (PEOPLE.contains(&who) || is_sid(who));
        match kind {
            "A" if known => administrators |= ADMINISTRATORS.contains(&who),
            _ => return None,
        }
    }
    left.is_empty().then_some(Descriptor { administrators })
}

fn are_rights(text: &str) -> bool {
    if let Some(number) = text.strip_prefix("0x") {
        return u32::from_str_radix(number, 16).is_ok();
    }
    text.is_ascii()
        && !text.is_empty()
        && text.len().is_multiple_of(2)
        && (0..text.len())
            .step_by(2)
            .all(|at| RIGHTS.contains(&&text[at..at + 2]))
}

fn is_sid(text: &str) -> bool {
    text.strip_prefix("S-1-").is_some_and(|rest| {
        rest.split('-')
            .all(|part| part.parse::<u64>().is_ok() && !part.starts_with('+'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_of_the_kit_are_read() {
        // https://learn.microsoft.com/windows-hardware/drivers/kernel/sddl-for-device-objects
        for (text, administrators) in [
            ("D:P", false),
            ("D:P(A;;GA;;;SY)", false),
            ("D:P(A;;GA;;;SY)(A;;GA;;;BA)", true),
            ("D:P(A;;GA;;;SY)(A;;GRGX;;;BA)", true),
            (
                "D:P(A;;GA;;;SY)(A;;GRGWGX;;;BA)(A;;GRGW;;;WD)(A;;GR;;;RC)",
                true,
            ),
            ("D:P(A;;0x1F01FF;;;S-1-5-32-544)", true),
        ] {
            assert_eq!(parse(text), Some(Descriptor { administrators }), "{text}");
        }
    }

    #[test]
    fn what_is_no_descriptor_is_refused() {
        for text in [
            "",
            "P",
            "D:P(",
            "D:P(A;;GA;;;SY",
            "D:P(A;;GA;;;)",
            "D:P(A;;GQ;;;SY)",
            "D:P(A;;G;;;SY)",
            "D:P(A;;;;;SY)",
            "D:P(X;;GA;;;SY)",
            "D:P(A;;GA;;;S-1-)",
            "D:P(A;;GA;;;SY)x",
            "D:P(A;;é;;;SY)",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
