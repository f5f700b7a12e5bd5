// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim completions`: what a shell needs to complete ntsim's words.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

const EXAMPLES: &str = "Examples:
  ntsim completions bash > ~/.local/share/bash-completion/completions/ntsim
  ntsim completions zsh > \"${fpath[1]}/_ntsim\"
  ntsim completions fish > ~/.config/fish/completions/ntsim.fish
  ntsim completions powershell >> $PROFILE";

/// Write the completions of a shell to standard output
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn execute(&self, command: &mut clap::Command) -> ExitCode {
        clap_complete::generate(self.shell, command, "ntsim", &mut std::io::stdout());
        ExitCode::SUCCESS
    }
}
