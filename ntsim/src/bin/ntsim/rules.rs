// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim rules`: the table of rules.

use std::process::ExitCode;

use clap::Args;
use ntsim::rules::{self, Class, page};

const EXAMPLES: &str = "Examples:
  ntsim rules
  ntsim rules --class irql
  ntsim rules --json | jq -r '.[].name'
  ntsim rules --markdown > rules.md";

/// List the rules that drivers are held to.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rules {
    /// Only those of this class, e.g. Pool or Irql
    #[arg(long)]
    class: Option<Class>,
    /// As a page with all that the table has
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Rules {
    pub(crate) fn execute(&self) -> ExitCode {
        if self.json {
            let chosen: Vec<_> = rules::all()
                .filter(|rule| self.class.is_none_or(|class| rule.class == class))
                .collect();
            println!(
                "{}",
                serde_json::to_string_pretty(&chosen).expect("rules are plain data")
            );
        } else if self.markdown {
            print!("{}", page::markdown(self.class));
        } else {
            print!("{}", page::lines(self.class));
        }
        ExitCode::SUCCESS
    }
}
