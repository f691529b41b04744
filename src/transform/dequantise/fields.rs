//! Reading the fields of a block, which lie one after the other without padding, little-endian.

use half::f16;

/// What is left of a block.
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    #[inline(always)]
    pub fn of<const BYTES: usize>(block: &'a [u8; BYTES]) -> Self {
        Fields(block)
    }

    /// The next bytes. As long as a block's size and its fields are known to the compiler, nothing is checked at run time.
    #[inline(always)]
    pub fn bytes<const COUNT: usize>(&mut self) -> &'a [u8; COUNT] {
        let (field, rest) = self.0.split_first_chunk().expect("a block holds all of its fields");
        self.0 = rest;
        field
    }

    #[inline(always)]
    pub fn f16(&mut self) -> f32 {
        f16::from_le_bytes(*self.bytes()).to_f32()
    }

    #[inline(always)]
    pub fn f32(&mut self) -> f32 {
        f32::from_le_bytes(*self.bytes())
    }

    #[inline(always)]
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(*self.bytes())
    }

    #[inline(always)]
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(*self.bytes())
    }
}
