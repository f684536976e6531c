//! `login`: who you are to a registry, kept where Docker and ORAS keep it.

use std::io::Read;

use serde::Serialize;

use super::{block_on, interruptible};
use crate::adapters::registry::{self, Stored};
use crate::args::RegistryArgs;
use crate::error::{Error, Result};
use crate::reference;
use crate::ui::{self, Output};

/// A token may be long; this is longer.
const PASSWORD_MAX: u64 = 64 << 10;

/// Log in to a registry, for push, pull, inspect, run and reload.
///
/// The login is tried, then kept where Docker and ORAS keep theirs: by the credential helper that
/// Docker's configuration names, else in that file, readable by you alone. The password never is an
/// argument: it is asked for, or read from standard input.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  spctl login ghcr.io --username me
  echo $TOKEN | spctl login ghcr.io --username me --password-stdin

In CI no login is needed: SPCTL_REGISTRY_USERNAME and SPCTL_REGISTRY_PASSWORD (or SPCTL_REGISTRY_TOKEN, a
bearer token) are used where they are set; SPCTL_REGISTRY says which registry alone they are for.")]
pub struct Args {
    /// HOST or HOST:PORT.
    registry: String,

    /// The user's name [default: asked for].
    #[arg(long, short, value_name = "NAME")]
    username: Option<String>,

    /// Read the password or token from standard input, to its end.
    #[arg(long, requires = "username")]
    password_stdin: bool,

    #[command(flatten)]
    way: RegistryArgs,
}

#[derive(Serialize)]
struct LoginResult {
    registry: String,
    username: String,
    /// `helper` or `file`.
    kept: &'static str,
    /// The helper's name, or the file.
    place: String,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<()> {
    let registry = reference::registry(&args.registry)?;
    let asked = |answer: std::io::Result<Option<String>>, missing: &str| match answer {
        Ok(Some(answer)) if !answer.is_empty() => Ok(answer),
        Ok(_) => Err(Error::Usage(missing.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Err(Error::Interrupted),
        Err(error) => Err(Error::io("cannot read the answer")(error)),
    };
    let username = match &args.username {
        Some(username) => username.clone(),
        None => asked(ui::line("username: "), "say who: `--username NAME`")?,
    };
    if username.contains(':') {
        return Err(Error::Usage("a user's name has no `:`".into()));
    }
    let password = if args.password_stdin {
        let mut text = String::new();
        let read = std::io::stdin().take(PASSWORD_MAX).read_to_string(&mut text);
        asked(read.map(|_| Some(text.trim_end_matches(['\n', '\r']).to_owned())), "standard input is empty")?
    } else {
        asked(
            ui::secret("password: "),
            "no terminal to ask on: give the password on standard input, `--password-stdin`",
        )?
    };
    let transport = args.way.transport();
    let mut is_asked = true;
    block_on(interruptible(async {
        is_asked = registry::check_login(&registry, &transport, &username, &password).await?;
        Ok(())
    }))?;
    if !is_asked {
        output.warn(format!("{registry} asks nobody for a login: this one is kept, but not known to be right"));
    }
    let stored = registry::store(&registry, &username, &password)?;
    let (kept, place) = match &stored {
        Stored::Helper(helper) => ("helper", helper.clone()),
        Stored::File(path) => ("file", path.display().to_string()),
    };
    if kept == "file" {
        output.note(&format!(
            "the password is kept in `{place}` as it is, readable by you alone; a credential helper would encrypt it"
        ));
    }
    let result = LoginResult { registry, username, kept, place };
    output.result(&result, |style| {
        format!("logged in to {} as {}\n", style.bold(&result.registry), style.good(&result.username))
    })
}
