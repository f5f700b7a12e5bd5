// SPDX-License-Identifier: MIT OR Apache-2.0

//! Two tests of each bug:
//! - `<name>::is_found`: the explorer stops the faulty driver within ten seconds, and
//!   the report says what the table says.
//! - `<name>::fixed_passes`: its twin passes under as many schedules as
//!   `DMF_SCHEDULES` says, or a few.
//!
//! Drivers in C are tested where `PLANTED_IMAGES` names the directory of their images.

use libtest_mimic::{Arguments, Failed, Trial};
use planted::{BUGS, Driver, find, images, pass};

/// Schedules of each twin, in a build that is not optimised.
const SCHEDULES: u64 = 30;

fn main() {
    let arguments = Arguments::from_args();
    let mut tests = Vec::new();
    for bug in BUGS {
        let skipped = matches!(bug.driver, Driver::C) && images().is_none();
        let found = Trial::test(format!("{}::is_found", bug.name), || {
            Ok(find(bug, 0).map(drop)?)
        });
        let passes = Trial::test(format!("{}::fixed_passes", bug.name), || {
            Ok(pass(bug, schedules()?).map(drop)?)
        });
        tests.extend([found, passes].map(|test| test.with_ignored_flag(skipped)));
    }
    tests.push(Trial::test("the_page_has_each_bug", the_page_has_each_bug));
    tests.push(Trial::test(
        "each_file_is_in_the_table",
        each_file_is_in_the_table,
    ));
    libtest_mimic::run(&arguments, tests).exit();
}

fn schedules() -> Result<u64, Failed> {
    match std::env::var("DMF_SCHEDULES") {
        Ok(text) => text
            .parse()
            .map_err(|error| format!("DMF_SCHEDULES = {text:?}: {error}").into()),
        Err(_) => Ok(SCHEDULES),
    }
}

fn read(path: &str) -> Result<String, Failed> {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}").into())
}

fn the_page_has_each_bug() -> Result<(), Failed> {
    let page = read("../../docs/planted-bugs.md")?;
    let rows: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("| ["))
        .collect();
    if rows.len() != BUGS.len() {
        return Err(format!("{} rows for {} bugs", rows.len(), BUGS.len()).into());
    }
    for (bug, row) in BUGS.iter().zip(rows) {
        let start = format!("| [{}](", bug.name);
        let middle = format!(" | {} | {} | ", bug.driver.language(), bug.wrong);
        if !row.starts_with(&start) || !row.contains(&middle) {
            return Err(
                format!("{}: `cargo xtask planted` writes this row: {row}", bug.name).into(),
            );
        }
    }
    Ok(())
}

/// And begins with what is wrong and what ntsim says.
fn each_file_is_in_the_table() -> Result<(), Failed> {
    let directory = format!("{}/bugs", env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in std::fs::read_dir(directory)? {
        let name = entry?
            .file_name()
            .into_string()
            .map_err(|_| "a file's name")?;
        let Some((stem, extension)) = name.rsplit_once('.').filter(|(_, end)| *end != "h") else {
            continue;
        };
        let bug = BUGS.iter().find(|bug| bug.name == stem);
        let bug = bug.ok_or_else(|| format!("{name} is no bug of the table"))?;
        if matches!(bug.driver, Driver::C) != (extension == "c") {
            return Err(format!("{name}: the table has it in another language").into());
        }
        let text = read(&format!("bugs/{name}"))?;
        if !text.lines().take(9).any(|line| line.contains("ntsim: ")) {
            return Err(format!("{name}: it does not begin with what ntsim says").into());
        }
        count += 1;
    }
    if count == BUGS.len() {
        Ok(())
    } else {
        Err(format!("{count} files for {} bugs", BUGS.len()).into())
    }
}
