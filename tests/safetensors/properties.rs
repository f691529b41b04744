//! Random models return; random damage never panics, and what opens in spite of it the crate reads too.

use pml::format::safetensors::DTYPES;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::common::model::Tensor;
use crate::common::{folder, open_memory, open_path, read_everything};
use crate::raw::{agrees, check_tensors, file, member, small_file, text, write_model};

fn tensor() -> impl Strategy<Value = (usize, Vec<u64>)> {
    (0..DTYPES.len(), vec(0_u64..4, 0..3), 0_u64..3).prop_map(|(dtype, mut shape, blocks)| {
        shape.push(blocks * DTYPES[dtype].block_elements());
        (dtype, shape)
    })
}

/// Opening may fail, reading what was opened may not; and the reference is never the stricter one.
fn open_and_read(bytes: Vec<u8>) {
    if let Ok(loader) = open_memory(bytes.clone()) {
        read_everything(&loader);
        if !bytes.starts_with(b"GGUF") {
            agrees(&loader, &[bytes]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn random_models_return(
        keys in btree_map(".{0,20}", ".{0,40}", 0..5),
        tensors in btree_map("[^\\x00]{1,15}", tensor(), 0..8),
    ) {
        let folder = folder();
        let path = folder.path().join("model.safetensors");
        let keys: Vec<(&str, &str)> = keys.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let tensors: Vec<Tensor> =
            tensors.iter().map(|(name, (dtype, shape))| Tensor::new(name, DTYPES[*dtype], shape)).collect();
        write_model(&path, &keys, &tensors).unwrap_or_else(|error| panic!("{error}"));
        let loader = open_path(&path).unwrap_or_else(|error| panic!("{error}"));
        check_tensors(&loader, &tensors);
        for (key, value) in keys {
            let found = text(&loader, key);
            prop_assert_eq!(found.as_deref(), Some(value));
        }
        agrees(&loader, &[std::fs::read(&path).expect("a file just written")]);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400), header in "\\{[\\PC\n\\\\]{0,80}") {
        open_and_read(bytes.clone());
        open_and_read([&(bytes.len() as u64).to_le_bytes()[..], b"{", &bytes].concat());
        open_and_read(file(&header, 3));
    }

    #[test]
    fn random_numbers_never_panic(
        shape in vec(prop_oneof![0_u64..5, any::<u64>()], 0..4),
        begin in prop_oneof![Just(0), any::<u64>()],
        end in prop_oneof![0_u64..64, any::<u64>()],
        dtype in 0..DTYPES.len(),
        data in 0_usize..64,
    ) {
        let tensor = member("t", DTYPES[dtype].name(), &format!("{shape:?}"), &format!("[{begin},{end}]"));
        open_and_read(file(&format!("{{{tensor}}}"), data));
        open_and_read(file(&format!("{{{tensor}}}"), end as usize % 64));
    }

    #[test]
    fn random_mutations_never_panic(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = small_file();
        for (index, value) in changes {
            let position = index.index(bytes.len());
            bytes[position] = value;
        }
        open_and_read(bytes.clone());
        bytes.truncate(cut.index(bytes.len()));
        open_and_read(bytes);
    }
}
