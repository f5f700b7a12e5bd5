// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table of DMF's weaknesses, `docs/dmf-weaknesses.md`, cannot rot: what it
//! names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// All Rust sources below the folder.
fn sources(folder: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(fs::read_to_string(&path).unwrap());
        }
    }
}

/// The names of the functions that are tests.
fn tests_of(source: &str) -> impl Iterator<Item = &str> {
    source.split("#[test]").skip(1).filter_map(|after| {
        let (_, name) = after.split_once("fn ")?;
        name.split(['(', '<']).next()
    })
}

/// The names of the public types and traits.
fn types_of(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter_map(|line| {
        let line = line.trim_start().strip_prefix("pub")?;
        let line = line.strip_prefix("(crate)").unwrap_or(line);
        let (kind, name) = line.trim_start().split_once(' ')?;
        ["struct", "enum", "trait", "type"]
            .contains(&kind)
            .then(|| {
                name.split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
            })
            .flatten()
    })
}

#[test]
fn each_weakness_of_dmf_is_kept_out_by_a_type_or_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "modules", "ntsim/src", "ntsim/tests"] {
        sources(&root.join(folder), &mut files);
    }
    let tests: BTreeSet<_> = files.iter().flat_map(|file| tests_of(file)).collect();
    let types: BTreeSet<_> = files.iter().flat_map(|file| types_of(file)).collect();
    assert!(tests.len() > 300 && types.len() > 100, "nothing was read");

    let table = fs::read_to_string(root.join("docs/dmf-weaknesses.md")).unwrap();
    let mut number = 0;
    for line in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        number += 1;
        assert_eq!(cells[0], number.to_string(), "{line}");
        for named in cells[2].split(", ") {
            let (kind, name) = named.split_once(": ").unwrap_or_else(|| panic!("{line}"));
            let name = name.trim_matches('`');
            let exists = match kind {
                "test" => tests.contains(name),
                "type" => types.contains(name),
                "program" => root.join(format!("tests/compile_fail/{name}.rs")).exists(),
                _ => panic!("{kind}: {line}"),
            };
            assert!(exists, "weakness {number}: there is no {kind} `{name}`");
        }
    }
    assert_eq!(number, 40);
}
