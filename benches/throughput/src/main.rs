// SPDX-License-Identifier: MIT OR Apache-2.0

//! How fast the simulator is: schedules, lives of a driver, kernel calls, timers,
//! pool, memory. `benches/README.md` says what each line measures.
//!
//! A clock tells little by itself, so every figure stands beside a *baseline* that
//! is measured in the same run, in turns with it: Shuttle, a direct call, `malloc`,
//! or the same thing a tenth as large. What is compared is the ratio.

mod calls;
mod lives;
mod measure;
mod memory;
mod nt;
mod pool;
mod schedules;
mod timers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use measure::Row;

/// Measures the simulator's throughput on one core.
#[derive(Parser)]
struct Options {
    /// The INF file of a sensor.sys that was built; without it no lives are measured
    #[arg(long, value_name = "FILE")]
    sensor: Option<PathBuf>,
    /// Only sections whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Schedules for the memory section
    #[arg(long, default_value_t = 1_000_000)]
    schedules: u64,
    /// Tell the figures as JSON on standard output
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only));
    let mut rows: Vec<Row> = Vec::new();
    if wanted("schedules") {
        rows.extend(schedules::measure());
    }
    if wanted("lives") {
        match &options.sensor {
            Some(inf) => match lives::measure(inf) {
                Ok(more) => rows.extend(more),
                Err(error) => {
                    eprintln!("error: {}: {error}", inf.display());
                    return ExitCode::FAILURE;
                }
            },
            None => eprintln!("no lives: --sensor names the INF of a built sensor.sys"),
        }
    }
    if wanted("calls") {
        rows.extend(calls::measure());
    }
    if wanted("pool") {
        rows.extend(pool::measure());
    }
    if wanted("timers") {
        rows.extend(timers::measure());
    }
    if wanted("memory") {
        rows.extend(memory::measure(options.schedules));
    }
    if options.json {
        match serde_json::to_string_pretty(&rows) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        }
    } else {
        measure::print(&rows);
    }
    ExitCode::SUCCESS
}
