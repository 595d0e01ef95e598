#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod ranged;

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::json;

use super::{Checkpoint, SourceKind};
use crate::{
    Bytes, Error, Format,
    gguf::{Gguf, Writer},
    testing::{TempDir, data},
    weights::{ExpertPart, Experts, Ffn, KvB, Query, Tensor},
};

fn golden(case: &str) -> Checkpoint {
    Checkpoint::open(&data(&format!("golden/{case}"))).unwrap_or_else(|e| panic!("{case}: {e}"))
}

fn moe(c: &Checkpoint, layer: usize) -> &crate::weights::MoeWeights {
    match &c.weights.layers[layer].ffn {
        Ffn::Moe(m) => m,
        Ffn::Dense(_) => panic!("layer {layer} is dense"),
    }
}

#[test]
fn every_golden_directory_opens() {
    let mut count = 0;
    for entry in std::fs::read_dir(data("golden")).unwrap() {
        let path = entry.unwrap().path();
        if !path.join("config.json").exists() {
            continue;
        }
        let c = Checkpoint::open(&path).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(c.source.kind, SourceKind::HuggingFace);
        assert_eq!(c.config.name, path.file_name().unwrap().to_string_lossy());
        assert!(c.source.unused.is_empty(), "{:?}", c.source.unused);
        assert_eq!(c.weights.layers.len(), c.config.num_layers);
        assert!((0..c.config.num_layers).all(|i| matches!(c.weights.layers[i].ffn, Ffn::Moe(_)) == c.config.is_moe(i)));
        assert_eq!((c.special.bos, c.special.eos.as_slice()), (Some(0), &[1][..]));
        assert!(c.tokenizer.is_none() && c.chat_template.is_none());
        let mut done = 0;
        c.weights.check_finite("test", &mut |d, total| done = d * 100 / total).unwrap();
        assert_eq!(done, 100);
        count += 1;
    }
    assert!(count >= 5, "{count} directories");
}

#[test]
fn golden_shapes_and_formats() {
    let v3 = golden("v3-groups");
    let m = moe(&v3, 1);
    assert_eq!((m.experts.len(), m.router.rows, m.router.cols), (32, 32, 96));
    assert_eq!(m.bias.as_ref().unwrap().format, Format::F32);
    assert!(matches!(v3.weights.layers[0].q, Query::Lora { .. }));
    assert!(matches!(v3.weights.layers[0].kv_b, KvB::Fused(_)));
    assert_eq!(m.experts.matrix(31, ExpertPart::Down).rows, 96);
    let lite = golden("v2-lite");
    assert!(moe(&lite, 1).bias.is_none() && matches!(lite.weights.layers[0].q, Query::Full(_)));
    assert_eq!(moe(&lite, 2).shared.as_ref().unwrap().gate.rows, 64);

    let fp8 = golden("v3-fp8");
    let gate = &moe(&fp8, 1).experts.first(ExpertPart::Gate).clone();
    assert_eq!((gate.format, gate.rows, gate.cols), (Format::F8E4M3, 160, 192));
    // Two block rows, the second ragged; two block columns.
    assert_eq!(gate.scales.as_ref().unwrap().len(), 4 * 2 * 2);
    assert_eq!(fp8.weights.embed.format, Format::BF16);

    let tied = golden("v3-tied");
    assert!(tied.config.tie_word_embeddings && tied.weights.head.is_none());
    assert!(golden("v3-sharded").source.paths.len() > 1);
}

#[test]
fn the_embedded_model_opens() {
    let c = Checkpoint::tiny().unwrap();
    assert_eq!((c.config.num_layers, c.config.num_mtp_layers, c.weights.mtp.len()), (5, 1, 1));
    assert_eq!((c.config.vocab_size, c.config.name.as_str()), (2982, "Pleiad Tiny"));
    assert_eq!((c.special.bos, c.special.eos.as_slice(), c.special.pad, c.special.add_bos), (Some(0), &[1][..], Some(2), false));
    assert_eq!((c.generation.temperature, c.generation.top_p, c.generation.do_sample), (Some(0.6), Some(0.95), Some(true)));
    assert!(c.tokenizer.is_some() && c.chat_template.is_some());
    assert!(c.source.unused.is_empty() && c.source.remarks.is_empty(), "{:?}", c.source);
    let Experts::Stacked(experts) = &moe(&c, 1).experts else { panic!("stacked") };
    assert_eq!((experts.gate.count, experts.gate.rows, experts.down.cols), (32, 128, 128));
    let KvB::Split { k, v } = &c.weights.layers[0].kv_b else { panic!("split") };
    assert_eq!((k.count, k.rows, k.cols, v.rows, v.cols), (8, 64, 32, 32, 64));
    // The same file by its path.
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny/pleiad-tiny-q8_0.gguf");
    assert_eq!(Checkpoint::open(&path).unwrap().config, c.config);
}

/// All files of the reference set: those in the repository, and the rest where the environment names their directory.
fn golden_gguf() -> Vec<PathBuf> {
    let formats =
        ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k_m", "q5_k_m", "q6_k", "iq4_nl", "iq4_xs", "mxfp4", "q2_k", "q3_k_m"];
    let extra = std::env::var_os("PLEIAD_GOLDEN_GGUF").map(PathBuf::from);
    let mut found = Vec::new();
    for f in formats {
        let name = format!("base-{f}.gguf");
        let places = [Some(data("golden-gguf")), extra.clone()];
        match places.into_iter().flatten().map(|d| d.join(&name)).find(|p| p.exists()) {
            Some(path) => found.push(path),
            None => eprintln!("skipped: {name} (not in the repository; PLEIAD_GOLDEN_GGUF names no directory with it)"),
        }
    }
    found
}

#[test]
fn golden_gguf_files_open() {
    let files = golden_gguf();
    assert!(!files.is_empty());
    for path in files {
        let c = Checkpoint::open(&path).unwrap_or_else(|e| panic!("{e}"));
        let (a, m) = (&c.config.attention, c.config.moe.as_ref().unwrap());
        assert_eq!((c.config.hidden_size, c.config.num_layers, c.config.vocab_size), (256, 2, 320));
        assert_eq!((a.num_heads, a.q_lora_rank, a.kv_lora_rank), (4, Some(256), 256));
        assert_eq!((a.qk_nope_head_dim, a.qk_rope_head_dim, a.v_head_dim), (32, 16, 64));
        assert_eq!((m.num_experts, m.top_k, m.num_groups, m.top_k_groups, m.scaling_factor), (4, 2, 2, 1, 2.5));
        let yarn = c.config.rope.yarn.as_ref().unwrap();
        assert_eq!((yarn.factor, yarn.mscale_all_dim, yarn.original_max_positions), (8.0, 1.0, 256));
        assert!(c.source.unused.is_empty(), "{:?}", c.source.unused);
        c.weights.check_finite("test", &mut |_, _| {}).unwrap();
        // Whatever the format, the same weights: about the same norm everywhere.
        let rms = |t: &Tensor| (t.to_f32().iter().map(|x| x * x).sum::<f32>() / t.elements() as f32).sqrt();
        for t in [&c.weights.embed, &c.weights.layers[0].o, moe(&c, 1).experts.first(ExpertPart::Down)] {
            assert!((0.01..3.0).contains(&rms(t)), "{}: {} has {}", path.display(), t.name, rms(t));
        }
    }
}

fn said(path: &std::path::Path) -> String {
    let text = Checkpoint::open(path).map(|_| ()).unwrap_err().to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    text
}

#[test]
fn what_is_no_model_is_told_so() {
    assert!(said(&data("golden/none")).contains("no such file or directory; a model is"));
    assert!(said(&data("golden/v2-lite/config.json")).contains("give the directory"));
    assert!(said(&data("golden/v2-lite/model.safetensors")).contains("give the directory"));
    assert!(said(&data("golden/make_golden.py")).contains("no GGUF file"));
    let dir = TempDir::new("empty");
    assert!(said(dir.path()).contains("neither config.json nor a .gguf file"));
    // A directory with one GGUF model is that model; with two, a question.
    let bytes = std::fs::read(data("golden-gguf/base-q4_k_m.gguf")).unwrap();
    std::fs::write(dir.path().join("a.gguf"), &bytes).unwrap();
    assert_eq!(Checkpoint::open(dir.path()).unwrap().source.kind, SourceKind::Gguf);
    std::fs::write(dir.path().join("b.gguf"), b"").unwrap();
    assert!(said(dir.path()).contains("2 GGUF models"));
    assert!(said(&dir.path().join("b.gguf")).contains("no GGUF file"));
}

#[test]
fn damaged_directories_are_told_so() {
    let dir = TempDir::copy_of(&data("golden/v3-groups"), "damaged");
    let file = dir.path().join("model.safetensors");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    assert!(said(dir.path()).contains("is truncated"));
    std::fs::write(&file, &whole).unwrap();
    let edit = |key: &str, value: serde_json::Value| dir.edit_json("config.json", |j| drop(j.insert(key.into(), value)));
    edit("hidden_size", json!(128));
    assert!(said(dir.path()).contains("has shape [256, 96], the configuration requires [256, 128]"), "{}", said(dir.path()));
    edit("hidden_size", json!(96));
    edit("num_hidden_layers", json!(4));
    assert!(said(dir.path()).contains("tensor `model.layers.3."), "{}", said(dir.path()));
    edit("num_hidden_layers", json!(3));
    edit("bos_token_id", json!(256));
    assert!(said(dir.path()).contains("bos_token_id"));
    // Negative ids stand for none; ends beyond the vocabulary are left out with a remark.
    edit("bos_token_id", json!(-1));
    edit("eos_token_id", json!([1, 5, 300, 5]));
    let c = Checkpoint::open(dir.path()).unwrap();
    assert_eq!((c.special.bos, c.special.eos.as_slice(), c.source.remarks.len()), (None, &[1, 5][..], 1));
    // Modules for multi-token prediction that are not stored.
    edit("num_nextn_predict_layers", json!(1));
    assert_eq!(Checkpoint::open(dir.path()).unwrap().config.num_mtp_layers, 0);
    std::fs::write(dir.path().join("generation_config.json"), r#"{"top_p": 7}"#).unwrap();
    assert!(said(dir.path()).contains("`top_p`"));
    std::fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [9], "temperature": 0.3}"#).unwrap();
    let c = Checkpoint::open(dir.path()).unwrap();
    assert_eq!((c.special.eos.as_slice(), c.generation.temperature), (&[1, 5, 9][..], Some(0.3)));
    std::fs::remove_file(&file).unwrap();
    assert!(said(dir.path()).contains("neither model.safetensors nor"));
    std::fs::write(dir.path().join("config.json"), "{").unwrap();
    assert!(said(dir.path()).contains("not valid JSON"));
}

#[test]
fn damaged_shards_are_told_so() {
    let dir = TempDir::copy_of(&data("golden/v3-sharded"), "shards");
    let mut shards: Vec<PathBuf> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
    shards.retain(|p| p.extension().is_some_and(|e| e == "safetensors"));
    shards.sort();
    let index = "model.safetensors.index.json";
    let text = std::fs::read(dir.path().join(index)).unwrap();
    let name = shards[1].file_name().unwrap().to_string_lossy().into_owned();
    let edit = |f: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
        std::fs::write(dir.path().join(index), &text).unwrap();
        dir.edit_json(index, |j| f(j["weight_map"].as_object_mut().unwrap()));
        said(dir.path())
    };
    let ghost = edit(&|m| drop(m.insert("ghost".into(), json!(name))));
    assert!(ghost.contains("lacks tensor `ghost`") && ghost.contains(&name), "{ghost}");
    assert!(
        edit(&|m| drop(m.insert("model.norm.weight".into(), json!("../secret.safetensors")))).contains("`model.norm.weight`")
    );
    assert!(edit(&|m| drop(m.insert("model.norm.weight".into(), json!(7)))).contains("`model.norm.weight`"));
    assert!(edit(&|m| m.clear()).contains("empty"));
    std::fs::write(dir.path().join(index), &text).unwrap();
    assert!(Checkpoint::open(dir.path()).is_ok());
    std::fs::remove_file(&shards[1]).unwrap();
    let missing = said(dir.path());
    assert!(missing.contains(&name) && missing.contains("missing"), "{missing}");
}

/// The tensors of a golden file, to be written again with changes.
struct Rewrite {
    writer: Writer,
    tensors: Vec<(String, Vec<usize>, Format, Vec<u8>)>,
}

impl Rewrite {
    fn of(name: &str) -> Self {
        let file = Gguf::open(&data(&format!("golden-gguf/base-{name}.gguf"))).unwrap();
        let mut writer = Writer::new();
        file.metadata().iter().for_each(|(k, v)| writer.set(k, v.clone()));
        let tensors = file
            .tensors()
            .map(|t| (t.name.clone(), t.dims.clone(), t.format, file.tensor(&t.name).unwrap().1.to_vec()))
            .collect();
        Self { writer, tensors }
    }

    fn take(&mut self, name: &str) -> (String, Vec<usize>, Format, Vec<u8>) {
        let at = self.tensors.iter().position(|t| t.0 == name).unwrap();
        self.tensors.remove(at)
    }

    fn open(self) -> crate::Result<Checkpoint> {
        Checkpoint::from_gguf_bytes("rewritten", Bytes::new(self.bytes()))
    }

    fn bytes(mut self) -> Vec<u8> {
        for (name, dims, format, _) in &self.tensors {
            self.writer.tensor(name.clone(), dims, *format).unwrap();
        }
        let mut out = self.writer.begin(Vec::new()).unwrap();
        self.tensors.iter().for_each(|t| out.write(&t.3).unwrap());
        out.finish().unwrap()
    }
}

#[test]
fn fused_experts_are_seen_as_two() {
    let mut r = Rewrite::of("q4_k_m");
    let whole = Rewrite::of("q4_k_m").open().unwrap();
    let (gate, up) = (r.take("blk.1.ffn_gate_exps.weight"), r.take("blk.1.ffn_up_exps.weight"));
    let n = gate.3.len() / 4;
    let both = gate.3.chunks(n).zip(up.3.chunks(n)).flat_map(|(g, u)| [g, u].concat()).collect();
    r.tensors.push(("blk.1.ffn_gate_up_exps.weight".into(), vec![256, 512, 4], gate.2, both));
    let fused = r.open().unwrap();
    assert!(matches!(moe(&fused, 1).experts, Experts::Separate(_)));
    for e in 0..4 {
        for part in [ExpertPart::Gate, ExpertPart::Up, ExpertPart::Down] {
            let (a, b) = (moe(&fused, 1).experts.matrix(e, part), moe(&whole, 1).experts.matrix(e, part));
            assert_eq!((a.rows, a.cols, a.data), (b.rows, b.cols, b.data), "expert {e}, {part:?}");
        }
    }
}

#[test]
fn legacy_and_tied_files_open() {
    let mut r = Rewrite::of("q4_k_m");
    for i in 0..2 {
        let (k, v) = (r.take(&format!("blk.{i}.attn_k_b.weight")), r.take(&format!("blk.{i}.attn_v_b.weight")));
        drop((k, v));
        let row = Format::Q8_0.row_bytes(256).unwrap();
        r.tensors.push((format!("blk.{i}.attn_kv_b.weight"), vec![256, 4 * 96], Format::Q8_0, vec![0; row * 4 * 96]));
    }
    r.take("output.weight");
    let c = r.open().unwrap();
    let KvB::Fused(kv) = &c.weights.layers[0].kv_b else { panic!("fused") };
    assert_eq!((kv.rows, kv.cols), (384, 256));
    assert!(c.config.tie_word_embeddings && c.weights.head.is_none());
}

#[test]
fn stacks_written_flat_are_accepted_and_wrong_shapes_are_not() {
    let mut r = Rewrite::of("q4_k_m");
    let mut k = r.take("blk.0.attn_k_b.weight");
    assert_eq!(k.1, [32, 256, 4]);
    k.1 = vec![32, 1024];
    r.tensors.push(k);
    let c = r.open().unwrap();
    let KvB::Split { k, .. } = &c.weights.layers[0].kv_b else { panic!("split") };
    assert_eq!((k.count, k.rows, k.cols), (4, 256, 32));

    let mut r = Rewrite::of("q4_k_m");
    let mut o = r.take("blk.0.attn_output.weight");
    o.1 = vec![512, 128];
    r.tensors.push(o);
    assert!(matches!(r.open(), Err(Error::Shape { name, found, expected, .. })
        if name == "blk.0.attn_output.weight" && found == [128, 512] && expected == [256, 256]));
    let mut r = Rewrite::of("q4_k_m");
    r.take("blk.1.ffn_up_shexp.weight");
    assert!(matches!(r.open(), Err(Error::MissingTensor { name, .. }) if name == "blk.1.ffn_up_shexp.weight"));
    let mut r = Rewrite::of("q4_k_m");
    r.tensors.push(("extra.weight".into(), vec![4], Format::F32, vec![0; 16]));
    assert_eq!(r.open().unwrap().source.unused, ["extra.weight"]);
}

#[test]
fn nan_is_refused_in_small_tensors_at_once_and_elsewhere_on_demand() {
    for name in ["output_norm.weight", "blk.0.attn_kv_a_norm.weight", "blk.1.ffn_gate_inp.weight", "blk.1.exp_probs_b.bias"] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut r = Rewrite::of("q4_k_m");
            let mut t = r.take(name);
            t.3[8..12].copy_from_slice(&bad.to_le_bytes());
            r.tensors.push(t);
            assert!(matches!(r.open(), Err(Error::BadWeights { name: n, .. }) if n == name), "{name}");
        }
    }
    let mut r = Rewrite::of("q4_k_m");
    let mut t = r.take("blk.1.ffn_down_exps.weight");
    // The scale of the first block of expert 2, row 1.
    let (row, scale) = (Format::Q6K.row_bytes(256).unwrap(), 208);
    assert_eq!(t.2, Format::Q6K);
    t.3[(2 * 256 + 1) * row + scale..][..2].copy_from_slice(&[0, 0x7e]);
    r.tensors.push(t);
    let c = r.open().unwrap();
    let said = c.weights.check_finite("file", &mut |_, _| {}).unwrap_err().to_string();
    assert!(said.contains("blk.1.ffn_down_exps.weight") && said.contains("matrix 2, row 1"), "{said}");
}

#[test]
fn special_tokens_of_gguf_files() {
    let open = |edits: &[(&str, crate::gguf::Value)]| {
        let mut r = Rewrite::of("q4_k_m");
        edits.iter().for_each(|(k, v)| r.writer.set(*k, v.clone()));
        r.open()
    };
    let c = open(&[]).unwrap();
    assert_eq!((c.special.bos, c.special.eos.as_slice(), c.special.pad), (Some(0), &[1][..], Some(2)));
    // An end that the metadata does not name is found by its text.
    let c = open(&[("tokenizer.ggml.eos_token_id", 4u32.into()), ("tokenizer.ggml.eot_token_id", 5u32.into())]).unwrap();
    assert_eq!(c.special.eos, [1, 4, 5]);
    let c = open(&[("tokenizer.ggml.bos_token_id", crate::gguf::Value::I32(-1)), ("tokenizer.ggml.add_bos_token", true.into())])
        .unwrap();
    assert_eq!((c.special.bos, c.special.add_bos), (None, false));
    assert!(open(&[("tokenizer.ggml.bos_token_id", 320u32.into())]).unwrap_err().to_string().contains("bos_token_id"));
    assert!(open(&[("tokenizer.ggml.pre", "klingon".into())]).unwrap_err().to_string().contains("klingon"));
    // A template that does not compile costs the template, not the model.
    let c = open(&[("tokenizer.chat_template", "{% if".into())]).unwrap();
    assert!(c.chat_template.is_none() && c.source.remarks.len() == 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damage in the metadata and tensor descriptions of a real file.
    #[test]
    fn damaged_gguf_files_never_panic(changes in prop::collection::vec((0usize..12_000, any::<u8>()), 1..4)) {
        static FILE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let mut bytes = FILE.get_or_init(|| std::fs::read(data("golden-gguf/base-q4_k_m.gguf")).unwrap()).clone();
        for (at, value) in changes {
            bytes[at] = value;
        }
        if let Ok(c) = Checkpoint::from_gguf_bytes("damaged", Bytes::new(bytes)) {
            prop_assert_eq!(c.weights.layers.len(), c.config.num_layers);
        }
    }

    /// Any value in place of any key of config.json.
    #[test]
    fn damaged_configurations_never_panic(
        key in any::<prop::sample::Index>(),
        value in prop_oneof![any::<i64>().prop_map(|n| json!(n)), any::<f64>().prop_map(|n| json!(n)), "[a-z0-9]{0,9}".prop_map(|s| json!(s)),
            (0i64..600).prop_map(|n| json!(n)), Just(json!(null)), Just(json!([1, 2])), Just(json!({"type": "yarn"})), any::<bool>().prop_map(|b| json!(b))],
    ) {
        static JSON: std::sync::OnceLock<serde_json::Value> = std::sync::OnceLock::new();
        let json = JSON.get_or_init(|| serde_json::from_slice(&std::fs::read(data("golden/v3-groups/config.json")).unwrap()).unwrap());
        let mut json = json.as_object().unwrap().clone();
        let key = json.keys().nth(key.index(json.len())).unwrap().clone();
        json.insert(key, value);
        if let Ok(c) = crate::Config::from_hugging_face("config.json", "x", &json) {
            prop_assert!(c.softmax_scale().is_finite());
            prop_assert!(c.rope.frequencies(c.attention.qk_rope_head_dim).0.iter().all(|f| f.is_finite()));
        }
    }
}
