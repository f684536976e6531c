//! Sets of names (headers, cookies, parameters, members) compared without
//! regard to ASCII case, cheap to miss.

/// A compiled name list; `*` stands for every name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameSet {
    names: Vec<Box<[u8]>>,
    except: Vec<Box<[u8]>>,
    all: bool,
    /// A bit for each name's length and ends. Most look-ups end here.
    filter: [u64; 16],
}

/// Where the filter has the bit of a name.
#[inline]
fn slot(name: &[u8]) -> (usize, u64) {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return (0, 1) };
    // Setting bit 5 makes letters of both cases one.
    let mixed = name.len() * 131 + usize::from(first | 0x20) * 29 + usize::from(last | 0x20) * 7;
    (mixed / 64 % 16, 1 << (mixed % 64))
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
        let (word, bit) = slot(name.as_bytes());
        if let Some(word) = self.filter.get_mut(word) {
            *word |= bit;
        }
        self.names.push(name.to_ascii_lowercase().into_bytes().into());
    }

    pub fn remove(&mut self, name: &str) {
        if name == "*" {
            self.all = false;
            return;
        }
        self.names.retain(|n| !n.eq_ignore_ascii_case(name.as_bytes()));
        self.except.push(name.to_ascii_lowercase().into_bytes().into());
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.all
    }

    #[inline]
    pub fn contains(&self, name: &[u8]) -> bool {
        if self.all {
            return !self.except.iter().any(|n| n.eq_ignore_ascii_case(name));
        }
        let (word, bit) = slot(name);
        self.filter.get(word).is_some_and(|word| word & bit != 0)
            && self.names.iter().any(|n| n.eq_ignore_ascii_case(name))
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
