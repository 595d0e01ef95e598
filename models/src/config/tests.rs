#![allow(clippy::unwrap_used, reason = "a test may fail")]

use serde_json::{Map, Value, json};

use super::{Config, Family, GroupScore, Rope, Scoring, Yarn};
use crate::{gguf::Metadata, gguf::Value as Gguf, synth::Shape, testing::data};

fn yarn(factor: f64, original: usize, beta: (f64, f64), mscale: f64) -> Option<Yarn> {
    Some(Yarn { factor, original_max_positions: original, beta_fast: beta.0, beta_slow: beta.1, mscale, mscale_all_dim: mscale })
}

fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a / b - 1.0).abs() < tolerance, "{a} is not {b}");
}

/// Figures computed from the published configurations with an independent program.
#[test]
fn rope_and_softmax_scales_of_published_models() {
    let v3 = Shape::DeepseekV3.config();
    let (f, factor) = v3.rope.frequencies(64);
    assert_eq!((f.len(), factor), (32, 1.0));
    for (i, expected) in
        [(10, 0.056_234_133), (15, 0.008_334_509), (20, 7.905_694_2e-4), (23, 3.333_803_6e-5), (31, 3.333_803_6e-6)]
    {
        close(f[i], expected, 1e-6);
    }
    close(v3.softmax_scale().into(), 0.135_233_778_9, 1e-6);
    let lite = Shape::DeepseekV2Lite.config();
    assert_eq!(lite.rope.frequencies(64).0, f);
    close(lite.softmax_scale().into(), 0.114_721_386_8, 1e-6);
    let k2 = Shape::KimiK2.config();
    close(k2.rope.frequencies(64).0[20], 3.614_046_8e-5, 1e-6);
    close(k2.softmax_scale().into(), 0.130_860_8, 1e-6);
    let k25 = Config { rope: Rope { theta: 5e4, interleaved: true, yarn: yarn(64.0, 4096, (32.0, 1.0), 1.0) }, ..k2 };
    close(k25.softmax_scale().into(), 0.144_679_625_8, 1e-6);
    // The ramp runs from pair 8 to pair 20.
    let plain = Rope { theta: 5e4, interleaved: true, yarn: None }.frequencies(64).0;
    let scaled = k25.rope.frequencies(64).0;
    assert_eq!(scaled[8], plain[8]);
    assert!(scaled[9] < plain[9] && scaled[19] > plain[19] / 64.0);
    close(scaled[20], plain[20] / 64.0, 1e-12);
    close(Shape::Moonlight.config().softmax_scale().into(), 0.072_168_783_6, 1e-6);
    close(Shape::Glm47Flash.config().softmax_scale().into(), 0.0625, 1e-6);
    // Both ends of the ramp in one place: finite all the same.
    let step = Rope { theta: 1e4, interleaved: true, yarn: yarn(40.0, 4096, (1.0, 1.0), 1.0) };
    assert!(step.frequencies(64).0.iter().all(|f| f.is_finite()));
}

fn read(case: &str) -> Map<String, Value> {
    serde_json::from_slice(&std::fs::read(data(&format!("golden/{case}/config.json"))).unwrap()).unwrap()
}

fn parse(json: &Map<String, Value>) -> crate::Result<Config> {
    Config::from_hugging_face("config.json", "test", json)
}

/// The configuration of a case after edits; `null` removes nothing, it stays as null.
fn edited(case: &str, edits: &[(&str, Value)]) -> crate::Result<Config> {
    let mut json = read(case);
    for (key, value) in edits {
        json.insert((*key).to_owned(), value.clone());
    }
    parse(&json)
}

#[test]
fn golden_configurations() {
    let v3 = parse(&read("v3-groups")).unwrap();
    let m = v3.moe.as_ref().unwrap();
    assert_eq!(v3.family, Family::DeepseekV3);
    assert_eq!((v3.hidden_size, v3.num_layers, v3.attention.q_lora_rank), (96, 3, Some(48)));
    assert_eq!((m.num_experts, m.top_k, m.num_groups, m.top_k_groups), (32, 4, 4, 2));
    assert_eq!((m.scoring, m.group_score, m.norm_top_k, m.scaling_factor), (Scoring::Sigmoid, GroupScore::TopTwo, true, 2.5));
    assert_eq!(v3.dense_layers, [true, false, false]);
    assert_eq!(v3.rope.yarn, yarn(8.0, 256, (32.0, 1.0), 1.0));
    assert!((0..5).map(|i| v3.is_moe(i)).eq([false, true, true, true, true]));

    let v2 = parse(&read("v2-lite")).unwrap();
    let m = v2.moe.as_ref().unwrap();
    assert_eq!((v2.family, v2.attention.q_lora_rank), (Family::DeepseekV2, None));
    assert_eq!((m.scoring, m.num_groups, m.norm_top_k, m.num_shared), (Scoring::Softmax, 1, false, 2));
    assert_eq!(v2.rope.yarn, yarn(40.0, 128, (32.0, 1.0), 0.707));

    let moonlight = parse(&read("moonlight")).unwrap();
    assert_eq!((moonlight.rms_norm_eps, moonlight.latent_norm_eps, moonlight.rope.yarn), (1e-5, 1e-6, None));
    let glm = parse(&read("glm-flash")).unwrap();
    assert_eq!((glm.family, glm.attention.num_heads, glm.attention.v_head_dim), (Family::Glm4MoeLite, 5, 48));
    assert_eq!(parse(&read("kimi-k2")).unwrap().family, Family::KimiK2);
    assert!(parse(&read("v3-tied")).unwrap().tie_word_embeddings);
    assert!(!parse(&read("v3-half-rope")).unwrap().rope.interleaved);
    assert_eq!(parse(&read("rope-parameters")).unwrap().dense_layers, [false, true, false]);
    let corners = parse(&read("yarn-corners")).unwrap().rope.yarn.unwrap();
    assert_ne!(corners.mscale, corners.mscale_all_dim);
    let groups = parse(&read("v2-groups")).unwrap().moe.unwrap();
    assert_eq!((groups.group_score, groups.scaling_factor), (GroupScore::Max, 16.0));
    assert!(groups.num_groups > 1);
}

#[test]
fn old_and_new_spellings_agree() {
    let old = parse(&read("v3-groups")).unwrap();
    let parameters = json!({"rope_type": "yarn", "type": "yarn", "rope_theta": 10000, "factor": 8, "original_max_position_embeddings": 256,
        "beta_fast": 32.0, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1});
    let new = edited("v3-groups", &[("rope_theta", Value::Null), ("rope_scaling", Value::Null), ("rope_parameters", parameters)]);
    assert_eq!(new.unwrap(), old);
    let plain = json!({"rope_type": "default", "rope_theta": 10000.0});
    let none =
        edited("v3-groups", &[("rope_theta", Value::Null), ("rope_scaling", Value::Null), ("rope_parameters", plain)]).unwrap();
    assert_eq!(none.rope, Rope { theta: 10_000.0, interleaved: true, yarn: None });
    let alias = edited("v3-groups", &[("n_routed_experts", Value::Null), ("num_local_experts", json!(32))]);
    assert_eq!(alias.unwrap(), old);
    let types =
        edited("v3-groups", &[("mlp_layer_types", json!(["dense", "sparse", "sparse"])), ("first_k_dense_replace", Value::Null)]);
    assert_eq!(types.unwrap(), old);
    let freq = edited("v3-groups", &[("moe_layer_freq", json!(2)), ("first_k_dense_replace", json!(0))]).unwrap();
    assert_eq!(freq.dense_layers, [false, true, false]);
}

#[test]
fn v2_normalises_or_scales_but_never_both() {
    let moe = |norm: bool, k: usize| {
        let edits = [("norm_topk_prob", json!(norm)), ("routed_scaling_factor", json!(16.0)), ("num_experts_per_tok", json!(k))];
        let m = edited("v2-lite", &edits).unwrap().moe.unwrap();
        (m.norm_top_k, m.scaling_factor)
    };
    assert_eq!(moe(false, 6), (false, 16.0));
    assert_eq!(moe(true, 6), (true, 1.0));
    assert_eq!(moe(true, 1), (false, 16.0));
    // Greedy choice knows no groups.
    let greedy = edited("v2-lite", &[("n_group", json!(8)), ("topk_group", json!(3))]).unwrap().moe.unwrap();
    assert_eq!((greedy.num_groups, greedy.top_k_groups), (1, 1));
}

#[test]
fn wrapped_text_models_are_found() {
    let mut inner = read("v3-groups");
    inner.insert("model_type".into(), json!("kimi_k2"));
    let wrapped = json!({"model_type": "kimi_k25", "vision_config": {}, "text_config": inner});
    assert_eq!(parse(wrapped.as_object().unwrap()).unwrap().family, Family::KimiK2);
    let other = json!({"model_type": "llava", "text_config": {"model_type": "llama"}});
    let said = parse(other.as_object().unwrap()).unwrap_err().to_string();
    assert!(said.contains("architecture `llava` is not supported"), "{said}");
}

#[test]
fn every_error_names_its_key() {
    let cases: [(&str, Value); 33] = [
        ("hidden_size", Value::Null),
        ("hidden_size", json!(0)),
        ("hidden_size", json!(-1)),
        ("hidden_size", json!(1.5)),
        ("hidden_size", json!("96")),
        ("hidden_size", json!(u64::MAX)),
        ("vocab_size", json!(1u64 << 40)),
        ("num_hidden_layers", json!(1_000_000_000)),
        ("num_attention_heads", json!(1_000_000)),
        ("kv_lora_rank", json!(0)),
        ("q_lora_rank", json!(0)),
        ("qk_rope_head_dim", json!(15)),
        ("v_head_dim", Value::Null),
        ("rms_norm_eps", json!(0)),
        ("rms_norm_eps", json!("1e-6")),
        ("rope_theta", json!(1.0)),
        ("rope_theta", json!(-5)),
        ("n_group", json!(5)),
        ("n_group", json!(0)),
        ("topk_group", json!(5)),
        ("num_experts_per_tok", json!(33)),
        ("num_experts_per_tok", json!(17)),
        ("num_experts_per_tok", json!(0)),
        ("routed_scaling_factor", json!(0)),
        ("moe_intermediate_size", json!(0)),
        ("intermediate_size", json!(0)),
        ("max_position_embeddings", Value::Null),
        ("moe_layer_freq", json!(0)),
        ("mlp_layer_types", json!(["dense"])),
        ("num_nextn_predict_layers", json!(99)),
        ("model_type", Value::Null),
        ("rope_scaling", json!("yarn")),
        ("topk_method", json!("magic")),
    ];
    for (key, value) in cases {
        let said = edited("v3-groups", &[(key, value.clone())]).expect_err(key).to_string();
        assert!(said.contains(key) && said.contains("config.json"), "{key} = {value}: {said}");
    }
    let scaling = |edit: (&str, Value)| {
        let mut s = read("v3-groups")["rope_scaling"].clone();
        s.as_object_mut().unwrap().insert(edit.0.to_owned(), edit.1);
        edited("v3-groups", &[("rope_scaling", s)]).unwrap_err().to_string()
    };
    for (key, value) in
        [("factor", json!(0)), ("original_max_position_embeddings", json!(0)), ("beta_fast", json!(-1)), ("mscale", json!(1e9))]
    {
        let said = scaling((key, value));
        assert!(said.contains(key), "{said}");
    }
    assert!(scaling(("type", json!("linear"))).contains("`linear` is not supported"));
}

#[test]
fn unknown_variants_are_refused() {
    let said = |edits: &[(&str, Value)]| edited("v3-groups", edits).unwrap_err().to_string();
    assert!(said(&[("model_type", json!("llama"))]).contains("architecture `llama`"));
    assert!(said(&[("hidden_act", json!("gelu"))]).contains("`gelu`"));
    assert!(said(&[("attention_bias", json!(true))]).contains("attention_bias"));
    assert!(said(&[("index_topk", json!(2048))]).contains("index_topk"));
    let quantised = |q: Value| said(&[("quantization_config", q)]);
    for method in ["gptq", "awq", "bitsandbytes", "compressed-tensors"] {
        assert!(quantised(json!({"quant_method": method, "format": "x"})).contains(method));
    }
    assert!(quantised(json!({"quant_method": "fp8", "weight_block_size": [64, 128]})).contains("weight_block_size"));
    assert!(quantised(json!({"quant_method": "fp8"})).contains("weight_block_size"));
    assert!(quantised(json!({"quant_method": "fp8", "fmt": "e5m2", "weight_block_size": [128, 128]})).contains("e5m2"));
    assert!(
        edited("v3-groups", &[("quantization_config", json!({"quant_method": "fp8", "weight_block_size": [128, 128]}))]).is_ok()
    );
}

/// Metadata as llama.cpp's converter writes it for V2-Lite, after edits (`None` removes).
fn lite(edits: &[(&str, Option<Gguf>)]) -> Metadata {
    let integers = [
        ("vocab_size", 102_400),
        ("context_length", 163_840),
        ("embedding_length", 2048),
        ("block_count", 27),
        ("feed_forward_length", 10_944),
        ("leading_dense_block_count", 1),
        ("expert_feed_forward_length", 1408),
        ("expert_count", 64),
        ("expert_used_count", 6),
        ("expert_shared_count", 2),
        ("attention.head_count", 16),
        ("attention.head_count_kv", 1),
        ("attention.key_length", 576),
        ("attention.value_length", 512),
        ("attention.key_length_mla", 192),
        ("attention.value_length_mla", 128),
        ("attention.kv_lora_rank", 512),
        ("rope.dimension_count", 64),
        ("rope.scaling.original_context_length", 4096),
    ];
    let mut entries: Vec<(String, Gguf)> = integers.iter().map(|(k, v)| (format!("deepseek2.{k}"), Gguf::U32(*v))).collect();
    entries.push(("general.architecture".into(), "deepseek2".into()));
    for (key, value) in [
        ("attention.layer_norm_rms_epsilon", 1e-6),
        ("expert_weights_scale", 1.0),
        ("rope.freq_base", 1e4),
        ("rope.scaling.factor", 40.0),
        ("rope.scaling.yarn_log_multiplier", 0.0707),
    ] {
        entries.push((format!("deepseek2.{key}"), Gguf::F32(value)));
    }
    entries.push(("deepseek2.rope.scaling.type".into(), "yarn".into()));
    for (key, value) in edits {
        entries.retain(|(k, _)| k != key && *k != format!("deepseek2.{key}"));
        if let Some(value) = value {
            let prefixed = if key.starts_with("general") || key.starts_with("tokenizer") {
                (*key).to_owned()
            } else {
                format!("deepseek2.{key}")
            };
            entries.push((prefixed, value.clone()));
        }
    }
    let mut m = Metadata::new("file.gguf");
    entries.into_iter().for_each(|(k, v)| assert!(m.insert(k, v)));
    m
}

fn from_gguf(m: &Metadata, tensors: &[&str]) -> crate::Result<(Config, Vec<String>)> {
    let mut remarks = Vec::new();
    let has = |name: &str| name == "output.weight" || tensors.contains(&name);
    Config::from_gguf(m, &has, &mut remarks).map(|c| (c, remarks))
}

#[test]
fn gguf_metadata_gives_the_published_configuration() {
    let (c, remarks) = from_gguf(&lite(&[]), &["blk.0.attn_q.weight"]).unwrap();
    assert_eq!(c, Config { name: String::new(), ..Shape::DeepseekV2Lite.config() });
    assert!(remarks.is_empty());
}

#[test]
fn gguf_quirks() {
    let config = |edits: &[(&str, Option<Gguf>)], tensors: &[&str]| from_gguf(&lite(edits), tensors).unwrap();
    let u = |n: u32| Some(Gguf::U32(n));
    // Gating: absent means softmax, but for the first files of GLM-4.7-Flash.
    let glm = config(&[("block_count", u(47)), ("vocab_size", u(154_880))], &[]).0;
    assert_eq!((glm.family, glm.moe.unwrap().scoring), (Family::Glm4MoeLite, Scoring::Sigmoid));
    let v3 = config(&[("expert_gating_func", u(2)), ("expert_group_count", u(8)), ("expert_group_used_count", u(4))], &[]).0;
    let m = v3.moe.unwrap();
    assert_eq!((v3.family, m.num_groups, m.group_score), (Family::DeepseekV3, 8, GroupScore::TopTwo));
    let v2 = config(&[("expert_group_count", u(8)), ("expert_group_used_count", u(3))], &[]).0.moe.unwrap();
    assert_eq!((v2.group_score, v2.top_k_groups), (GroupScore::Max, 3));
    // Groups of which nothing says how many are used set no limit.
    assert_eq!(config(&[("expert_group_count", u(8))], &[]).0.moe.unwrap().num_groups, 1);
    assert!(from_gguf(&lite(&[("expert_gating_func", u(4))]), &[]).unwrap_err().to_string().contains("expert_gating_func"));
    // Old layout: the heads' dimensions under the plain keys.
    let old = [
        ("attention.key_length_mla", None),
        ("attention.value_length_mla", None),
        ("attention.key_length", u(192)),
        ("attention.value_length", u(128)),
    ];
    let a = config(&old, &[]).0.attention;
    assert_eq!((a.qk_nope_head_dim, a.v_head_dim), (128, 128));
    // Rank 0, and a full query projection, mean none.
    assert_eq!(config(&[("attention.q_lora_rank", u(0))], &[]).0.attention.q_lora_rank, None);
    assert_eq!(config(&[("attention.q_lora_rank", u(1536))], &[]).0.attention.q_lora_rank, Some(1536));
    // A missing multiplier is guessed, and said so.
    let (guessed, remarks) = config(&[("rope.scaling.yarn_log_multiplier", None)], &[]);
    assert_eq!(guessed.rope.yarn.unwrap().mscale_all_dim, 0.707);
    assert!(remarks[0].contains("yarn_log_multiplier"));
    // Modules for multi-token prediction count as blocks, and may have been left out.
    let mtp = [("nextn_predict_layers", u(1))];
    let (with, _) = config(&mtp, &["blk.26.nextn.eh_proj.weight"]);
    assert_eq!((with.num_layers, with.num_mtp_layers), (26, 1));
    assert_eq!(config(&mtp, &[]).0.num_mtp_layers, 0);
    // One value a layer, all equal.
    let widths = Some(Gguf::Array(crate::gguf::Array::I32(vec![1408; 27])));
    assert_eq!(config(&[("expert_feed_forward_length", widths)], &[]).0.moe.unwrap().intermediate_size, 1408);
}

#[test]
fn gguf_errors_name_their_key() {
    let said = |key: &str, value: Option<Gguf>| from_gguf(&lite(&[(key, value)]), &[]).expect_err(key).to_string();
    for key in [
        "embedding_length",
        "block_count",
        "context_length",
        "attention.head_count",
        "attention.kv_lora_rank",
        "rope.dimension_count",
    ] {
        for value in [None, Some(Gguf::U32(0)), Some(Gguf::String("x".into())), Some(Gguf::U64(u64::MAX)), Some(Gguf::I32(-1))] {
            let said = said(key, value.clone());
            assert!(said.contains(key), "{key} = {value:?}: {said}");
        }
    }
    assert!(said("general.architecture", Some("llama".into())).contains("architecture `llama`"));
    assert!(said("general.architecture", None).contains("general.architecture"));
    assert!(said("rope.scaling.type", Some("linear".into())).contains("linear"));
    assert!(said("attention.key_length_mla", Some(Gguf::U32(32))).contains("key_length_mla"));
    assert!(said("nextn_predict_layers", Some(Gguf::U32(27))).contains("block_count"));
    assert!(said("attention.temperature_scale", Some(Gguf::F32(0.1))).contains("temperature_scale"));
    assert!(said("expert_used_count", Some(Gguf::U32(65))).contains("expert_used_count"));
}
