//! The wire form of header maps: what is read, what counts as empty.

mod common;

use common::{guest, running};
use spctl_host::pairs;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn encode(list: &Pairs) -> Vec<u8> {
    pairs::to_vec(list.iter().map(|(name, value)| (name.as_slice(), value.as_slice())))
}

fn decode(bytes: &[u8]) -> Pairs {
    pairs::parse(bytes).into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// A small generator, so that failures repeat.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn text(&mut self) -> Vec<u8> {
        (0..self.roll(20)).map(|_| self.roll(256) as u8).collect()
    }
}

#[test]
fn what_is_written_is_read_again() {
    let mut dice = Dice(1);
    for _ in 0..500 {
        let list: Pairs = (0..dice.roll(30)).map(|_| (dice.text(), dice.text())).collect();
        assert_eq!(decode(&encode(&list)), list);
    }
}

#[test]
fn writing_into_too_few_bytes_says_so_and_harms_nothing() {
    let list: Pairs = vec![(b"name".to_vec(), b"value".to_vec()), (b"n".to_vec(), Vec::new())];
    let whole = encode(&list);
    for size in 0..whole.len() {
        let pairs = list.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        assert!(!pairs::write(pairs, &mut vec![0; size]), "{size}");
    }
}

#[test]
fn damaged_input_never_reads_outside_and_anything_cut_short_is_empty() {
    let mut dice = Dice(2);
    for _ in 0..2000 {
        let list: Pairs = (0..1 + dice.roll(8)).map(|_| (dice.text(), dice.text())).collect();
        let mut bytes = encode(&list);
        assert!(decode(&bytes[..dice.roll(bytes.len())]).is_empty());
        let at = dice.roll(bytes.len());
        bytes[at] = dice.roll(256) as u8;
        let _ = decode(&bytes);
        bytes.push(0);
        let _ = decode(&bytes);
    }
}

#[test]
fn more_than_1024_pairs_or_a_mebibyte_count_as_none() {
    let many = |count: usize| encode(&vec![(b"a".to_vec(), b"b".to_vec()); count]);
    assert_eq!(decode(&many(1024)).len(), 1024);
    assert!(decode(&many(1025)).is_empty());
    let long = |len: usize| encode(&vec![(b"a".to_vec(), vec![b'x'; len])]);
    assert_eq!(decode(&long((1 << 20) - 15)).len(), 1);
    assert!(decode(&long((1 << 20) - 14)).is_empty());
}

#[test]
fn lengths_that_overflow_are_refused() {
    let mut bytes = 1u32.to_le_bytes().to_vec();
    bytes.extend(u32::MAX.to_le_bytes());
    bytes.extend(u32::MAX.to_le_bytes());
    bytes.extend([0; 16]);
    assert!(decode(&bytes).is_empty());
    assert!(decode(&u32::MAX.to_le_bytes()).is_empty());
}

#[test]
fn unparsable_pairs_clear_every_header_as_in_envoy() {
    let sandbox =
        running(&guest().request_headers("(call $num (call $set_pairs (i32.const 0) `garbage`)) (i32.const 0)"));
    let mut stream = sandbox.stream();
    let sent = stream.request(&[("x", "1")], true).sent();
    assert_eq!(sent.request.headers.as_deref(), Some(&[][..]));
    assert_eq!(sandbox.take_log(), ["0"]);
}
