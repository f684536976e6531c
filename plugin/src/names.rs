//! Sets of names (headers, cookies, parameters, members) compared without
//! regard to ASCII case, cheap to miss.

/// Names of this length and beyond share a place.
const LENGTHS: usize = 32;

/// A compiled name list; `*` stands for every name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameSet {
    /// By length.
    names: [Vec<Box<[u8]>>; LENGTHS],
    /// For each length a bit for each first letter. Most look-ups end here.
    first: [u32; LENGTHS],
    except: Vec<Box<[u8]>>,
    all: bool,
}

/// The bit of a name's first letter, the same for both cases.
#[inline]
fn first(name: &[u8]) -> u32 {
    name.first().map_or(1, |first| 1 << (first & 0x1f))
}

impl NameSet {
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> NameSet {
        let mut set = NameSet::default();
        names.into_iter().for_each(|name| set.insert(name));
        set
    }

    pub fn insert(&mut self, name: &str) {
        if name == "*" {
            self.all = true;
            return;
        }
        self.except.retain(|n| !n.eq_ignore_ascii_case(name.as_bytes()));
        let length = name.len().min(LENGTHS - 1);
        if let (Some(bits), Some(names)) = (self.first.get_mut(length), self.names.get_mut(length)) {
            *bits |= first(name.as_bytes());
            names.push(name.to_ascii_lowercase().into_bytes().into());
        }
    }

    pub fn remove(&mut self, name: &str) {
        if name == "*" {
            self.all = false;
            return;
        }
        self.names.iter_mut().for_each(|names| names.retain(|n| !n.eq_ignore_ascii_case(name.as_bytes())));
        self.except.push(name.to_ascii_lowercase().into_bytes().into());
    }

    pub fn is_empty(&self) -> bool {
        self.names.iter().all(Vec::is_empty) && !self.all
    }

    #[inline]
    pub fn contains(&self, name: &[u8]) -> bool {
        if self.all {
            return !self.except.iter().any(|n| n.eq_ignore_ascii_case(name));
        }
        let length = name.len().min(LENGTHS - 1);
        self.first.get(length).is_some_and(|bits| bits & first(name) != 0) && self.compare(length, name)
    }

    fn compare(&self, length: usize, name: &[u8]) -> bool {
        self.names.get(length).is_some_and(|names| names.iter().any(|n| n.eq_ignore_ascii_case(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignores_case_and_misses_other_lengths() {
        let set = NameSet::new(["Authorization", "sig"]);
        assert!(set.contains(b"authorization") && set.contains(b"SIG"));
        assert!(!set.contains(b"si") && !set.contains(b"") && !set.contains(b"Authorisation"));
    }

    #[test]
    fn finds_every_name_in_any_case() {
        let names = crate::redact::defaults::FIELDS;
        let set = NameSet::new(names);
        for name in names {
            assert!(set.contains(name.as_bytes()) && set.contains(name.to_ascii_uppercase().as_bytes()), "{name}");
        }
        assert!(!set.contains(b"name") && !set.contains(b"id"));
    }

    #[test]
    fn star_covers_every_name_but_the_removed_ones() {
        let mut set = NameSet::new(["*"]);
        set.remove("theme");
        assert!(set.contains(b"sid") && !set.contains(b"Theme"));
    }
}
