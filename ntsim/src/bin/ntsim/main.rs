// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim`: runs Windows kernel drivers in a simulated machine.
//!
//! Exit codes: 0, all went well; 1, bad input: a file, an option, a value;
//! 2, the simulation found something: a bug check, a deadlock, a leak, or a
//! driver that failed.

mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs Windows kernel drivers (KMDF 1.33, x64) in a simulated machine.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0  all went well
  1  bad input: a file, an option or a value
  2  the simulation ended early: bug check, deadlock, leak, failed driver";

#[derive(Subcommand)]
enum Command {
    /// Install a driver image, start it, power-cycle it, remove it and unload it
    Run(run::Run),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(1)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match cli.command {
        Command::Run(run) => run.execute(),
    }
}
