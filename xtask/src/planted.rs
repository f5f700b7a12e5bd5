// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask planted`: builds the faulty drivers in C of `tests/planted`, each
//! with its fixed twin, and has the bugs of all searched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use clap::Args;

use crate::ToolchainOption;
use crate::image;
use crate::run::{Step, run_in};
use crate::setup::{self, ImageToolchain, TARGET};
use crate::test::shown;

/// Search the bugs of the drivers in tests/planted, and write docs/planted-bugs.md.
#[derive(Args)]
pub struct Planted {
    /// Build the drivers in C, print where they are, and do no more
    #[arg(long)]
    build: bool,
    #[command(flatten)]
    toolchain: ToolchainOption,
    /// What the search is told in place of writing the page: `-- --help` shows it
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Where what is found is written.
const PAGE: &str = "docs/planted-bugs.md";

impl Planted {
    /// Does the job.
    pub fn execute(&self, workspace: &Path) -> Result<()> {
        let tools = setup::ensure_image_toolchain(workspace, self.toolchain.toolchain)?;
        let images = build(workspace, &tools)?;
        if self.build {
            println!("{}", images.display());
            return Ok(());
        }
        let mut search = Command::new("cargo");
        search
            .current_dir(workspace)
            .args(["run", "--release", "--package=planted", "--"])
            .env("PLANTED_IMAGES", &images);
        if self.arguments.is_empty() {
            search.args(["--page", PAGE]);
        } else {
            search.args(&self.arguments);
        }
        shown(&mut search)
    }
}

/// Builds `NAME.sys` and `NAME-fixed.sys` of each `NAME.c`, with their PDBs;
/// gives the directory.
///
/// # Errors
/// Names the driver that does not compile or link.
pub fn build(workspace: &Path, toolchain: &ImageToolchain) -> Result<PathBuf> {
    let Some(linker) = toolchain.linker() else {
        bail!("drivers in C are built with clang and lld, not on Windows");
    };
    let step = Step::begin("building the faulty drivers in C");
    let source = workspace.join("tests/planted/bugs");
    let directory = toolchain.target_directory().join(TARGET).join("planted");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let openwdk = workspace.join("openwdk");
    let compiling = wdk_build::c::compiler_arguments(&openwdk, TARGET)?;
    let linking = wdk_build::c::linker_arguments(&openwdk, &directory.join("openwdk"), TARGET)?;
    for name in names(&source)? {
        for (output, fixed) in [(name.clone(), 0), (format!("{name}-fixed"), 1)] {
            step.at(&output);
            let mut clang = Command::new("clang");
            clang
                // The name of the source is all that the debug information says of it.
                .current_dir(&source)
                .args(&compiling)
                .args(["-O2", "-Wall", "-Wextra", "-Werror", "-c"])
                .arg(format!("-DFIXED={fixed}"))
                .arg(format!("{name}.c"))
                .arg("-o")
                .arg(directory.join(format!("{output}.obj")))
                .arg(format!("-ffile-prefix-map={}=openwdk", openwdk.display()));
            run_in(&step, &mut clang)?;
            let mut link = Command::new(linker);
            link.current_dir(&directory)
                .args(&linking)
                .args(["/DEBUG", "/Brepro", "/NOLOGO"])
                .arg(format!("{output}.obj"))
                .arg(format!("/OUT:{output}.sys"));
            run_in(&step, &mut link)?;
            let file = |extension: &str| directory.join(format!("{output}.{extension}"));
            image::reproducible(&file("sys"), &file("pdb"))?;
        }
    }
    step.finish();
    Ok(directory)
}

/// The drivers, in order.
fn names(source: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(source).with_context(|| format!("cannot read {}", source.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            let name = path.file_stem().unwrap_or_default();
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
