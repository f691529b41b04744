//! Reads the header of one safetensors file. As strict as the reference reader, and where that one looks away, stricter.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::json::{Fault, Text, clipped, missing, read_object, twice};
use super::{DTYPES, LENGTH_BYTES, MAX_HEADER_BYTES, MAX_NAME_BYTES, MAX_RANK, METADATA_KEY, NAMES};
use crate::error::{Error, Result, quoted};
use crate::format::catalogue::Refused;
use crate::format::values::Keeper;
use crate::format::{TensorInfo, TensorTable};
use crate::io::Source;
use crate::tensor::Dtype;

/// Room made before the first tensor is added; from there on the table grows with what is really in the file.
const FIRST_TENSORS: usize = 1 << 16;

/// What one file says.
pub struct Header {
    /// Tensors in the order of their bytes, with offsets from the start of the file.
    pub tensors: TensorTable,
    /// `__metadata__`, in the file's order.
    pub metadata: Keeper,
}

/// Reads the header of `source`.
pub fn read(source: &Source) -> Result<Header> {
    let text = read_text(source)?;
    let described = parse(source.name(), &text)?;
    let data_start = LENGTH_BYTES + text.len() as u64;
    let tensors = place(source, &described, data_start)?;
    Ok(Header { tensors, metadata: described.metadata })
}

/// The header's JSON, with the blanks behind it.
fn read_text(source: &Source) -> Result<String> {
    let truncated = |what: &str, expected| Error::Truncated {
        file: source.name().to_owned(),
        what: what.to_owned(),
        found: source.size(),
        expected,
    };
    if source.size() < LENGTH_BYTES {
        return Err(truncated("length of the header", LENGTH_BYTES));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    source.read_buffered(&mut length, 0).map_err(|error| error.within("header"))?;
    let length = u64::from_le_bytes(length);
    if !(2..=MAX_HEADER_BYTES).contains(&length) {
        let expected = format!("2 to {MAX_HEADER_BYTES} bytes");
        return Err(Error::malformed(source.name(), "length of the header", length, expected));
    }
    if source.size() - LENGTH_BYTES < length {
        return Err(truncated("header", LENGTH_BYTES + length));
    }
    let mut bytes = vec![0; length as usize];
    source.read_buffered(&mut bytes, LENGTH_BYTES).map_err(|error| error.within("header"))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| Error::malformed(source.name(), "header", error.utf8_error(), "valid UTF-8"))?;
    let json = text.trim_end_matches(' ');
    if json.starts_with('{') && json.ends_with('}') {
        return Ok(text);
    }
    let ends = |end: Option<char>| end.map_or("nothing".to_owned(), |end| quoted(end.encode_utf8(&mut [0; 4])));
    let found = format!("{} to {}", ends(json.chars().next()), ends(json.chars().next_back()));
    Err(Error::malformed(source.name(), "header", found, "'{' to '}', with nothing but spaces behind it"))
}

/// All tensors of a header, as it has them.
struct Described<'de> {
    tensors: Vec<Description<'de>>,
    dimensions: Vec<i64>,
    metadata: Keeper,
}

struct Description<'de> {
    name: Cow<'de, str>,
    dtype: Dtype,
    /// Its lengths, among those of all.
    shape: std::ops::Range<usize>,
    begin: u64,
    end: u64,
}

fn parse<'de>(file: &str, text: &'de str) -> Result<Described<'de>> {
    let mut described = Described { tensors: Vec::new(), dimensions: Vec::new(), metadata: Keeper::new()? };
    let mut fault = Fault::default();
    let visitor = Members { file, described: &mut described, fault: &mut fault };
    match read_object(text, visitor) {
        Ok(()) => Ok(described),
        Err(error) => Err(fault.into_error(file, &error)),
    }
}

/// The members of the header: tensors, and `__metadata__`.
struct Members<'a, 'de> {
    file: &'a str,
    described: &'a mut Described<'de>,
    fault: &'a mut Fault,
}

impl<'de> Visitor<'de> for Members<'_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Members { file, described, fault } = self;
        let mut has_metadata = false;
        while let Some(Text(name)) = members.next_key()? {
            if name == METADATA_KEY {
                fault.part = Some(METADATA_KEY.to_owned());
                if std::mem::replace(&mut has_metadata, true) {
                    return Err(twice(METADATA_KEY));
                }
                members.next_value_seed(Strings(&mut described.metadata))?;
                fault.part = None;
                continue;
            }
            if let Err(error) = check_name(file, &name) {
                return Err(fault.note(error));
            }
            let seed = Tensor { file, name: &name, dimensions: &mut described.dimensions, fault };
            let Fields { dtype, shape, offsets: [begin, end] } = match members.next_value_seed(seed) {
                Ok(fields) => fields,
                Err(error) => {
                    fault.part = Some(part(&name));
                    return Err(error);
                }
            };
            described.tensors.push(Description { name, dtype, shape, begin, end });
        }
        Ok(())
    }
}

fn check_name(file: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        let expected = format!("1 to {MAX_NAME_BYTES} bytes");
        return Err(Error::malformed(file, "length of a tensor name", name.len(), expected));
    }
    if name.contains('\0') {
        return Err(Error::malformed(file, "tensor name", quoted(name), "no NUL in it"));
    }
    Ok(())
}

fn part(name: &str) -> String {
    format!("tensor {}", quoted(name))
}

/// Reads keys and values that are strings.
struct Strings<'a>(&'a mut Keeper);

impl<'de> DeserializeSeed<'de> for Strings<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strings<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of strings")
    }

    /// Some writers have it so where there is nothing to say, and the reference reads it.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some((Text(key), Text(value))) = members.next_entry()? {
            if !self.0.add_text(&key, &value) {
                return Err(twice(&format!("key {}", quoted(&clipped(&key)))));
            }
        }
        Ok(())
    }
}

/// Reads what a header says of one tensor.
struct Tensor<'a> {
    file: &'a str,
    name: &'a str,
    dimensions: &'a mut Vec<i64>,
    fault: &'a mut Fault,
}

struct Fields {
    dtype: Dtype,
    shape: std::ops::Range<usize>,
    offsets: [u64; 2],
}

impl<'de> DeserializeSeed<'de> for Tensor<'_> {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Tensor<'_> {
    type Value = Fields;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Fields, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(Text(member)) = members.next_key()? {
            let is_second = match &*member {
                "dtype" => {
                    let Text(name) = members.next_value()?;
                    match NAMES.iter().position(|known| *known == name) {
                        Some(known) => dtype.replace(DTYPES[known]).is_some(),
                        None => return Err(self.unknown_dtype(&name)),
                    }
                }
                "shape" => shape.replace(members.next_value_seed(Shape(self.dimensions))?).is_some(),
                "data_offsets" => offsets.replace(members.next_value()?).is_some(),
                other => {
                    // A word that is not understood may change what the others mean.
                    let found = format!("a member {}", quoted(&clipped(other)));
                    let error = Error::malformed(self.file, part(self.name), found, "dtype, shape and data_offsets");
                    return Err(self.fault.note(error));
                }
            };
            if is_second {
                return Err(twice(&member));
            }
        }
        Ok(Fields {
            dtype: dtype.ok_or_else(|| missing("dtype"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
            offsets: offsets.ok_or_else(|| missing("data_offsets"))?,
        })
    }
}

impl Tensor<'_> {
    fn unknown_dtype<E: serde::de::Error>(self, name: &str) -> E {
        let what = format!("{}: dtype", part(self.name));
        let error =
            Error::malformed(self.file, what, quoted(&clipped(name)), format_args!("one of {}", NAMES.join(", ")));
        self.fault.note(error)
    }
}

/// Reads a shape to the end of the lengths of all tensors.
struct Shape<'a>(&'a mut Vec<i64>);

impl<'de> DeserializeSeed<'de> for Shape<'_> {
    type Value = std::ops::Range<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Shape<'_> {
    type Value = std::ops::Range<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a shape of at most {MAX_RANK} lengths below 2^63")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut lengths: A) -> Result<Self::Value, A::Error> {
        use serde::de::{Error, Unexpected};

        let start = self.0.len();
        while self.0.len() - start < MAX_RANK {
            let Some(length) = lengths.next_element::<u64>()? else { return Ok(start..self.0.len()) };
            let checked = i64::try_from(length);
            let length = checked.map_err(|_| A::Error::invalid_value(Unexpected::Unsigned(length), &self))?;
            self.0.push(length);
        }
        match lengths.next_element::<IgnoredAny>()? {
            None => Ok(start..self.0.len()),
            Some(_) => Err(A::Error::invalid_length(MAX_RANK + 1, &self)),
        }
    }
}

/// The tensors in the order of their bytes, which fill the file behind the header without a gap.
fn place(source: &Source, described: &Described<'_>, data_start: u64) -> Result<TensorTable> {
    let mut tensors = TensorTable::with_capacity(described.tensors.len().min(FIRST_TENSORS));
    let mut order: Vec<&Description<'_>> = described.tensors.iter().collect();
    // Most files have them so already.
    order.sort_by_key(|tensor| (tensor.begin, tensor.end));
    let mut before: Option<&Description<'_>> = None;
    for tensor in order {
        let name = &*tensor.name;
        let shape = &described.dimensions[tensor.shape.clone()];
        let malformed = |what: &str, found: String, expected: String| {
            Error::malformed(source.name(), format_args!("{}{what}", part(name)), found, expected)
        };
        let offset = data_start.saturating_add(tensor.begin);
        let bytes = bytes_of(tensor.dtype, shape)
            .map_err(|expected| malformed(": shape", format!("{shape:?} of {}", tensor.dtype.name()), expected))?;
        let info = TensorInfo { name, dtype: tensor.dtype, shape, shard: 0, offset, bytes };
        tensors.push(info).map_err(|refused| match refused {
            Refused::Duplicate => malformed("", "the name a second time".to_owned(), "each name once".to_owned()),
            Refused::Full => malformed("", "more than 4 Gi of names".to_owned(), "fewer".to_owned()),
        })?;
        if tensor.end.checked_sub(tensor.begin) != Some(bytes) {
            let expected = format!("{bytes} bytes, for {shape:?} of {}", tensor.dtype.name());
            return Err(malformed(": data_offsets", format!("{} to {}", tensor.begin, tensor.end), expected));
        }
        let free = before.map_or(0, |before| before.end);
        if tensor.begin != free {
            let kind = if tensor.begin < free { "an overlap" } else { "a gap" };
            let place = before
                .map_or("the start of the data".to_owned(), |before| format!("the end of {}", part(&before.name)));
            let found = format!("{kind}: {} to {}", tensor.begin, tensor.end);
            return Err(malformed(": data_offsets", found, format!("a start at {free}, {place}")));
        }
        if bytes > 0 && data_start.saturating_add(tensor.end) > source.size() {
            return Err(Error::Truncated {
                file: source.name().to_owned(),
                what: part(name),
                found: source.size(),
                expected: data_start.saturating_add(tensor.end),
            });
        }
        before = Some(tensor);
    }
    let end = data_start.saturating_add(before.map_or(0, |before| before.end));
    if source.size() != end {
        return Err(Error::malformed(
            source.name(),
            "size of the file",
            source.size(),
            format_args!("{end}, where the last tensor ends"),
        ));
    }
    tensors.shrink();
    Ok(tensors)
}

/// The bytes of a tensor, or why there is no such tensor.
pub fn bytes_of(dtype: Dtype, shape: &[i64]) -> Result<u64, String> {
    let elements = shape.iter().try_fold(1_i64, |product, length| product.checked_mul(*length));
    let elements = elements.ok_or_else(|| "fewer than 2^63 elements".to_owned())? as u64;
    if !elements.is_multiple_of(dtype.block_elements()) {
        return Err(format!("whole bytes: a multiple of {} elements", dtype.block_elements()));
    }
    dtype.bytes(elements).ok_or_else(|| "fewer than 2^64 bytes".to_owned())
}
