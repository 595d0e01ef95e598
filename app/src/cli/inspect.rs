//! `pleiad inspect`: what is in a checkpoint.

use anyhow::Result;
use clap::Args;
use pleiad_models::inspect;

use super::{
    open,
    term::{Bar, Stream, Unit},
};

/// Arguments of `pleiad inspect`.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// A Hugging Face directory, a .gguf file, or `tiny`
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Also list metadata and every tensor
    #[arg(long)]
    pub tensors: bool,
    /// Also read every weight and refuse what is not finite
    #[arg(long)]
    pub check: bool,
}

/// Runs `pleiad inspect`.
pub fn run(args: &InspectArgs) -> Result<()> {
    let checkpoint = open::checkpoint(&args.model)?;
    if args.check {
        let mut bar = Bar::new("Checking", Unit::Bytes, args.json);
        checkpoint.weights.check_finite(&args.model, &mut |done, total| bar.set(done, total))?;
        bar.clear();
    }
    let description = inspect::describe(&checkpoint);
    let mut out = Stream::stdout();
    if !args.json {
        let text = if args.tensors { format!("{description:#}") } else { description.to_string() };
        return Ok(out.text(&text)?);
    }
    let mut value = serde_json::to_value(&description)?;
    if !args.tensors
        && let Some(object) = value.as_object_mut()
    {
        object.remove("tensors");
        object.remove("metadata");
    }
    out.json(&value)
}
