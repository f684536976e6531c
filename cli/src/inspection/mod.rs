//! What a module is, without running it: sections, imports and exports, who
//! made it, and which hosts load it.

mod hosts;
mod maker;
mod module;

pub use hosts::{LoadsIn, Rule, in_mesh, loads_in};
pub use maker::{Maker, Sdk, maker};
pub use module::{Custom, Export, Import, Memory, Module, Unreadable, read, wat};
