//! The part of `cargo xtask web` that needs libraries:
//!
//! - `web-pack bindgen WASM FOLDER` writes the module that JavaScript imports, and the wasm it loads;
//! - `web-pack compress FILE...` writes FILE.gz and FILE.br beside each file.

use std::{env, fs, io::Write, process::ExitCode};

use anyhow::{Context, Result, bail};
use flate2::{Compression, write::GzEncoder};
use wasm_bindgen_cli_support::Bindgen;

/// Of brotli's 11 qualities: the last two take minutes and save a few per cent.
const QUALITY: i32 = 9;
/// The largest window that browsers take: 16 MiB.
const WINDOW: i32 = 24;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["bindgen", wasm, folder] => bindgen(wasm, folder),
        ["compress", files @ ..] => files.iter().try_for_each(|file| compress(file)),
        _ => Err(anyhow::anyhow!("web-pack bindgen WASM FOLDER, or web-pack compress FILE...")),
    };
    if let Err(e) = done {
        eprintln!("error: {e:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn bindgen(wasm: &str, folder: &str) -> Result<()> {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(wasm).web(true)?.typescript(false).remove_name_section(true).remove_producers_section(true);
    bindgen.generate(folder).with_context(|| format!("wasm-bindgen cannot read {wasm}"))
}

fn compress(file: &str) -> Result<()> {
    let bytes = fs::read(file).with_context(|| format!("{file} cannot be read"))?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&bytes)?;
    let gzip = gzip.finish()?;
    let mut brotli = Vec::new();
    let params = brotli::enc::BrotliEncoderParams { quality: QUALITY, lgwin: WINDOW, ..Default::default() };
    brotli::BrotliCompress(&mut bytes.as_slice(), &mut brotli, &params)?;
    if brotli.is_empty() || gzip.is_empty() {
        bail!("{file} was compressed to nothing");
    }
    for (end, bytes) in [("gz", gzip), ("br", brotli)] {
        fs::write(format!("{file}.{end}"), bytes).with_context(|| format!("{file}.{end} cannot be written"))?;
    }
    Ok(())
}
