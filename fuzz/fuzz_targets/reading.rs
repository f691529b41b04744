//! Reading all that there is in a model that opened.

use std::hint::black_box;

use pml::Loader;
use pml::format::Value;

/// Elements looked at in one file. Empty strings and arrays are many in few bytes.
const MOST_ELEMENTS: usize = 100_000;

/// Every value, tensor and layer of a loader, whose file has so many bytes.
pub fn read_everything(loader: &Loader, size: u64) {
    let metadata = loader.catalogue().metadata();
    let mut left = MOST_ELEMENTS;
    for index in 0..metadata.len() {
        let key = metadata.key(index).expect("an index below the count");
        assert_eq!(metadata.find(key), Some(index));
        read_value(&metadata.get(key).expect("a value checked at open").expect("a key that was listed"), &mut left);
    }
    for index in 0..loader.catalogue().tensors().len() {
        let tensor = loader.tensor_at(index).expect("an index below the count");
        let info = tensor.info();
        assert!(info.bytes == 0 || info.offset + info.bytes <= size);
        let mut copy = vec![0; info.bytes as usize];
        tensor.read(0, &mut copy).expect("a tensor that the headers place in the file");
        let lease = tensor.acquire().expect("a tensor that the headers place in the file");
        assert_eq!(lease.to_vec().expect("bytes of the host"), copy);
    }
    let order = loader.layer_order();
    assert_eq!(order.len(), loader.layer_count());
    for layer in order {
        black_box(loader.layer_info(layer).expect("a layer of the order"));
    }
}

fn read_value(value: &Value<'_>, left: &mut usize) {
    match value {
        Value::Array(array) => {
            for element in array.iter() {
                let Some(fewer) = left.checked_sub(1) else { return };
                *left = fewer;
                read_value(&element.expect("an element checked at open"), left);
            }
        }
        Value::String(bytes) => {
            black_box(bytes.iter().fold(0_u8, |sum, byte| sum ^ byte));
        }
        scalar => {
            black_box(scalar.as_u64());
        }
    }
}
