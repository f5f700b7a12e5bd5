// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the compiler says to somebody who makes a mistake: each program in
//! `compile_fail/` has one, and is refused with one error that names it.
//!
//! A line `//~ phrase` in a program is a phrase that the error must contain;
//! `|` separates what different compilers say instead. The `.stderr` file beside
//! it shows the whole message of one compiler. It is for readers, and only its
//! phrases are compared, so that another compiler's way to draw does not matter.
//! To write these files anew:
//!
//! ```text
//! DMF_BLESS=1 cargo test -p dmf --test compile_fail
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The program that has no mistake.
const ACCEPTED: &str = "accepted";

struct Case {
    name: String,
    path: PathBuf,
    phrases: Vec<String>,
}

fn cases(root: &Path) -> Vec<Case> {
    let mut cases: Vec<_> = fs::read_dir(root.join("tests/compile_fail"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| Case {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            phrases: fs::read_to_string(&path)
                .unwrap()
                .lines()
                .filter_map(|line| line.strip_prefix("//~ "))
                .map(str::to_owned)
                .collect(),
            path,
        })
        .collect();
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    cases
}

/// Makes a package of the programs, and returns where it is.
fn package(root: &Path, cases: &[Case]) -> PathBuf {
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    fs::create_dir_all(&package).unwrap();
    let path = |below: &str| root.join(below).display().to_string();
    let mut manifest = format!(
        "[package]\nname = 'compile_fail'\nversion = '0.0.0'\nedition = '2024'\n\n\
         [workspace]\n\n\
         [dependencies]\ndmf = {{ path = '{}' }}\ndmf-modules = {{ path = '{}' }}\n\n\
         [patch.crates-io]\nwdk-build = {{ path = '{}' }}\n",
        path(""),
        path("modules"),
        path("openwdk/wdk-build"),
    );
    for case in cases {
        let (name, path) = (&case.name, case.path.display());
        write!(manifest, "\n[[bin]]\nname = '{name}'\npath = '{path}'\n").unwrap();
    }
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    // The versions that are here already: nothing is downloaded.
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).unwrap();
    package
}

/// What the compiler says of a program; none if it accepts it.
fn refusal(package: &Path, name: &str) -> Option<String> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()))
        .args(["check", "--quiet", "--offline", "--bin", name])
        .arg("--target-dir")
        .arg(package.join("target"))
        .env("CARGO_TERM_COLOR", "never")
        .current_dir(package)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (!output.status.success()).then_some(said)
}

/// Whether a phrase, or one of those that it may be instead, is there. How the
/// compiler names a path and where it breaks lines does not matter.
fn says(said: &str, phrase: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = words(said);
    phrase
        .split('|')
        .any(|phrase| said.contains(&words(phrase)))
}

#[test]
fn each_mistake_is_one_error_that_names_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases = cases(root);
    assert!(cases.len() >= 20, "only {} programs", cases.len());
    let package = package(root, &cases);
    if let Some(said) = refusal(&package, ACCEPTED) {
        panic!("the program without a mistake is refused:\n{said}");
    }
    let mut failures = String::new();
    for case in cases.iter().filter(|case| case.name != ACCEPTED) {
        let mut fail = |what: &str, said: &str| {
            writeln!(failures, "== {}: {what}\n{said}", case.name).unwrap();
        };
        if case.phrases.is_empty() {
            fail("has no phrases to look for", "");
        }
        let Some(said) = refusal(&package, &case.name) else {
            fail("compiles", "");
            continue;
        };
        let errors = said
            .lines()
            .filter(|line| line.starts_with("error"))
            .count();
        // The last one says how many there are.
        if errors != 2 {
            fail("is not one error", &said);
        }
        for phrase in &case.phrases {
            if !says(&said, phrase) {
                fail(&format!("does not say `{phrase}`"), &said);
            }
        }
        let file = case.path.with_extension("stderr");
        if env::var_os("DMF_BLESS").is_some() {
            let said = said.replace(&root.display().to_string(), "$DMF");
            fs::write(&file, said).unwrap();
        }
        let shown = fs::read_to_string(&file).unwrap_or_default();
        for phrase in &case.phrases {
            if !says(&shown, phrase) {
                fail(
                    &format!("is out of date: no `{phrase}` in the .stderr file"),
                    &shown,
                );
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}
