//! The `teiten` command: parses the command line and calls the library.

use sensor_user::cli::{Cli, Command, RunArgs};
use sensor_user::config::{Config, Environment};
use sensor_user::{detach, ledger, logging, run, status};
use std::process::ExitCode;

fn main() -> ExitCode {
    match command(Cli::from_process().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("teiten: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(command: Command) -> anyhow::Result<ExitCode> {
    let environment = Environment::of_process();
    let load = |args: &RunArgs| Config::load(args, &environment);
    match command {
        Command::Run(args) => {
            let config = load(&args)?;
            let log = logging::init(config.log_format, &config.log_level)?;
            run::run(config, move |config| config.reload(&args, &Environment::of_process()), log)?;
        }
        Command::Status(args) => {
            let config = load(&RunArgs::from(&args))?;
            let endpoint = status::Endpoint {
                address: config.listen[0].to_string(),
                web_config_file: config.web_config.clone(),
            };
            status::run(&endpoint, args.json)?;
        }
        Command::Detach(args) => {
            let config = load(&RunArgs::from(&args))?;
            logging::init(config.log_format, &config.log_level)?;
            detach::detach(&config)?;
        }
        Command::Ledger(args) => {
            let config = load(&RunArgs::from(&args))?;
            if !ledger::command::run(&config.state_dir, &args.command)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}
