//! The binary `pleiad`.

use std::process::ExitCode;

fn main() -> ExitCode {
    pleiad_app::cli::main()
}
