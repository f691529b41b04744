//! Files that people take for models, and what to tell them.

use crate::error::Error;

/// The error for a file that does not start as any format served here. `start` is its first bytes (16 suffice; more
/// name more).
pub fn explain(file: &str, start: &[u8], size: u64) -> Error {
    let (found, expected) = recognise(start, size).unwrap_or_else(|| {
        let shown: String =
            start.iter().take(4).flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
        (
            format!("a file that starts with '{shown}'"),
            "a GGUF or safetensors file, which starts with 'GGUF' or with a length and '{'".to_owned(),
        )
    });
    Error::Unsupported { subject: file.to_owned(), found, expected }
}

fn recognise(start: &[u8], size: u64) -> Option<(String, String)> {
    const CONVERT: &str =
        "GGUF or safetensors; save its weights as safetensors, or convert it with llama.cpp's convert_hf_to_gguf.py";
    const OLD: &str = "GGUF version 2 or 3; convert the original weights again with a current llama.cpp";
    let text = |found: &str, expected: &str| Some((found.to_owned(), expected.to_owned()));
    if size == 0 {
        return text("an empty file", "a GGUF or safetensors file; fetch it again");
    }
    if let Some(version) = start.strip_prefix(b"GGUF").and_then(|rest| rest.first_chunk::<4>()) {
        let (little, big) = (u32::from_le_bytes(*version), u32::from_be_bytes(*version));
        return match little {
            // The reference reader's test: no real version has an empty lower half.
            _ if little.trailing_zeros() >= 16 && big != 0 => text(
                &format!("big-endian GGUF, version {big}"),
                "little-endian GGUF; convert it with gguf-py's gguf_convert_endian.py",
            ),
            1 => text("GGUF version 1", OLD),
            other => text(&format!("GGUF version {other}"), "GGUF version 2 or 3"),
        };
    }
    let magics: [(&[u8], &str, &str); 10] = [
        (b"lmgg", "an unversioned GGML file", OLD),
        (b"fmgg", "a GGMF file", OLD),
        (b"tjgg", "a GGJT file", OLD),
        (b"algg", "a GGLA adapter", OLD),
        (
            b"version https://git-lfs",
            "a Git-LFS pointer, not the model itself",
            "a GGUF or safetensors file; fetch it with `git lfs pull`",
        ),
        (b"PK\x03\x04", "a ZIP archive, probably a PyTorch checkpoint", CONVERT),
        (b"\x80\x02", "a Python pickle, probably a PyTorch checkpoint", CONVERT),
        (b"\x80\x03", "a Python pickle, probably a PyTorch checkpoint", CONVERT),
        (b"\x80\x04", "a Python pickle, probably a PyTorch checkpoint", CONVERT),
        (b"\x80\x05", "a Python pickle, probably a PyTorch checkpoint", CONVERT),
    ];
    if let Some((_, found, expected)) = magics.iter().find(|(magic, ..)| start.starts_with(magic)) {
        return text(found, expected);
    }
    if is_web_page(start) {
        return text(
            "a web page, probably an error page saved as a model",
            "a GGUF or safetensors file; fetch it again",
        );
    }
    None
}

/// Pages begin with either tag, in any case, after a byte-order mark and blanks.
fn is_web_page(start: &[u8]) -> bool {
    let text = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start).trim_ascii_start();
    let begins = |tag: &[u8]| text.get(..tag.len()).is_some_and(|head| head.eq_ignore_ascii_case(tag));
    begins(b"<!doctype") || begins(b"<html")
}
