//! Values that filters leave with a stream for each other.

/// What a guest stored, and whether it may be overwritten.
pub(crate) struct Stored {
    name: Vec<u8>,
    value: Option<Vec<u8>>,
    read_only: bool,
}

/// Filter state of one stream. Guests' objects are under `wasm.` and their name.
#[derive(Default)]
pub(crate) struct FilterState(Vec<Stored>);

impl FilterState {
    /// The value that guests set under this name (without the prefix).
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|stored| stored.name == name)?.value.as_deref()
    }

    /// False where the value is read-only and set already; whether it is, its
    /// first writer says.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8], read_only: bool) -> bool {
        match self.0.iter_mut().find(|stored| stored.name == name) {
            Some(stored) if stored.read_only && stored.value.is_some() => false,
            Some(stored) => {
                stored.value = Some(value.to_vec());
                true
            }
            None => {
                self.0.push(Stored { name: name.to_vec(), value: Some(value.to_vec()), read_only });
                true
            }
        }
    }
}
