//! Reads the header of one safetensors file. As strict as the reference reader, and where that one looks away, stricter.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::json::{Fault, Text, clipped, missing, read_object, twice};
use super::place::place;
use super::{DTYPES, LENGTH_BYTES, MAX_HEADER_BYTES, MAX_NAME_BYTES, MAX_RANK, METADATA_KEY, NAMES};
use crate::error::{Error, Result, quoted};
use crate::format::TensorTable;
use crate::format::values::Keeper;
use crate::io::Source;
use crate::tensor::Dtype;

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

/// All that a header says, as it has it.
pub struct Described<'de> {
    pub tensors: Vec<Description<'de>>,
    /// The lengths of all tensors.
    pub dimensions: Vec<i64>,
    pub metadata: Keeper,
}

/// What a header says of one tensor.
pub struct Description<'de> {
    pub name: Cow<'de, str>,
    pub dtype: Dtype,
    /// Its lengths, among those of all.
    pub shape: Range<usize>,
    /// Where its bytes begin and end, from the start of the data.
    pub begin: u64,
    pub end: u64,
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

/// A tensor, for messages.
pub fn part(name: &str) -> String {
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
    shape: Range<usize>,
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
    type Value = Range<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Shape<'_> {
    type Value = Range<usize>;

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
