//! What callers can ask tensors to become.

use crate::tensor::Dtype;

/// The type that a tensor is to be delivered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Target {
    /// As it is stored.
    #[default]
    Keep,
    /// As it is stored, but F16 in place of BF16 for a device that lacks BF16.
    Auto,
    /// This type: F64, F32, F16, BF16, F8_E4M3, F8_E5M2, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 or NF4.
    Dtype(Dtype),
    /// I8 with a scale (F32) for each row.
    Int8,
    /// I8 with a scale (F16) for each 32 elements of a row: Q8_0 laid out in two tensors.
    Int8Groups,
}

const KEEP: u32 = 2000;
const AUTO: u32 = 2001;
const INT8: u32 = 2002;
const INT8_GROUPS: u32 = 2003;

/// The types that tensors can be delivered in besides their own.
const TYPES: [Dtype; 12] = [
    Dtype::F64,
    Dtype::F32,
    Dtype::F16,
    Dtype::BF16,
    Dtype::F8_E4M3,
    Dtype::F8_E5M2,
    Dtype::Q8_0,
    Dtype::Q4_0,
    Dtype::Q4_1,
    Dtype::Q5_0,
    Dtype::Q5_1,
    Dtype::NF4,
];

impl Target {
    /// Every target.
    pub fn all() -> impl Iterator<Item = Target> {
        let others = [Target::Keep, Target::Auto, Target::Int8, Target::Int8Groups];
        others.into_iter().chain(TYPES.map(Target::Dtype))
    }

    /// Its number for C: a type's own, or one from 2000 on.
    pub const fn id(self) -> u32 {
        match self {
            Target::Keep => KEEP,
            Target::Auto => AUTO,
            Target::Int8 => INT8,
            Target::Int8Groups => INT8_GROUPS,
            Target::Dtype(dtype) => dtype.id(),
        }
    }

    /// The target with this number.
    pub fn from_id(id: u32) -> Option<Target> {
        Target::all().find(|target| target.id() == id)
    }

    /// Its name, in lower case: `keep`, `auto`, `f16`, `int8`, `int8_32`.
    pub fn name(self) -> String {
        match self {
            Target::Keep => "keep".to_owned(),
            Target::Auto => "auto".to_owned(),
            Target::Int8 => "int8".to_owned(),
            Target::Int8Groups => "int8_32".to_owned(),
            Target::Dtype(dtype) => dtype.name().to_lowercase(),
        }
    }

    /// The target of this name, in any case.
    pub fn from_name(name: &str) -> Option<Target> {
        Target::all().find(|target| target.name().eq_ignore_ascii_case(name))
    }

    /// Whether its elements have less than 16 bits, so that vectors gain little and lose much by it.
    pub(crate) fn is_for_matrices(self) -> bool {
        match self {
            Target::Keep | Target::Auto => false,
            Target::Int8 | Target::Int8Groups => true,
            Target::Dtype(dtype) => dtype.block_bytes() < 2 * dtype.block_elements(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_lead_back() {
        for target in Target::all() {
            assert_eq!(Target::from_id(target.id()), Some(target));
            assert_eq!(Target::from_name(&target.name().to_uppercase()), Some(target));
        }
        assert_eq!(Target::from_id(Dtype::Q4_K.id()), None);
        assert_eq!(Target::from_name("q4_k"), None);
    }
}
