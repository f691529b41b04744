//! libpml brings a model's weights into memory when they are needed.
//!
//! It opens a model file in about a millisecond, because it reads headers only, and hands out lazy tensors at once. An
//! engine acquires a tensor or a layer when it needs it; the bytes are brought then, or were read ahead.
//!
//! ```no_run
//! use pml::loader::{Loader, Options};
//!
//! let loader = Loader::open("model.gguf", Options::default())?;
//! for layer in loader.layer_order() {
//!     let lease = loader.acquire_layer(layer)?;
//!     for (tensor, bytes) in lease.tensors() {
//!         println!("{} has {} bytes", loader.tensor_at(tensor)?.info().name, bytes.len());
//!     }
//! }
//! # Ok::<(), pml::Error>(())
//! ```
//!
//! # The house
//!
//! Each floor uses only those below it:
//!
//! | floor | what it knows |
//! |---|---|
//! | [`ffi`], `cli` | the C functions of `pml.h`; the `pml` command |
//! | [`zoo`] | names, and the files behind them in the stores that people have |
//! | [`loader`] | opened models: options, rules, acquiring, reading ahead, converted models on disk, stats |
//! | `residency`, `transfer` | what is in memory and who holds it; workers that bring bytes. Neither knows the other |
//! | [`device`], [`format`](mod@format), [`transform`] | where tensors end up; what is where in a file; what becomes of stored bytes. None knows another |
//! | [`io`], [`tensor`] | how bytes are read; what names and types mean |
//! | [`error`], [`timeline`] | the one [`Error`]; what happened when |
//!
//! A byte goes one way: file → [`io`] → `transfer` → the layer's memory → whoever acquires it. On the host a local file
//! is mapped and viewed in place, so that loading is faulting its pages in ahead of use.

#![deny(missing_docs, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod device;
pub mod error;
pub mod ffi;
pub mod format;
pub mod io;
pub mod loader;
mod residency;
pub mod tensor;
pub mod timeline;
mod transfer;
pub mod transform;
pub mod zoo;

pub use error::{Error, Result, Status};
pub use loader::{Loader, Options};
