//! Stepping over strings: the bulk of a vocabulary's header, hundreds of thousands of lengths with a few bytes each.
//!
//! Where the next length is depends on this one, so that a plain walk waits for the cache at every step. Strings are
//! therefore walked in four places of a window at once. Where to begin in the middle is a guess; it is right exactly if
//! the walk before it ends there, and otherwise the plain walk is taken.

const WALKS: usize = 4;
/// Below this, guessing costs more than it saves.
const LEAST_BYTES: usize = 8 << 10;
/// How far from its place a beginning is looked for.
const SEARCH_BYTES: usize = 1 << 10;
/// A beginning is taken for one where so many likely strings follow each other.
const LIKELY_STRINGS: usize = 4;
const LIKELY_BYTES: usize = 1 << 10;

/// Steps over whole strings at the start of `bytes`, at most `most`: how many, and the bytes they take.
pub fn walk(bytes: &[u8], most: u64) -> (u64, usize) {
    four_walks(bytes).filter(|(count, _)| *count <= most).unwrap_or_else(|| plain_walk(bytes, most))
}

/// Where the string after the one at `at` begins, if that one ends before the end of `bytes`.
#[inline]
fn next(bytes: &[u8], at: usize) -> Option<usize> {
    let length = u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?);
    (length < (bytes.len() - at - 8) as u64).then(|| at + 8 + length as usize)
}

fn plain_walk(bytes: &[u8], most: u64) -> (u64, usize) {
    let mut at = 0;
    let mut count = 0;
    while count < most
        && let Some(end) = next(bytes, at)
    {
        at = end;
        count += 1;
    }
    (count, at)
}

fn four_walks(bytes: &[u8]) -> Option<(u64, usize)> {
    if bytes.len() < LEAST_BYTES {
        return None;
    }
    let mut starts = [0; WALKS];
    for (walk, start) in starts.iter_mut().enumerate().skip(1) {
        *start = likely_start(bytes, walk * bytes.len() / WALKS)?;
    }
    let ends: [usize; WALKS] = std::array::from_fn(|walk| starts.get(walk + 1).copied().unwrap_or(bytes.len()));
    let mut at = starts;
    let mut count = 0;
    // All in step, while none has come to its end.
    'step: while at.iter().zip(&ends).all(|(at, end)| at < end) {
        let mut steps = at;
        for step in &mut steps {
            let Some(end) = next(bytes, *step) else { break 'step };
            *step = end;
        }
        at = steps;
        count += WALKS as u64;
    }
    for (at, end) in at.iter_mut().zip(&ends) {
        while *at < *end
            && let Some(step) = next(bytes, *at)
        {
            *at = step;
            count += 1;
        }
    }
    let met = at[..WALKS - 1].iter().eq(&starts[1..]);
    met.then_some((count, at[WALKS - 1]))
}

fn likely_start(bytes: &[u8], from: usize) -> Option<usize> {
    let likely = |at: usize| next(bytes, at).filter(|end| (1..=LIKELY_BYTES).contains(&(end - at - 8)));
    (from..from + SEARCH_BYTES).find(|start| (0..LIKELY_STRINGS).try_fold(*start, |at, _| likely(at)).is_some())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(strings: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for string in strings {
            bytes.extend((string.len() as u64).to_le_bytes());
            bytes.extend(string);
        }
        bytes
    }

    #[test]
    fn four_walks_meet_on_a_vocabulary() {
        let strings: Vec<Vec<u8>> = (0..20_000).map(|number: u32| format!("token {number:x}").into_bytes()).collect();
        let bytes = encode(&strings);
        assert_eq!(four_walks(&bytes), Some(plain_walk(&bytes, u64::MAX)));
        // The last string ends with the bytes, and is left for a window that shows more.
        assert_eq!(walk(&bytes, u64::MAX).0, 19_999);
        assert_eq!(walk(&bytes, 1234).0, 1234);
    }

    #[test]
    fn a_wrong_guess_is_found_out() {
        // Inside one long string there are bytes that look like strings.
        let inner = encode(&vec![b"decoy".to_vec(); 4000]);
        let bytes = encode(&[b"first".to_vec(), inner, b"last".to_vec(), b"end".to_vec()]);
        assert_eq!(four_walks(&bytes), None);
        assert_eq!(walk(&bytes, u64::MAX).0, 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_walks_agree(
            strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..3000),
            cut in any::<prop::sample::Index>(),
            most in 0_u64..4000,
        ) {
            let bytes = encode(&strings);
            let bytes = &bytes[..cut.index(bytes.len() + 1)];
            prop_assert_eq!(walk(bytes, most), plain_walk(bytes, most));
        }

        #[test]
        fn lengths_of_any_size_are_walked(lengths in prop::collection::vec(any::<u64>(), 0..4000)) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
            prop_assert_eq!(walk(&bytes, u64::MAX), plain_walk(&bytes, u64::MAX));
        }

        #[test]
        fn any_bytes_are_walked(bytes in prop::collection::vec(0_u8..3, 0..40_000)) {
            prop_assert_eq!(walk(&bytes, u64::MAX), plain_walk(&bytes, u64::MAX));
        }
    }
}
