//! What the library writes, it reads back equal; misuse of the writer leaves nothing behind.

mod common;

#[path = "format/properties.rs"]
mod properties;
#[path = "format/round_trip.rs"]
mod round_trip;
#[path = "format/writer.rs"]
mod writer;
