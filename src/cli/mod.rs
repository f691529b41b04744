//! The `pml` command, over the Rust API.
