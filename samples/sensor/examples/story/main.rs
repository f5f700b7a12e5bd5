// SPDX-License-Identifier: MIT OR Apache-2.0

//! Plays the sensor's story on a simulated machine and tells it.
//!
//! `cargo xtask demo` builds the driver and runs this. With `--inf` the driver
//! is the image of that package; without, it is linked into this program.
//!
//! Exit codes: 0, the story went as it must; 1, bad input; 2, it did not.

#[allow(dead_code, reason = "the tests need more of it")]
mod plan;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use ntsim::machine::Error;
use ntsim::store::MachineDir;
use ntsim::story::{self, Outcome};
use ntsim::trace::Format;
use ntsim::{Machine, Settings};

use crate::plan::FrontEnd;

/// Plays the sensor's story on a simulated machine.
#[derive(Parser)]
struct Options {
    /// The package's INF, beside its image; without it, the driver is linked in
    #[arg(long, value_name = "FILE", conflicts_with = "host")]
    inf: Option<PathBuf>,
    /// Use the driver that is linked into this program
    #[arg(long, required_unless_present = "inf")]
    host: bool,
    /// The number that decides the schedule
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to write every call, callback and message; the timeline is put beside it
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// The machine's folder, empty or not there yet
    #[arg(long, value_name = "DIR")]
    machine: PathBuf,
    /// Tell the outcome as JSON on standard output
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(1)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match play(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(1)
        }
    }
}

/// Plays and tells; false if the story did not go as it must.
fn play(options: &Options) -> Result<bool, String> {
    let front_end = options.inf.clone().map_or(FrontEnd::Host, FrontEnd::Image);
    let dir = MachineDir::create(&options.machine).map_err(|error| error.to_string())?;
    let settings = Settings {
        replay: Some(replay(options)),
        ..front_end.settings(options.seed)
    };
    let mut machine =
        plan::prepare_with(&front_end, dir, settings).map_err(|error| error.to_string())?;

    if !options.json {
        println!("seed {}: the sensor's story, in virtual time", options.seed);
    }
    let begun = Instant::now();
    let result = story::play(&mut machine, &plan::steps(), &mut |line| {
        if !options.json && story::is_narrative(line) {
            println!("{}", story::narrate(line));
        }
    });
    let took = begun.elapsed();
    let stop = result.as_ref().err().and_then(Error::stop);
    let formats = [Format::of_file(&options.trace), Format::Html];
    for (file, format) in [&options.trace, &timeline(options)]
        .into_iter()
        .zip(formats)
    {
        story::write_trace(&machine, stop, file, format)?;
    }
    machine.commit().map_err(|error| error.to_string())?;

    if options.json {
        let outcome = Outcome::new(&machine, options.seed, front_end.name(), &result);
        println!(
            "{}",
            serde_json::to_string_pretty(&outcome).map_err(|error| error.to_string())?
        );
    }
    if let Err(error) = result {
        eprintln!("{}", explain(options, &error));
        eprintln!("timeline: {}", timeline(options).display());
        return Ok(false);
    }
    let wrong = plan::check(machine.trace());
    for sentence in &wrong {
        eprintln!("the story is wrong: {sentence}");
    }
    if !wrong.is_empty() {
        eprintln!("replay: {}", replay(options));
        return Ok(false);
    }
    if !options.json {
        let virtual_seconds = machine.now().as_secs();
        println!();
        println!(
            "{virtual_seconds} virtual seconds in {:.3} s; nothing leaked, no rule broken",
            took.as_secs_f64()
        );
        println!("{}", leads(options, &front_end, &machine));
    }
    Ok(true)
}

fn replay(options: &Options) -> String {
    let host = if options.host { " --host" } else { "" };
    format!("cargo xtask demo{host} --seed {}", options.seed)
}

fn explain(options: &Options, error: &Error) -> String {
    match error {
        Error::Stop(stop) => stop.to_string(),
        error => format!("{error}\nreplay: {}", replay(options)),
    }
}

/// Where the page with the timeline is written.
fn timeline(options: &Options) -> PathBuf {
    options.trace.with_extension("html")
}

/// Where things lie and what to try next.
fn leads(options: &Options, front_end: &FrontEnd, machine: &Machine) -> String {
    let mut text = String::new();
    let mut row = |name: &str, path: String| {
        let _ = writeln!(text, "  {name:<10}{path}");
    };
    if let FrontEnd::Image(inf) = front_end {
        row("image", inf.with_extension("sys").display().to_string());
        row("INF", inf.display().to_string());
    }
    row("trace", options.trace.display().to_string());
    row("timeline", timeline(options).display().to_string());
    if let Some(registry) = machine.dir().registry_path() {
        row("registry", registry.display().to_string());
    }
    let other = if options.host {
        "cargo xtask demo"
    } else {
        "cargo xtask demo --host"
    };
    let _ = write!(
        text,
        "try next\n  {other:<36} the same story, {}\n  cargo xtask demo --seed 1            another schedule\n  cargo xtask test                     the whole test suite",
        if options.host {
            "told by the image"
        } else {
            "linked natively"
        },
    );
    text
}
