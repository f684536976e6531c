//! `completions`: the shell's completion script.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::Result;
use crate::ui::Output;

/// Print a completion script for your shell.
///
/// For bash: `spctl completions bash > ~/.local/share/bash-completion/completions/spctl`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "spctl", &mut script);
    output.raw(&String::from_utf8_lossy(&script))
}
