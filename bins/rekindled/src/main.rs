//! The device agent: `rekindled --config FILE [run]`.

mod arguments;
mod log;

use std::process::ExitCode;

use anyhow::Context as _;
use rekindle_device::{
    Config, Downgrade, confirm_once, factory_reset, install_once, recover_once, repair_once,
    rollback_once, run, scrub_once,
};

use crate::arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = match Arguments::parse() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => return log::usage_error(&error),
    };
    log::start();
    perform(arguments).unwrap_or_else(|error| log::failure(&error))
}

fn perform(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    match arguments.command {
        Command::Run => runtime.block_on(async {
            let stop = log::stop_signal().context("cannot listen for signals")?;
            run(config, stop).await.map_err(anyhow::Error::from)
        })?,
        Command::Scrub { json } => {
            let summary = scrub_once(config, &mut log::meter("scrubbing"))?;
            return Ok(log::scrubbed(&summary, json));
        }
        Command::Repair { image } => {
            let repair = repair_once(config, image.as_deref(), log::meter("repairing"));
            return Ok(log::repaired(&runtime.block_on(repair)?));
        }
        Command::Recover { image } => {
            let recovery = recover_once(config, image.as_deref(), log::meter("recovering"));
            return Ok(log::repaired(&runtime.block_on(recovery)?));
        }
        Command::Confirm => return Ok(log::decided(confirm_once(config)?)),
        Command::Rollback => return Ok(log::decided(rollback_once(config)?)),
        Command::FactoryReset => factory_reset(&config)?,
        Command::Install {
            image,
            component,
            allow_downgrade,
            limits,
        } => {
            let update = &mut config.update;
            update.max_download = limits.max_download.or(update.max_download);
            update.max_rate = limits.max_rate.or(update.max_rate);
            let downgrade = if allow_downgrade {
                Downgrade::Allow
            } else {
                Downgrade::Refuse
            };
            match runtime.block_on(install_once(
                config,
                &image,
                component.as_deref(),
                downgrade,
            ))? {
                Ok(said) => log::answer(&said),
                Err(refusal) => return Ok(log::not_installed(&refusal)),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
