//! Damaged, foreign and hostile files: every check of the readers has a file here that needs it.

mod common;

#[path = "attacks/bytes.rs"]
mod bytes;
#[path = "attacks/changes.rs"]
mod changes;
#[path = "attacks/foreign.rs"]
mod foreign;
#[path = "attacks/metadata.rs"]
mod metadata;
#[path = "attacks/places.rs"]
mod places;
#[path = "attacks/splits.rs"]
mod splits;
#[path = "attacks/tensors.rs"]
mod tensors;
