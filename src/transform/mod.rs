//! What stored bytes become on their way: converted, dequantised, quantised. Slices in, slices out; knows no file and no
//! device.
//!
//! A [`Transform`] says its [`Unit`], the least that it takes at once, so that chunks are cut at units. Where a unit is a row
//! and a row is too long to be held, it passes twice: [`Transform::largest`] of every part, then [`Transform::apply_part`].

mod change;
pub mod convert;
pub mod dequantise;
mod environment;
pub mod quantise;
mod target;

/// Counts up when a transform makes other bytes of the same input than before, so that nothing older is taken for its work.
pub const VERSION: u32 = 1;

pub use change::{Transform, Unit};
pub use target::Target;
