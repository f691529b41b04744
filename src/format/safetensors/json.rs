//! JSON read in one pass, with the errors of the format in it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};

use crate::error::{Error, Result};

/// The most that a message repeats of what is in a file.
const MAX_SHOWN: usize = 200;

/// A string as it stands in the text, where nothing in it is escaped.
pub struct Text<'de>(pub Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'de>, D::Error> {
        struct AsText;
        impl<'de> Visitor<'de> for AsText {
            type Value = Text<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(AsText)
    }
}

/// What broke the format while JSON was read, and where.
#[derive(Default)]
pub struct Fault {
    /// What is being read: `tensor 'a'`.
    pub part: Option<String>,
    error: Option<Error>,
}

impl Fault {
    /// None yet, while this is read.
    pub fn of(part: &str) -> Fault {
        Fault { part: Some(part.to_owned()), error: None }
    }

    /// Notes an error of the format, and ends the reading of the JSON.
    pub fn note<E: serde::de::Error>(&mut self, error: Error) -> E {
        self.error = Some(error);
        E::custom("the format is broken")
    }

    /// The error that ended the reading: the one that was noted, or of the JSON itself.
    pub fn into_error(self, file: &str, error: &serde_json::Error) -> Error {
        let part = self.part.unwrap_or_else(|| "header".to_owned());
        self.error
            .unwrap_or_else(|| Error::malformed(file, part, clipped(&error.to_string()), "JSON as the format has it"))
    }
}

/// The start of a text, on one line, for a message.
pub fn clipped(text: &str) -> String {
    let one_line = |character: char| if character.is_control() { ' ' } else { character };
    let mut shown: String = text.chars().take(MAX_SHOWN).map(one_line).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Reads all of a text as one JSON object, whose members a visitor takes.
pub fn read_object<'de, V: Visitor<'de>>(text: &'de str, visitor: V) -> serde_json::Result<V::Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = deserializer.deserialize_map(visitor)?;
    deserializer.end()?;
    Ok(value)
}

/// The error for a second member of one name.
pub fn twice<E: serde::de::Error>(name: &str) -> E {
    E::custom(format_args!("{name} a second time"))
}

/// The error for a member that is not there.
pub fn missing<E: serde::de::Error>(name: &str) -> E {
    E::custom(format_args!("no {name}"))
}
