//! The floating-point environment of the thread. It is the application's, which may have chosen another rounding, or to
//! have subnormal numbers flushed to zero; what we compute must not depend on that.

/// The register's value at the start of every thread: round to nearest even, keep subnormals, trap nothing.
#[cfg(target_arch = "x86_64")]
const STANDARD: Register = 0x1F80;
#[cfg(not(target_arch = "x86_64"))]
const STANDARD: Register = 0;

/// The bits that say what has happened, not what is to happen.
#[cfg(target_arch = "x86_64")]
const HISTORY: Register = 0x3F;
#[cfg(not(target_arch = "x86_64"))]
const HISTORY: Register = 0;

/// MXCSR is 32 bits wide, FPCR 64.
#[cfg(target_arch = "x86_64")]
type Register = u32;
#[cfg(not(target_arch = "x86_64"))]
type Register = u64;

/// Runs `work` in the standard environment, and gives the thread its own back.
#[inline]
pub fn standard<T>(work: impl FnOnce() -> T) -> T {
    let found = read();
    let _restore = (found & !HISTORY != STANDARD).then(|| {
        write(STANDARD);
        Restore(found)
    });
    alone(work)
}

/// Runs `work`. A function of its own, and one whose result nothing is known of, so that the compiler, for which the
/// environment never changes, computes nothing of it sooner or later.
#[inline(never)]
fn alone<T>(work: impl FnOnce() -> T) -> T {
    std::hint::black_box(work())
}

/// Puts the register back, also when the work panics.
struct Restore(Register);

impl Drop for Restore {
    fn drop(&mut self) {
        write(self.0);
    }
}

/// Reads MXCSR.
#[cfg(target_arch = "x86_64")]
fn read() -> Register {
    let mut register: Register = 0;
    // SAFETY: it writes the four bytes that it is given.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut register, options(nostack, preserves_flags)) };
    register
}

/// Writes MXCSR. Not `nomem`, so that no load or store, nor what lies between them, moves across.
#[cfg(target_arch = "x86_64")]
fn write(register: Register) {
    // SAFETY: the value is the standard one, or was read from the register.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const register, options(nostack, preserves_flags)) };
}

/// Reads FPCR.
#[cfg(target_arch = "aarch64")]
fn read() -> Register {
    let register: Register;
    // SAFETY: every program may read it.
    unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) register, options(nostack, preserves_flags)) };
    register
}

/// Writes FPCR. Not `nomem`, so that no load or store, nor what lies between them, moves across.
#[cfg(target_arch = "aarch64")]
fn write(register: Register) {
    // SAFETY: the value is the standard one, or was read from the register.
    unsafe { std::arch::asm!("msr fpcr, {}", in(reg) register, options(nostack, preserves_flags)) };
}

/// Elsewhere nothing is asked.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn read() -> Register {
    STANDARD
}

/// Elsewhere nothing is changed.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn write(_register: Register) {}

/// Runs `work` as in an application that rounds upwards and flushes subnormal numbers to zero.
#[cfg(test)]
pub fn hostile<T>(work: impl FnOnce() -> T) -> T {
    /// Round towards positive infinity, flush to zero, and on x86 denormals are zero.
    #[cfg(target_arch = "x86_64")]
    const HOSTILE: Register = 0x1F80 | 0x4000 | 0x8000 | 0x40;
    /// Round towards positive infinity, flush to zero (also in F16), NaNs lose their payload, F16 without infinities.
    #[cfg(not(target_arch = "x86_64"))]
    const HOSTILE: Register = 1 << 22 | 1 << 24 | 1 << 19 | 1 << 25 | 1 << 26;
    let _restore = Restore(read());
    write(HOSTILE);
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_standard_inside_and_the_threads_own_after() {
        let (outside, inside, after) = hostile(|| {
            let outside = read();
            (outside, standard(read), read())
        });
        assert_eq!(inside & !HISTORY, STANDARD);
        assert_eq!(outside, after);
        if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            assert_ne!(outside & !HISTORY, STANDARD);
        }
    }

    #[test]
    fn a_panic_leaves_the_threads_own_environment() {
        hostile(|| {
            let before = read() & !HISTORY;
            let caught = std::panic::catch_unwind(|| standard(|| panic!("on purpose")));
            assert!(caught.is_err());
            assert_eq!(read() & !HISTORY, before);
        });
    }
}
