//! A loader: one opened model, whose tensors come into memory when they are acquired.

mod core;
mod layers;
mod lease;
mod options;
mod rules;
mod space;
mod stats;
mod verify;

use std::path::Path;
use std::sync::Arc;

pub(crate) use self::core::Core;
pub use lease::{LayerLease, Tensor, TensorLease, TensorView};
pub use options::{Device, Options};
pub use rules::Rules;
pub use stats::Stats;
pub use verify::{Finding, VERIFY_STRUCTURE, VERIFY_VALUES};

use crate::error::{Error, Result, quoted};
use crate::format::{self, Catalogue};
use crate::io::{Memory, Source};
pub use crate::residency::LayerState;
pub use crate::transfer::MAX_WORKERS;

/// An opened model. Dropping it closes it: leases stay valid until they are dropped, nothing new is loaded.
pub struct Loader {
    core: Arc<Core>,
}

/// One layer, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// The bytes of its tensors.
    pub bytes: u64,
    /// How many tensors it has.
    pub tensor_count: usize,
    /// Its place in the order of use.
    pub position: usize,
    /// Its state now.
    pub state: LayerState,
    /// How often it and its tensors are acquired now.
    pub acquires: u64,
}

impl Loader {
    /// Opens the model at `path`, any shard of it. Reads headers only.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Loader> {
        Loader::new(format::open(path.as_ref(), options.io)?, options)
    }

    /// Opens a model that is in memory.
    pub fn open_memory(memory: Memory, options: Options) -> Result<Loader> {
        Loader::open_source(Source::memory("memory", memory, options.io)?, options)
    }

    /// Opens a model from any source of bytes, which reads in the way that it was made for, whatever `options.io` says.
    pub fn open_source(source: Source, options: Options) -> Result<Loader> {
        Loader::new(format::open_source(source)?, options)
    }

    fn new(model: format::Model, options: Options) -> Result<Loader> {
        Ok(Loader { core: Arc::new(Core::new(model, options)?) })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// All that the headers say.
    pub fn catalogue(&self) -> &Catalogue {
        &self.core.catalogue
    }

    /// How many layers there are.
    pub fn layer_count(&self) -> usize {
        self.core.layers.len()
    }

    /// The layer at `index`.
    pub fn layer_info(&self, index: usize) -> Result<LayerInfo<'_>> {
        let layer = self.core.check_layer(index)?;
        let snapshot = self.core.residency.snapshot(layer);
        Ok(LayerInfo {
            name: self.core.layers.name(layer),
            bytes: self.core.layers.bytes(layer),
            tensor_count: self.core.layers.members(layer).len(),
            position: self.core.order().position_of(layer),
            state: snapshot.state,
            acquires: snapshot.holders(),
        })
    }

    /// The indices of a layer's tensors, as they lie in the files.
    pub fn layer_tensors(&self, layer: usize) -> Result<&[u32]> {
        Ok(self.core.layers.members(self.core.check_layer(layer)?))
    }

    /// The layer that a tensor belongs to.
    pub fn layer_of(&self, tensor: usize) -> Result<usize> {
        Ok(self.core.layers.layer_of(self.core.check_tensor(tensor)?))
    }

    /// The layer of this name.
    pub fn find_layer(&self, name: &str) -> Result<usize> {
        self.core.layers.find(name).ok_or_else(|| Error::NotFound {
            file: self.core.name().to_owned(),
            kind: "layer",
            name: quoted(name),
            hint: String::new(),
        })
    }

    /// Layers in their order of use.
    pub fn layer_order(&self) -> Vec<usize> {
        self.core.order().sequence().collect()
    }

    /// Puts these layers first, in this order; the others follow in the order they had.
    pub fn set_layer_order(&self, layers: &[usize]) -> Result<()> {
        self.core.set_order(layers)
    }

    /// Starts bringing layers, and waits for none.
    pub fn prefetch(&self, layers: &[usize]) -> Result<()> {
        for layer in layers {
            self.core.check_layer(*layer)?;
        }
        layers.iter().try_for_each(|layer| self.core.prefetch(*layer, None))
    }

    /// Brings a layer and holds it until the lease is dropped.
    pub fn acquire_layer(&self, layer: usize) -> Result<LayerLease<'_>> {
        self.core.acquire_layer(layer)?;
        Ok(LayerLease::new(self, layer))
    }

    /// Gives back the memory of a layer that nobody holds.
    pub fn unload_layer(&self, layer: usize) -> Result<()> {
        self.core.unload_layer(layer)
    }

    /// The tensor of this name. Loads nothing.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let Some(index) = self.core.catalogue.tensors().find(name) else {
            return Err(Error::NotFound {
                file: self.core.name().to_owned(),
                kind: "tensor",
                name: quoted(name),
                hint: self
                    .core
                    .skip_of(name)
                    .map_or(String::new(), |rule| format!(": skipped by rule {}", quoted(rule))),
            });
        };
        Ok(Tensor::new(self.core.clone(), index))
    }

    /// The tensor at `index`. Loads nothing.
    pub fn tensor_at(&self, index: usize) -> Result<Tensor> {
        Ok(Tensor::new(self.core.clone(), self.core.check_tensor(index)?))
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.core.close();
    }
}
