//! When the machine runs short of memory, and how much of it should go back.

/// How much memory there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// All of it, in bytes.
    pub total: u64,
    /// What could be had without swapping, in bytes.
    pub available: u64,
    /// Whether processes stall for want of it already.
    pub is_stalling: bool,
}

/// Whatever can tell how much memory there is: the machine, or a test.
pub trait Gauge: Send + Sync {
    /// A reading now; `None` where it cannot be had.
    fn read(&self) -> Option<Reading>;
}

/// The machine that this process runs on, with the limits of its control group.
pub struct Machine;

impl Gauge for Machine {
    fn read(&self) -> Option<Reading> {
        let (total, available, is_stalling) = crate::io::os::memory_pressure()?;
        Some(Reading { total, available, is_stalling })
    }
}

/// Bytes that should go back: what is missing to twice the threshold, once less than the threshold is available.
/// A threshold of 0 stands for 5 % of the total.
pub fn bytes_to_give_back(reading: Reading, threshold: u64) -> u64 {
    let threshold = if threshold == 0 { reading.total / 20 } else { threshold };
    let most = if reading.is_stalling { threshold.saturating_sub(1) } else { u64::MAX };
    let available = reading.available.min(most);
    if available < threshold { threshold.saturating_mul(2) - available } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(available: u64, is_stalling: bool, threshold: u64) -> u64 {
        bytes_to_give_back(Reading { total: 1000, available, is_stalling }, threshold)
    }

    #[test]
    fn below_the_threshold_as_much_goes_back_as_is_missing_to_twice_the_threshold() {
        assert_eq!(missing(100, false, 100), 0);
        assert_eq!(missing(99, false, 100), 101);
        assert_eq!(missing(0, false, 100), 200);
        assert_eq!(missing(49, false, 0), 51);
        assert_eq!(missing(50, false, 0), 0);
        assert_eq!(missing(0, false, u64::MAX), u64::MAX);
    }

    #[test]
    fn a_machine_that_stalls_has_less_than_the_threshold() {
        assert_eq!(missing(900, true, 100), 101);
        assert_eq!(missing(30, true, 100), 170);
    }
}
