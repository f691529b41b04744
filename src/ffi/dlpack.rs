//! DLPack: tensors for whoever takes arrays of others. The structs are those of its C ABI, version 1.1 of `dlpack.h`.

use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

use super::{guard, handle, output, pml_status_t, pml_tensor_t};
use crate::device::{DeviceKind, DeviceName};
use crate::error::{Error, Result};
use crate::loader::{OwnedLease, Tensor};
use crate::tensor::Dtype;

/// The version of DLPack that a tensor speaks.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DLPackVersion {
    /// Structs of another major version are laid out otherwise.
    pub major: u32,
    /// Later minor versions add values.
    pub minor: u32,
}

/// Whose memory it is.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DLDevice {
    /// kDLCPU, kDLCUDA or kDLROCM.
    pub device_type: i32,
    /// Its number among those of its kind.
    pub device_id: i32,
}

/// What an element is.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DLDataType {
    /// A DLDataTypeCode.
    pub code: u8,
    /// Of an element.
    pub bits: u8,
    /// 1: elements are no vectors.
    pub lanes: u16,
}

/// An array. What it points to belongs to the struct that it is in.
#[repr(C)]
#[derive(Debug)]
pub struct DLTensor {
    /// The address of the first byte on the device; NULL where there is none.
    pub data: *mut c_void,
    /// Whose memory it is.
    pub device: DLDevice,
    /// How many dimensions it has.
    pub ndim: i32,
    /// What an element is.
    pub dtype: DLDataType,
    /// `ndim` lengths in elements, outermost dimension first; NULL where there are none.
    pub shape: *mut i64,
    /// `ndim` steps in elements, those of a row-major array without gaps; NULL where there are none.
    pub strides: *mut i64,
    /// 0: `data` is where it begins.
    pub byte_offset: u64,
}

/// An array and how its lease is ended.
#[repr(C)]
#[derive(Debug)]
pub struct DLManagedTensorVersioned {
    /// What the rest is laid out as.
    pub version: DLPackVersion,
    /// NULL: the deleter needs nothing of it.
    pub manager_ctx: *mut c_void,
    /// Ends the lease and frees the struct. To be called once, on any thread.
    pub deleter: Option<unsafe extern "C" fn(*mut DLManagedTensorVersioned)>,
    /// That it is to be read only.
    pub flags: u64,
    /// The array.
    pub dl_tensor: DLTensor,
}

const _: () = assert!(size_of::<DLTensor>() == 48 && size_of::<DLManagedTensorVersioned>() == 80);

const VERSION: DLPackVersion = DLPackVersion { major: 1, minor: 1 };
const FLAG_READ_ONLY: u64 = 1;

/// What is handed out: its first field, of which the rest lives as long.
#[repr(C)]
struct Export {
    managed: DLManagedTensorVersioned,
    /// The shape, then the strides: the managed tensor points into them.
    extents: Vec<i64>,
    lease: OwnedLease,
}

impl Export {
    /// What is handed out, to be given back to its deleter.
    fn hand_out(lease: OwnedLease, dtype: DLDataType) -> *mut DLManagedTensorVersioned {
        let view = lease.view();
        let mut extents = extents(view.shape);
        let (shape, strides) = match view.shape.len() {
            0 => (ptr::null_mut(), ptr::null_mut()),
            rank => (extents.as_mut_ptr(), extents[rank..].as_mut_ptr()),
        };
        let managed = DLManagedTensorVersioned {
            version: VERSION,
            manager_ctx: ptr::null_mut(),
            deleter: Some(delete),
            flags: FLAG_READ_ONLY,
            dl_tensor: DLTensor {
                data: if view.bytes == 0 { ptr::null_mut() } else { view.data.as_ptr().cast() },
                device: device(view.device),
                ndim: view.shape.len() as i32,
                dtype,
                shape,
                strides,
                byte_offset: 0,
            },
        };
        Box::into_raw(Box::new(Export { managed, extents, lease })).cast()
    }
}

/// What a consumer calls when it needs the array no more.
///
/// # Safety
/// `managed` was handed out and is given back once; or it is NULL.
unsafe extern "C" fn delete(managed: *mut DLManagedTensorVersioned) {
    guard(|| {
        if !managed.is_null() {
            // SAFETY: it is the first field of what was handed out, and is given back once.
            drop(unsafe { Box::from_raw(managed.cast::<Export>()) });
        }
        Ok(())
    });
}

/// A shape, and behind it the strides of a row-major array without gaps, in elements.
fn extents(shape: &[i64]) -> Vec<i64> {
    let mut extents = [shape, shape].concat();
    let mut stride = 1_i64;
    for (place, length) in extents[shape.len()..].iter_mut().zip(shape).rev() {
        *place = stride;
        // Of an array without elements no step is ever taken, however far it would lead.
        stride = stride.saturating_mul(*length.max(&1));
    }
    extents
}

fn device(name: DeviceName) -> DLDevice {
    let device_type = match name.kind {
        DeviceKind::Host => 1,
        DeviceKind::Cuda => 2,
        DeviceKind::Hip => 10,
    };
    DLDevice { device_type, device_id: name.ordinal as i32 }
}

/// What a type is to DLPack; nothing where it has no such type, or says more of how it is stored than we know.
fn data_type(dtype: Dtype) -> Option<DLDataType> {
    let code = match dtype {
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => 0,
        Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => 1,
        Dtype::F16 | Dtype::F32 | Dtype::F64 => 2,
        Dtype::BF16 => 4,
        Dtype::C64 => 5,
        Dtype::BOOL => 6,
        Dtype::F8_E4M3 => 10,
        Dtype::F8_E4M3FNUZ => 11,
        Dtype::F8_E5M2 => 12,
        Dtype::F8_E5M2FNUZ => 13,
        Dtype::F8_E8M0 => 14,
        // Blocks; and F4 and F6, which DLPack has lowest bits first while their files do not say.
        _ => return None,
    };
    Some(DLDataType { code, bits: (8 * dtype.block_bytes()) as u8, lanes: 1 })
}

fn data_type_of(tensor: &Tensor) -> Result<DLDataType> {
    let dtype = tensor.info().dtype;
    data_type(dtype).ok_or_else(|| Error::Unsupported {
        subject: tensor.text(),
        found: dtype.name().to_owned(),
        expected:
            "a type that DLPack has: F64, F32, F16, BF16, F8, C64, BOOL or an integer; a rule can have it delivered so"
                .to_owned(),
    })
}

/// Brings a tensor into memory and hands it out as a DLPack tensor (`dlpack.h` of version 1.1 and later), for whoever takes
/// arrays of others, as NumPy does: without a copy, read-only, row-major without gaps.
///
/// It is a lease of its own, beside those of the handle: the tensor stays in memory until the consumer calls the DLPack
/// tensor's deleter, on any thread, at any time, also after the tensor's and the loader's handles were freed. The deleter
/// waits for nothing and may be called inside a callback; on a GPU the memory is used for nothing else before the device
/// has done what it was given until then, on whichever streams. Where nobody takes it, call the deleter yourself.
///
/// `stream` as at pml_loader_acquire_layer; the consumer's own, where it told one. Of Python's `__dlpack__`: None, and 0 on
/// ROCm, are PML_STREAM_LEGACY; -1 is PML_STREAM_HOST, which waits though it need not; others pass as they are.
///
/// The call waits for reads, but for others' releases not at all, as pml_tensor_acquire does with a time-out of 0: arrays
/// end when they are collected, which may be up to the thread that would wait. Acquire the tensor first where waiting is
/// wanted, and release it after this.
///
/// `data` is the tensor's address, `byte_offset` 0 and `strides` never NULL but at rank 0; of a tensor without elements `data`
/// is NULL. DLPack asks for addresses that are multiples of 256, and advises not to rely on it: they are multiples of the
/// element's size, and of more where the file or the option `alignment` says so.
///
/// Errors: those of pml_tensor_acquire; PML_STATUS_UNSUPPORTED, before anything is brought, for types that DLPack cannot say:
/// blocks, PML_DTYPE_NF4, and PML_DTYPE_F4 and PML_DTYPE_F6_E2M3 and _E3M2, whose order inside a byte files do not tell. On
/// failure `*out` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_tensor_to_dlpack(
    tensor: *mut pml_tensor_t,
    stream: *mut c_void,
    out: *mut *mut DLManagedTensorVersioned,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { output(out, "out") }?;
        out.set(ptr::null_mut());
        // SAFETY: the caller's promise.
        let tensor = unsafe { handle(tensor, "tensor") }?.tensor();
        let dtype = data_type_of(tensor)?;
        let stream = tensor.core().stream(stream.addr())?;
        // SAFETY: the caller's promise.
        let lease = unsafe { tensor.acquire_owned_on(stream, Some(Duration::ZERO)) }?;
        out.set(Export::hand_out(lease, dtype));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_codes_of_dlpack_and_their_own_size() {
        let codes: [(Dtype, u8); 19] = [
            (Dtype::I8, 0),
            (Dtype::I16, 0),
            (Dtype::I32, 0),
            (Dtype::I64, 0),
            (Dtype::U8, 1),
            (Dtype::U16, 1),
            (Dtype::U32, 1),
            (Dtype::U64, 1),
            (Dtype::F16, 2),
            (Dtype::F32, 2),
            (Dtype::F64, 2),
            (Dtype::BF16, 4),
            (Dtype::C64, 5),
            (Dtype::BOOL, 6),
            (Dtype::F8_E4M3, 10),
            (Dtype::F8_E4M3FNUZ, 11),
            (Dtype::F8_E5M2, 12),
            (Dtype::F8_E5M2FNUZ, 13),
            (Dtype::F8_E8M0, 14),
        ];
        for dtype in Dtype::ALL {
            let code = codes.iter().find(|(of, _)| of == dtype).map(|(_, code)| *code);
            let expected = code.map(|code| DLDataType { code, bits: (dtype.bytes(1).unwrap() * 8) as u8, lanes: 1 });
            assert_eq!(data_type(*dtype), expected, "{}", dtype.name());
        }
    }

    #[test]
    fn strides_are_those_of_rows_without_gaps() {
        assert_eq!(extents(&[]), [0_i64; 0]);
        assert_eq!(extents(&[5]), [5, 1]);
        assert_eq!(extents(&[2, 3, 4]), [2, 3, 4, 12, 4, 1]);
        assert_eq!(extents(&[2, 0, 4]), [2, 0, 4, 4, 4, 1]);
        assert_eq!(extents(&[1 << 40, 1 << 40, 0])[3..], [1 << 40, 1, 1]);
        assert_eq!(extents(&[0, i64::MAX, 8])[3..], [i64::MAX, 8, 1]);
    }
}
