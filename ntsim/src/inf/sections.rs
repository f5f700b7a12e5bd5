// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which sections an INF may have: the standard ones, and those that another one names.

use std::collections::HashSet;

use super::decoration::Decoration;
use super::{Inf, InfError};

/// The sections that setupapi looks for by itself.
const STANDARD: [&str; 12] = [
    "Version",
    "Strings",
    "Manufacturer",
    "DestinationDirs",
    "SourceDisksNames",
    "SourceDisksFiles",
    "ControlFlags",
    "ClassInstall32",
    "InterfaceInstall32",
    "DefaultInstall",
    "DefaultUninstall",
    "SignatureAttributes",
];

/// What may follow the name of an install section.
const SUFFIXES: [&str; 13] = [
    "services",
    "hw",
    "wdf",
    "coinstallers",
    "interfaces",
    "logconfigoverride",
    "factdef",
    "events",
    "components",
    "software",
    "filters",
    "userinterface",
    "wmi",
];

/// Refuses a section that nothing reaches: setupapi would silently ignore it, and with it
/// what its author meant.
pub(super) fn check(inf: &Inf) -> Result<(), InfError> {
    let names: Vec<String> = inf
        .sections()
        .map(|section| section.name.to_ascii_lowercase())
        .collect();
    let mut reached: HashSet<&str> = HashSet::new();
    let mut pending: Vec<&str> = Vec::new();
    for name in &names {
        let base = name.split('.').next().unwrap_or_default();
        if STANDARD
            .iter()
            .any(|standard| standard.eq_ignore_ascii_case(base))
            && reached.insert(name)
        {
            pending.push(name);
        }
    }
    while let Some(name) = pending.pop() {
        let base = name.split('.').next().unwrap_or_default();
        // The text of [Strings] and the numbers of [DestinationDirs] are no references.
        if matches!(base, "strings" | "destinationdirs") {
            continue;
        }
        let Some(section) = inf.section(name) else {
            continue;
        };
        let mut wanted: HashSet<String> = section
            .lines
            .iter()
            .flat_map(|line| &line.values)
            .map(|value| value.to_ascii_lowercase())
            .collect();
        wanted.insert(name.to_owned());
        for candidate in &names {
            if !reached.contains(candidate.as_str()) && belongs_to_any(candidate, &wanted) {
                reached.insert(candidate);
                pending.push(candidate);
            }
        }
    }
    match inf
        .sections()
        .find(|section| !reached.contains(section.name.to_ascii_lowercase().as_str()))
    {
        None => Ok(()),
        Some(section) => Err(inf
            .error(
                "an unknown section: it is not a standard one and no other section names it",
                format!(
                    "correct its name or remove it; the standard sections are {}",
                    STANDARD.join(", ")
                ),
            )
            .within(section)),
    }
}

/// Whether a section is one of `wanted`, or one of those with a decoration or a known suffix.
fn belongs_to_any(section: &str, wanted: &HashSet<String>) -> bool {
    if wanted.contains(section) {
        return true;
    }
    let mut dots = section.match_indices('.').map(|(at, _)| at);
    dots.any(|at| wanted.contains(&section[..at]) && is_extension(&section[at + 1..]))
}

fn is_extension(text: &str) -> bool {
    let decoration = match text.rsplit_once('.') {
        Some((before, last)) if SUFFIXES.contains(&last) => before,
        None if SUFFIXES.contains(&text) => return true,
        _ => text,
    };
    Decoration::parse(decoration).is_some()
}
