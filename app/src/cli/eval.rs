//! `pleiad eval`: logits and routing of given token ids.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use pleiad_models::{
    Bytes,
    safetensors::{Dtype, SafeTensors},
};
use pleiad_runtime::{
    eval::{EvalOptions, Evaluation, evaluate},
    forward::AttentionForm,
};
use serde_json::json;

use super::{
    args::{DeviceArgs, ModelArgs},
    open,
    output::{Values, write_file, write_safetensors},
    term::{Bar, Stream, Unit},
};

/// Arguments of `pleiad eval`.
#[derive(Args, Clone, Debug)]
pub struct EvalArgs {
    /// Token ids: a safetensors file with `input_ids` (i64 [T]), or a JSON list
    #[arg(long, value_name = "IN")]
    pub tokens: PathBuf,
    /// The safetensors file to write: `logits` (f32 [T, vocab]), and for each mixture layer N `router.N.ids` (i64 [T, k])
    /// and `router.N.weights` (f32 [T, k]), sorted by expert id
    #[arg(long, value_name = "OUT")]
    pub out: PathBuf,
    /// Tokens fed at a time through the cache; 1 is decoding
    #[arg(long, value_name = "C", default_value = "512")]
    pub chunk: NonZeroUsize,
    /// Form of attention
    #[arg(long, value_enum, default_value_t)]
    pub attention: Form,
    /// Print what was done as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `--attention`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Queries go into the latent space
    #[default]
    Absorbed,
    /// Keys and values come out of it
    Expanded,
}

/// Runs `pleiad eval`.
pub fn run(args: &EvalArgs) -> Result<()> {
    let ids = read_ids(&args.tokens)?;
    let checkpoint = open::checkpoint(&args.model.model)?;
    let (limit, file) = (checkpoint.config.max_positions, args.tokens.display());
    if ids.len() > limit {
        bail!("{file}: has {} token ids, the model was made for {limit} positions", ids.len());
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= checkpoint.config.vocab_size) {
        bail!("{file}: token id {id} is beyond the vocabulary of {}", checkpoint.config.vocab_size);
    }
    let mut on = open::executor(&checkpoint, &args.device, ids.len(), args.chunk.get().min(ids.len()), args.json)?;
    let options = EvalOptions {
        chunk: args.chunk.get(),
        activations: on.activations,
        attention: match args.attention {
            Form::Absorbed => AttentionForm::Absorbed,
            Form::Expanded => AttentionForm::Expanded,
        },
    };
    let mut bar = Bar::new("Evaluating", Unit::Of("tokens"), args.json);
    let mut progress = |done, total| bar.set(done as u64, total as u64);
    let start = std::time::Instant::now();
    let result = pollster::block_on(evaluate(&mut on.executor, &on.model, options, &ids, &mut progress))?;
    let seconds = start.elapsed().as_secs_f64();
    bar.clear();
    let vocab = checkpoint.config.vocab_size;
    write(&args.out, &result, ids.len(), vocab)?;
    let mut out = Stream::stdout();
    if args.json {
        return out.json(&json!({
            "out": args.out.display().to_string(),
            "tokens": ids.len(),
            "vocab": vocab,
            "router_layers": result.routing.keys().collect::<Vec<_>>(),
            "top_k": result.top_k,
            "device": on.device,
            "activations": on.activations,
            "seconds": seconds,
            "stats": on.executor.stats(),
            "experts": on.executor.experts(),
        }));
    }
    Ok(out.line(&format!(
        "{}: logits [{}, {vocab}], routing of {} layers; {} in {seconds:.2} s",
        args.out.display(),
        ids.len(),
        result.routing.len(),
        on.device
    ))?)
}

fn read_ids(path: &Path) -> Result<Vec<u32>> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| file.clone())?;
    // The length of a safetensors header has zeros in its upper bytes; JSON has none.
    let is_safetensors = bytes.get(..8).is_some_and(|head| head.contains(&0));
    let ids = if is_safetensors { ids_from_safetensors(&file, bytes) } else { ids_from_json(&bytes).context(file.clone()) }?;
    if ids.is_empty() {
        bail!("{file}: holds no token ids");
    }
    Ok(ids)
}

fn ids_from_safetensors(file: &str, bytes: Vec<u8>) -> Result<Vec<u32>> {
    let tensors = SafeTensors::from_bytes(file, Bytes::new(bytes))?;
    let ids = tensors.get("input_ids").ok_or_else(|| anyhow!("{file}: has no tensor `input_ids`"))?;
    // One sequence, with or without a dimension for the batch.
    if ids.shape.len() > 2 || (ids.shape.len() == 2 && ids.shape[0] != 1) || ids.shape.is_empty() {
        bail!("{file}: `input_ids` has shape {:?}, not [T]", ids.shape);
    }
    let parts: Vec<i64> = match ids.dtype {
        Dtype::I64 => ids.data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        Dtype::I32 => ids.data.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect(),
        Dtype::U32 => ids.data.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b).into()).collect(),
        other => bail!("{file}: `input_ids` is {other:?}, not I64"),
    };
    parts.into_iter().map(|id| u32::try_from(id).map_err(|_| anyhow!("{file}: {id} is no token id"))).collect()
}

fn ids_from_json(bytes: &[u8]) -> Result<Vec<u32>> {
    let value: serde_json::Value = serde_json::from_slice(bytes).context("neither safetensors nor JSON")?;
    let list = value.as_array().or_else(|| value.get("input_ids")?.as_array()).context("no JSON list of token ids")?;
    let id =
        |v: &serde_json::Value| v.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| anyhow!("{v} is no token id"));
    list.iter().map(id).collect()
}

fn write(path: &Path, e: &Evaluation, tokens: usize, vocab: usize) -> Result<()> {
    let mut all = vec![("logits".to_owned(), vec![tokens, vocab], Values::F32(&e.logits))];
    for (n, (ids, weights)) in &e.routing {
        let shape = vec![tokens, e.top_k];
        let wide = ids.iter().map(|&id| id.into()).collect();
        all.push((format!("router.{n}.ids"), shape.clone(), Values::I64(wide)));
        all.push((format!("router.{n}.weights"), shape, Values::F32(weights)));
    }
    write_file(path, |out| Ok(write_safetensors(out, all)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn ids_from_json_lists() {
        assert_eq!(ids_from_json(b"[1, 2, 3]").unwrap(), [1, 2, 3]);
        assert_eq!(ids_from_json(b"{\"input_ids\": [7]}").unwrap(), [7]);
        for bad in ["[1, -2]", "[1.5]", "[4294967296]", "\"x\"", "{}", "[1,"] {
            assert!(ids_from_json(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_from_tensors_of_several_shapes() {
        let read = |shape: &[usize], values| {
            let mut file = Vec::new();
            write_safetensors(&mut file, vec![("input_ids".to_owned(), shape.to_vec(), values)]).unwrap();
            ids_from_safetensors("x", file)
        };
        assert_eq!(read(&[2], Values::I64(vec![5, 6])).unwrap(), [5, 6]);
        assert_eq!(read(&[1, 2], Values::I64(vec![5, 6])).unwrap(), [5, 6]);
        assert!(read(&[2, 1], Values::I64(vec![5, 6])).is_err());
        assert!(read(&[2], Values::I64(vec![5, -6])).unwrap_err().to_string().contains("-6 is no token id"));
        assert!(read(&[2], Values::F32(&[5.0, 6.0])).is_err());
    }
}
