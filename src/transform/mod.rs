//! What may happen to a tensor's bytes on their way: slices in, slices out. Knows no file and no device.

pub mod dequantise;
