//! Writes a plugin digest into the manifests that carry it, and touches
//! nothing else in them: comments, order and quotes stay.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::state::read_small;

const MANIFEST_MAX: u64 = 16 << 20;

/// What became of one manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Updated {
    pub path: PathBuf,
    /// Digests rewritten.
    pub rewritten: usize,
    /// Digests left alone, and why.
    pub left: Vec<String>,
}

/// Rewrites every `sha256` that means the plugin digest. In a WasmPlugin with
/// an `oci://` URL it means the image digest, which only a push can tell.
pub fn update(path: &Path, digest: &str) -> Result<Updated> {
    let bytes = read_small(path, MANIFEST_MAX)?;
    let text =
        String::from_utf8(bytes).map_err(|_| Error::Usage(format!("`{}` is not a text file", path.display())))?;
    let (new, rewritten, left) = rewrite(&text, digest);
    if rewritten > 0 && new != text {
        let fail = |source| Error::Unwritable { path: path.to_owned(), source };
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::NamedTempFile::new_in(directory).map_err(fail)?;
        std::fs::write(file.path(), &new).map_err(fail)?;
        let permissions = std::fs::metadata(path).map_err(fail)?.permissions();
        std::fs::set_permissions(file.path(), permissions).map_err(fail)?;
        file.persist(path).map_err(|e| fail(e.error))?;
    }
    if rewritten == 0 && left.is_empty() {
        return Err(Error::Usage(format!("`{}` holds no `sha256` to update", path.display())));
    }
    Ok(Updated { path: path.to_owned(), rewritten, left })
}

/// Document by document, since each has its own URL.
fn rewrite(text: &str, digest: &str) -> (String, usize, Vec<String>) {
    let mut out = String::with_capacity(text.len());
    let (mut rewritten, mut left) = (0, Vec::new());
    for document in documents(text) {
        let is_image = values(document, "url").any(|url| url.starts_with("oci://"));
        for line in document.split_inclusive('\n') {
            let Some((from, to)) = digest_in(line) else {
                out.push_str(line);
                continue;
            };
            if is_image {
                left.push("with an oci:// URL `sha256` means the image digest: push the plugin and use the digest that prints".to_owned());
                out.push_str(line);
            } else {
                rewritten += 1;
                out.push_str(line.get(..from).unwrap_or_default());
                out.push_str(digest);
                out.push_str(line.get(to..).unwrap_or_default());
            }
        }
    }
    (out, rewritten, left)
}

/// YAML documents, separators kept with the one they begin.
fn documents(text: &str) -> Vec<&str> {
    let mut starts = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if at > 0 && line.trim_end() == "---" {
            starts.push(at);
        }
        at += line.len();
    }
    starts.push(text.len());
    starts.windows(2).filter_map(|pair| text.get(*pair.first()?..*pair.last()?)).collect()
}

fn values<'a>(document: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    document.lines().filter_map(move |line| {
        let line = line.trim_start().trim_start_matches("- ");
        let value = line.strip_prefix(key)?.strip_prefix(':')?;
        Some(value.trim().trim_matches(['"', '\'']))
    })
}

/// The byte range of 64 hex digits after `sha256:` (or `"sha256":`) in a line.
fn digest_in(line: &str) -> Option<(usize, usize)> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    let key = line.find("sha256")?;
    let after = line.get(key + "sha256".len()..)?;
    let value = after.strip_prefix(['"', '\'']).unwrap_or(after).strip_prefix(':')?;
    let rest = value.trim_start().trim_start_matches(['"', '\'']);
    let from = line.len() - rest.len();
    let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
    (digits == 64).then_some((from, from + 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const NEW: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn touches_nothing_but_the_plugin_digest() {
        let text = format!("# sha256: {OLD}\ncode:\n  remote:\n    sha256: \"{OLD}\"  # plugin\n    other:   x\n");
        let (new, rewritten, left) = rewrite(&text, NEW);
        assert_eq!(
            new,
            format!("# sha256: {OLD}\ncode:\n  remote:\n    sha256: \"{NEW}\"  # plugin\n    other:   x\n")
        );
        assert_eq!((rewritten, left.len()), (1, 0));
    }

    #[test]
    fn leaves_image_digests_alone_and_says_why() {
        let text = format!(
            "spec:\n  url: oci://r/x:1\n  sha256: {OLD}\n---\nspec:\n  url: https://h/x.wasm\n  sha256: {OLD}\n"
        );
        let (new, rewritten, left) = rewrite(&text, NEW);
        assert_eq!(
            new,
            format!(
                "spec:\n  url: oci://r/x:1\n  sha256: {OLD}\n---\nspec:\n  url: https://h/x.wasm\n  sha256: {NEW}\n"
            )
        );
        assert_eq!(rewritten, 1);
        assert!(left[0].contains("image digest"), "{left:?}");
    }
}
