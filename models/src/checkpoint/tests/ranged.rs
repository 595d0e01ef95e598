//! Models that are read in ranges, and those of which only the header is here.

use std::sync::{Arc, OnceLock};

use proptest::prelude::*;

use super::{Rewrite, data};
use crate::{
    Checkpoint, Error, Format, Ranged, Tensor,
    gguf::{Header, Prefix, Value, Writer},
    testing::Counted,
};

/// A golden file's bytes.
fn golden() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| std::fs::read(data("golden-gguf/base-q4_k_m.gguf")).unwrap())
}

fn counted(bytes: &[u8]) -> (Arc<Counted>, Arc<dyn Ranged>) {
    let counted = Arc::new(Counted::new(bytes.to_vec()));
    (Arc::clone(&counted), counted)
}

fn whole(bytes: &[u8]) -> Checkpoint {
    Checkpoint::from_gguf_bytes("model", crate::Bytes::new(bytes.to_vec())).unwrap()
}

/// Bytes of the header and the padding behind it.
fn header_len(bytes: &[u8]) -> usize {
    Header::parse("model", bytes, bytes.len() as u64).unwrap().data_start as usize
}

fn tensors(c: &Checkpoint) -> Vec<(String, Format, usize, usize, usize, usize)> {
    let line = |t: &Tensor| (t.name.clone(), t.format, t.count, t.rows, t.cols, t.bytes());
    c.weights.tensors().into_iter().map(|(_, t)| line(t)).collect()
}

#[test]
fn a_model_read_in_ranges_is_the_mapped_one() {
    for bytes in [golden(), crate::TINY_GGUF] {
        let (counted, file) = counted(bytes);
        let (a, b) = (whole(bytes), Checkpoint::from_ranged("model", Arc::clone(&file), true).unwrap());
        assert_eq!((&a.config, &a.special, &a.generation), (&b.config, &b.special, &b.generation));
        assert_eq!(a.tokenizer.as_ref().map(|t| t.vocab_size()), b.tokenizer.as_ref().map(|t| t.vocab_size()));
        assert_eq!(a.chat_template.is_some(), b.chat_template.is_some());
        assert_eq!((&a.source.metadata, a.source.total_bytes), (&b.source.metadata, b.source.total_bytes));
        assert_eq!(tensors(&a), tensors(&b));
        // The header, vectors and routers, and nothing else.
        assert!(counted.total() < (1 << 20) + bytes.len() / 8, "{} of {} bytes", counted.total(), bytes.len());
        for ((place, ours), (_, mapped)) in b.weights.tensors().into_iter().zip(a.weights.tensors()) {
            let is_vector = place.role.is_small() && place.role != crate::weights::Role::Router;
            assert_eq!(ours.is_resident(), is_vector, "{place}");
            let all = ours.count * ours.rows;
            assert_eq!(ours.part(0, all).unwrap().matrix().data, mapped.stacked().data, "{place}");
            assert_eq!(ours.part(all - 1, 1).unwrap().matrix().to_f32(), mapped.part(all - 1, 1).unwrap().matrix().to_f32());
        }
        b.weights.check_finite("model", &mut |_, _| {}).unwrap();

        // Without its vocabulary, and by its header.
        let bare = Checkpoint::from_ranged("model", file, false).unwrap();
        assert!(bare.tokenizer.is_none() && bare.chat_template.is_none() && bare.source.vocabulary.is_empty());
        assert_eq!((&bare.config, tensors(&bare)), (&a.config, tensors(&a)));
        let (mut ours, mut mapped) = (bare.source.metadata, a.source.metadata.clone());
        ours.sort();
        mapped.sort();
        assert_eq!(ours, mapped);
        let head = &bytes[..header_len(bytes)];
        let head = Checkpoint::from_head("model", head, bytes.len() as u64).unwrap().unwrap();
        assert_eq!((&a.config, &a.special, &a.generation), (&head.config, &head.special, &head.generation));
        assert_eq!((tensors(&a), a.source.total_bytes), (tensors(&head), head.source.total_bytes));
        assert!(head.tokenizer.is_some() == a.tokenizer.is_some());
        let said = head.weights.embed.part(0, 1).unwrap_err().to_string();
        assert!(said.contains("token_embd.weight") && said.contains("model"), "{said}");
        let said = head.weights.check_small_finite("model").unwrap_err().to_string();
        assert!(said.contains("cannot be read"), "{said}");
    }
}

/// A model with a vocabulary of some MiB.
fn with_long_header() -> Vec<u8> {
    let mut r = Rewrite::of("q4_k_m");
    r.writer.set("tokenizer.ggml.remarks", (0..300_000).map(|i| format!("token {i}")).collect::<Vec<_>>());
    r.bytes()
}

#[test]
fn long_headers_are_read_by_a_growing_prefix() {
    let bytes = with_long_header();
    let len = header_len(&bytes);
    assert!(len > 4 << 20, "{len}");
    let (counted, file) = counted(&bytes);
    let c = Checkpoint::from_ranged("model", file, false).unwrap();
    assert_eq!(c.config, whole(golden()).config);
    assert!(c.source.metadata.contains(&("tokenizer.ggml.remarks".into(), "300000 values".into())));
    assert!(counted.total() < 2 * len + bytes.len() / 8 && counted.largest() <= 4 << 20, "{}", counted.total());
    assert!(Checkpoint::from_head("model", &bytes[..1 << 20], bytes.len() as u64).unwrap().is_none());
    assert!(Checkpoint::from_head("model", &bytes[..len], bytes.len() as u64).unwrap().is_some());
}

fn said(bytes: &[u8]) -> String {
    let text = Checkpoint::from_ranged("model.gguf", counted(bytes).1, false).unwrap_err().to_string();
    assert!(text.contains("model.gguf") && !text.contains('\n'), "{text}");
    text
}

#[test]
fn what_is_no_such_model_is_told_so_after_little_reading() {
    let noise = vec![0x5a; 3 << 20];
    let (counted, file) = counted(&noise);
    let error = Checkpoint::from_ranged("model.gguf", file, true).unwrap_err().to_string();
    assert!(error.contains("no GGUF file") && counted.total() <= 1 << 20, "{error}");
    assert!(said(b"").contains("no GGUF file") && said(b"GG").contains("no GGUF file"));
    for head in [&b"PK\x03\x04"[..], b"X"] {
        assert!(Checkpoint::from_head("m", head, 1 << 30).unwrap_err().to_string().contains("no GGUF file"));
    }
    assert!(Checkpoint::from_head("m", b"", 1 << 30).unwrap().is_none());
    assert!(Checkpoint::from_head("m", b"GGUF\x03", 1 << 30).unwrap().is_none());
    assert!(Checkpoint::from_head("m", b"GGUF\x09\0\0\0", 1 << 30).unwrap_err().to_string().contains("version `9`"));

    // One part of a split model.
    let mut r = Rewrite::of("q4_k_m");
    r.writer.set("split.count", Value::U16(3));
    let split = r.bytes();
    assert!(said(&split).contains("3 parts") && said(&split).contains("llama-gguf-split"));
    assert!(Checkpoint::from_head("m", &split, split.len() as u64).unwrap_err().to_string().contains("3 parts"));

    // A model without a name is called after its file.
    let mut r = Rewrite::of("q4_k_m");
    r.writer.set("general.name", "");
    let bytes = r.bytes();
    assert_eq!(Checkpoint::from_ranged("dir/m.gguf", self::counted(&bytes).1, false).unwrap().config.name, "dir/m");
}

#[test]
fn lying_headers_are_refused_before_they_are_read() {
    // Lengths that a large file could hold, but no header has.
    let start = |tensors: u64, keys: u64| [b"GGUF\x03\0\0\0", &tensors.to_le_bytes()[..], &keys.to_le_bytes()].concat();
    let key = |kind: u32, value: &[u8]| [&1u64.to_le_bytes()[..], b"k", &kind.to_le_bytes(), value].concat();
    let long: u64 = 1 << 30;
    let string = [start(0, 1), key(8, &long.to_le_bytes())].concat();
    let array = [start(0, 1), key(9, &[&8u32.to_le_bytes()[..], &(1u64 << 24).to_le_bytes()].concat())].concat();
    for head in [start(long / 33, 0), start(0, long / 14), string, array] {
        for vocabulary in [false, true] {
            let error = Header::parse_prefix("m", &head, 4 * long, vocabulary).unwrap_err().to_string();
            assert!(error.contains("at most 67108864 are allowed"), "{error}");
        }
        assert!(Checkpoint::from_head("m", &head, 4 * long).is_err());
        // The file is not as long as the header says.
        assert!(Header::parse_prefix("m", &head, head.len() as u64 + 100, true).is_err());
    }
}

#[test]
fn truncated_files_are_refused_by_the_tensor_that_is_cut() {
    let bytes = golden();
    let start = header_len(bytes);
    for len in [start, start + 1, (start + bytes.len()) / 2, bytes.len() - 64] {
        let said = said(&bytes[..len]);
        assert!(said.contains("tensor `") && said.contains("truncated"), "{len}: {said}");
        let head = Checkpoint::from_head("m", &bytes[..start], len as u64).unwrap_err().to_string();
        assert!(head.contains("tensor `") && head.contains(&len.to_string()), "{head}");
    }
}

#[test]
fn reads_that_fail_are_errors_in_words() {
    let (counted, file) = counted(golden());
    counted.fail_after(0);
    let error = Checkpoint::from_ranged("model.gguf", Arc::clone(&file), false).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("model.gguf")), "{error}");
    // After the header: vectors, then routers.
    let mut failures = 0;
    for reads in 1.. {
        counted.fail_after(reads);
        match Checkpoint::from_ranged("model.gguf", Arc::clone(&file), false) {
            Ok(_) => break,
            Err(Error::Read { file, name, source }) => {
                assert!(file == "model.gguf" && !name.is_empty() && source.to_string() == "the file has gone");
                failures += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(failures > 5, "{failures}");
}

#[test]
fn passed_over_arrays_are_known_by_their_length() {
    let mut w = Writer::new();
    w.set("tokenizer.ggml.tokens", vec!["a".to_owned(), "b".to_owned()]);
    w.set("tokenizer.ggml.scores", vec![1, 2, 3]);
    w.set("tokenizer.ggml.model", "gpt2");
    w.set("other", vec![7]);
    let bytes = w.begin(Vec::new()).unwrap().finish().unwrap();
    let parse = |vocabulary| match Header::parse_prefix("m", &bytes, bytes.len() as u64, vocabulary).unwrap() {
        Prefix::Whole(header) => header.metadata,
        Prefix::Longer(n) => panic!("{n} bytes"),
    };
    let (with, without) = (parse(true), parse(false));
    for (key, len) in [("tokenizer.ggml.tokens", 2), ("tokenizer.ggml.scores", 3), ("other", 1)] {
        assert_eq!((with.array_len(key), without.array_len(key)), (Some(len), Some(len)));
    }
    assert!(with.left_out().next().is_none() && with.strings("tokenizer.ggml.tokens").unwrap().is_some());
    assert_eq!(without.left_out().collect::<Vec<_>>(), [("tokenizer.ggml.tokens", 2), ("tokenizer.ggml.scores", 3)]);
    assert!(without.strings("tokenizer.ggml.tokens").unwrap().is_none() && without.get("other").is_some());
    assert_eq!((without.str("tokenizer.ggml.model").unwrap(), without.array_len("tokenizer.ggml.model")), (Some("gpt2"), None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// A head that ends anywhere is either too short, or the header; with any length of the file that it could have.
    #[test]
    fn heads_that_end_anywhere_are_told_apart(cut in 0usize..14_000, vocabulary: bool) {
        let bytes = golden();
        let (start, len) = (header_len(bytes), bytes.len() as u64);
        let head = &bytes[..cut.min(bytes.len())];
        match Header::parse_prefix("m", head, len, vocabulary) {
            Ok(Prefix::Whole(header)) => prop_assert!(cut + 32 > start && header.data_start == start as u64),
            Ok(Prefix::Longer(needed)) => prop_assert!(cut < start && needed > cut as u64 && needed <= start as u64),
            Err(e) => prop_assert!(false, "{} of {start} bytes: {e}", cut),
        }
        prop_assert_eq!(Checkpoint::from_head("m", head, len).unwrap().is_some(), Header::parse("m", head, len).is_ok());
        // The same bytes as a whole file are damaged.
        prop_assert!(Checkpoint::from_ranged("m", counted(head).1, vocabulary).is_err());
        prop_assert!(Checkpoint::from_head("m", head, head.len() as u64).is_err());
    }

    /// Damage anywhere in the header: an error or a model, by ranges as in memory.
    #[test]
    fn damage_is_the_same_in_ranges(changes in prop::collection::vec((0usize..12_000, any::<u8>()), 1..4), cut in 0usize..14_000) {
        let mut bytes = golden().to_vec();
        for (at, value) in changes {
            bytes[at] = value;
        }
        let mapped = Checkpoint::from_gguf_bytes("m", crate::Bytes::new(bytes.clone())).map(|c| tensors(&c)).map_err(|e| e.to_string());
        let ranged = Checkpoint::from_ranged("m", counted(&bytes).1, true).map(|c| tensors(&c)).map_err(|e| e.to_string());
        if !ranged.as_ref().is_err_and(|e| e.contains("split model")) {
            prop_assert_eq!(mapped, ranged);
        }
        let _ = Checkpoint::from_ranged("m", counted(&bytes).1, false);
        let _ = Checkpoint::from_head("m", &bytes[..cut.min(bytes.len())], bytes.len() as u64);
    }
}
