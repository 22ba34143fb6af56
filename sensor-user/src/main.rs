//! The `teiten` command: parses the command line, calls the library, and makes exit codes of what
//! comes back: 0 done, 1 failed, 2 wrong usage or configuration (of `check`: the daemon would not
//! start).

use sensor_user::cli::{Cli, Command};
use sensor_user::commands::{UsageError, check, detach, ledger, replay, run, samples, sources, status};
use sensor_user::config::{Config, ConfigError, Environment};
use sensor_user::system::logging;
use sensor_user::system::output::end_by_closed_pipes;
use std::process::ExitCode;

const FAILED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match dispatch(Cli::from_process().command, &Environment::of_process()) {
        Ok(code) => code,
        Err(error) => {
            let Some(config) = error.downcast_ref::<ConfigError>() else {
                logging::tell(&sensor_user::error_chain(error.as_ref()));
                let is_usage = error.downcast_ref::<UsageError>().is_some();
                return ExitCode::from(if is_usage { USAGE } else { FAILED });
            };
            for error in config.each() {
                logging::tell(&sensor_user::error_chain(error));
            }
            ExitCode::from(USAGE)
        }
    }
}

fn dispatch(command: Command, environment: &Environment) -> anyhow::Result<ExitCode> {
    // A replay that has written a ledger has to say so when its output cannot be written.
    let writes = matches!(&command, Command::Run(_))
        || matches!(&command, Command::Replay(args) if args.state_dir.is_some());
    if !writes {
        end_by_closed_pipes();
    }
    match command {
        Command::Run(args) => {
            let config = Config::load(&args.flags, environment)?;
            let log = logging::init(config.log_format, &config.log_level)?;
            for (name, suggestion) in environment.unknown_variables() {
                tracing::warn!(
                    variable = name,
                    did_you_mean = suggestion,
                    "unknown environment variable; it has no effect"
                );
            }
            run::run(config, move |config| config.reload(&args.flags, &Environment::of_process()), log)?;
        }
        Command::Replay(args) => {
            let (config, state_dir) = Config::load_for_replay(&args.flags, environment)?;
            logging::init(config.log_format, &config.log_level)?;
            let ledger = state_dir.as_deref().map(|state_dir| replay::ReplayLedger {
                state_dir,
                any_sensor: args.any_sensor,
                archive_dir: config.archive_dir.as_deref(),
            });
            let shown = replay::ReplayView { json: args.json, unmasked: args.unmasked };
            let all_read = replay::command(&args.files, &config, ledger.as_ref(), shown)?;
            return Ok(exit_code(all_read, FAILED));
        }
        Command::Check(args) => return Ok(exit_code(check::command(&args.flags, environment)?, USAGE)),
        Command::Status(args) => {
            let (config, unread) = Config::load_for_status(&args.flags, environment)?;
            if let Some(error) = unread {
                let error = sensor_user::error_chain(&error);
                logging::tell(&format!("{error}; asking with defaults and flags"));
            }
            let endpoint = status::Endpoint::of(&config, environment)?;
            status::run(&endpoint, args.json)?;
        }
        Command::Detach(args) => {
            let config = Config::load(&args.flags, environment)?;
            logging::init(config.log_format, &config.log_level)?;
            detach::detach(&config)?;
        }
        Command::Ledger(args) => {
            let config = Config::load(&args.flags, environment)?;
            return Ok(exit_code(ledger::run(&config, &args)?, FAILED));
        }
        Command::Samples(args) => {
            let config = Config::load(&args.flags, environment)?;
            return Ok(exit_code(samples::run(&config, &args)?, FAILED));
        }
        Command::Sources(args) => sources::run(&Config::load(&args.flags, environment)?, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The exit code of a command that did its work, and whether it found all well.
fn exit_code(all_well: bool, otherwise: u8) -> ExitCode {
    if all_well { ExitCode::SUCCESS } else { ExitCode::from(otherwise) }
}
