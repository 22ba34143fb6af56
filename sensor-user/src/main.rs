//! The `teiten` command: parses the command line, calls the library, and makes exit codes of what
//! comes back: 0 done, 1 failed, 2 wrong usage or configuration (of `check`: the daemon would not
//! start).

use sensor_user::check::{self, Level};
use sensor_user::cli::{Cli, Command, RunArgs};
use sensor_user::config::{ConfigError, Environment};
use std::process::ExitCode;

const FAILED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::from_process();
    match dispatch(cli.command, &Environment::of_process()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("teiten: {}", sensor_user::error_chain(error.as_ref()));
            ExitCode::from(if error.is::<ConfigError>() { USAGE } else { FAILED })
        }
    }
}

fn dispatch(command: Command, environment: &Environment) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check(args) => Ok(check(&args, environment)),
        _ => anyhow::bail!("this command is not wired"),
    }
}

fn check(args: &RunArgs, environment: &Environment) -> ExitCode {
    let findings = check::run(args, environment);
    for finding in &findings {
        println!("{finding}");
    }
    let problems = findings.iter().filter(|finding| finding.level == Level::Problem).count();
    if problems == 0 {
        println!("teiten run would start");
        ExitCode::SUCCESS
    } else {
        println!("teiten run would not start: {problems} to mend");
        ExitCode::from(USAGE)
    }
}
