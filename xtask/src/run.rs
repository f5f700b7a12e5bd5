// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs other programs, shows what they are doing, and makes their failure
//! readable.
//!
//! On a terminal a step is one line with a spinner that shows the program's
//! last line; elsewhere it is a plain line at the start and one at the end.
//! What a program wrote is shown in full only if it fails.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader, IsTerminal, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Shows that something is going on, until it is finished or dropped.
pub struct Step {
    label: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Begins a step, named as what is being done: `building sensor.sys`.
    #[must_use]
    pub fn begin(label: impl Into<String>) -> Self {
        let label = label.into();
        let bar = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(label.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            Some(bar)
        } else {
            eprintln!("{label} ...");
            None
        };
        Self {
            label,
            started: Instant::now(),
            bar,
        }
    }

    /// Shows what the step is at.
    pub fn at(&self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(message.trim().to_owned());
        }
    }

    /// Ends the step and tells how long it took.
    pub fn finish(self) {
        let seconds = self.started.elapsed().as_secs_f32();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{}: done in {seconds:.1} s", self.label);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Runs a program under a step of its own and returns its standard output.
///
/// # Errors
/// When it cannot be started or fails; what it wrote is printed.
pub fn run(label: &str, command: &mut Command) -> Result<String> {
    let step = Step::begin(label);
    let output = run_in(&step, command)?;
    step.finish();
    Ok(output)
}

/// Runs a program within a step and returns its standard output.
///
/// # Errors
/// As [`run`].
pub fn run_in(step: &Step, command: &mut Command) -> Result<String> {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let mut stdout = child.stdout.take().context("no standard output")?;
    let stderr = child.stderr.take().context("no standard error")?;
    // Both are read at once, so that neither pipe fills up and blocks.
    let stdout = thread::spawn(move || {
        let mut text = Vec::new();
        stdout
            .read_to_end(&mut text)
            .map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    let mut said = String::new();
    for line in BufReader::new(stderr).split(b'\n') {
        let line = line.with_context(|| format!("cannot read what `{shown}` writes"))?;
        let line = String::from_utf8_lossy(&line).into_owned();
        step.at(&line);
        said.push_str(&line);
        said.push('\n');
    }
    let output = match stdout.join() {
        Ok(output) => output.with_context(|| format!("cannot read what `{shown}` writes"))?,
        Err(_) => bail!("cannot read what `{shown}` writes"),
    };
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{shown}`"))?;
    if !status.success() {
        bail!(
            "`{shown}` failed ({status}):\n{}{}",
            said.trim_end(),
            indent(&output)
        );
    }
    Ok(output)
}

/// Runs a program silently; returns its standard output, or `None` if it
/// cannot be started or fails.
pub fn ask(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Looks for a program in `PATH`.
#[must_use]
pub fn find_program(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let name = Path::new(name.as_ref()).with_extension(env::consts::EXE_EXTENSION);
    env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join(&name))
        .find(|path| path.is_file())
}

/// Returns a command as one would type it.
#[must_use]
pub fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| {
        let word = word.to_string_lossy();
        if word.contains([' ', '"', '\'']) {
            format!("'{word}'")
        } else {
            word.into_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Returns what a failed program wrote to its standard output, if that is text
/// for people and not cargo's JSON.
fn indent(output: &str) -> String {
    let lines = output.lines().filter(|line| !line.starts_with('{'));
    lines.fold(String::new(), |text, line| format!("{text}\n{line}"))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn failure_shows_the_command_and_what_it_wrote() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo reason >&2; exit 3"]);
        let error = run("failing", &mut command).unwrap_err().to_string();
        assert!(error.contains("sh -c 'echo reason >&2; exit 3'"), "{error}");
        assert!(error.contains("reason") && error.contains('3'), "{error}");
    }

    #[test]
    fn missing_program_is_named() {
        let error = run("missing", &mut Command::new("no-such-program")).unwrap_err();
        assert!(error.to_string().contains("no-such-program"));
        assert_eq!(find_program("no-such-program"), None);
    }

    #[test]
    fn much_output_on_both_streams_does_not_block() {
        let mut command = Command::new("sh");
        command.args(["-c", "yes x | head -c 1000000; yes y | head -c 1000000 >&2"]);
        assert_eq!(run("talking", &mut command).unwrap().len(), 1_000_000);
    }
}
