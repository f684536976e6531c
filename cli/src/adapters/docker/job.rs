//! A program run to its end in a container of its own, on a copy of the user's
//! files: nothing is mounted, so any daemon can do it and nothing of the user's
//! changes hands.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error as ApiError;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder,
    UploadToContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Docker, explain, failed, remove_now};
use crate::error::{Error, Result};

/// A tar is sent and a file fetched in pieces of this size.
const PIECE: usize = 64 << 10;

/// What to run.
pub struct Job<'a> {
    pub image: &'a str,
    pub name: &'a str,
    /// Key and value.
    pub label: (&'a str, String),
    pub command: Vec<String>,
    /// `NAME=value`, besides the image's own.
    pub environment: Vec<String>,
    pub directory: String,
    /// A tar, unpacked at the root before the program starts.
    pub files: File,
}

/// Some bytes of its output.
pub enum Output {
    Out(Bytes),
    Err(Bytes),
}

/// The container of a job; it goes with this.
pub struct JobContainer {
    docker: Docker,
    name: String,
    removed: bool,
}

impl Docker {
    /// Makes the container and runs the program to its end; `hear` gets its
    /// output as it comes. Returns the container, for files, and the exit code.
    pub async fn job(&self, job: Job<'_>, hear: &mut (dyn FnMut(Output) + Send)) -> Result<(JobContainer, i64)> {
        // By name, so that an interruption at any point finds it.
        let container = JobContainer { docker: self.clone(), name: job.name.to_owned(), removed: false };
        let options = CreateContainerOptionsBuilder::new().name(job.name).build();
        let (program, arguments) = job.command.split_first().map_or((None, &[][..]), |(p, a)| (Some(p), a));
        let body = ContainerCreateBody {
            image: Some(job.image.to_owned()),
            labels: Some(HashMap::from([(job.label.0.to_owned(), job.label.1.clone())])),
            entrypoint: program.map(|program| vec![program.clone()]),
            cmd: Some(arguments.to_vec()),
            env: Some(job.environment),
            working_dir: Some(job.directory),
            host_config: Some(HostConfig {
                // Registries are reached as from this machine.
                network_mode: (!self.in_machine).then(|| "host".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        self.api.create_container(Some(options), body).await.map_err(|e| failed("create a container", &e))?;
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let tar = bollard::body_try_stream(pieces(job.files));
        let sent = self.api.upload_to_container(job.name, Some(options), tar).await;
        sent.map_err(|e| failed("copy files into the container", &e))?;
        let code = container.run(program.map_or("", String::as_str), job.image, hear).await?;
        Ok((container, code))
    }

    /// The image's environment, as `NAME=value`.
    pub async fn environment_of(&self, image: &str) -> Result<Vec<String>> {
        let image = self.api.inspect_image(image).await.map_err(|e| failed("look at the image", &e))?;
        Ok(image.config.and_then(|config| config.env).unwrap_or_default())
    }
}

impl JobContainer {
    async fn run(&self, program: &str, image: &str, hear: &mut (dyn FnMut(Output) + Send)) -> Result<i64> {
        let api = &self.docker.api;
        let options = AttachContainerOptionsBuilder::new().stream(true).stdout(true).stderr(true).build();
        let attached = api.attach_container(&self.name, Some(options)).await;
        let mut output = attached.map_err(|e| failed("attach to the container", &e))?.output;
        if let Err(error) = api.start_container(&self.name, None).await {
            let reason = explain(&error);
            // In the words of runc and crun.
            if reason.contains("executable file") && reason.contains("not found") {
                return Err(Error::ImageUnfit { image: image.to_owned(), reason: format!("it has no `{program}`") });
            }
            return Err(failed("start the container", &error));
        }
        while let Some(part) = output.next().await {
            match part.map_err(|e| failed("read the container's output", &e))? {
                LogOutput::StdErr { message } => hear(Output::Err(message)),
                LogOutput::StdOut { message } | LogOutput::Console { message } => hear(Output::Out(message)),
                LogOutput::StdIn { .. } => {}
            }
        }
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        match std::pin::pin!(api.wait_container(&self.name, Some(options))).next().await {
            Some(Ok(end)) => Ok(end.status_code),
            Some(Err(ApiError::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(failed("wait for the container", &error)),
            None => Err(lost("it does not say how the container ended")),
        }
    }

    /// The bytes of one file, up to `limit`.
    pub async fn file(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let mut download = self.docker.api.download_from_container(&self.name, Some(options));
        let mut tar = Vec::new();
        while let Some(part) = download.try_next().await.map_err(|e| failed("copy a file out of the container", &e))? {
            tar.extend_from_slice(&part);
            if tar.len() as u64 > limit + PIECE as u64 {
                return Err(lost(&format!("`{path}` has more than {limit} bytes")));
            }
        }
        let unpack = || -> io::Result<Vec<u8>> {
            for entry in tar::Archive::new(tar.as_slice()).entries()? {
                let mut entry = entry?;
                if entry.header().entry_type().is_file() {
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes)?;
                    return Ok(bytes);
                }
            }
            Err(io::ErrorKind::NotFound.into())
        };
        unpack().map_err(|e| lost(&format!("`{path}`: {e}")))
    }

    /// Removes it and returns when it is gone.
    pub async fn remove(mut self) {
        self.docker.remove(&self.name).await;
        self.removed = true;
    }
}

impl Drop for JobContainer {
    fn drop(&mut self) {
        if !self.removed {
            remove_now(&self.name);
        }
    }
}

fn lost(reason: &str) -> Error {
    Error::Harness { harness: "docker", reason: reason.to_owned(), log: Vec::new() }
}

fn pieces(file: File) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE];
        let read = file.read(&mut piece)?;
        piece.truncate(read);
        Ok((read > 0).then(|| (Bytes::from(piece), file)))
    })
}

/// Packs a directory for a job under `prefix`, writable to whoever the image's
/// user is; `skip` leaves files and directories out.
pub struct Package(tar::Builder<File>);

impl Package {
    pub fn new() -> io::Result<Self> {
        Ok(Self(tar::Builder::new(tempfile::tempfile()?)))
    }

    /// An empty directory.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        let mut header = header(tar::EntryType::Directory, 0o777);
        self.0.append_data(&mut header, path, io::empty())
    }

    /// A directory with all that is in it.
    pub fn tree(&mut self, from: &Path, to: &Path, skip: &dyn Fn(&Path) -> bool) -> Result<()> {
        let fail = |path: &Path, source| Error::Unreadable { path: path.to_owned(), source };
        let entries = std::fs::read_dir(from).map_err(|e| fail(from, e))?;
        let mut entries: Vec<_> = entries.collect::<io::Result<_>>().map_err(|e| fail(from, e))?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        let mut directory = header(tar::EntryType::Directory, 0o777);
        self.0.append_data(&mut directory, to, io::empty()).map_err(|e| fail(from, e))?;
        for entry in entries {
            let (path, to) = (entry.path(), to.join(entry.file_name()));
            if skip(&path) {
                continue;
            }
            let kind = entry.file_type().map_err(|e| fail(&path, e))?;
            if kind.is_dir() {
                self.tree(&path, &to, skip)?;
            } else if kind.is_symlink() || kind.is_file() {
                self.leaf(&path, &to, kind.is_symlink()).map_err(|e| fail(&path, e))?;
            }
        }
        Ok(())
    }

    fn leaf(&mut self, from: &Path, to: &Path, link: bool) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        if link {
            let mut header = header(tar::EntryType::Symlink, 0o777);
            return self.0.append_link(&mut header, to, std::fs::read_link(from)?);
        }
        let file = File::open(from)?;
        let metadata = file.metadata()?;
        let executable = metadata.permissions().mode() & 0o100 != 0;
        let mut header = header(tar::EntryType::Regular, if executable { 0o777 } else { 0o666 });
        // As long as it is now: a file that grows meanwhile must not break the rest.
        header.set_size(metadata.len());
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        header.set_mtime(modified.as_ref().map_or(0, Duration::as_secs));
        self.0.append_data(&mut header, to, file.take(metadata.len()))
    }

    /// The tar, to be read from its beginning.
    pub fn finish(self) -> io::Result<File> {
        use std::io::Seek;
        let mut file = self.0.into_inner()?;
        file.rewind()?;
        Ok(file)
    }
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header
}
