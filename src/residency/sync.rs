//! Atomics; under `--cfg loom` those of the model checker.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[cfg(loom)]
pub use checked::{AtomicBool, AtomicU64, Ordering};

/// The checker's atomics, with what it lacks.
///
/// It takes a `SeqCst` access for one that acquires and releases, and knows of a single order only where there are fences.
/// So there is one in each thread between a `SeqCst` write and the `SeqCst` read after it, and none where either is less.
#[cfg(loom)]
mod checked {
    use std::cell::Cell;

    pub use loom::sync::atomic::Ordering;
    use loom::sync::atomic::{self, fence};

    loom::thread_local! {
        static HAS_WRITTEN: Cell<bool> = Cell::new(false);
    }

    fn before_read(order: Ordering) {
        if order == Ordering::SeqCst && HAS_WRITTEN.with(|has| has.replace(false)) {
            fence(Ordering::SeqCst);
        }
    }

    fn after_write(order: Ordering) {
        if order == Ordering::SeqCst {
            HAS_WRITTEN.with(|has| has.set(true));
        }
    }

    #[derive(Default)]
    pub struct AtomicBool(atomic::AtomicBool);

    impl AtomicBool {
        pub fn load(&self, order: Ordering) -> bool {
            before_read(order);
            self.0.load(order)
        }

        pub fn store(&self, value: bool, order: Ordering) {
            self.0.store(value, order);
            after_write(order);
        }
    }

    #[derive(Default)]
    pub struct AtomicU64(atomic::AtomicU64);

    impl AtomicU64 {
        #[cfg(test)]
        pub fn new(value: u64) -> AtomicU64 {
            AtomicU64(atomic::AtomicU64::new(value))
        }

        pub fn load(&self, order: Ordering) -> u64 {
            before_read(order);
            self.0.load(order)
        }

        pub fn store(&self, value: u64, order: Ordering) {
            self.0.store(value, order);
            after_write(order);
        }

        pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            before_read(order);
            let before = self.0.fetch_add(value, order);
            after_write(order);
            before
        }

        pub fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
            before_read(order);
            let before = self.0.fetch_sub(value, order);
            after_write(order);
            before
        }

        pub fn fetch_update(
            &self,
            set_order: Ordering,
            fetch_order: Ordering,
            mut next: impl FnMut(u64) -> Option<u64>,
        ) -> Result<u64, u64> {
            let mut found = self.load(fetch_order);
            while let Some(value) = next(found) {
                before_read(set_order);
                match self.0.compare_exchange(found, value, set_order, fetch_order) {
                    Ok(before) => {
                        after_write(set_order);
                        return Ok(before);
                    }
                    Err(now) => found = now,
                }
            }
            Err(found)
        }
    }
}
