//! Benchmarks that take more than one run of one program. Every comparison alternates its contenders within one
//! invocation, which spreads what else the machine does over all of them; figures are medians over the rounds.
//!
//!     cargo run --release -p pleiad-benches -- peer --model v2-lite.gguf --peer path/to/llama-bench
//!     cargo run --release -p pleiad-benches -- offload --model moonlight.gguf --json offload.json
//!     cargo run --release -p pleiad-benches -- window
//!     cargo run --release -p pleiad-benches -- cuda --json cuda.json
//!
//! The program needs nothing but itself and the programs it runs: it can be copied to another machine next to `pleiad`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod cuda;
mod offload;
mod outputs;
mod peer;
mod program;
mod stats;
mod window;

/// Side-by-side benchmarks.
#[derive(Parser)]
#[command(name = "pleiad-benches", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// `pleiad bench` beside llama.cpp's llama-bench
    Peer(peer::PeerArgs),
    /// Models whose experts do not all fit the GPU: every share of resident experts, every way to serve misses
    Offload(Box<offload::OffloadArgs>),
    /// The CUDA backend: published shapes in three formats, beside Pleiad's other devices and llama.cpp, with profiles
    Cuda(Box<cuda::CudaArgs>),
    /// The app: time of its frames, and what watching the experts costs the answer
    Window(window::WindowArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Peer(args) => peer::run(&args),
        Command::Offload(args) => offload::run(&args),
        Command::Cuda(args) => cuda::run(&args),
        Command::Window(args) => window::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
