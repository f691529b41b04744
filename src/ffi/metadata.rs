//! Metadata: keys and values of a model.

use std::collections::HashMap;
use std::ffi::{c_char, c_void};
use std::sync::{Mutex, PoisonError};

use super::structs::{self, Growable};
use super::{guard, guard_value, handle, null, output, pml_loader_t, pml_status_t, text};
use crate::error::{Error, Result, quoted};
use crate::format::{Array, Metadata, Node, Value, ValueType};

/// Unsigned, 8 bits: the types of values have GGUF's numbers.
pub const PML_VALUE_U8: u32 = 0;
/// Signed, 8 bits.
pub const PML_VALUE_I8: u32 = 1;
/// Unsigned, 16 bits.
pub const PML_VALUE_U16: u32 = 2;
/// Signed, 16 bits.
pub const PML_VALUE_I16: u32 = 3;
/// Unsigned, 32 bits.
pub const PML_VALUE_U32: u32 = 4;
/// Signed, 32 bits.
pub const PML_VALUE_I32: u32 = 5;
/// IEEE 754, 32 bits.
pub const PML_VALUE_F32: u32 = 6;
/// One byte, 0 or 1.
pub const PML_VALUE_BOOL: u32 = 7;
/// Bytes with a length; should be UTF-8, but that is not checked.
pub const PML_VALUE_STRING: u32 = 8;
/// Values of one type.
pub const PML_VALUE_ARRAY: u32 = 9;
/// Unsigned, 64 bits.
pub const PML_VALUE_U64: u32 = 10;
/// Signed, 64 bits.
pub const PML_VALUE_I64: u32 = 11;
/// IEEE 754, 64 bits.
pub const PML_VALUE_F64: u32 = 12;

/// A metadata value. The key lives as long as the loader's handle.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pml_metadata_info_t {
    /// sizeof(pml_metadata_info_t), set by the caller.
    pub struct_size: usize,
    /// Its index, which the getters take. Keys have indices below pml_loader_metadata_count; arrays inside arrays get
    /// larger ones when they are first asked for.
    pub index: usize,
    /// The key, in UTF-8; does not end in NUL. NULL for an array inside an array.
    pub key: *const c_char,
    /// Bytes of the key.
    pub key_length: usize,
    /// A PML_VALUE_ value: its type.
    pub value_type: u32,
    /// A PML_VALUE_ value: the type of an array's elements; else its own type.
    pub element_type: u32,
    /// Elements of an array, bytes of a string, else 1.
    pub count: u64,
}

// SAFETY: begins with its size, has no padding (asserted below), and any bytes are numbers and raw pointers.
unsafe impl Growable for pml_metadata_info_t {
    const INIT: Self = pml_metadata_info_t {
        struct_size: size_of::<pml_metadata_info_t>(),
        index: 0,
        key: std::ptr::null(),
        key_length: 0,
        value_type: 0,
        element_type: 0,
        count: 0,
    };
}

const _: () = assert!(size_of::<pml_metadata_info_t>() == 4 * size_of::<usize>() + 2 * 4 + 8);

/// Indices for arrays inside arrays, given out as they are asked for.
#[derive(Default)]
pub struct NestedArrays {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    nodes: Vec<Node>,
    /// By where the array starts in the file.
    indices: HashMap<u64, usize>,
}

impl NestedArrays {
    fn get(&self, index: usize) -> Option<Node> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).nodes.get(index).copied()
    }

    fn index_of(&self, node: Node) -> usize {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { nodes, indices } = &mut *known;
        // Every array starts behind a header of its own, so that no two start at the same place.
        *indices.entry(node.position).or_insert_with(|| {
            nodes.push(node);
            nodes.len() - 1
        })
    }
}

impl pml_loader_t {
    fn metadata(&self) -> &Metadata {
        self.loader.catalogue().metadata()
    }

    fn file(&self) -> &str {
        self.loader.core().name()
    }

    /// The value with an index that this API gave out.
    fn node(&self, index: usize) -> Result<Node> {
        let count = self.metadata().len();
        let found = match index.checked_sub(count) {
            None => self.metadata().node(index),
            Some(nested) => self.nested.get(nested),
        };
        found.ok_or_else(|| Error::OutOfRange {
            file: self.file().to_owned(),
            what: "metadata",
            index: index as u64,
            count: count as u64,
        })
    }

    fn value(&self, index: usize) -> Result<Value<'_>> {
        self.metadata().value(self.node(index)?)
    }

    fn array(&self, index: usize) -> Result<Array<'_>> {
        let value = self.value(index)?;
        value.as_array().ok_or_else(|| self.wrong_type(index, &value, "an array"))
    }

    fn describe(&self, index: usize) -> Result<pml_metadata_info_t> {
        let node = self.node(index)?;
        let key = self.metadata().key(index);
        Ok(pml_metadata_info_t {
            struct_size: size_of::<pml_metadata_info_t>(),
            index,
            key: key.map_or(std::ptr::null(), |key| key.as_ptr().cast()),
            key_length: key.map_or(0, str::len),
            value_type: node.value_type as u32,
            element_type: node.element_type as u32,
            count: node.count,
        })
    }

    fn wrong_type(&self, index: usize, found: &Value<'_>, expected: &str) -> Error {
        Error::WrongType {
            file: self.file().to_owned(),
            key: self.metadata().key(index).map_or("array inside an array".to_owned(), quoted),
            found: found.as_i64().map_or(found.value_type().name().to_owned(), |number| {
                format!("{} {number}", found.value_type().name())
            }),
            expected: expected.to_owned(),
        }
    }

    /// The value at `index`, or the element of the array there, as what `convert` makes of it.
    fn get<'a, T>(
        &'a self,
        index: usize,
        element: Option<u64>,
        expected: &str,
        convert: impl Fn(&Value<'a>) -> Option<T>,
    ) -> Result<T> {
        let value = match element {
            None => self.value(index)?,
            Some(element) => self.array(index)?.get(element)?,
        };
        convert(&value).ok_or_else(|| self.wrong_type(index, &value, expected))
    }
}

const UNSIGNED: &str = "an integer of 0 or more";
const SIGNED: &str = "an integer below 2^63";
const FLOAT: &str = "a floating-point number";
const BOOL: &str = "a bool";
const STRING: &str = "a string";

/// The body of every getter of a number: `element` is `None` for the value itself.
///
/// # Safety
/// `loader` is NULL or live; `out` is NULL or can be written.
unsafe fn get_into<T>(
    loader: *const pml_loader_t,
    index: usize,
    element: Option<u64>,
    expected: &str,
    convert: impl Fn(&Value<'_>) -> Option<T>,
    out: *mut T,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for both.
        let (loader, out) = unsafe { (handle(loader, "loader")?, output(out, "out")?) };
        out.set(loader.get(index, element, expected, convert)?);
        Ok(())
    })
}

/// The body of the getters of strings.
///
/// # Safety
/// `loader` is NULL or live; `out` and `length` are NULL or can be written.
unsafe fn get_string_into(
    loader: *const pml_loader_t,
    index: usize,
    element: Option<u64>,
    out: *mut *const c_char,
    length: *mut usize,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for all three.
        let (loader, out, length) =
            unsafe { (handle(loader, "loader")?, output(out, "out")?, output(length, "length")?) };
        let bytes = loader.get(index, element, STRING, |value| value.as_bytes())?;
        out.set(bytes.as_ptr().cast());
        length.set(bytes.len());
        Ok(())
    })
}

/// Refuses elements past the end of an array.
fn check_range(loader: &pml_loader_t, array: &Array<'_>, first: u64, count: u64) -> Result<()> {
    if first.checked_add(count).is_some_and(|end| end <= array.len()) {
        return Ok(());
    }
    Err(Error::OutOfRange {
        file: loader.file().to_owned(),
        what: "element of a metadata array",
        index: first.saturating_add(count).saturating_sub(1),
        count: array.len(),
    })
}

/// Writes the initial values, as PML_METADATA_INFO_INIT has them. Does nothing where `info` is NULL.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_metadata_info_init(info: *mut pml_metadata_info_t, struct_size: usize) {
    // SAFETY: the caller's promise.
    unsafe { structs::init(info, struct_size) };
}

/// How many keys the model has; 0 where `loader` is NULL. Of a model in several files, those of the first.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_count(loader: *const pml_loader_t) -> usize {
    // SAFETY: the caller's promise.
    guard_value(0, || Ok(unsafe { handle(loader, "loader") }?.metadata().len()))
}

/// Describes the value at `index`.
///
/// Errors: PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_at(
    loader: *const pml_loader_t,
    index: usize,
    out: *mut pml_metadata_info_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let info = unsafe { handle(loader, "loader") }?.describe(index)?;
        // SAFETY: the caller's promise.
        unsafe { structs::write(out, "out", &info) }
    })
}

/// Finds a key and describes its value.
///
/// Errors: PML_STATUS_NOT_FOUND; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_find(
    loader: *const pml_loader_t,
    key: *const c_char,
    out: *mut pml_metadata_info_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise, for both.
        let (loader, key) = unsafe { (handle(loader, "loader")?, text(key, "key")?) };
        let index = loader.metadata().find(key).ok_or_else(|| Error::NotFound {
            file: loader.file().to_owned(),
            kind: "metadata key",
            name: quoted(key),
            hint: String::new(),
        })?;
        // SAFETY: the caller's promise.
        unsafe { structs::write(out, "out", &loader.describe(index)?) }
    })
}

/// The value at `index`, an integer of any width that is not negative.
///
/// Errors: PML_STATUS_WRONG_TYPE; PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_u64(
    loader: *const pml_loader_t,
    index: usize,
    out: *mut u64,
) -> pml_status_t {
    // SAFETY: the caller's promise.
    unsafe { get_into(loader, index, None, UNSIGNED, |value| value.as_u64(), out) }
}

/// The value at `index`, an integer of any width below 2^63.
///
/// Errors: PML_STATUS_WRONG_TYPE; PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_i64(
    loader: *const pml_loader_t,
    index: usize,
    out: *mut i64,
) -> pml_status_t {
    // SAFETY: the caller's promise.
    unsafe { get_into(loader, index, None, SIGNED, |value| value.as_i64(), out) }
}

/// The value at `index`, a floating-point number of either width.
///
/// Errors: PML_STATUS_WRONG_TYPE; PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_f64(
    loader: *const pml_loader_t,
    index: usize,
    out: *mut f64,
) -> pml_status_t {
    // SAFETY: the caller's promise.
    unsafe { get_into(loader, index, None, FLOAT, |value| value.as_f64(), out) }
}

/// The value at `index`, a boolean.
///
/// Errors: PML_STATUS_WRONG_TYPE; PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_bool(
    loader: *const pml_loader_t,
    index: usize,
    out: *mut bool,
) -> pml_status_t {
    // SAFETY: the caller's promise.
    unsafe { get_into(loader, index, None, BOOL, |value| value.as_bool(), out) }
}

/// The value at `index`, a string: `length` bytes at `*out`, without a NUL. They point into the file and live as long as
/// the loader's handle; where the file is mapped and somebody cuts it, using them may fault.
///
/// Errors: PML_STATUS_WRONG_TYPE; PML_STATUS_OUT_OF_RANGE; PML_STATUS_TRUNCATED; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_string(
    loader: *const pml_loader_t,
    index: usize,
    out: *mut *const c_char,
    length: *mut usize,
) -> pml_status_t {
    // SAFETY: the caller's promise.
    unsafe { get_string_into(loader, index, None, out, length) }
}

/// Element `element` of the array at `index`, an integer of any width that is not negative. The first call for an array
/// walks over it, every further one takes constant time.
///
/// Errors: PML_STATUS_WRONG_TYPE; PML_STATUS_OUT_OF_RANGE; PML_STATUS_TRUNCATED; PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_element_u64(
    loader: *const pml_loader_t,
    index: usize,
    element: u64,
    out: *mut u64,
) -> pml_status_t {
    // SAFETY: the caller's promise.
    unsafe { get_into(loader, index, Some(element), UNSIGNED, |value| value.as_u64(), out) }
}

/// Element `element` of the array at `index`, an integer of any width below 2^63. Otherwise as
/// pml_loader_metadata_element_u64.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_element_i64(
    loader: *const pml_loader_t,
    index: usize,
    element: u64,
    out: *mut i64,
) -> pml_status_t {
    // SAFETY: the caller's promise.
    unsafe { get_into(loader, index, Some(element), SIGNED, |value| value.as_i64(), out) }
}

/// Element `element` of the array at `index`, a floating-point number of either width. Otherwise as
/// pml_loader_metadata_element_u64.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_element_f64(
    loader: *const pml_loader_t,
    index: usize,
    element: u64,
    out: *mut f64,
) -> pml_status_t {
    // SAFETY: the caller's promise.
    unsafe { get_into(loader, index, Some(element), FLOAT, |value| value.as_f64(), out) }
}

/// Element `element` of the array at `index`, a boolean. Otherwise as pml_loader_metadata_element_u64.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_element_bool(
    loader: *const pml_loader_t,
    index: usize,
    element: u64,
    out: *mut bool,
) -> pml_status_t {
    // SAFETY: the caller's promise.
    unsafe { get_into(loader, index, Some(element), BOOL, |value| value.as_bool(), out) }
}

/// Element `element` of the array at `index`, a string as pml_loader_metadata_string gives it. Otherwise as
/// pml_loader_metadata_element_u64.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_element_string(
    loader: *const pml_loader_t,
    index: usize,
    element: u64,
    out: *mut *const c_char,
    length: *mut usize,
) -> pml_status_t {
    // SAFETY: the caller's promise.
    unsafe { get_string_into(loader, index, Some(element), out, length) }
}

/// Describes element `element` of an array of arrays at `index`: its own `index` serves every function here.
///
/// Errors: PML_STATUS_WRONG_TYPE where the elements are not arrays; PML_STATUS_OUT_OF_RANGE; PML_STATUS_TRUNCATED;
/// PML_STATUS_INVALID_ARGUMENT.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_element_array(
    loader: *const pml_loader_t,
    index: usize,
    element: u64,
    out: *mut pml_metadata_info_t,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let loader = unsafe { handle(loader, "loader") }?;
        // SAFETY: the caller's promise.
        unsafe { structs::check(out, "out") }?;
        let node = loader.array(index)?.element(element)?;
        if node.value_type != ValueType::Array {
            return Err(loader.wrong_type(index, &loader.value(index)?, "an array of arrays"));
        }
        let nested = loader.metadata().len() + loader.nested.index_of(node);
        // SAFETY: the caller's promise.
        unsafe { structs::write(out, "out", &loader.describe(nested)?) }
    })
}

/// Copies `count` elements of the array at `index`, from element `first` on, into `dst`, which has `dst_size` bytes.
/// `element_type` is the PML_VALUE_ type that the caller expects: of numbers or booleans, which are one byte each.
///
/// Errors: PML_STATUS_WRONG_TYPE where it is another; PML_STATUS_OUT_OF_RANGE; PML_STATUS_TRUNCATED;
/// PML_STATUS_INVALID_ARGUMENT where `dst_size` is too small.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_array_copy(
    loader: *const pml_loader_t,
    index: usize,
    first: u64,
    count: u64,
    element_type: u32,
    dst: *mut c_void,
    dst_size: usize,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let loader = unsafe { handle(loader, "loader") }?;
        let array = loader.array(index)?;
        let found = array.element_type();
        let size = found.bytes().filter(|_| ValueType::from_id(element_type) == Some(found)).ok_or_else(|| {
            let expected = ValueType::from_id(element_type).map_or("unknown", ValueType::name);
            let expected = format!("an array of numbers of type {expected}");
            Error::WrongType {
                file: loader.file().to_owned(),
                key: loader.metadata().key(index).map_or("array inside an array".to_owned(), quoted),
                found: format!("an array of type {}", found.name()),
                expected,
            }
        })?;
        let bytes = count.checked_mul(size).and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = bytes.filter(|bytes| *bytes <= dst_size).ok_or_else(|| {
            Error::argument("dst_size", dst_size, format_args!("room for {count} elements of {size} bytes"))
        })?;
        check_range(loader, &array, first, count)?;
        if bytes == 0 {
            return Ok(());
        }
        if dst.is_null() {
            return Err(null("dst"));
        }
        // SAFETY: the caller has `dst_size` bytes there, of which these are the first.
        array.copy_numbers(first, unsafe { std::slice::from_raw_parts_mut(dst.cast(), bytes) })
    })
}

/// Writes where `count` strings of the array at `index` are, from element `first` on, and how long, into `strings` and
/// `lengths`, which have room for as many. The strings are as pml_loader_metadata_string gives them.
///
/// Errors: PML_STATUS_WRONG_TYPE; PML_STATUS_OUT_OF_RANGE; PML_STATUS_INVALID_ARGUMENT; PML_STATUS_TRUNCATED and
/// PML_STATUS_MALFORMED where the file was changed, after which some results may have been written.
///
/// # Safety
/// See the rules for pointers in pml.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pml_loader_metadata_array_strings(
    loader: *const pml_loader_t,
    index: usize,
    first: u64,
    count: u64,
    strings: *mut *const c_char,
    lengths: *mut usize,
) -> pml_status_t {
    guard(|| {
        // SAFETY: the caller's promise.
        let loader = unsafe { handle(loader, "loader") }?;
        let values = loader.array(index)?;
        let room = usize::try_from(count).map_err(|_| Error::argument("count", count, "fewer"))?;
        if room > 0 && strings.is_null() {
            return Err(null("strings"));
        }
        if room > 0 && lengths.is_null() {
            return Err(null("lengths"));
        }
        if values.element_type() != ValueType::String {
            return Err(loader.wrong_type(index, &loader.value(index)?, "an array of strings"));
        }
        check_range(loader, &values, first, count)?;
        for (offset, value) in values.iter_from(first).take(room).enumerate() {
            let bytes = value?.as_bytes().unwrap_or_default();
            // SAFETY: the caller has room for `count` of each, and `offset` is below that.
            unsafe {
                strings.add(offset).write(bytes.as_ptr().cast());
                lengths.add(offset).write(bytes.len());
            }
        }
        Ok(())
    })
}
