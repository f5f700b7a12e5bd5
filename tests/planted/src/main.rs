// SPDX-License-Identifier: MIT OR Apache-2.0

//! Searches the bugs from many seeds, plays the fixed twins, and writes the page.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use planted::{BUGS, Bug, Driver, find, images, pass};

/// Search the planted bugs, and play their fixed twins.
#[derive(Parser)]
struct Cli {
    /// Only bugs whose name contains this
    #[arg(default_value = "")]
    filter: String,
    /// From how many seeds each bug is searched
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Under how many schedules each fixed twin is played
    #[arg(long, default_value_t = 0)]
    fixed: u64,
    /// Show a report of each bug
    #[arg(long)]
    show: bool,
    /// Write what was found to this page
    #[arg(long, value_name = "FILE", conflicts_with = "filter")]
    page: Option<PathBuf>,
}

/// How far apart the schedules of two seeds are.
const APART: u64 = 1 << 32;

/// What became of one bug.
struct Row {
    bug: &'static Bug,
    found: usize,
    /// Of those that were found, in order.
    schedules: Vec<u64>,
    times: Vec<Duration>,
    says: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut good = true;
    let mut rows = Vec::new();
    for bug in BUGS.iter().filter(|bug| bug.name.contains(&cli.filter)) {
        if matches!(bug.driver, Driver::C) && images().is_none() {
            println!("{:<30} skipped: PLANTED_IMAGES is not set", bug.name);
            continue;
        }
        let row = hunt(bug, &cli);
        good &= row.found as u64 == cli.seeds;
        rows.push(row);
        if cli.fixed > 0 {
            match pass(bug, cli.fixed) {
                Ok(campaign) => println!(
                    "{:<30} fixed: {} schedules in {:.1?}, {} scheduling points at most",
                    bug.name, campaign.schedules, campaign.time, campaign.longest
                ),
                Err(why) => {
                    println!("{why}");
                    good = false;
                }
            }
        }
    }
    if let Some(page) = &cli.page
        && let Err(error) = write(page, &rows, cli.seeds)
    {
        println!("cannot write {}: {error}", page.display());
        good = false;
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn hunt(bug: &'static Bug, cli: &Cli) -> Row {
    let mut row = Row {
        bug,
        found: 0,
        schedules: Vec::new(),
        times: Vec::new(),
        says: String::new(),
    };
    for seed in 0..cli.seeds {
        let start = processor_time();
        match find(bug, seed * APART) {
            Ok(campaign) => {
                row.found += 1;
                row.schedules.push(campaign.schedules);
                row.times.push(match (start, processor_time()) {
                    (Some(start), Some(end)) => end.saturating_sub(start),
                    _ => campaign.time,
                });
                if let Some(finding) = campaign.finding {
                    if seed == 0 {
                        row.says = summary(&finding.failure);
                    }
                    if cli.show && seed == 0 {
                        println!("{finding}");
                    }
                }
            }
            Err(why) => {
                println!("from seed {seed}: {why}");
                if !why.contains("not found") {
                    break;
                }
            }
        }
    }
    row.schedules.sort_unstable();
    row.times.sort_unstable();
    let most = row.schedules.last().copied().unwrap_or_default();
    let longest = row.times.last().copied().unwrap_or_default();
    println!(
        "{:<30} found {}/{}, after {} schedules (at most {most}), {:.3} s (at most {:.3})",
        bug.name,
        row.found,
        cli.seeds,
        middle(&row.schedules),
        middle(&row.times).as_secs_f64(),
        longest.as_secs_f64(),
    );
    row
}

/// The time for which a processor ran this program, which does not depend on what
/// else the machine does. On Linux only.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    let nanoseconds = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn middle<T: Copy + Default>(sorted: &[T]) -> T {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The bug check or other name, and the sentence.
fn summary(failure: &ntsim::explore::Failure) -> String {
    let Some(stop) = failure.stop() else {
        return failure.to_string();
    };
    let code = stop.bug_check_code();
    let code = code.map_or(String::new(), |code| format!("{code:#X} "));
    let mut text = format!("`{code}{}`: {}", stop.name, stop.message);
    for waiting in stop.waiting() {
        let _ = write!(text, "; {waiting}");
    }
    text.replace('|', "\\|")
}

fn write(page: &Path, rows: &[Row], seeds: u64) -> std::io::Result<()> {
    let mut text = String::from(HEAD);
    for row in rows {
        let file = match row.bug.driver {
            Driver::C => format!("{}.c", row.bug.name),
            _ => format!("{}.rs", row.bug.name),
        };
        let found = if row.found as u64 == seeds {
            format!(
                "{} ({})",
                middle(&row.schedules),
                row.schedules.last().copied().unwrap_or_default()
            )
        } else {
            format!("found from {} of {seeds} seeds", row.found)
        };
        let _ = writeln!(
            text,
            "| [{}](../tests/planted/bugs/{file}) | {} | {} | {} | {found} | {:.2} ({:.2}) |",
            row.bug.name,
            row.bug.driver.language(),
            row.bug.wrong,
            row.says,
            middle(&row.times).as_secs_f64(),
            row.times.last().copied().unwrap_or_default().as_secs_f64(),
        );
    }
    std::fs::write(page, text)
}

const HEAD: &str = "\
<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->
<!-- Written by `cargo xtask planted`; the tests of tests/planted compare its rows with the table. -->
# Planted bugs

Faulty drivers in [`tests/planted/bugs`](../tests/planted/bugs), each beside its fixed
twin. The explorer searches each bug from 20 seeds, with its default settings, for at
most ten seconds on one core, and has to say what is wrong; the twin has to pass.

`cargo xtask planted` searches again and writes this page, `cargo xtask planted --
--fixed 100000` plays the twins, and `cargo xtask planted -- FILTER --show` shows
reports. CI searches each bug once, and plays each twin under some hundred schedules.

What ntsim says is the report of the first seed. *Schedules* are those played until the
bug was found, the median and in brackets the most; *seconds* are processor time until
the report was made, with the failing schedule made smaller, likewise.

| bug | language | what is wrong | what ntsim says | schedules | seconds |
|---|---|---|---|---|---|
";
