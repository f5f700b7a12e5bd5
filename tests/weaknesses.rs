// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tables of DMF's weaknesses, `docs/dmf-weaknesses.md`, and of the modules'
//! promises, `docs/promises.md`, cannot rot: what they name exists.

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

/// Checks the tables of a document, and tells how many rows they have.
fn rows(document: &str) -> Vec<u32> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "modules", "ntsim/src", "ntsim/tests"] {
        sources(&root.join(folder), &mut files);
    }
    let tests: BTreeSet<_> = files.iter().flat_map(|file| tests_of(file)).collect();
    let types: BTreeSet<_> = files.iter().flat_map(|file| types_of(file)).collect();
    assert!(tests.len() > 300 && types.len() > 100, "nothing was read");

    let text = fs::read_to_string(root.join(document)).unwrap();
    let mut rows: Vec<u32> = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        if cells[0] == "no." {
            rows.push(0);
            continue;
        }
        let number = rows.last_mut().expect("a table has a head");
        *number += 1;
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
            assert!(exists, "{document}, {number}: there is no {kind} `{name}`");
        }
    }
    rows
}

#[test]
fn each_weakness_of_dmf_is_kept_out_by_a_type_or_a_test_that_exists() {
    assert_eq!(rows("docs/dmf-weaknesses.md"), [40]);
}

#[test]
fn each_promise_of_the_modules_is_kept_by_a_type_or_a_test_that_exists() {
    assert_eq!(rows("docs/promises.md"), [20, 25]);
}
