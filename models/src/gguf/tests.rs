#![allow(clippy::unwrap_used, reason = "a test may fail")]

use proptest::prelude::*;

use super::{Array, Gguf, Header, Value, Writer};
use crate::{Bytes, Error, Format, testing::TempDir};

/// A file with every type of value and two tensors.
fn example() -> Vec<u8> {
    let mut w = Writer::new();
    for (key, value) in values() {
        w.set(key, value);
    }
    w.tensor("a.weight", &[64, 3], Format::Q8_0).unwrap();
    w.tensor("b.weight", &[5], Format::F32).unwrap();
    let total = w.total_bytes();
    let mut out = w.begin(Vec::new()).unwrap();
    // One piece over both tensors.
    out.write(&[7; 2 * 34 * 3 + 20]).unwrap();
    let bytes = out.finish().unwrap();
    assert_eq!(bytes.len() as u64, total);
    bytes
}

fn values() -> Vec<(&'static str, Value)> {
    vec![
        ("u8", Value::U8(200)),
        ("i8", Value::I8(-3)),
        ("u16", Value::U16(60_000)),
        ("i16", Value::I16(-300)),
        ("u32", Value::U32(7)),
        ("i32", Value::I32(-7)),
        ("f32", Value::F32(0.0707)),
        ("bool", true.into()),
        ("string", "Pleiad ✨".into()),
        ("u64", Value::U64(1 << 40)),
        ("i64", Value::I64(-1)),
        ("f64", Value::F64(1e-300)),
        ("strings", vec!["a".to_owned(), String::new()].into()),
        ("i32s", vec![1, -2, 3].into()),
        ("bools", Value::Array(Array::Bool(vec![true, false]))),
        ("u8s", Value::Array(Array::U8(vec![1, 2, 3]))),
        ("f64s", Value::Array(Array::F64(vec![0.5]))),
        ("empty", Value::Array(Array::U64(vec![]))),
        ("nested", Value::Array(Array::Array(vec![Array::I16(vec![1]), Array::Array(vec![Array::I8(vec![-1])])]))),
    ]
}

fn parse(bytes: &[u8]) -> crate::Result<Header> {
    Header::parse("file", bytes, bytes.len() as u64)
}

/// A header from its parts: counts as claimed, then keys and tensors as given.
fn raw(tensors: u64, keys: u64, body: &[u8]) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend(tensors.to_le_bytes());
    out.extend(keys.to_le_bytes());
    out.extend(body);
    out
}

fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&(name.len() as u64).to_le_bytes()[..], name.as_bytes(), &kind.to_le_bytes(), value].concat()
}

fn tensor(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut out = [&(name.len() as u64).to_le_bytes()[..], name.as_bytes(), &(dims.len() as u32).to_le_bytes()].concat();
    dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
    out.extend(kind.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

fn message(result: crate::Result<Header>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn what_is_written_is_read() {
    let bytes = example();
    let h = parse(&bytes).unwrap();
    assert_eq!(h.version, 3);
    for (name, value) in values() {
        assert_eq!(h.metadata.get(name), Some(&value), "{name}");
    }
    assert_eq!(h.metadata.len(), values().len());
    assert_eq!(h.metadata.number("f32").unwrap(), Some(0.0707));
    let [a, b] = h.tensors.as_slice() else { panic!("two tensors") };
    assert_eq!((a.name.as_str(), a.dims.as_slice(), a.format, a.len), ("a.weight", &[64, 3][..], Format::Q8_0, 204));
    assert_eq!((a.offset, a.shape()), (h.data_start, vec![3, 64]));
    // Padded to 32 bytes.
    assert_eq!((b.offset, b.len), (h.data_start + 224, 20));
    let file = Gguf::from_bytes("file", Bytes::new(bytes)).unwrap();
    assert_eq!(&*file.tensor("b.weight").unwrap().1, &[7; 20]);
    assert!(file.tensor("c.weight").is_none());
}

#[test]
fn version_2_is_read_and_others_are_refused() {
    let mut bytes = example();
    bytes[4] = 2;
    assert_eq!(parse(&bytes).unwrap().version, 2);
    for (version, text) in [(1u32, "GGUF version `1`"), (3u32.swap_bytes(), "big-endian"), (4, "GGUF version `4`"), (0, "`0`")] {
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        let said = message(parse(&bytes));
        assert!(said.contains(text), "{said}");
    }
    assert!(message(parse(b"PK\x03\x04")).contains("no GGUF file"));
    assert!(message(parse(b"")).contains("no GGUF file"));
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = example();
    // The last 12 bytes are padding behind the last tensor.
    for len in 0..bytes.len() - 12 {
        let result = Gguf::from_bytes("file", Bytes::new(bytes[..len].to_vec()));
        assert!(result.is_err(), "{len} of {} bytes", bytes.len());
    }
    assert!(Gguf::from_bytes("file", Bytes::new(bytes[..bytes.len() - 12].to_vec())).is_ok());
}

#[test]
fn lying_counts_are_refused_before_memory_is_reserved() {
    let zeros = [0; 64];
    for count in [3, 1 << 20, 1 << 40, u64::MAX] {
        assert!(message(parse(&raw(count, 0, &zeros))).contains("tensors are claimed"));
        assert!(message(parse(&raw(0, count.saturating_add(3), &zeros))).contains("keys are claimed"));
        let count = count.saturating_add(1 << 7);
        let bytes = raw(0, 1, &[&key("k", 8, &count.saturating_add(1 << 10).to_le_bytes())[..], &zeros].concat());
        assert!(message(parse(&bytes)).contains("`k`"));
        for kind in 0..=12u32 {
            let array = [&kind.to_le_bytes()[..], &count.max(200).to_le_bytes(), &zeros].concat();
            let said = message(parse(&raw(0, 1, &key("k", 9, &array))));
            assert!(said.contains("`k`") && said.contains("claimed"), "{said}");
        }
    }
    let long = raw(0, 1, &[&(1u64 << 62).to_le_bytes()[..], &zeros].concat());
    assert!(message(parse(&long)).contains("metadata key"));
}

#[test]
fn bad_values_are_refused() {
    let nest = |depth: usize| {
        let mut array = Vec::new();
        for _ in 1..depth {
            array.extend([9u32.to_le_bytes().as_slice(), &1u64.to_le_bytes()].concat());
        }
        array.extend([0u32.to_le_bytes().as_slice(), &1u64.to_le_bytes(), &[5]].concat());
        raw(0, 1, &key("k", 9, &array))
    };
    assert!(parse(&nest(4)).is_ok());
    for depth in [5, 100, 10_000] {
        assert!(message(parse(&nest(depth))).contains("nested"));
    }
    assert!(message(parse(&raw(0, 1, &key("k", 13, &[0; 8])))).contains("13 is not a type"));
    assert!(message(parse(&raw(0, 1, &key("k", 7, &[2])))).contains("boolean"));
    let twice = [key("k", 0, &[1]), key("k", 0, &[1])].concat();
    assert!(message(parse(&raw(0, 2, &twice))).contains("`k`: is there twice"));
    for (alignment, good) in [(64u32, true), (8, true), (0, false), (48, false), (u32::MAX, false)] {
        let result = parse(&raw(0, 1, &key("general.alignment", 4, &alignment.to_le_bytes())));
        assert_eq!(result.is_ok(), good, "{alignment}");
    }
}

#[test]
fn bad_tensors_are_refused() {
    let data = [0; 256];
    let file = |parts: &[Vec<u8>]| parse(&raw(parts.len() as u64, 0, &[&parts.concat()[..], &data].concat()));
    assert!(file(&[tensor("t", &[32], 0, 0)]).is_ok());
    let cases: [(&[u64], u32, u64, &str); 9] = [
        (&[], 0, 0, "0 dimensions"),
        (&[1, 1, 1, 1, 1], 0, 0, "5 dimensions"),
        (&[4, 0], 0, 0, "dimension of 0"),
        (&[u64::MAX, 2], 0, 0, "impossible"),
        (&[1 << 40, 1 << 40], 0, 0, "impossible"),
        (&[33], 8, 0, "no multiple of Q8_0's 32"),
        (&[32], 0, 16, "not aligned to 32"),
        (&[32], 0, 1 << 20, "the file has"),
        (&[32], 0, u64::MAX - 31, "the file has"),
    ];
    for (dims, kind, offset, text) in cases {
        let said = message(file(&[tensor("t", dims, kind, offset)]));
        assert!(said.contains("`t`") && said.contains(text), "{said}");
    }
    let said = message(file(&[tensor("t", &[256], 16, 0)]));
    assert!(said.contains("IQ2_XXS (type 16 of tensor `t`)"), "{said}");
    assert!(message(file(&[tensor("t", &[4], 0, 0), tensor("t", &[4], 0, 32)])).contains("`t` is there twice"));
    assert!(message(file(&[tensor("", &[4], 0, 0)])).contains("empty"));
    assert!(message(file(&[tensor(&"x".repeat(2000), &[4], 0, 0)])).contains("2000 bytes"));
}

#[test]
fn the_writer_refuses_what_cannot_be_read() {
    let mut w = Writer::new();
    assert!(w.tensor("t", &[33], Format::Q4_0).is_err());
    assert!(w.tensor("t", &[], Format::F32).is_err());
    assert!(w.tensor("t", &[4, 0], Format::F32).is_err());
    assert!(w.tensor("t", &[128], Format::F8E4M3).is_err());
    w.tensor("t", &[4], Format::F32).unwrap();
    assert!(w.tensor("t", &[4], Format::F32).is_err());
    let mut out = w.clone().begin(Vec::new()).unwrap();
    assert!(out.write(&[0; 17]).is_err());
    let out = w.begin(Vec::new()).unwrap();
    assert!(out.finish().is_err());
}

/// Part `no` of `count`, with one tensor of its own.
fn part(no: u32, count: u32, tensors: u32) -> Vec<u8> {
    let mut w = Writer::new();
    w.set("split.no", Value::U16(no as u16));
    w.set("split.count", Value::U16(count as u16));
    w.set("split.tensors.count", Value::I32(tensors as i32));
    w.tensor(format!("t{no}"), &[8], Format::F32).unwrap();
    let mut out = w.begin(Vec::new()).unwrap();
    out.write(&[no as u8; 32]).unwrap();
    out.finish().unwrap()
}

#[test]
fn split_files_are_joined_and_checked() {
    let dir = TempDir::new("split");
    let path = |no: u32| dir.path().join(format!("m-{:05}-of-00003.gguf", no + 1));
    let write = |no: u32, bytes: Vec<u8>| std::fs::write(path(no), bytes).unwrap();
    (0..3).for_each(|no| write(no, part(no, 3, 3)));
    for no in 0..3 {
        let file = Gguf::open(&path(no)).unwrap();
        assert_eq!((file.num_parts(), file.tensors().count()), (3, 3));
        assert_eq!(&*file.tensor("t2").unwrap().1, &[2; 32]);
        assert_eq!(file.paths[0], path(0));
    }
    let said = |no: u32| Gguf::open(&path(no)).unwrap_err().to_string();
    write(1, part(2, 3, 3));
    assert!(said(0).contains("split.no"), "{}", said(0));
    write(1, part(1, 4, 3));
    assert!(said(0).contains("split.count"));
    (0..3).for_each(|no| write(no, part(no, 3, 5)));
    assert!(said(0).contains("split.tensors.count"));
    std::fs::remove_file(path(1)).unwrap();
    assert!(said(0).contains("m-00002-of-00003.gguf"), "{}", said(0));
    // A part under another name is told how to be named.
    let lone = dir.path().join("lone.gguf");
    std::fs::write(&lone, part(0, 3, 3)).unwrap();
    assert!(Gguf::open(&lone).unwrap_err().to_string().contains("00001-of-0000N"));
    assert!(matches!(Gguf::open(&dir.path().join("none.gguf")), Err(Error::Io { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
        let mut bytes = example();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut.index(2) == 1 {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(file) = Gguf::from_bytes("file", Bytes::new(bytes)) {
            for t in file.tensors() {
                prop_assert_eq!(file.tensor(&t.name).map(|(_, d)| d.len() as u64), Some(t.len));
            }
        }
    }

    #[test]
    fn noise_never_panics(body in prop::collection::vec(any::<u8>(), 0..400), tensors in 0u64..4, keys in 0u64..4) {
        let _ = parse(&raw(tensors, keys, &body));
    }
}
