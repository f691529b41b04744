//! The reader of the crate `safetensors`.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;
use safetensors::SafeTensors;

use super::{Peer, version};
use crate::measure::seconds;

pub fn peer() -> Peer {
    let open = |path: &Path| {
        let mut mapping = None;
        let mapped = seconds(|| {
            let file = File::open(path).expect("the model");
            // SAFETY: nobody changes a model while it is measured.
            mapping = Some(unsafe { Mmap::map(&file) }.expect("a mapping"));
        });
        let bytes = mapping.as_deref().unwrap_or_default();
        let mut read = None;
        let time = seconds(|| read = Some(SafeTensors::deserialize(bytes).expect("a model that the crate reads")));
        drop(read);
        mapped + time
    };
    let how = format!("safetensors {}, `SafeTensors::deserialize` on a mapping", version("safetensors"));
    Peer::new("safetensors", Ok((how, Box::new(open))))
}
