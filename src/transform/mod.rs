//! What happens to elements on their way: from one type to another. Slices in, slices out; knows no file and no device.

pub mod convert;
mod environment;
pub mod quantise;
