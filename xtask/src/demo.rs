// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask demo`: from source to a driver that has lived a whole life.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::ToolchainOption;
use crate::image::{self, Profile};
use crate::run;
use crate::setup;

const EXAMPLES: &str = "Examples:
  cargo xtask demo                      the image that would ship, in a fresh machine
  cargo xtask demo --host               the same source linked into the simulator
  cargo xtask demo --seed 7             another schedule
  cargo xtask demo --machine vm --json  keep the machine, tell the outcome as JSON";

/// Build the sample driver, install it in a simulated machine and tell its story.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Demo {
    /// Link the driver into the simulator instead of building an image
    #[arg(long)]
    host: bool,
    /// The number that decides the schedule
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to write every call, callback and message; the timeline is put beside it
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Where the simulated machine is kept: a folder that is empty or does not exist
    #[arg(long, value_name = "DIR")]
    machine: Option<PathBuf>,
    /// Tell the outcome as JSON on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    toolchain: ToolchainOption,
}

impl Demo {
    /// Does the job; the exit code is the story's.
    pub fn execute(&self, workspace: &Path) -> Result<ExitCode> {
        let here = std::env::current_dir().context("cannot tell the current folder")?;
        let work = workspace.join("target/demo");
        fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
        let machine = if let Some(folder) = &self.machine {
            here.join(folder)
        } else {
            // Ours, and made anew each time.
            let folder = work.join("machine");
            if folder.exists() {
                fs::remove_dir_all(&folder)
                    .with_context(|| format!("cannot remove {}", folder.display()))?;
            }
            folder
        };
        let trace = self
            .trace
            .as_ref()
            .map_or_else(|| work.join("trace.txt"), |file| here.join(file));

        let mut story = vec!["--seed".to_owned(), self.seed.to_string()];
        if self.host {
            story.push("--host".to_owned());
        } else {
            let tools = setup::ensure_image_toolchain(workspace, self.toolchain.toolchain)?;
            let built = image::build_driver(workspace, &tools, "sensor", Profile::Driver)?;
            image::verify(&built.sys)?;
            let inf = built.inf.context("the package sensor has no .inx file")?;
            story.extend(["--inf".to_owned(), text(&inf)?]);
        }
        story.extend([
            "--machine".to_owned(),
            text(&machine)?,
            "--trace".to_owned(),
            text(&trace)?,
        ]);
        if self.json {
            story.push("--json".to_owned());
        }
        let program = story_program(workspace)?;
        let status = Command::new(&program)
            .args(&story)
            .status()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(status.code().map_or(ExitCode::FAILURE, |code| {
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }))
    }
}

fn text(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .with_context(|| format!("{}: not text", path.display()))
}

/// Builds the program that plays the sample's story, and tells where it is.
pub fn story_program(workspace: &Path) -> Result<PathBuf> {
    let messages = run::run(
        "building the simulator",
        Command::new("cargo").current_dir(workspace).args([
            "build",
            "--package=sensor",
            "--example=story",
            "--message-format=json-render-diagnostics",
        ]),
    )?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| {
            let is_story = message["target"]["name"] == "story";
            message["executable"]
                .as_str()
                .filter(|_| is_story)
                .map(PathBuf::from)
        })
        .context("cargo did not say where the example `story` is")
}
