//! safetensors: what is written and what others wrote is read back equal; what breaks the format is refused and named.

mod common;

#[path = "safetensors/alignment.rs"]
mod alignment;
#[path = "safetensors/beside.rs"]
mod beside;
#[path = "safetensors/folders.rs"]
mod folders;
#[path = "safetensors/hostile.rs"]
mod hostile;
#[path = "safetensors/properties.rs"]
mod properties;
#[path = "safetensors/raw.rs"]
mod raw;
#[path = "safetensors/real.rs"]
mod real;
#[path = "safetensors/round_trip.rs"]
mod round_trip;
#[path = "safetensors/sets.rs"]
mod sets;
#[path = "safetensors/writer.rs"]
mod writer;
