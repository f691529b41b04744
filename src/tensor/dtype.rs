//! Element types. Ids, names and block sizes of ggml's are its own (`ggml.h`, `enum ggml_type`; `ggml.c`, `type_traits`);
//! those that only safetensors files have (its `Dtype`), or that only we make, are numbered from 1000 on.

use std::ffi::CStr;

use half::{bf16, f16};

/// How a floating-point number inside a block is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    F16,
    Bf16,
    F32,
    F64,
    /// An exponent alone, bias 127 (OCP microscaling formats 1.0): 0xFF is NaN.
    E8m0,
    /// Unsigned, four exponent and three mantissa bits: 0x7F is NaN.
    Ue4m3,
    /// Four exponent and three mantissa bits, no infinities: 0x7F and 0xFF are NaN (OCP 8-bit floating point 1.0).
    E4m3,
    /// Five exponent and two mantissa bits, infinities and NaN as in F16, whose upper half it is.
    E5m2,
    /// Either of these two without infinities and without a negative zero, whose bits 0x80 are the one NaN.
    Fnuz,
    /// IQ1_M's one F16 scale, in the upper four bits of four 16-bit words.
    ScatteredF16,
}

impl Number {
    const fn bytes(self) -> usize {
        match self {
            Number::E8m0 | Number::Ue4m3 | Number::E4m3 | Number::E5m2 | Number::Fnuz => 1,
            Number::F16 | Number::Bf16 => 2,
            Number::F32 => 4,
            Number::F64 | Number::ScatteredF16 => 8,
        }
    }

    fn is_finite(self, bytes: &[u8]) -> bool {
        let word = |index: usize| u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]);
        match self {
            Number::F16 => f16::from_bits(word(0)).is_finite(),
            Number::Bf16 => bf16::from_bits(word(0)).is_finite(),
            Number::F32 => f32::from_bits(u32::from(word(0)) | u32::from(word(1)) << 16).is_finite(),
            // The upper half holds the whole exponent.
            Number::F64 => word(3) & 0x7FF0 != 0x7FF0,
            Number::E8m0 => bytes[0] != 0xFF,
            Number::Ue4m3 | Number::E4m3 => bytes[0] & 0x7F != 0x7F,
            Number::E5m2 => bytes[0] & 0x7C != 0x7C,
            Number::Fnuz => bytes[0] != 0x80,
            Number::ScatteredF16 => {
                let nibble = |index: usize| word(index) >> 12;
                f16::from_bits(nibble(0) | nibble(1) << 4 | nibble(2) << 8 | nibble(3) << 12).is_finite()
            }
        }
    }
}

struct Traits {
    id: u32,
    name: &'static CStr,
    block_elements: u64,
    block_bytes: u64,
    /// Where the floating-point numbers of a block are: its elements or its scales.
    floats: &'static [(usize, Number)],
}

macro_rules! dtypes {
    ($($variant:ident $id:literal $elements:literal / $bytes:literal [$($offset:literal $number:ident),*];)*) => {
        /// The type of a tensor's elements, or of the blocks that hold them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types)]
        #[repr(u8)]
        pub enum Dtype {
            $(
                #[doc = concat!("Type ", $id, ": ", $elements, " elements in ", $bytes, " bytes.")]
                $variant,
            )*
        }

        impl Dtype {
            /// Every type, in the order of the table.
            pub const ALL: &[Dtype] = &[$(Dtype::$variant),*];

            const fn traits(self) -> &'static Traits {
                match self {
                    $(Dtype::$variant => &Traits {
                        id: $id,
                        name: {
                            const NAME: &CStr =
                                match CStr::from_bytes_with_nul(concat!(stringify!($variant), "\0").as_bytes()) {
                                    Ok(name) => name,
                                    Err(_) => panic!("a type's name holds no NUL"),
                                };
                            NAME
                        },
                        block_elements: $elements,
                        block_bytes: $bytes,
                        floats: &[$(($offset, Number::$number)),*],
                    },)*
                }
            }

            /// The type with this id.
            pub const fn from_id(id: u32) -> Option<Dtype> {
                match id {
                    $($id => Some(Dtype::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

dtypes! {
    F32 0 1/4 [0 F32];
    F16 1 1/2 [0 F16];
    Q4_0 2 32/18 [0 F16];
    Q4_1 3 32/20 [0 F16, 2 F16];
    Q5_0 6 32/22 [0 F16];
    Q5_1 7 32/24 [0 F16, 2 F16];
    Q8_0 8 32/34 [0 F16];
    Q8_1 9 32/36 [0 F16, 2 F16];
    Q2_K 10 256/84 [80 F16, 82 F16];
    Q3_K 11 256/110 [108 F16];
    Q4_K 12 256/144 [0 F16, 2 F16];
    Q5_K 13 256/176 [0 F16, 2 F16];
    Q6_K 14 256/210 [208 F16];
    Q8_K 15 256/292 [0 F32];
    IQ2_XXS 16 256/66 [0 F16];
    IQ2_XS 17 256/74 [0 F16];
    IQ3_XXS 18 256/98 [0 F16];
    IQ1_S 19 256/50 [0 F16];
    IQ4_NL 20 32/18 [0 F16];
    IQ3_S 21 256/110 [0 F16];
    IQ2_S 22 256/82 [0 F16];
    IQ4_XS 23 256/136 [0 F16];
    I8 24 1/1 [];
    I16 25 1/2 [];
    I32 26 1/4 [];
    I64 27 1/8 [];
    F64 28 1/8 [0 F64];
    IQ1_M 29 256/56 [48 ScatteredF16];
    BF16 30 1/2 [0 Bf16];
    TQ1_0 34 256/54 [52 F16];
    TQ2_0 35 256/66 [64 F16];
    MXFP4 39 32/17 [0 E8m0];
    NVFP4 40 64/36 [0 Ue4m3, 1 Ue4m3, 2 Ue4m3, 3 Ue4m3];
    Q1_0 41 128/18 [0 F16];
    Q2_0 42 64/18 [0 F16];
    BOOL 1000 1/1 [];
    U8 1001 1/1 [];
    U16 1002 1/2 [];
    U32 1003 1/4 [];
    U64 1004 1/8 [];
    F8_E4M3 1005 1/1 [0 E4m3];
    F8_E5M2 1006 1/1 [0 E5m2];
    F8_E8M0 1007 1/1 [0 E8m0];
    C64 1008 1/8 [0 F32, 4 F32];
    F4 1009 2/1 [];
    F6_E2M3 1010 4/3 [];
    F6_E3M2 1011 4/3 [];
    NF4 1012 64/32 [];
    F8_E4M3FNUZ 1013 1/1 [0 Fnuz];
    F8_E5M2FNUZ 1014 1/1 [0 Fnuz];
}

/// The first id that is not ggml's.
const FIRST_OF_OTHERS: u32 = 1000;

impl Dtype {
    /// ggml's types, in the order of the table.
    pub fn ggml() -> impl Iterator<Item = Dtype> + Clone {
        Dtype::ALL.iter().copied().filter(|dtype| dtype.is_ggml())
    }

    /// The type with this ggml id.
    pub const fn from_ggml_id(id: u32) -> Option<Dtype> {
        if id < FIRST_OF_OTHERS { Dtype::from_id(id) } else { None }
    }

    /// Whether the type is one of ggml's, which GGUF files can hold.
    pub const fn is_ggml(self) -> bool {
        self.id() < FIRST_OF_OTHERS
    }

    /// The type's number; ggml's where it has one.
    pub const fn id(self) -> u32 {
        self.traits().id
    }

    /// The name, as in the GGUF specification's table: `F32`, `Q4_K`.
    pub const fn name(self) -> &'static str {
        match self.c_name().to_str() {
            Ok(name) => name,
            Err(_) => "",
        }
    }

    /// The name for C.
    pub const fn c_name(self) -> &'static CStr {
        self.traits().name
    }

    /// The type of this name, in any case.
    pub fn from_name(name: &str) -> Option<Dtype> {
        Dtype::ALL.iter().copied().find(|dtype| dtype.name().eq_ignore_ascii_case(name))
    }

    /// Elements in a block; 1 for plain types.
    pub const fn block_elements(self) -> u64 {
        self.traits().block_elements
    }

    /// Bytes in a block.
    pub const fn block_bytes(self) -> u64 {
        self.traits().block_bytes
    }

    /// Whether blocks hold more than one element.
    pub const fn is_quantized(self) -> bool {
        self.block_elements() > 1
    }

    /// What the address of an element is a multiple of where a processor reads it as one number: its bytes; 1 for blocks,
    /// whose parts are read one by one.
    pub const fn alignment(self) -> u64 {
        if self.is_quantized() { 1 } else { self.block_bytes() }
    }

    /// The bytes of so many elements. `None` where they fill no whole number of blocks or the number does not fit.
    pub const fn bytes(self, elements: u64) -> Option<u64> {
        if elements.is_multiple_of(self.block_elements()) {
            (elements / self.block_elements()).checked_mul(self.block_bytes())
        } else {
            None
        }
    }

    /// Whether the type has floating-point elements or scales.
    pub const fn has_floats(self) -> bool {
        !self.traits().floats.is_empty()
    }

    /// The first block of `blocks` with a NaN or an infinity among its elements (plain types) or scales (quantised
    /// types). A tail shorter than a block is not looked at.
    pub fn first_not_finite(self, blocks: &[u8]) -> Option<usize> {
        let floats = self.traits().floats;
        if floats.is_empty() {
            return None;
        }
        blocks.chunks_exact(self.block_bytes() as usize).position(|block| {
            floats.iter().any(|(offset, number)| !number.is_finite(&block[*offset..*offset + number.bytes()]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_lead_back() {
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::from_id(dtype.id()), Some(*dtype));
            assert_eq!(Dtype::from_name(&dtype.name().to_lowercase()), Some(*dtype));
        }
        for withdrawn in [4, 5, 31, 32, 33, 36, 37, 38, 43, 999, u32::MAX] {
            assert_eq!(Dtype::from_id(withdrawn), None, "{withdrawn}");
        }
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::from_ggml_id(dtype.id()), Some(*dtype).filter(|dtype| dtype.is_ggml()));
        }
        assert!(Dtype::Q2_0.is_ggml() && !Dtype::BOOL.is_ggml());
    }

    #[test]
    fn every_scale_lies_in_its_block_and_is_looked_at() {
        for dtype in Dtype::ALL {
            let size = dtype.block_bytes() as usize;
            let fine = vec![0; 3 * size];
            assert_eq!(dtype.first_not_finite(&fine), None, "{}", dtype.name());
            for (offset, number) in dtype.traits().floats {
                let mut broken = fine.clone();
                let nan = if *number == Number::Fnuz { 0x80 } else { 0xFF };
                broken[2 * size + offset..2 * size + offset + number.bytes()].fill(nan);
                assert_eq!(dtype.first_not_finite(&broken), Some(2), "{} at {offset}", dtype.name());
            }
        }
    }

    #[test]
    fn infinities_count_as_damage_and_large_numbers_do_not() {
        assert_eq!(Dtype::F32.first_not_finite(&f32::MAX.to_le_bytes()), None);
        assert_eq!(Dtype::F32.first_not_finite(&f32::NEG_INFINITY.to_le_bytes()), Some(0));
        assert_eq!(Dtype::F64.first_not_finite(&f64::MIN.to_le_bytes()), None);
        assert_eq!(Dtype::F64.first_not_finite(&f64::INFINITY.to_le_bytes()), Some(0));
        assert_eq!(Dtype::F16.first_not_finite(&f16::MAX.to_le_bytes()), None);
        assert_eq!(Dtype::BF16.first_not_finite(&bf16::NAN.to_le_bytes()), Some(0));
    }

    #[test]
    fn elements_are_aligned_to_a_power_of_two() {
        for dtype in Dtype::ALL {
            assert!(dtype.alignment().is_power_of_two() && dtype.alignment() <= 8, "{}", dtype.name());
        }
        assert_eq!([Dtype::BOOL, Dtype::BF16, Dtype::F32, Dtype::C64].map(Dtype::alignment), [1, 2, 4, 8]);
        assert_eq!([Dtype::Q4_0, Dtype::F4, Dtype::F6_E2M3].map(Dtype::alignment), [1, 1, 1]);
    }

    #[test]
    fn bytes_refuses_part_blocks_and_overflow() {
        assert_eq!(Dtype::Q4_0.bytes(64), Some(36));
        assert_eq!(Dtype::Q4_0.bytes(33), None);
        assert_eq!(Dtype::F64.bytes(u64::MAX), None);
    }
}
