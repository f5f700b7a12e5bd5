// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds, or sets up, what building a driver image needs beyond stable Rust:
//!
//! | what | where from |
//! |---|---|
//! | Rust for `x86_64-pc-windows-msvc` | `rustup target add`; where rustup cannot reach its server, Debian's `rustc-web` with its sources |
//! | `lld-link` | rustup's own `rust-lld` under that name; else Debian's `lld` |
//! | `clang`, `libclang`, `llvm-lib` | `apt-get install` when root, else the command to type |
//! | `chromium`, for the tests of pages | the same |

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::run::{ask, find_program, run};

/// The target of driver images.
pub const TARGET: &str = "x86_64-pc-windows-msvc";

/// Where Debian puts the kernel headers of mingw-w64.
pub const MINGW_HEADERS: &str = "/usr/share/mingw-w64/include/ddk";

/// Debian's compiler, with sources of the same version.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUST_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Which compiler builds driver images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Toolchain {
    /// The first of the others that can be had.
    #[default]
    Auto,
    /// The one that rustup manages, with its Windows target.
    Rustup,
    /// Debian's `rustc-web`, which builds `core` and `alloc` from source.
    Debian,
}

impl std::str::FromStr for Toolchain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "rustup" => Ok(Self::Rustup),
            "debian" => Ok(Self::Debian),
            _ => Err(format!(
                "toolchain {text:?}: expected auto, rustup or debian"
            )),
        }
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Rustup => "rustup",
            Self::Debian => "debian",
        })
    }
}

/// A complete set of tools for driver images.
#[derive(Debug, Clone)]
pub struct ImageToolchain {
    /// Whose compiler it is; never [`Toolchain::Auto`].
    pub kind: Toolchain,
    target_directory: PathBuf,
    linker: Option<PathBuf>,
    archiver: Option<PathBuf>,
}

impl ImageToolchain {
    /// Returns a cargo command for the target, in `workspace`, to which a
    /// subcommand and its arguments can be added with [`build_arguments`](Self::build_arguments).
    #[must_use]
    pub fn cargo(&self, workspace: &Path) -> Command {
        let mut cargo = match self.kind {
            Toolchain::Debian => {
                let mut cargo = Command::new(DEBIAN_CARGO);
                cargo
                    .env_remove("RUSTUP_TOOLCHAIN")
                    .env("RUSTC", DEBIAN_RUSTC)
                    .env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Toolchain::Auto | Toolchain::Rustup => Command::new("cargo"),
        };
        // What cargo told this program about itself is not for another cargo.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let about_package = [
                "CARGO_PKG_",
                "CARGO_MANIFEST_",
                "CARGO_BIN_",
                "CARGO_CRATE_",
            ];
            if text == "CARGO" || about_package.iter().any(|prefix| text.starts_with(prefix)) {
                cargo.env_remove(&name);
            }
        }
        cargo
            .current_dir(workspace)
            .env("CARGO_TARGET_DIR", &self.target_directory)
            // By which build scripts find the workspace when the target
            // directory is not inside it.
            .env("PWD", workspace);
        let variable = |name: &str| format!("{name}_{}", TARGET.replace('-', "_"));
        let mut default = |name: String, value: OsString| {
            if env::var_os(&name).is_none() {
                cargo.env(name, value);
            }
        };
        if let Some(linker) = &self.linker {
            let name = format!(
                "CARGO_TARGET_{}_LINKER",
                TARGET.replace('-', "_").to_uppercase()
            );
            default(name, linker.into());
            default(variable("CC"), "clang".into());
        }
        if let Some(archiver) = &self.archiver {
            default(variable("AR"), archiver.into());
        }
        cargo
    }

    /// Returns the arguments of `cargo build` that choose the target.
    #[must_use]
    pub fn build_arguments(&self) -> Vec<&'static str> {
        let mut arguments = vec!["--target", TARGET];
        if self.kind == Toolchain::Debian {
            arguments.extend([
                "-Zbuild-std=core,alloc",
                "-Zbuild-std-features=compiler-builtins-mem",
            ]);
        }
        arguments
    }

    /// Returns the linker; `None` on Windows, where it is Microsoft's.
    #[must_use]
    pub fn linker(&self) -> Option<&Path> {
        self.linker.as_deref()
    }

    /// Returns where cargo puts what it builds.
    #[must_use]
    pub fn target_directory(&self) -> &Path {
        &self.target_directory
    }
}

/// Finds or sets up the tools for driver images.
///
/// # Errors
/// When something is missing and cannot be installed from here; the error says
/// what to type.
pub fn ensure_image_toolchain(workspace: &Path, wanted: Toolchain) -> Result<ImageToolchain> {
    let target_directory = match env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => workspace.join(directory),
        None => workspace.join("target"),
    };
    if cfg!(windows) {
        // Microsoft's compiler and linker, or what the user's own settings say.
        ensure_rustup_target(workspace)?;
        let kind = Toolchain::Rustup;
        return Ok(ImageToolchain {
            kind,
            target_directory,
            linker: None,
            archiver: None,
        });
    }
    ensure_programs()?;
    let kind = ensure_rust(workspace, wanted)?;
    let linker = ensure_linker(workspace, &target_directory.join("xtask"))?;
    let target_directory = match kind {
        // Two compilers that share a directory rebuild each other's work.
        Toolchain::Debian => target_directory.join("debian"),
        Toolchain::Auto | Toolchain::Rustup => target_directory,
    };
    let archiver = find_versioned("llvm-lib");
    Ok(ImageToolchain {
        kind,
        target_directory,
        linker: Some(linker),
        archiver,
    })
}

/// Makes sure that some compiler has the target, and returns whose it is.
fn ensure_rust(workspace: &Path, wanted: Toolchain) -> Result<Toolchain> {
    if wanted != Toolchain::Debian {
        match ensure_rustup_target(workspace) {
            Ok(()) => return Ok(Toolchain::Rustup),
            Err(error) if wanted == Toolchain::Rustup => return Err(error),
            Err(error) => eprintln!("{error:#}\ntrying Debian's own compiler instead"),
        }
    }
    let sources = ask(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]))
        .map(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml"));
    let complete =
        sources.is_some_and(|sources| sources.is_file()) && Path::new(DEBIAN_CARGO).is_file();
    if !complete {
        install(&DEBIAN_RUST_PACKAGES)?;
    }
    Ok(Toolchain::Debian)
}

/// Makes sure that the compiler that `cargo` runs has the target.
fn ensure_rustup_target(workspace: &Path) -> Result<()> {
    let mut rustc = Command::new("rustc");
    rustc
        .current_dir(workspace)
        .args(["--print", "target-libdir", "--target", TARGET]);
    let has_core = |directory: String| {
        fs::read_dir(directory).is_ok_and(|mut files| {
            files.any(|file| {
                file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
            })
        })
    };
    if ask(&mut rustc).is_some_and(has_core) {
        return Ok(());
    }
    if find_program("rustup").is_none() {
        bail!("this Rust has no target {TARGET}, and there is no rustup to add it");
    }
    run(
        &format!("adding the Rust target {TARGET}"),
        Command::new("rustup")
            .current_dir(workspace)
            .args(["target", "add", TARGET]),
    )
    .map(drop)
    .with_context(|| format!("cannot add the Rust target {TARGET}"))
}

/// Makes sure that clang, libclang and an archiver are there.
fn ensure_programs() -> Result<()> {
    let mut missing = Vec::new();
    if find_program("clang").is_none() {
        missing.push("clang");
    }
    if !has_libclang() {
        missing.push("libclang-dev");
    }
    if find_versioned("llvm-lib").is_none() {
        missing.push("llvm");
    }
    if missing.is_empty() {
        Ok(())
    } else {
        install(&missing)
    }
}

/// Makes sure that the headers are there with which the code generator
/// compares our own.
///
/// # Errors
/// As [`ensure_image_toolchain`].
pub fn ensure_other_headers() -> Result<()> {
    if Path::new(MINGW_HEADERS).is_dir() {
        return Ok(());
    }
    install(&["mingw-w64-common"])
}

/// Makes sure that there is a browser for the tests of pages, and returns it.
///
/// # Errors
/// As [`ensure_image_toolchain`].
pub fn ensure_browser() -> Result<PathBuf> {
    let find = || {
        ["chromium", "chromium-browser", "google-chrome"]
            .into_iter()
            .find_map(find_program)
    };
    if let Some(browser) = env::var_os("CHROMIUM").map(PathBuf::from).or_else(find) {
        return Ok(browser);
    }
    install(&["chromium"])?;
    find().context("there is no chromium, although its package is installed")
}

/// Returns whether bindgen will find libclang.
fn has_libclang() -> bool {
    let mut directories: Vec<PathBuf> = env::var_os("LIBCLANG_PATH")
        .into_iter()
        .map(PathBuf::from)
        .collect();
    if let Some(directory) = ask(Command::new("llvm-config").arg("--libdir")) {
        directories.push(directory.into());
    }
    for parent in [
        "/usr/lib",
        "/usr/local/lib",
        "/usr/lib64",
        "/opt/homebrew/opt/llvm/lib",
        "/usr/local/opt/llvm/lib",
        "/Library/Developer/CommandLineTools/usr/lib",
    ] {
        directories.push(parent.into());
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            directories.push(entry.path());
            directories.push(entry.path().join("lib"));
        }
    }
    let is_libclang = |name: &str| {
        let file = Path::new(name);
        let plain = file
            .extension()
            .is_some_and(|end| end == "so" || end == "dylib");
        name.starts_with("libclang")
            && !name.starts_with("libclang-cpp")
            && (plain || name.contains(".so."))
    };
    directories.iter().any(|directory| {
        fs::read_dir(directory).is_ok_and(|files| {
            files
                .flatten()
                .any(|file| is_libclang(&file.file_name().to_string_lossy()))
        })
    })
}

/// Looks for a program of LLVM, which distributions also install as
/// `name-VERSION` or outside of `PATH`.
fn find_versioned(name: &str) -> Option<PathBuf> {
    let elsewhere = ["/opt/homebrew/opt/llvm/bin", "/usr/local/opt/llvm/bin"]
        .map(|directory| Path::new(directory).join(name));
    find_program(name)
        .or_else(|| {
            (11..=30)
                .rev()
                .find_map(|version| find_program(format!("{name}-{version}")))
        })
        .or_else(|| elsewhere.into_iter().find(|path| path.is_file()))
}

/// Returns a linker named `lld-link`: lld behaves as the linker whose name it
/// is called by, and so does rustc when it chooses arguments.
fn ensure_linker(workspace: &Path, directory: &Path) -> Result<PathBuf> {
    if let Some(rust_lld) = find_rust_lld(workspace) {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let link = directory.join("lld-link");
        if fs::read_link(&link).ok().as_ref() != Some(&rust_lld) {
            let _ = fs::remove_file(&link);
            symlink(&rust_lld, &link)
                .with_context(|| format!("cannot create {}", link.display()))?;
        }
        return Ok(link);
    }
    if let Some(linker) = find_versioned("lld-link") {
        return Ok(linker);
    }
    install(&["lld"])?;
    find_versioned("lld-link")
        .context("there is no lld-link, although the package lld is installed")
}

/// Looks for the linker that rustup's compilers bring along.
fn find_rust_lld(workspace: &Path) -> Option<PathBuf> {
    let sysroot = ask(Command::new("rustc")
        .current_dir(workspace)
        .args(["--print", "sysroot"]))?;
    fs::read_dir(Path::new(&sysroot).join("lib/rustlib"))
        .ok()?
        .flatten()
        .map(|host| host.path().join("bin/rust-lld"))
        .find(|path| path.is_file())
}

#[cfg(unix)]
fn symlink(original: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(original, link)
}

#[cfg(not(unix))]
fn symlink(original: &Path, link: &Path) -> std::io::Result<()> {
    fs::copy(original, link).map(drop)
}

/// Installs Debian packages, or says how.
fn install(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    if cfg!(target_os = "macos") {
        bail!("missing: {names}; to install them: brew install llvm lld");
    }
    if find_program("apt-get").is_none() {
        bail!(
            "missing (by the names that Debian gives them): {names}; install them with this system's packages"
        );
    }
    if ask(Command::new("id").arg("-u")).as_deref() != Some("0") {
        bail!(
            "missing: {names}; to install them: sudo apt-get update && sudo apt-get install --yes {names}"
        );
    }
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(["--yes", "--quiet"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(
        "updating the list of Debian packages",
        &mut apt_get(&["update"]),
    )?;
    run(
        &format!("installing {names}"),
        apt_get(&["install", "--no-install-recommends"]).args(packages),
    )?;
    Ok(())
}
