//! `restore`: brings a model back.

use std::process::ExitCode;

fn main() -> ExitCode {
    zipllm::cli::main_restore()
}
