//! Building in a container, for machines without a toolchain: the source goes
//! in as a copy, the module comes out, and is put where a local build puts it.

use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use super::{Built, capture_source, finish, go, is_go, rust, unpackable};
use crate::adapters::docker::{Docker, Job, JobContainer, Output, Package};
use crate::bundle::MODULE_MAX;
use crate::error::{Error, Result};
use crate::toolchain::{CAPTURE_INLINING, WASM_TARGET};

/// Its value is the process that builds; `doctor` finds what a killed one left.
pub const BUILD_LABEL: &str = "ai.softprobe.spctl.build";
/// Where things are in the container.
const SOURCE: &str = "spctl/source";
const TARGET: &str = "/spctl/target";
/// How the way to a registry is told to programs.
const PROXIES: &[&str] = &["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

/// Who hears how it goes on.
pub struct Listener<'a> {
    pub step: &'a (dyn Fn(&str) + Sync),
    /// A detail of the running step: bytes pulled.
    pub detail: &'a (dyn Fn(&str) + Sync),
    /// A line of the compiler's.
    pub line: &'a (dyn Fn(&str) + Sync),
}

/// What to do in the container.
struct Recipe {
    /// What is copied in, and the part of it that is built.
    root: PathBuf,
    source: PathBuf,
    command: Vec<String>,
    environment: Vec<String>,
    /// Where the module is put on this machine, and where it is in the
    /// container; none: Cargo says where.
    module: Option<(PathBuf, String)>,
    what: String,
}

/// Builds the source directory `source` in a container of `image`.
pub async fn build(image: &str, source: &Path, listener: &Listener<'_>) -> Result<Built> {
    let source = std::fs::canonicalize(source).map_err(|e| Error::Unreadable { path: source.to_owned(), source: e })?;
    let recipe = if source.join("Cargo.toml").is_file() {
        crate_recipe(&source)?
    } else if is_go(&source) {
        go_recipe(&source)?
    } else {
        return Err(super::no_source(source));
    };
    let started = Instant::now();
    let docker = prepare(image, listener).await?;
    let path = run(&docker, image, recipe, listener).await?;
    finish(path, format!("{image} in Docker"), started)
}

/// Builds the capture filter's own source and writes the module to `to`.
pub async fn build_capture(image: &str, to: &Path, listener: &Listener<'_>) -> Result<Built> {
    let root = capture_source()?;
    let started = Instant::now();
    let docker = prepare(image, listener).await?;
    let home = cargo_home(&docker.environment_of(image).await?);
    let mut command = cargo(WASM_TARGET);
    command.extend(["-p", "spctl-plugin", "--lib", "--profile", "plugin"].map(Into::into));
    let flags =
        format!("RUSTFLAGS={CAPTURE_INLINING} --remap-path-prefix=/{SOURCE}=/spctl --remap-path-prefix={home}=/cargo");
    let recipe = Recipe {
        source: root.clone(),
        root,
        command,
        environment: vec![flags],
        module: None,
        what: "the capture filter".into(),
    };
    let built = run(&docker, image, recipe, listener).await?;
    std::fs::copy(&built, to).map_err(|source| Error::Unwritable { path: to.to_owned(), source })?;
    finish(to.to_owned(), format!("{image} in Docker"), started)
}

async fn prepare(image: &str, listener: &Listener<'_>) -> Result<Docker> {
    let docker = Docker::connect().await?;
    (listener.step)(&format!("looking for the image {image}"));
    docker
        .prepare(image, &|done, total| {
            (listener.detail)(&format!("pulling {image}: {} of {} MB", done / 1_000_000, total / 1_000_000));
        })
        .await?;
    Ok(docker)
}

fn cargo(target: &str) -> Vec<String> {
    let words = ["cargo", "build", "--target", target, "--message-format", "json-render-diagnostics"];
    words.map(Into::into).into()
}

fn crate_recipe(source: &Path) -> Result<Recipe> {
    let root = workspace(source);
    let target = rust::configured_target(source);
    let mut command = cargo(target);
    command.push("--release".into());
    let what = format!("{} for {target}", source.display());
    Ok(Recipe { root, source: source.to_owned(), command, environment: Vec::new(), module: None, what })
}

fn go_recipe(source: &Path) -> Result<Recipe> {
    let go::Plan { program, environment, arguments, module } = go::plan(source)?;
    let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let inside = format!("{TARGET}/{name}");
    let mut command = vec![program.to_owned()];
    command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    command.extend(["-o".to_owned(), inside.clone(), ".".to_owned()]);
    Ok(Recipe {
        root: source.to_owned(),
        source: source.to_owned(),
        command,
        environment: environment.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        module: Some((module, inside)),
        what: source.display().to_string(),
    })
}

/// The directory that Cargo takes for the workspace: the nearest manifest
/// above that has one, else the crate alone.
fn workspace(source: &Path) -> PathBuf {
    let is_root = |directory: &&Path| {
        let manifest = std::fs::read_to_string(directory.join("Cargo.toml")).unwrap_or_default();
        manifest.lines().any(|line| line.trim_start().starts_with("[workspace"))
    };
    source.ancestors().find(is_root).unwrap_or(source).to_owned()
}

async fn run(docker: &Docker, image: &str, recipe: Recipe, listener: &Listener<'_>) -> Result<PathBuf> {
    (listener.step)(&format!("building {} in {image}", recipe.what));
    let pid = std::process::id();
    let mut environment = recipe.environment;
    environment.push(format!("CARGO_TARGET_DIR={TARGET}"));
    environment.extend(PROXIES.iter().filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?))));
    let below = recipe.source.strip_prefix(&recipe.root).unwrap_or(Path::new(""));
    let inside = Path::new("/").join(SOURCE).join(below).display().to_string();
    let root = recipe.root.clone();
    let files =
        tokio::task::spawn_blocking(move || pack(&root)).await.map_err(|e| Error::Protocol(e.to_string()))??;
    let job = Job {
        image,
        name: &format!("spctl-build-{pid}"),
        label: (BUILD_LABEL, pid.to_string()),
        command: recipe.command,
        environment,
        directory: inside.trim_end_matches('/').to_owned(),
        files,
    };
    let (mut messages, mut compiler) = (Vec::new(), Compiler::default());
    let (container, code) = docker
        .job(job, &mut |output| match output {
            Output::Out(bytes) => messages.extend_from_slice(&bytes),
            Output::Err(bytes) => compiler.hear(&bytes, listener.line),
        })
        .await?;
    let text = compiler.end(listener.line);
    let module = if code == 0 {
        fetch(&container, &recipe.root, recipe.module, &messages).await
    } else {
        Err(why(image, &recipe.source, text))
    };
    container.remove().await;
    module
}

fn pack(root: &Path) -> Result<std::fs::File> {
    let unwritable = |source| Error::Unwritable { path: std::env::temp_dir(), source };
    let mut package = Package::new().map_err(unwritable)?;
    for directory in ["spctl", TARGET.trim_start_matches('/')] {
        package.directory(directory).map_err(unwritable)?;
    }
    package.tree(root, Path::new(SOURCE), &unpackable)?;
    package.finish().map_err(unwritable)
}

async fn fetch(
    container: &JobContainer,
    root: &Path,
    module: Option<(PathBuf, String)>,
    messages: &[u8],
) -> Result<PathBuf> {
    let (to, inside) = match module {
        Some(known) => known,
        None => {
            let inside = rust::module(messages, root)?;
            let rest = inside
                .strip_prefix(TARGET)
                .ok()
                .filter(|rest| rest.components().all(|part| matches!(part, Component::Normal(_))));
            let rest = rest.ok_or_else(|| Error::NotSource {
                path: root.to_owned(),
                reason: format!("its module is at `{}`", inside.display()),
            })?;
            (root.join("target").join(rest), inside.display().to_string())
        }
    };
    let bytes = container.file(&inside, MODULE_MAX).await?;
    let lock = root.join("Cargo.lock");
    if root.join("Cargo.toml").exists() && !lock.exists() {
        // What was resolved now is what the next build takes, as at home.
        let resolved = container.file(&format!("/{SOURCE}/Cargo.lock"), MODULE_MAX).await?;
        std::fs::write(&lock, resolved).map_err(|source| Error::Unwritable { path: lock, source })?;
    }
    let unwritable = |source| Error::Unwritable { path: to.clone(), source };
    let parent = to.parent().unwrap_or(root);
    std::fs::create_dir_all(parent).map_err(unwritable)?;
    let partial = to.with_extension("wasm.partial");
    std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, &to)).map_err(unwritable)?;
    Ok(to)
}

/// The compiler's own words, unless they mean that the image lacks something.
fn why(image: &str, source: &Path, text: String) -> Error {
    if text.contains("target may not be installed") {
        let reason = format!("its Rust has no standard library for {}", rust::configured_target(source));
        return Error::ImageUnfit { image: image.to_owned(), reason };
    }
    Error::Build { path: source.to_owned(), output: text, shown: false }
}

/// Cuts a compiler's output into lines.
#[derive(Default)]
struct Compiler {
    text: Vec<u8>,
    told: usize,
}

impl Compiler {
    fn hear(&mut self, bytes: &[u8], line: &(dyn Fn(&str) + Sync)) {
        self.text.extend_from_slice(bytes);
        while let Some(length) = self.text.get(self.told..).and_then(|new| new.iter().position(|byte| *byte == b'\n')) {
            line(&String::from_utf8_lossy(self.text.get(self.told..self.told + length).unwrap_or_default()));
            self.told += length + 1;
        }
    }

    fn end(self, line: &(dyn Fn(&str) + Sync)) -> String {
        if let Some(rest) = self.text.get(self.told..).filter(|rest| !rest.is_empty()) {
            line(&String::from_utf8_lossy(rest));
        }
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

fn cargo_home(environment: &[String]) -> String {
    let of = |name: &str| environment.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
    of("CARGO_HOME").map_or_else(|| format!("{}/.cargo", of("HOME").unwrap_or("/root")), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_built_with_its_workspace() {
        let temp = tempfile::tempdir().unwrap();
        let member = temp.path().join("filters/one");
        std::fs::create_dir_all(&member).unwrap();
        std::fs::write(member.join("Cargo.toml"), "[package]\nname = \"one\"\n").unwrap();
        assert_eq!(workspace(&member), member);
        std::fs::write(temp.path().join("Cargo.toml"), "[workspace]\nmembers = [\"filters/*\"]\n").unwrap();
        assert_eq!(workspace(&member), temp.path());
    }

    #[test]
    fn output_is_told_line_by_line_however_it_comes() {
        let told = std::sync::Mutex::new(Vec::new());
        let line = |text: &str| told.lock().unwrap().push(text.to_owned());
        let mut compiler = Compiler::default();
        for part in ["one\ntw", "o\nthr", "ee"] {
            compiler.hear(part.as_bytes(), &line);
        }
        assert_eq!(compiler.end(&line), "one\ntwo\nthree");
        assert_eq!(*told.lock().unwrap(), ["one", "two", "three"]);
    }

    #[test]
    fn the_registry_of_an_image_is_where_it_says() {
        assert_eq!(cargo_home(&["CARGO_HOME=/usr/local/cargo".into()]), "/usr/local/cargo");
        assert_eq!(cargo_home(&["PATH=/bin".into()]), "/root/.cargo");
    }
}
