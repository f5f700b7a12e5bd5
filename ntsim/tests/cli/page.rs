// SPDX-License-Identifier: MIT OR Apache-2.0

//! The session of `docs/command-line.md` is played, and what it shows is compared.
//!
//! In a block of ```` ```console ````, a line with `$` before it is a command; what
//! follows is its output, standard output first. `…` stands for any number of lines,
//! or for the rest of one. A last line `(exit code N)` is not output.
//!
//! With `NTSIM_BLESS=1` in the environment the outputs are written into the page.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Folder;
use crate::pnputil::package;

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/command-line.md")
}

/// The words of a line; single quotes keep blanks and backslashes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut begun) = (String::new(), false, false);
    for letter in line.chars() {
        match letter {
            '\'' => (quoted, begun) = (!quoted, true),
            ' ' if !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            letter => {
                word.push(letter);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

fn run(folder: &Folder, line: &str) -> String {
    let words = words(line);
    assert_eq!(words[0], "ntsim", "{line}");
    let output = Command::new(env!("CARGO_BIN_EXE_ntsim"))
        .args(&words[1..])
        .current_dir(folder.path("package"))
        .env_remove("NTSIM_MACHINE")
        .output()
        .unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    text += &String::from_utf8(output.stderr).unwrap();
    let code = output.status.code().unwrap();
    if code != 0 {
        let _ = writeln!(text, "(exit code {code})");
    }
    text
}

fn fits(expected: &[&str], shown: &[&str]) -> bool {
    match (expected.split_first(), shown.split_first()) {
        (None, None) => true,
        (Some((&"…", rest)), _) => (0..=shown.len()).any(|skip| fits(rest, &shown[skip..])),
        (Some((line, rest)), Some((other, after))) => {
            let same = match line.split_once('…') {
                Some((begin, end)) => other.starts_with(begin) && other.ends_with(end),
                None => line == other,
            };
            same && fits(rest, after)
        }
        _ => false,
    }
}

#[test]
fn the_session_on_the_page_is_what_the_commands_show() {
    let folder = package();
    let text = std::fs::read_to_string(page()).unwrap();
    let mut blessed = String::new();
    let mut lines = text.lines().peekable();
    let mut wrong = String::new();
    let mut commands = 0;
    let mut inside = false;
    while let Some(line) = lines.next() {
        blessed += line;
        blessed.push('\n');
        if line.starts_with("```") {
            inside = line == "```console";
        }
        let Some(command) = line.strip_prefix("$ ").filter(|_| inside) else {
            continue;
        };
        commands += 1;
        let mut expected = Vec::new();
        while let Some(next) = lines.next_if(|next| !next.starts_with("$ ") && *next != "```") {
            expected.push(next);
        }
        let output = run(&folder, command);
        let mut shown: Vec<_> = output.lines().collect();
        // The blank line before the next command is the page's, or the output's.
        for side in [&mut expected, &mut shown] {
            while side.last().is_some_and(|line| line.is_empty()) {
                side.pop();
            }
        }
        let mut kept = expected.clone();
        if !fits(&expected, &shown) {
            let _ = writeln!(wrong, "$ {command}\n{}", shown.join("\n"));
            kept = shown;
        }
        for line in kept {
            blessed += line;
            blessed.push('\n');
        }
        if lines.peek().is_some_and(|next| next.starts_with("$ ")) {
            blessed.push('\n');
        }
    }
    assert!(commands > 15, "{commands}");
    if std::env::var_os("NTSIM_BLESS").is_some() {
        std::fs::write(page(), blessed).unwrap();
    } else {
        assert!(wrong.is_empty(), "the page differs from:\n{wrong}");
    }
}

#[test]
fn every_command_is_on_the_page() {
    let text = std::fs::read_to_string(page()).unwrap();
    let help = Command::new(env!("CARGO_BIN_EXE_ntsim"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help");
    for name in commands {
        assert!(text.contains(&format!("| `ntsim {name}`")), "{name}");
    }
}
