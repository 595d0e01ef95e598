#![allow(clippy::unwrap_used, reason = "a test may fail")]

use super::{Quant, Shape, SynthOptions, fill::Fill, plan, size, write};
use crate::{Bytes, Checkpoint, Config, Format, Matrix, config::Family, weights::Role};

fn options(shape: Shape, quant: Quant) -> SynthOptions {
    SynthOptions { shape, quant, layers: None, mtp: false, seed: 1 }
}

fn bytes(options: &SynthOptions) -> Vec<u8> {
    let (mut out, mut last) = (Vec::new(), 0);
    let total = write(options, &mut out, &mut |done, total| {
        assert!(last <= done && done <= total);
        last = done;
    });
    assert_eq!(out.len() as u64, total.unwrap());
    assert_eq!(out.len() as u64, size(options).unwrap());
    out
}

/// (mean, standard deviation)
fn moments(x: &[f32]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    (mean, (x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt())
}

#[test]
fn every_mix_opens_with_the_shape_s_configuration() {
    for quant in Quant::ALL {
        for mtp in [false, true] {
            let o = SynthOptions { mtp, ..options(Shape::Tiny256, quant) };
            let c = Checkpoint::from_gguf_bytes(quant.name(), Bytes::new(bytes(&o))).unwrap();
            let expected = Shape::Tiny256.config();
            let expected = Config { name: c.config.name.clone(), num_mtp_layers: usize::from(mtp), ..expected };
            assert_eq!(c.config, expected, "{quant}");
            assert!(c.source.unused.is_empty() && c.source.remarks.is_empty());
            c.weights.check_finite("synth", &mut |_, _| {}).unwrap();
        }
    }
}

#[test]
fn weights_have_the_wanted_deviation_in_every_format() {
    for format in Format::ALL.into_iter().filter(|f| f.ggml_id().is_some()) {
        for deviation in [1.0, 0.022, 0.0074] {
            let (rows, cols) = (64, 1024);
            let mut data = vec![0; rows * format.row_bytes(cols).unwrap()];
            // In pieces, as it is streamed.
            let mut fill = Fill::new(format, super::Values::Around0(deviation), 7);
            data.chunks_mut(3 * format.block_bytes()).for_each(|part| fill.fill(part));
            let (mean, found) = moments(&Matrix::native(format, rows, cols, &data, None).to_f32());
            let wanted = f64::from(deviation);
            assert!((found / wanted - 1.0).abs() < 0.03, "{format}: deviation {found}, not {wanted}");
            assert!(mean.abs() < 0.03 * wanted, "{format}: mean {mean}");
        }
    }
}

#[test]
fn norms_are_near_one_and_routers_spread() {
    let c = Checkpoint::from_gguf_bytes("synth", Bytes::new(bytes(&options(Shape::Tiny256, Quant::Q4KM)))).unwrap();
    for (place, t) in c.weights.tensors() {
        let (mean, deviation) = moments(&t.to_f32());
        match place.role {
            Role::OutNorm | Role::AttnNorm | Role::QNorm | Role::KvANorm | Role::FfnNorm => {
                assert!((mean - 1.0).abs() < 0.02 && (0.03..0.07).contains(&deviation), "{place}: {mean}, {deviation}");
            }
            Role::RouterBias => assert!(deviation < 0.05),
            Role::Router => assert!((deviation * (t.cols as f64).sqrt() - 1.0).abs() < 0.05),
            Role::Embed => assert!((deviation - 1.0).abs() < 0.05),
            _ => {}
        }
    }
}

#[test]
fn a_file_is_a_function_of_its_options() {
    let o = options(Shape::Tiny256, Quant::Q4KM);
    assert_eq!(bytes(&o), bytes(&o));
    assert_ne!(bytes(&o), bytes(&SynthOptions { seed: 2, ..o.clone() }));
    assert!(size(&SynthOptions { layers: Some(2), ..o.clone() }).unwrap() < size(&o).unwrap());
    for layers in [0, 5] {
        let said = size(&SynthOptions { layers: Some(layers), ..o.clone() }).unwrap_err().to_string();
        assert!(said.contains("layers") && said.contains("1 to 4"), "{said}");
    }
}

/// The formats of a shape's tensors, without writing it.
fn formats(shape: Shape, quant: Quant) -> impl Fn(&str) -> Format {
    let tensors = plan(&options(shape, quant)).unwrap().1;
    move |name| tensors.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("{name}")).format
}

#[test]
fn mixes_are_llama_quantize_s() {
    let lite = formats(Shape::DeepseekV2Lite, Quant::Q4KM);
    assert_eq!(lite("token_embd.weight"), Format::Q4K);
    assert_eq!(lite("output.weight"), Format::Q6K);
    assert_eq!(lite("blk.0.attn_k_b.weight"), Format::Q5_0);
    assert_eq!(lite("blk.0.attn_v_b.weight"), Format::Q4K);
    // Rows of 10944 and 1408 are no multiples of 256.
    assert_eq!(lite("blk.0.ffn_down.weight"), Format::Q8_0);
    assert_eq!(lite("blk.1.ffn_down_exps.weight"), Format::Q8_0);
    assert_eq!(lite("blk.3.ffn_down_exps.weight"), Format::Q5_0);
    assert_eq!(lite("blk.5.ffn_down_exps.weight"), Format::Q8_0);
    assert_eq!(lite("blk.5.ffn_down_shexp.weight"), Format::Q6K);
    assert_eq!(lite("blk.1.ffn_gate_inp.weight"), Format::F32);
    let glm = formats(Shape::Glm47Flash, Quant::Q4KM);
    assert_eq!((glm("blk.46.ffn_down_exps.weight"), glm("blk.6.ffn_down_exps.weight")), (Format::Q6K, Format::Q4K));
    let ks = formats(Shape::Moonlight, Quant::Q4KS);
    assert_eq!((ks("blk.2.ffn_down_exps.weight"), ks("blk.3.ffn_down_exps.weight")), (Format::Q5_1, Format::Q5_0));
    let mxfp4 = formats(Shape::Glm47Flash, Quant::MXFP4Moe);
    assert_eq!((mxfp4("blk.1.ffn_up_exps.weight"), mxfp4("output.weight")), (Format::MXFP4, Format::Q8_0));
    let q2 = formats(Shape::DeepseekV3, Quant::Q2K);
    assert_eq!((q2("blk.0.attn_output.weight"), q2("blk.0.attn_k_b.weight")), (Format::Q3K, Format::Q4_0));
    let f16 = formats(Shape::DeepseekV2Lite, Quant::Plain(Format::F16));
    assert_eq!((f16("output.weight"), f16("blk.0.attn_norm.weight")), (Format::F16, Format::F32));
}

#[test]
fn sizes_are_those_of_published_files() {
    let gb = |shape, quant| size(&options(shape, quant)).unwrap() as f64 / 1e9;
    // bartowski's GLM-4.7-Flash. Their mixes give a few tensors more bits, by importance.
    let glm = |quant| gb(Shape::Glm47Flash, quant);
    for (quant, published) in [(Quant::Plain(Format::Q8_0), 31.84), (Quant::Q4KM, 18.47), (Quant::Plain(Format::Q6K), 24.83)] {
        assert!((glm(quant) / published - 1.0).abs() < 0.025, "{quant}: {} GB, published {published}", glm(quant));
    }
}

#[test]
fn names_find_shapes_and_mixes() {
    for shape in Shape::ALL {
        assert_eq!(Shape::from_name(shape.name()), Some(shape));
        let c = shape.config();
        assert_eq!(c.dense_layers.len(), c.num_layers);
    }
    for quant in Quant::ALL {
        assert_eq!(Quant::from_name(&quant.name().to_lowercase()), Some(quant));
    }
    assert_eq!(Quant::from_name("q4_k"), Some(Quant::Q4KM));
    assert_eq!((Quant::from_name("Q9"), Shape::from_name("gpt-2")), (None, None));
    assert_eq!(Shape::KimiK2.config().family, Family::KimiK2);
}

/// Every shape's header: two layers, the vocabulary's true size, the tokenizer that reads it.
#[test]
fn vocabularies_load_and_round_trip() {
    for shape in Shape::ALL {
        let o = SynthOptions { layers: Some(1), ..options(shape, Quant::Q4KM) };
        let mut w = plan(&o).unwrap().0;
        // The header alone: the tensors of a real shape are too large for a test.
        w = crate::gguf::Writer::with_metadata_of(&w);
        let header = w.begin(Vec::new()).unwrap().finish().unwrap();
        let h = crate::gguf::Header::parse("synth", &header, header.len() as u64).unwrap();
        let m = &h.metadata;
        let vocab = crate::tokenizer::GgufVocab {
            model: m.str("tokenizer.ggml.model").unwrap().unwrap(),
            pre: m.str("tokenizer.ggml.pre").unwrap().unwrap(),
            tokens: m.strings("tokenizer.ggml.tokens").unwrap().unwrap(),
            token_type: &m.integers("tokenizer.ggml.token_type").unwrap().unwrap(),
            merges: m.strings("tokenizer.ggml.merges").unwrap().unwrap(),
        };
        assert_eq!(vocab.tokens.len(), shape.config().vocab_size, "{shape}");
        let mut unique: Vec<&String> = vocab.tokens.iter().collect();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), vocab.tokens.len(), "{shape}");
        let t = crate::Tokenizer::from_gguf(vocab).unwrap();
        let text = "The cat, then 12 více 中文 🌠\n  end";
        let ids = t.encode(text, false).unwrap();
        assert_eq!(t.decode(&ids, true), text, "{shape}");
        let remarks = &mut Vec::new();
        let config = Config::from_gguf(m, &|name| name == "output.weight", remarks).unwrap();
        let expected = shape.config();
        assert_eq!(
            (config.family, config.attention, config.rope, config.moe),
            (expected.family, expected.attention, expected.rope, expected.moe)
        );
    }
}

#[test]
fn an_fp8_directory_opens_with_the_shape_s_configuration() {
    let folder = std::env::temp_dir().join(format!("pleiad-synth-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for mtp in [false, true] {
        let o = SynthOptions { mtp, ..options(Shape::Tiny256, Quant::Q4KM) };
        for (name, bytes) in super::hugging_face::files(&o).unwrap() {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        let (mut out, mut last) = (Vec::new(), 0);
        let total = super::hugging_face::write(&o, &mut out, &mut |done, _| last = done).unwrap();
        assert_eq!((out.len() as u64, super::hugging_face::size(&o).unwrap()), (total, total));
        assert!(last <= total);
        std::fs::write(folder.join(super::hugging_face::WEIGHTS), out).unwrap();
        let c = Checkpoint::open(&folder).unwrap();
        let expected = Shape::Tiny256.config();
        let expected = Config { name: c.config.name.clone(), num_mtp_layers: usize::from(mtp), ..expected };
        assert_eq!(c.config, expected);
        assert!(c.source.unused.is_empty() && c.source.remarks.is_empty(), "{:?}", c.source.remarks);
        c.weights.check_finite("synth", &mut |_, _| {}).unwrap();
        let crate::weights::Query::Lora { a, .. } = &c.weights.layers[1].q else { panic!("low rank") };
        assert_eq!(a.format, Format::F8E4M3);
        let (mean, deviation) = moments(&a.to_f32());
        let wanted = f64::from(super::fan_in(a.cols));
        assert!((deviation / wanted - 1.0).abs() < 0.03 && mean.abs() < 0.03 * wanted, "{mean} {deviation} {wanted}");
        let t = c.tokenizer.unwrap();
        assert_eq!(t.decode(&t.encode("Hello, world", false).unwrap(), false), "Hello, world");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn every_published_shape_is_described_as_it_is() {
    for shape in Shape::ALL {
        let o = SynthOptions { mtp: true, ..options(shape, Quant::Q4KM) };
        let files = super::hugging_face::files(&o).unwrap();
        let (_, json) = files.iter().find(|(name, _)| *name == "config.json").unwrap();
        let json = serde_json::from_slice(json).unwrap();
        assert_eq!(Config::from_hugging_face("config.json", shape.title(), &json).unwrap(), shape.config());
    }
}
