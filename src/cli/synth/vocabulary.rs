//! A vocabulary that looks like a real one: special tokens, bytes, then words of two syllables and more.

use crate::format::ValueType;
use crate::format::gguf::write::Datum;

/// Kinds of tokens, by the numbers of llama.cpp's `llama_token_type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// The keys of a tokenizer with so many tokens.
pub(super) fn metadata(count: u64) -> Vec<(&'static str, Datum)> {
    let mut tokens = Vec::with_capacity(count as usize);
    let mut scores = Vec::with_capacity(count as usize);
    let mut types = Vec::with_capacity(count as usize);
    for index in 0..count {
        let (token, token_type) = token(index);
        tokens.push(Datum::String(token));
        let score = if token_type == NORMAL { -(index as f32) } else { 0.0 };
        scores.push(Datum::F32(score));
        types.push(Datum::I32(token_type));
    }
    vec![
        ("tokenizer.ggml.model", Datum::from("llama")),
        ("tokenizer.ggml.tokens", Datum::Array(ValueType::String, tokens)),
        ("tokenizer.ggml.scores", Datum::Array(ValueType::F32, scores)),
        ("tokenizer.ggml.token_type", Datum::Array(ValueType::I32, types)),
        ("tokenizer.ggml.unknown_token_id", Datum::U32(0)),
        ("tokenizer.ggml.bos_token_id", Datum::U32(1)),
        ("tokenizer.ggml.eos_token_id", Datum::U32(2)),
    ]
}

fn token(index: u64) -> (String, i32) {
    match index {
        0 => ("<unk>".to_owned(), UNKNOWN),
        1 => ("<s>".to_owned(), CONTROL),
        2 => ("</s>".to_owned(), CONTROL),
        3..259 => (format!("<0x{:02X}>", index - 3), BYTE),
        _ => (word(index - 259), NORMAL),
    }
}

/// The word of this number: its digits to the base of the number of syllables.
fn word(number: u64) -> String {
    const CONSONANTS: &[u8] = b"bdfgklmnprstvz";
    const VOWELS: &[u8] = b"aeiou";
    let syllables = (CONSONANTS.len() * VOWELS.len()) as u64;
    let mut word = String::new();
    let mut rest = number;
    loop {
        let syllable = (rest % syllables) as usize;
        word.push(char::from(CONSONANTS[syllable / VOWELS.len()]));
        word.push(char::from(VOWELS[syllable % VOWELS.len()]));
        rest /= syllables;
        if rest == 0 {
            // SentencePiece marks the space before a word so.
            return format!("\u{2581}{word}");
        }
        rest -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::token;

    #[test]
    fn no_token_is_there_twice() {
        let tokens: HashSet<String> = (0..200_000).map(|index| token(index).0).collect();
        assert_eq!(tokens.len(), 200_000);
    }
}
