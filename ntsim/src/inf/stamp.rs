// SPDX-License-Identifier: MIT OR Apache-2.0
//! From `.inx` to `.inf`, as the WDK's stampinf does it.

use super::{Architecture, DriverDate, DriverVersion};

/// What an INX leaves open.
#[derive(Clone, Debug)]
pub struct StampOptions {
    /// For `$ARCH$` (stampinf `-a`).
    pub architecture: Architecture,
    /// For `$KMDFVERSION$` and `$KMDFCOINSTALLERVERSION$`: (1, 33) (stampinf `-k`).
    pub kmdf_version: (u32, u32),
    /// For `DriverVer`, which is put in or replaced (stampinf `-d`, `-v`).
    pub driver_version: DriverVersion,
    /// For `CatalogFile`, put in or replaced; [`None`] leaves it alone (stampinf `-c`).
    pub catalog: Option<String>,
}

impl StampOptions {
    /// Options for an x64 package on KMDF 1.33 of a given date and version, with the INX's own catalogue.
    #[must_use]
    pub fn new(date: DriverDate, version: [u16; 4]) -> Self {
        Self {
            architecture: Architecture::Amd64,
            kmdf_version: (1, 33),
            driver_version: DriverVersion { date, version },
            catalog: None,
        }
    }
}

/// Makes the text of an INF from that of an INX. Everything else, comments and line ends included, stays.
///
/// A text without `[Version]` gets no `DriverVer`: [`Inf::validate_for`](super::Inf::validate_for) says what is missing.
#[must_use]
pub fn stamp(inx: &str, options: &StampOptions) -> String {
    let (major, minor) = options.kmdf_version;
    let tokens = [
        ("$ARCH$", options.architecture.inf_name().to_owned()),
        ("$KMDFVERSION$", format!("{major}.{minor}")),
        ("$KMDFCOINSTALLERVERSION$", format!("{major:02}{minor:03}")),
    ];
    let mut text = inx.to_owned();
    for (token, value) in tokens {
        text = text.replace(token, &value);
    }
    text = set_in_version(&text, "DriverVer", &options.driver_version.to_string());
    if let Some(catalog) = &options.catalog {
        text = set_in_version(&text, "CatalogFile", catalog);
    }
    text
}

/// Replaces a directive of `[Version]`, or adds it below the header.
fn set_in_version(text: &str, key: &str, value: &str) -> String {
    let mut out = String::new();
    let mut in_version = false;
    let mut header_end = None;
    let mut replaced = false;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_start_matches('\u{feff}').trim();
        if bare.starts_with('[') {
            in_version = bare
                .get(1..9)
                .is_some_and(|name| name.eq_ignore_ascii_case("version]"));
            out.push_str(line);
            if in_version && header_end.is_none() {
                header_end = Some(out.len());
            }
            continue;
        }
        let name = bare.split('=').next().unwrap_or_default().trim();
        if in_version && !replaced && bare.contains('=') && name.eq_ignore_ascii_case(key) {
            let body = line.trim_end_matches(['\r', '\n']);
            // A comment behind the value stays.
            let comment = body
                .find(';')
                .map(|at| format!(" {}", &body[at..]))
                .unwrap_or_default();
            out.extend([key, " = ", value, &comment, &line[body.len()..]]);
            replaced = true;
            continue;
        }
        out.push_str(line);
    }
    if let (false, Some(at)) = (replaced, header_end) {
        let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let before = if out[..at].ends_with('\n') { "" } else { end };
        out.insert_str(at, &format!("{before}{key} = {value}{end}"));
    }
    out
}
