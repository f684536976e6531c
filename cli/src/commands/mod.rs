//! One file a verb: its flags and what the user reads. Commands never import
//! each other; what two of them need lives a layer below.

pub mod build;
pub mod captures;
pub mod completions;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod down;
pub mod hidden;
pub mod inspect;
pub mod login;
pub mod logout;
pub mod logs;
pub mod pull;
pub mod push;
pub mod quickstart;
pub mod reload;
pub mod run;
pub mod status;

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::adapters::registry::{Access, Registry, Transport};
use crate::args::{Cli, Command};
use crate::error::{Error, Result};
use crate::harness::{Kind, prepare_image};
use crate::instance::{PluginSource, Spec};
use crate::oci;
use crate::reference::Reference;
use crate::state::{Home, keep_module};
use crate::ui::{Output, Progress};

/// What every command receives.
pub struct Context<'a> {
    pub output: &'a Output,
    pub home: Home,
}

pub(crate) fn run(cli: Cli, output: &Output) -> Result<()> {
    // None of these needs a state directory.
    match cli.command {
        Command::Completions(args) => return completions::run(&args, output),
        Command::Build(args) => return block_on(build::run(&args, output)),
        Command::Config(args) => return config::run(args, output),
        Command::Login(args) => return login::run(&args, output),
        Command::Logout(args) => return logout::run(&args, output),
        _ => {}
    }
    let context = Context { output, home: Home::locate()? };
    match cli.command {
        Command::Quickstart(args) => block_on(quickstart::run(args, &context)),
        Command::Run(args) => block_on(run::run(*args, &context)),
        Command::Reload(args) => block_on(reload::run(args, &context)),
        Command::Status(args) => block_on(status::run(args, &context)),
        Command::Logs(args) => block_on(logs::run(args, &context)),
        Command::Captures(args) => block_on(captures::run(args, &context)),
        Command::Push(args) => block_on(push::run(args, &context)),
        Command::Pull(args) => block_on(pull::run(args, &context)),
        Command::Inspect(args) => block_on(inspect::run(args, &context)),
        Command::Doctor(args) => block_on(doctor::run(args, &context)),
        Command::Demo(args) => block_on(demo::run(args, &context)),
        Command::Down(args) => block_on(down::run(args, &context)),
        Command::Instance(args) => hidden::run(&args, &context),
        Command::Completions(_) | Command::Build(_) | Command::Config(_) => Ok(()),
        Command::Login(_) | Command::Logout(_) => Ok(()),
    }
}

/// Fetches what the harness needs from afar: Docker's image. The user waits
/// here, with progress, and not for a silent background process.
async fn fetch(spec: &Spec, progress: &Progress) -> Result<()> {
    if spec.harness != Kind::Docker {
        return Ok(());
    }
    let image = &spec.image;
    progress.step(&format!("looking for the image {image}"));
    prepare_image(image, &|done, total| {
        progress.detail(&format!("pulling {image}: {} of {} MB", done / 1_000_000, total / 1_000_000));
    })
    .await
}

/// Pulls a plugin to run, and keeps it where the instance reads it.
async fn image(reference: &Reference, transport: &Transport, context: &Context<'_>) -> Result<PluginSource> {
    let progress = context.output.progress();
    progress.step(&format!("pulling {reference}"));
    let registry = Registry::connect(reference, transport, Access::Pull).await?;
    let pulled = oci::pull(&registry, reference, &|what| progress.detail(what)).await?;
    drop(progress);
    registry.warnings.into_iter().chain(pulled.remarks).for_each(|warning| context.output.warn(warning));
    for refusal in &pulled.refused {
        context.output.warn(format!(
            "{reference} runs here, and {} would refuse it: {}; `spctl pull {reference}` says how to repair it",
            refusal.by, refusal.rule
        ));
    }
    let module = keep_module(&pulled.module.digest, &pulled.module.bytes, &context.home.cache())?;
    Ok(PluginSource::Image { reference: reference.to_string(), image_digest: pulled.image_digest, module })
}

/// Ctrl-C and SIGTERM end the work where it stands.
async fn interruptible(work: impl Future<Output = Result<()>>) -> Result<()> {
    // Both watched before the work begins: its first steps may take a while.
    let watch = |kind| signal(kind).map_err(Error::io("cannot watch for signals"));
    let (mut interrupt, mut terminate) = (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?);
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => Err(Error::Interrupted),
        _ = terminate.recv() => Err(Error::Interrupted),
    }
}

/// Work without a pause, where it holds up neither signals nor timers.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that ends cancels it, and nobody waits then.
            Err(_) => std::future::pending().await,
        },
    }
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::io("cannot start the runtime"))?;
    let result = runtime.block_on(work);
    // A blocked reader (a FIFO, a stuck file system) must not hold the exit up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}
