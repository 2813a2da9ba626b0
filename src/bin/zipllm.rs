//! `zipllm`: stores models, and checks the store.

use std::process::ExitCode;

fn main() -> ExitCode {
    zipllm::cli::main_zipllm()
}
