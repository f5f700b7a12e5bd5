// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every recurring job of the workspace as one command.

mod bench;
mod codegen;
mod demo;
mod docs;
mod image;
mod mutants;
mod planted;
mod run;
mod setup;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand};

use crate::image::Profile;
use crate::setup::Toolchain;

/// Every recurring job of the workspace.
///
/// What a job needs and the machine does not have is set up first, or the
/// command to type is shown.
#[derive(Parser)]
#[command(name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the sample driver, install it in a simulated machine and tell its story
    Demo(demo::Demo),
    /// Compare a driver on dmf with one in C: instructions, pool and image size
    Bench(bench::Bench),
    /// Run the whole test suite, host and image
    Test(test::Test),
    /// Break the modules in each way that cargo-mutants knows, and see a test fail
    Mutants(mutants::Mutants),
    /// Search the bugs of the drivers in tests/planted, and write docs/planted-bugs.md
    Planted(planted::Planted),
    /// Build a driver package: image, symbols and INF
    Build {
        /// The package of the workspace to build
        #[arg(default_value = "sensor")]
        package: String,
        /// Do not optimise, and check for overflow
        #[arg(long)]
        debug: bool,
        #[command(flatten)]
        toolchain: ToolchainOption,
    },
    /// Regenerate headers and bindings from openwdk/abi
    Codegen {
        /// Compare instead, and fail if anything is out of date
        #[arg(long)]
        check: bool,
    },
    /// Build the driver image that ntsim's tests of the command line use; it is committed
    Fixtures {
        #[command(flatten)]
        toolchain: ToolchainOption,
    },
    /// Pack the published crates and build the packages, without publishing them
    Package,
    /// List what the documentation of dmf and dmf-modules lacks
    Docs,
    /// Set up what building a driver image needs, and nothing else
    Setup {
        #[command(flatten)]
        toolchain: ToolchainOption,
    },
}

#[derive(clap::Args, Clone, Copy)]
struct ToolchainOption {
    /// The compiler for driver images: auto, rustup or debian
    #[arg(long, default_value = "auto", value_name = "WHICH")]
    toolchain: Toolchain,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match cli.command.execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Command {
    fn execute(self) -> Result<ExitCode> {
        let workspace = workspace()?;
        match self {
            Self::Bench(bench) => return bench.execute(&workspace),
            Self::Demo(demo) => return demo.execute(&workspace),
            Self::Test(test) => test.execute(&workspace)?,
            Self::Mutants(mutants) => mutants.execute(&workspace)?,
            Self::Planted(planted) => planted.execute(&workspace)?,
            Self::Build {
                package,
                debug,
                toolchain,
            } => {
                let profile = if debug {
                    Profile::DriverDev
                } else {
                    Profile::Driver
                };
                let tools = setup::ensure_image_toolchain(&workspace, toolchain.toolchain)?;
                let built = image::build_driver(&workspace, &tools, &package, profile)?;
                image::verify(&built.sys)?;
                println!("{}", built.directory.display());
            }
            Self::Codegen { check } => codegen::run(check).map_err(|message| anyhow!(message))?,
            Self::Fixtures { toolchain } => {
                let tools = setup::ensure_image_toolchain(&workspace, toolchain.toolchain)?;
                let folder = workspace.join("ntsim/tests/fixtures/lamp");
                let built = image::build_c_driver(&workspace, &tools, &folder, "lamp")?;
                image::verify(&built.sys)?;
                for file in [Some(&built.sys), built.inf.as_ref()].into_iter().flatten() {
                    let name = file.file_name().context("a file of the package")?;
                    std::fs::copy(file, folder.join(name))
                        .with_context(|| format!("cannot copy {}", file.display()))?;
                }
            }
            Self::Package => test::packages(&workspace)?,
            Self::Docs => docs::check(&workspace)?,
            Self::Setup { toolchain } => {
                let tools = setup::ensure_image_toolchain(&workspace, toolchain.toolchain)?;
                println!(
                    "driver images are built with the compiler of {}",
                    tools.kind
                );
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The root of the workspace.
fn workspace() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .context("xtask lies in the workspace's root")
}
