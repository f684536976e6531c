//! Layers as archives: packed so that the same module gives the same bytes, and
//! read with bounds, never onto the disk.

use std::io::{Cursor, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::{Compression, GzBuilder};

use super::SIZE_MAX;
use crate::error::printable;

/// The one file that the mesh looks for.
pub(super) const FILE: &str = "plugin.wasm";
/// A tar header, which the mesh's limit counts too.
pub(super) const HEADER: u64 = 512;
/// More entries than any image of a plugin has.
const ENTRIES_MAX: usize = 100_000;
/// Operating system "unknown", so that no machine shows in the digest.
const GZIP_OS_UNKNOWN: u8 = 255;

/// Why no module came out of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// No entry is called so.
    Missing,
    /// A link, a device, a path that leads elsewhere, more than it said.
    Hostile(String),
    TooLarge,
    /// It ends in the middle, or is no archive.
    Broken(String),
}

/// An uncompressed archive with the module alone: owner 0, mode 0644, time 0.
pub(super) fn pack(module: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_size(module.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let mut archive = tar::Builder::new(Vec::with_capacity(module.len() + 2048));
    // Writing to memory, under a name that fits: neither can fail.
    let _ = archive.append_data(&mut header, FILE, module);
    archive.into_inner().unwrap_or_default()
}

pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzBuilder::new().mtime(0).operating_system(GZIP_OS_UNKNOWN).write(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    let _ = out.write_all(bytes);
    out.finish().unwrap_or_default()
}

/// Of a layer's bytes: how they are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Plain,
}

/// The first entry whose base name is `plugin.wasm`, as Istio takes it.
pub(super) fn plugin(layer: &[u8], packing: Packing) -> Result<Vec<u8>, Unfit> {
    find(layer, packing, |name| name == FILE)
}

/// The first entry that is called `*.wasm`: for images that the mesh refuses.
pub(super) fn any_module(layer: &[u8], packing: Packing) -> Result<Vec<u8>, Unfit> {
    find(layer, packing, |name| name.ends_with(".wasm"))
}

fn find(layer: &[u8], packing: Packing, wanted: impl Fn(&str) -> bool) -> Result<Vec<u8>, Unfit> {
    let bytes = Cursor::new(layer);
    let reader: Box<dyn Read> = match packing {
        // Members one after the other, as Go reads them.
        Packing::Gzip => Box::new(MultiGzDecoder::new(bytes)),
        Packing::Plain => Box::new(bytes),
    };
    let mut bounded = Bounded { reader, left: SIZE_MAX };
    let result = search(&mut bounded, wanted);
    // What the bound cut off looks like a broken archive.
    if bounded.left == 0 && result.is_err() { Err(Unfit::TooLarge) } else { result }
}

fn search(reader: &mut Bounded<'_>, wanted: impl Fn(&str) -> bool) -> Result<Vec<u8>, Unfit> {
    let broken = |e: std::io::Error| Unfit::Broken(e.to_string());
    let mut archive = tar::Archive::new(reader);
    for (at, entry) in archive.entries().map_err(broken)?.enumerate() {
        if at >= ENTRIES_MAX {
            return Err(Unfit::Hostile(format!("more than {ENTRIES_MAX} entries")));
        }
        let mut entry = entry.map_err(broken)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = path.rsplit('/').next().unwrap_or_default();
        if !wanted(name) {
            continue;
        }
        let kind = entry.header().entry_type();
        if !kind.is_file() && !kind.is_contiguous() {
            return Err(Unfit::Hostile(format!("`{}` is no file but {kind:?}", printable(&path))));
        }
        if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(Unfit::Hostile(format!("`{}` leads out of the image", printable(&path))));
        }
        let size = entry.size();
        let mut module = Vec::new();
        entry.read_to_end(&mut module).map_err(broken)?;
        if module.len() as u64 != size {
            return Err(Unfit::Broken(format!("`{}` ends after {} of {size} bytes", printable(&path), module.len())));
        }
        return Ok(module);
    }
    Err(Unfit::Missing)
}

/// Reads so many bytes, then says so.
struct Bounded<'a> {
    reader: Box<dyn Read + 'a>,
    left: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.reader.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_and_always_looks_the_same() {
        let layer = compress(&pack(b"\0asm\x01\0\0\0"));
        assert_eq!(layer, compress(&pack(b"\0asm\x01\0\0\0")));
        assert_eq!(plugin(&layer, Packing::Gzip).unwrap(), b"\0asm\x01\0\0\0");
        assert_eq!((&layer[4..8], layer[9]), (&[0; 4][..], 255), "time and system in gzip's header");
    }

    fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, kind, bytes) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(bytes.len() as u64);
            if !matches!(kind, tar::EntryType::Regular) {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(bytes);
            out.resize(out.len().next_multiple_of(512), 0);
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    #[test]
    fn the_first_file_of_that_name_is_taken_wherever_it_lies() {
        use tar::EntryType::{Directory, Regular};
        let tar = archive(&[("a/", Directory, b""), ("a/x", Regular, b"no"), ("./a/plugin.wasm", Regular, b"yes")]);
        assert_eq!(plugin(&tar, Packing::Plain).unwrap(), b"yes");
        assert_eq!(plugin(&archive(&[("my.wasm", Regular, b"x")]), Packing::Plain), Err(Unfit::Missing));
        assert_eq!(any_module(&archive(&[("my.wasm", Regular, b"x")]), Packing::Plain).unwrap(), b"x");
    }

    #[test]
    fn links_and_paths_that_lead_elsewhere_are_hostile() {
        use tar::EntryType::{Link, Regular, Symlink};
        for (name, kind) in
            [("plugin.wasm", Symlink), ("plugin.wasm", Link), ("../../plugin.wasm", Regular), ("/plugin.wasm", Regular)]
        {
            let unfit = plugin(&archive(&[(name, kind, b"")]), Packing::Plain);
            assert!(matches!(unfit, Err(Unfit::Hostile(_))), "{name}: {unfit:?}");
        }
    }

    #[test]
    fn bombs_are_read_to_the_bound_and_no_further() {
        // 1 GiB of zeros before the plugin, some 1 MB compressed.
        let mut bomb = GzBuilder::new().write(Vec::new(), Compression::fast());
        let mut header = tar::Header::new_ustar();
        header.set_path("padding").unwrap();
        header.set_size(1 << 30);
        header.set_cksum();
        bomb.write_all(header.as_bytes()).unwrap();
        let zeros = vec![0; 1 << 20];
        for _ in 0..1024 {
            bomb.write_all(&zeros).unwrap();
        }
        assert_eq!(plugin(&bomb.finish().unwrap(), Packing::Gzip), Err(Unfit::TooLarge));
    }

    #[test]
    fn no_prefix_of_a_layer_gives_half_a_module() {
        let module: Vec<u8> = (0..3000u32).map(|n| ((n * n) >> 3) as u8).collect();
        let layer = compress(&pack(&module));
        let whole = |end: usize| plugin(&layer[..end], Packing::Gzip).map(|found| assert!(found == module, "{end}"));
        let enough = (0..layer.len()).filter(|end| whole(*end).is_ok()).count();
        // Behind the file's bytes only padding and a checksum come, which the
        // blob's own digest covers.
        assert!(enough < 64, "{enough} of {}", layer.len());
    }
}
