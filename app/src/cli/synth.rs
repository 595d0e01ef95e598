//! `pleiad synth`: random weights in a published shape.

use std::{fs, io::Write as _, path::PathBuf};

use anyhow::{Context as _, Result, anyhow};
use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _},
};
use pleiad_models::synth::{Quant, Shape, SynthOptions, hugging_face, size, write};
use serde_json::json;

use super::{
    output::write_file,
    term::{self, Bar, Stream, Unit},
};

/// Arguments of `pleiad synth`.
#[derive(Args, Clone, Debug)]
pub struct SynthArgs {
    /// Whose dimensions
    #[arg(long, value_name = "NAME", value_parser = shape_parser())]
    pub shape: Shape,
    /// Mix of formats, named as llama-quantize names it; F8_E4M3: a Hugging Face directory with FP8 weights
    #[arg(long, value_name = "QUANT", default_value = "Q4_K_M", ignore_case = true, value_parser = form_parser())]
    pub quant: Form,
    /// Only the first N layers, dense ones included
    #[arg(long, value_name = "N")]
    pub layers: Option<usize>,
    /// With the modules for multi-token prediction, where the shape has them
    #[arg(long)]
    pub mtp: bool,
    /// Of the random numbers
    #[arg(short, long, value_name = "SEED", default_value = "0")]
    pub seed: u64,
    /// Print how many bytes the weights would take, and write nothing
    #[arg(long)]
    pub size: bool,
    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
    /// The GGUF file or the directory to write
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A GGUF file.
    Gguf(Quant),
    /// A directory of FP8 weights.
    Fp8,
}

/// The name of [`Form::Fp8`].
const FP8: &str = "F8_E4M3";

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Gguf(quant) => quant.name(),
            Self::Fp8 => FP8,
        }
    }
}

fn shape_parser() -> impl clap::builder::TypedValueParser<Value = Shape> {
    PossibleValuesParser::new(Shape::ALL.map(Shape::name))
        .try_map(|name| Shape::from_name(&name).ok_or_else(|| anyhow!("no shape")))
}

fn form_parser() -> impl clap::builder::TypedValueParser<Value = Form> {
    // Besides the names, those that llama-quantize takes for them.
    let short = [("Q4_K_M", "Q4_K"), ("Q5_K_M", "Q5_K"), ("Q3_K_M", "Q3_K"), ("MXFP4_MOE", "MXFP4")];
    let value = |name| {
        let aliases = short.iter().filter(move |(long, _)| *long == name).map(|(_, short)| *short);
        PossibleValue::new(name).aliases(aliases)
    };
    let names = Quant::ALL.map(Quant::name).map(value).into_iter().chain([PossibleValue::new(FP8).alias("FP8")]);
    PossibleValuesParser::new(names.collect::<Vec<_>>()).try_map(|name| {
        let fp8 = ["FP8", FP8].iter().any(|n| n.eq_ignore_ascii_case(&name));
        if fp8 { Ok(Form::Fp8) } else { Quant::from_name(&name).map(Form::Gguf).ok_or_else(|| anyhow!("no mix")) }
    })
}

/// Runs `pleiad synth`.
pub fn run(args: &SynthArgs) -> Result<()> {
    let quant = if let Form::Gguf(quant) = args.quant { quant } else { Quant::Q4KM };
    let options = SynthOptions { shape: args.shape, quant, layers: args.layers, mtp: args.mtp, seed: args.seed };
    // Wrong options are found before a file is made.
    let planned = if args.quant == Form::Fp8 { hugging_face::size(&options)? } else { size(&options)? };
    if args.size {
        return Ok(Stream::stdout().line(&planned.to_string())?);
    }
    let file = || args.out.display().to_string();
    let mut bar = Bar::new("Writing", Unit::Bytes, args.json);
    let mut progress = |done, total| bar.set(done, total);
    let bytes = match args.quant {
        Form::Gguf(_) => write_file(&args.out, |out| Ok(write(&options, out, &mut progress)?))?,
        Form::Fp8 => {
            fs::create_dir_all(&args.out).with_context(file)?;
            let bytes =
                write_file(&args.out.join(hugging_face::WEIGHTS), |out| Ok(hugging_face::write(&options, out, &mut progress)?))?;
            // The configuration comes last: a directory without it is no model.
            for (name, text) in hugging_face::files(&options)? {
                write_file(&args.out.join(name), |out| Ok(out.write_all(&text)?))?;
            }
            bytes
        }
    };
    bar.clear();
    let mut out = Stream::stdout();
    if args.json {
        return out.json(&json!({
            "out": file(),
            "bytes": bytes,
            "shape": args.shape.name(),
            "quant": args.quant.name(),
            "layers": args.layers.unwrap_or_else(|| args.shape.config().num_layers),
            "seed": args.seed,
        }));
    }
    Ok(out.line(&format!(
        "{}: {} of random weights, {} in {}",
        file(),
        term::size(bytes),
        args.shape.title(),
        args.quant.name()
    ))?)
}
