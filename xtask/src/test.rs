// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask test`: everything that must hold, on the host and on the image.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::ToolchainOption;
use crate::bench;
use crate::codegen;
use crate::docs;
use crate::image::{self, Profile};
use crate::planted;
use crate::run::{Step, ask, run};
use crate::setup;

/// The drivers whose images are compared with what is linked into their tests:
/// the samples, and those that go through all of dmf.
const DRIVERS: [&str; 4] = ["sensor", "mailbox", "surface", "surface_service"];

/// Schedules that each module's model is played under.
const SCHEDULES: &str = "20000";

/// Schedules that the fixed twin of each planted bug is played under.
const PLANTED_SCHEDULES: &str = "300";

/// Inputs that each fuzz target gets.
const FUZZ_RUNS: &str = "20000";

/// Run the whole test suite, host and image.
#[derive(Args)]
pub struct Test {
    #[command(flatten)]
    toolchain: ToolchainOption,
}

impl Test {
    /// Does the job.
    pub fn execute(&self, workspace: &Path) -> Result<()> {
        let cargo = |arguments: &[&str]| {
            let mut command = Command::new("cargo");
            command.current_dir(workspace).args(arguments);
            command
        };
        ensure_component(workspace, "rustfmt")?;
        ensure_component(workspace, "clippy")?;
        run(
            "checking the format",
            &mut cargo(&["fmt", "--all", "--check"]),
        )?;

        let tools = setup::ensure_image_toolchain(workspace, self.toolchain.toolchain)?;
        setup::ensure_other_headers()?;
        let browser = setup::ensure_browser()?;
        let step = Step::begin("checking that generated code is up to date");
        codegen::run(true).map_err(anyhow::Error::msg)?;
        step.finish();

        run(
            "linting",
            &mut cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--quiet",
                "--",
                "--deny",
                "warnings",
            ]),
        )?;
        no_unsafe(workspace)?;
        documentation(workspace)?;
        shown(&mut cargo(&["test", "--workspace"]))?;
        // The tests of pages need a browser, so they are behind a feature.
        shown(
            cargo(&[
                "test",
                "--package=ntsim",
                "--features=browser",
                "--test=timeline",
            ])
            .env("CHROMIUM", &browser),
        )?;
        explore(&mut cargo(&["test", "--release", "--package=dmf-modules"]))?;

        for driver in DRIVERS {
            let built = image::build_driver(workspace, &tools, driver, Profile::Driver)?;
            let facts = image::verify(&built.sys)?;
            let imports: Vec<_> = facts
                .imports
                .iter()
                .map(|(module, names)| format!("{} from {module}", names.len()))
                .collect();
            eprintln!("{}: imports {}", built.sys.display(), imports.join(", "));
            let inf = built
                .inf
                .with_context(|| format!("the package {driver} has no .inx file"))?;
            // The tests of the image itself need one, so they are behind a feature.
            let package = format!("--package={driver}");
            shown(
                cargo(&["test", &package, "--features=image", "--test=image"])
                    .env(format!("{}_INF", driver.to_uppercase()), &inf),
            )?;
        }

        let images = planted::build(workspace, &tools)?;
        shown(
            cargo(&["test", "--release", "--package=planted"])
                .env("PLANTED_IMAGES", &images)
                .env("DMF_SCHEDULES", PLANTED_SCHEDULES),
        )?;

        bench::check(workspace, &tools)?;
        shown(
            Command::new(workspace.join("ntsim/fuzz/run"))
                .current_dir(workspace)
                .arg(FUZZ_RUNS),
        )?;
        packages(workspace)?;
        eprintln!("everything passed");
        Ok(())
    }
}

/// Plays each module's model under many schedules, of a seed of its own each
/// time, which is printed.
fn explore(cargo: &mut Command) -> Result<()> {
    let models = [
        "--test=alertable_sleep_model",
        "--test=scheduled_task_model",
    ];
    shown(
        cargo
            .args(models)
            .args(["--", "--nocapture"])
            .env("DMF_SCHEDULES", SCHEDULES),
    )
}

/// Runs a program whose output is the point of it.
pub fn shown(command: &mut Command) -> Result<()> {
    let text = crate::run::show(command);
    eprintln!("running {text}");
    let status = command
        .status()
        .with_context(|| format!("cannot start `{text}`"))?;
    if !status.success() {
        bail!("`{text}` failed ({status})");
    }
    Ok(())
}

/// Makes sure that a component of the Rust toolchain is there.
fn ensure_component(workspace: &Path, name: &str) -> Result<()> {
    let program = match name {
        "rustfmt" => "fmt",
        other => other,
    };
    if ask(Command::new("cargo")
        .current_dir(workspace)
        .args([program, "--version"]))
    .is_some()
    {
        return Ok(());
    }
    run(
        &format!("adding the component {name}"),
        Command::new("rustup")
            .current_dir(workspace)
            .args(["component", "add", name]),
    )
    .map(drop)
}

/// The crates that are published, each after those that it depends on.
const PUBLISHED: [&str; 4] = ["ntsim-sys", "dmf", "dmf-modules", "ntsim"];

/// The documentation builds without a warning, and has what it must have.
fn documentation(workspace: &Path) -> Result<()> {
    let mut command = Command::new("cargo");
    command
        .current_dir(workspace)
        .env("RUSTDOCFLAGS", "--deny warnings")
        .args(["doc", "--quiet", "--no-deps"]);
    for package in PUBLISHED {
        command.args(["--package", package]);
    }
    run("documenting", &mut command)?;
    let step = Step::begin("checking the documentation");
    docs::check(workspace)?;
    step.finish();
    Ok(())
}

/// The published crates build from what would be uploaded, on one another.
pub fn packages(workspace: &Path) -> Result<()> {
    let mut command = Command::new("cargo");
    command
        .current_dir(workspace)
        .args(["publish", "--dry-run", "--allow-dirty"]);
    for package in PUBLISHED {
        command.args(["--package", package]);
    }
    run("packing the crates and building the packages", &mut command).map(drop)
}

/// Drivers and modules on dmf are written without `unsafe`.
fn no_unsafe(workspace: &Path) -> Result<()> {
    for package in [
        "modules",
        "samples/sensor",
        "samples/mailbox",
        "benches/rust",
        "tests/surface",
        "tests/surface_service",
    ] {
        let root = workspace.join(package).join("src/lib.rs");
        let text = std::fs::read_to_string(&root)
            .with_context(|| format!("cannot read {}", root.display()))?;
        if !text.contains("#![forbid(unsafe_code)]") {
            bail!("{}: it must say #![forbid(unsafe_code)]", root.display());
        }
        // Tests are crates of their own, which that line does not reach.
        for file in docs::rust_files(&workspace.join(package))? {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            if let Some(at) = text.lines().position(|line| line.contains("unsafe {")) {
                bail!("{}:{}: unsafe code", file.display(), at + 1);
            }
        }
    }
    Ok(())
}
