// SPDX-License-Identifier: MIT OR Apache-2.0

//! Options as Windows's own tools take them.
//!
//! `/add-driver`, `-add-driver` and `--add-driver` are one option, in any case.
//! clap knows the last only; this turns the others into it, for the commands
//! that Windows has too and nothing else.
//!
//! A path of Unix begins with a slash as well. So a word is an option only if
//! the command has one of that name; `/tmp/x.inf` is none. What is neither an
//! option nor a path that is there goes to clap as a misspelt option.

use std::ffi::OsString;
use std::path::Path;

use clap::{Arg, Command};

/// The commands that Windows has.
const FROM_WINDOWS: [&str; 4] = ["devgen", "pnputil", "reg", "verifier"];

/// Gives the words that clap understands.
pub(crate) fn translate(
    root: &Command,
    words: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    let mut words = words.into_iter();
    let mut out: Vec<OsString> = words.by_ref().take(2).collect();
    let name = out.get(1).and_then(|word| word.to_str());
    let name = name.map(str::to_lowercase).unwrap_or_default();
    let mut root = root.clone();
    root.build();
    let found = root
        .find_subcommand(&name)
        .filter(|_| FROM_WINDOWS.contains(&name.as_str()));
    let Some(mut command) = found else {
        out.extend(words);
        return out;
    };
    out[1] = name.into();
    while let Some(word) = words.next() {
        let Some(text) = word.to_str() else {
            out.push(word);
            continue;
        };
        if let Some(inner) = command.find_subcommand(text.to_lowercase()) {
            out.push(inner.get_name().into());
            command = inner;
            continue;
        }
        let Some(rest) = ["--", "-", "/"]
            .iter()
            .find_map(|mark| text.strip_prefix(mark))
        else {
            out.push(word);
            continue;
        };
        let (name, value) = match rest.split_once('=') {
            Some((name, value)) => (name.to_lowercase(), Some(value)),
            None => (rest.to_lowercase(), None),
        };
        let Some((long, arg)) = option(command, &name) else {
            out.push(if name == "?" {
                "--help".into()
            } else if text.starts_with('/') && !rest.contains('/') && !Path::new(text).exists() {
                format!("--{rest}").into()
            } else {
                word
            });
            continue;
        };
        let mut option = OsString::from(format!("--{long}"));
        let value = value.map(OsString::from).or_else(|| {
            // Whatever the next word looks like, it is the value.
            let takes_one = arg
                .get_num_args()
                .is_some_and(|range| range.min_values() == 1 && range.max_values() == 1);
            takes_one.then(|| words.next()).flatten()
        });
        if let Some(value) = value {
            option.push("=");
            option.push(value);
        }
        out.push(option);
    }
    out
}

/// The option of this name, and the name as clap has it.
fn option<'a>(command: &'a Command, name: &str) -> Option<(&'a str, &'a Arg)> {
    command.get_arguments().find_map(|arg| {
        let names = arg.get_long_and_visible_aliases()?;
        let same = names.into_iter().find(|long| *long == name)?;
        Some((same, arg))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(words: &[&str]) -> Vec<String> {
        let list = Arg::new("driver").long("driver").num_args(1..);
        let inf = Arg::new("inf").long("add-driver").num_args(1);
        let flag = Arg::new("flag")
            .long("install")
            .action(clap::ArgAction::SetTrue);
        let inner = Command::new("query").arg(Arg::new("v").long("v").num_args(1));
        let command = Command::new("ntsim")
            .subcommand(Command::new("pnputil").args([inf, list, flag]))
            .subcommand(Command::new("reg").subcommand(inner))
            .subcommand(Command::new("run").arg(Arg::new("x").long("x")));
        let words = ["ntsim"].iter().chain(words).map(OsString::from);
        let out = translate(&command, words);
        out[1..]
            .iter()
            .map(|word| word.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn options_of_windows_become_options_of_clap() {
        for (words, expected) in [
            (
                &["PnPUtil", "/Add-Driver", "/tmp/x.inf", "/INSTALL"][..],
                &["pnputil", "--add-driver=/tmp/x.inf", "--install"][..],
            ),
            (
                &["pnputil", "-add-driver", "/install", "--install"],
                &["pnputil", "--add-driver=/install", "--install"],
            ),
            (
                &["pnputil", "/driver", "a.sys", "b.sys", "/install"],
                &["pnputil", "--driver", "a.sys", "b.sys", "--install"],
            ),
            (&["pnputil", "/?"], &["pnputil", "--help"]),
            (&["pnputil", "/instal"], &["pnputil", "--instal"]),
            (&["pnputil", "/tmp", "/a/b"], &["pnputil", "/tmp", "/a/b"]),
            (&["REG", "Query", "/V", "/v"], &["reg", "query", "--v=/v"]),
            // The others take their options as clap has them.
            (&["run", "/x"], &["run", "/x"]),
            (&[], &[]),
        ] {
            assert_eq!(translated(words), expected);
        }
    }
}
