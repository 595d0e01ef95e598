#![allow(clippy::unwrap_used, reason = "a test may fail")]

use proptest::prelude::*;

use super::{Dtype, SafeTensors};
use crate::Bytes;

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend((0..data).map(|i| i as u8));
    out
}

fn example() -> Vec<u8> {
    file(
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}"#,
        16,
    )
}

fn open(bytes: Vec<u8>) -> crate::Result<SafeTensors> {
    SafeTensors::from_bytes("file", Bytes::new(bytes))
}

#[test]
fn tensors_are_found() {
    let all = open(example()).unwrap();
    let a = all.get("a").unwrap();
    assert_eq!((a.dtype, a.shape.as_slice()), (Dtype::BF16, &[2, 3][..]));
    assert_eq!(&*a.data, &(0..12).collect::<Vec<u8>>()[..]);
    assert_eq!(&*all.get("b").unwrap().data, &[12, 13, 14, 15]);
    assert!(all.get("c").is_none());
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = example();
    for len in 0..bytes.len() {
        let said = open(bytes[..len].to_vec()).unwrap_err().to_string();
        assert!(said.contains("truncated"), "{len}: {said}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(open(longer).unwrap_err().to_string().contains("behind its last tensor"));
}

#[test]
fn lying_headers_are_refused() {
    let entry = |text: &str| open(file(&format!(r#"{{"a":{text}}}"#), 16)).map(|_| ()).unwrap_err().to_string();
    entry(r#"{"dtype":"F32","shape":[4],"data_offsets":[0,12]}"#);
    entry(r#"{"dtype":"F32","shape":[4],"data_offsets":[4,20]}"#);
    entry(r#"{"dtype":"F32","shape":[4],"data_offsets":[16,0]}"#);
    entry(r#"{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,16]}"#);
    entry(r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,16]}"#);
    entry(r#"{"dtype":"Q8","shape":[4],"data_offsets":[0,16]}"#);
    entry("[]");
    let huge = entry(r#"{"dtype":"U8","shape":[2305843009213693951],"data_offsets":[0,2305843009213693951]}"#);
    assert!(huge.contains("truncated"), "{huge}");
    // Ends that add up to 2^64.
    let n = (1u64 << 61) - 1;
    let entries: Vec<String> = (0..8u64)
        .map(|i| format!(r#""t{i}":{{"dtype":"U8","shape":[{n}],"data_offsets":[{},{}]}}"#, i * n, (i + 1) * n))
        .collect();
    assert!(open(file(&format!("{{{}}}", entries.join(",")), 16)).is_err());
    for len in [1u64 << 20, 1 << 40, u64::MAX] {
        let mut bytes = example();
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        assert!(open(bytes).is_err());
    }
    assert!(open(file("not JSON", 0)).unwrap_err().to_string().contains("bad safetensors header"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let mut bytes = example();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(all) = open(bytes) {
            for name in all.names() {
                prop_assert!(all.get(name).is_some());
            }
        }
    }
}
