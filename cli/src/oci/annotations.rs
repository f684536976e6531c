//! What an image says of its origin: OCI's own keys from the work tree the
//! module lies in and the environment, and ours.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::harness::Module;

const ABI: &str = "ai.softprobe.plugin.abi";
const DIGEST: &str = "ai.softprobe.plugin.digest";

/// Where a module comes from, as far as that can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// URL of the repository, without credentials.
    pub source: Option<String>,
    /// The commit; `-dirty` behind it when the work tree differs from it.
    pub revision: Option<String>,
    /// RFC 3339, seconds.
    pub created: Option<String>,
}

/// From Git, where the file lies in a work tree, and `SOURCE_DATE_EPOCH`,
/// which wins over the time of the commit.
pub fn origin(file: &Path, source_date_epoch: Option<&str>) -> Result<Origin> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let commit = git(directory, &["show", "-s", "--format=%H %ct", "HEAD"]);
    let (revision, committed) = commit.as_deref().and_then(|line| line.split_once(' ')).unzip();
    let changed = revision.is_some() && git(directory, &["status", "--porcelain", "--untracked-files=no"]).is_some();
    let seconds =
        match source_date_epoch {
            Some(text) => Some(text.parse::<i64>().map_err(|_| {
                Error::Usage(format!("SOURCE_DATE_EPOCH is `{text}`: it must be the seconds since 1970"))
            })?),
            None => committed.and_then(|text| text.parse().ok()),
        };
    Ok(Origin {
        source: git(directory, &["remote", "get-url", "origin"]).and_then(|url| public_url(&url)),
        revision: revision.map(|revision| format!("{revision}{}", if changed { "-dirty" } else { "" })),
        created: seconds.and_then(|at| Timestamp::from_second(at).ok()).map(|at| at.to_string()),
    })
}

/// The annotations of an image; the user's own win.
pub fn annotations(
    origin: &Origin,
    name: &str,
    abi: &str,
    module: &Module,
    own: &[(String, String)],
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        ("org.opencontainers.image.title".to_owned(), name.to_owned()),
        // solo-io/wasm spec/spec-compat.md asks for it, Istio does not read it.
        ("module.wasm.image/variant".to_owned(), "compat".to_owned()),
        (ABI.to_owned(), abi.to_owned()),
        (DIGEST.to_owned(), format!("sha256:{}", module.digest)),
    ]);
    let known = [("source", &origin.source), ("revision", &origin.revision), ("created", &origin.created)];
    for (key, value) in known {
        if let Some(value) = value {
            all.insert(format!("org.opencontainers.image.{key}"), value.clone());
        }
    }
    all.extend(own.iter().cloned());
    all
}

/// One line of Git, or nothing: no Git, no work tree, no such thing.
fn git(directory: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(directory).args(args).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// A remote as others may see it: no directory of this machine, and no login,
/// which CI systems clone with (`https://user:token@host/…`).
fn public_url(url: &str) -> Option<String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        // `user@host:path`.
        let (login, path) = url.split_once('@')?;
        let is_plain = !login.contains([':', '/']) && path.split_once(':').is_some_and(|(host, _)| !host.contains('/'));
        return is_plain.then(|| url.to_owned());
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    matches!(scheme, "http" | "https" | "ssh" | "git").then(|| format!("{scheme}://{host}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_urls_of_remotes_stay_here() {
        for (url, shown) in [
            ("https://x:s3cret@github.com/a/b.git", Some("https://github.com/a/b.git")),
            ("https://h/a?private_token=s3cret", Some("https://h/a")),
            ("git@github.com:a/b.git", Some("git@github.com:a/b.git")),
            ("https://h/a@b", Some("https://h/a@b")),
            ("u:s3cret@h:r.git", None),
            ("/home/u/r", None),
            ("file:///home/u/r", None),
        ] {
            assert_eq!(public_url(url).as_deref(), shown, "{url}");
        }
    }

    #[test]
    fn the_commit_tells_revision_and_time_and_the_environment_wins() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.wasm");
        assert_eq!(origin(&file, None).unwrap(), Origin::default(), "no work tree");
        let run = |args: &[&str]| {
            let done = Command::new("git")
                .arg("-C")
                .arg(dir.path())
                .args(["-c", "user.name=a", "-c", "user.email=a@b"])
                .args(args)
                .env("GIT_COMMITTER_DATE", "2020-01-02T03:04:05Z")
                .output()
                .unwrap();
            assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        };
        run(&["init", "-q"]);
        std::fs::write(dir.path().join("source"), "1").unwrap();
        run(&["add", "source"]);
        run(&["commit", "-q", "-m", "x"]);
        run(&["remote", "add", "origin", "https://t:s3cret@h/r.git"]);
        let clean = origin(&file, None).unwrap();
        assert_eq!(clean.created.as_deref(), Some("2020-01-02T03:04:05Z"));
        assert_eq!(clean.source.as_deref(), Some("https://h/r.git"));
        assert_eq!(clean.revision.as_ref().map(String::len), Some(40));
        std::fs::write(dir.path().join("source"), "2").unwrap();
        assert!(origin(&file, Some("0")).unwrap().revision.unwrap().ends_with("-dirty"));
        assert_eq!(origin(&file, Some("0")).unwrap().created.as_deref(), Some("1970-01-01T00:00:00Z"));
        assert!(origin(&file, Some("soon")).is_err());
    }
}
