//! What a tensor is: its element type, the layer that its name puts it in, and the order in which layers are used.

mod dtype;
mod layer;
mod order;

pub use dtype::Dtype;
pub use layer::layer_name;
pub use order::{LayerOrder, order_layers};
