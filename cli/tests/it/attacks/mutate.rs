//! Damage to the bytes of a module.

use super::random::Random;

/// The module with some bytes changed, moved, left out or cut off.
pub fn damaged(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(out.len());
        match random.below(6) {
            0 => out.truncate(at),
            1 | 2 => flip(&mut out, at, random),
            3 => fill(&mut out, at, random),
            4 => {
                let end = (at + 1 + random.below(16)).min(out.len());
                out.drain(at..end);
            }
            _ => {
                let from = random.below(out.len());
                let part = out[from..(from + random.below(64)).min(out.len())].to_vec();
                out.splice(at..at, part);
            }
        }
        if out.is_empty() {
            return out;
        }
    }
    out
}

fn flip(out: &mut [u8], at: usize, random: &mut Random) {
    out[at] ^= 1 << random.below(8);
}

fn fill(out: &mut [u8], at: usize, random: &mut Random) {
    let value = [0, 1, 0x7f, 0x80, 0xff][random.below(5)];
    let end = (at + 1 + random.below(8)).min(out.len());
    out[at..end].fill(value);
}
