//! The program `teiten-report`.

use std::process::ExitCode;

fn main() -> ExitCode {
    report::main()
}
