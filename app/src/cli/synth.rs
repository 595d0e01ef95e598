//! `pleiad synth`: random weights in a published shape.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _},
};
use pleiad_models::synth::{Quant, Shape, SynthOptions, size, write};
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
    /// Mix of formats, named as llama-quantize names it
    #[arg(long, value_name = "QUANT", default_value = "Q4_K_M", ignore_case = true, value_parser = quant_parser())]
    pub quant: Quant,
    /// Only the first N layers, dense ones included
    #[arg(long, value_name = "N")]
    pub layers: Option<usize>,
    /// With the modules for multi-token prediction, where the shape has them
    #[arg(long)]
    pub mtp: bool,
    /// Of the random numbers
    #[arg(short, long, value_name = "SEED", default_value = "0")]
    pub seed: u64,
    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
    /// The GGUF file to write
    #[arg(value_name = "OUT.gguf")]
    pub out: PathBuf,
}

fn shape_parser() -> impl clap::builder::TypedValueParser<Value = Shape> {
    PossibleValuesParser::new(Shape::ALL.map(Shape::name))
        .try_map(|name| Shape::from_name(&name).ok_or_else(|| anyhow!("no shape")))
}

fn quant_parser() -> impl clap::builder::TypedValueParser<Value = Quant> {
    // Besides the names, those that llama-quantize takes for them.
    let short = [("Q4_K_M", "Q4_K"), ("Q5_K_M", "Q5_K"), ("Q3_K_M", "Q3_K"), ("MXFP4_MOE", "MXFP4")];
    let value = |name| {
        let aliases = short.iter().filter(move |(long, _)| *long == name).map(|(_, short)| *short);
        PossibleValue::new(name).aliases(aliases)
    };
    PossibleValuesParser::new(Quant::ALL.map(Quant::name).map(value))
        .try_map(|name| Quant::from_name(&name).ok_or_else(|| anyhow!("no mix")))
}

/// Runs `pleiad synth`.
pub fn run(args: &SynthArgs) -> Result<()> {
    let options = SynthOptions { shape: args.shape, quant: args.quant, layers: args.layers, mtp: args.mtp, seed: args.seed };
    // Wrong options are found before a file is made.
    size(&options)?;
    let file = || args.out.display().to_string();
    let mut bar = Bar::new("Writing", Unit::Bytes, args.json);
    let bytes = write_file(&args.out, |out| Ok(write(&options, out, &mut |done, total| bar.set(done, total))?))?;
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
