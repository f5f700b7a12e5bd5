// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask mutants`: whether a test fails for each promise of the modules
//! that is broken.
//!
//! `cargo mutants` breaks them one at a time. `.cargo/mutants.toml` says which
//! changes break nothing, and why. It takes about half an hour.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::run::ask;
use crate::test::shown;

/// Break the modules in each way that cargo-mutants knows, and see a test fail
#[derive(Args)]
pub struct Mutants {
    /// More arguments for `cargo mutants`: --jobs 2, --file, --shard 0/4
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl Mutants {
    /// Does the job.
    pub fn execute(&self, workspace: &Path) -> Result<()> {
        if ask(Command::new("cargo").args(["mutants", "--version"])).is_none() {
            bail!("cargo-mutants is missing; to install it: cargo install --locked cargo-mutants");
        }
        shown(
            Command::new("cargo")
                .current_dir(workspace)
                .args(["mutants", "--package", "dmf-modules"])
                .args(&self.arguments)
                // Few schedules, the same each time: a mutant that only another
                // schedule finds needs a test of its own.
                .env("DMF_SCHEDULES", "300")
                .env("DMF_SEED", "1"),
        )
    }
}
