//! What memory would look like if some layers were gone.

use std::collections::HashMap;

use super::ground::{Map, Place, Site};

/// The memory of a pool, and what is wanted of it.
#[derive(Clone)]
pub struct Sketch {
    /// What lies where on each device.
    pub maps: HashMap<Site, Map>,
    /// The device where it is wanted; `None` on the host.
    pub site: Option<Site>,
    /// How many bytes are wanted.
    pub wanted: u64,
    /// What their address has to be a multiple of.
    pub alignment: u64,
    /// Bytes under the limit that nothing takes, or that will come free.
    pub available: u64,
    /// Bytes of a new block besides, to align it.
    pub slack: u64,
    /// What new blocks on that device may take, besides.
    pub spare: u64,
}

impl Sketch {
    /// Whether there is room, perhaps after blocks in which nothing lies were given back.
    pub fn is_met(&self) -> bool {
        let own = self.site.and_then(|site| self.maps.get(&site));
        if own.is_some_and(|own| own.has_hole(self.wanted, self.alignment)) {
            return true;
        }
        let empty: u64 = self.maps.values().map(Map::empty).sum();
        let own_empty = own.map_or(0, Map::empty);
        let wanted = self.wanted + self.slack;
        self.available.saturating_add(empty) >= wanted && self.spare.saturating_add(own_empty) >= wanted
    }

    /// Whether a block is on its way that has room.
    pub fn is_coming(&self) -> bool {
        self.site
            .and_then(|site| self.maps.get(&site))
            .is_some_and(|own| own.is_hole_coming(self.wanted, self.alignment))
    }

    /// Has a layer be gone.
    pub fn free(&mut self, bytes: u64, place: Option<(Site, Place)>) {
        match place {
            None => self.available = self.available.saturating_add(bytes),
            Some((site, place)) => {
                if let Some(map) = self.maps.get_mut(&site) {
                    map.free(place);
                }
            }
        }
    }
}
