// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim`: runs Windows kernel drivers in a simulated machine.
//!
//! Commands that Windows has too (`pnputil`, …) take their options as there,
//! `/like-this`, in any case: [`slashes`].
//!
//! Exit codes, of every command: [`end`].

mod completions;
mod devgen;
mod end;
mod explore;
mod place;
mod pnputil;
mod reg;
mod replay;
mod rules;
mod run;
mod session;
mod slashes;
mod subject;
mod trace;
mod verifier;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Runs Windows kernel drivers (KMDF 1.33, x64) in a simulated machine.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = end::CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Explore(explore::Explore),
    Replay(replay::Replay),
    Pnputil(pnputil::Pnputil),
    Devgen(devgen::Devgen),
    Reg(reg::Reg),
    Trace(trace::Show),
    Verifier(verifier::Verifier),
    Rules(rules::Rules),
    Completions(completions::Completions),
}

fn main() -> ExitCode {
    let words = slashes::translate(&Cli::command(), std::env::args_os());
    let parsed = Cli::command()
        .try_get_matches_from(words)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(end::BAD_INPUT)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match cli.command {
        Command::Run(run) => end::exit(run.execute()),
        Command::Explore(explore) => end::exit(explore.execute()),
        Command::Replay(replay) => end::exit(replay.execute()),
        Command::Pnputil(pnputil) => end::exit(pnputil.execute()),
        Command::Devgen(devgen) => end::exit(devgen.execute()),
        Command::Reg(reg) => end::exit(reg.execute()),
        Command::Trace(show) => end::exit(show.execute()),
        Command::Verifier(verifier) => end::exit(verifier.execute()),
        Command::Rules(rules) => rules.execute(),
        Command::Completions(completions) => completions.execute(&mut Cli::command()),
    }
}
