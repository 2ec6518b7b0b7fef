//! The start of the agent, before any poll: a trial is watched and confirmed or given up, a
//! fallback is noticed and recorded.

use core::time::Duration;

use rekindle_flash::{BootControl as _, SlotId};
use rekindle_state::{Evidence, FileStoreError, Reason};
use rekindle_update::{
    RunningManifest, SlotFacts, Standing, TrialError, adopt_keys, confirm, give_up, standing,
};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::board::{Board, BoardError, SlotView};
use super::device_boot::DeviceBootError;
use super::lock::{LockError, UpdateLock};
use crate::clock::Clock;
use crate::config::ComponentConfig;
use crate::host::{Health, Host};

/// Why the commits of a start failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The device is not as its configuration says.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// The commits could not be made.
    #[error("{}", super::chain(.0))]
    Trial(TrialError<DeviceBootError, FileStoreError>),
    /// The lock is taken.
    #[error(transparent)]
    Lock(#[from] LockError),
}

// By hand, since `#[from]` would make a source of what the text names already.
impl From<TrialError<DeviceBootError, FileStoreError>> for StartError {
    fn from(error: TrialError<DeviceBootError, FileStoreError>) -> Self {
        Self::Trial(error)
    }
}

/// What the start came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Started {
    /// What runs is confirmed.
    Settled,
    /// Something else waits for the next boot.
    Pending,
    /// A trial was confirmed just now.
    Confirmed,
    /// The trial failed its health check: a restart into the fallback is due.
    Unhealthy(Vec<Evidence>),
    /// The device had fallen back; that is recorded now.
    FellBack(Vec<Evidence>),
}

/// Compares what runs with what was chosen. Quick; the trial's outcome is [`watch_trial`]'s.
pub(crate) fn assess(board: &Board) -> Result<Standing, StartError> {
    Ok(standing(&board.boot_record()?, &board.running_pairs()))
}

/// Makes the commits that follow from a standing that is no trial.
pub(crate) fn settle(
    board: &Board,
    standing: Standing,
    clock: &Clock,
) -> Result<Started, StartError> {
    let lock = UpdateLock::take(&board.config.state_dir)?;
    super::give_back_under(board, &lock);
    if standing == Standing::FellBack {
        let evidence = abandon(board, Reason::NeverConfirmed, clock)?;
        confirm_running(board)?;
        return Ok(Started::FellBack(evidence));
    }
    confirm_running(board)?;
    Ok(if standing == Standing::Pending {
        Started::Pending
    } else {
        Started::Settled
    })
}

/// Watches what runs on trial until it is healthy or its time is over, and makes the commits.
pub(crate) async fn watch_trial<H: Host>(
    board: &Board,
    host: &H,
    clock: &Clock,
) -> Result<Started, StartError> {
    {
        let _lock = wait_for_lock(board).await?;
        count_attempt(board)?;
    }
    let healthy = is_healthy(board, host).await;
    let _lock = wait_for_lock(board).await?;
    if healthy {
        confirm_running(board)?;
        return Ok(Started::Confirmed);
    }
    Ok(Started::Unhealthy(abandon(
        board,
        Reason::HealthFailed,
        clock,
    )?))
}

/// Does the step of a boot loader that started the choice without counting an attempt: without it
/// the trial could never be confirmed. The caller holds the update lock.
fn count_attempt(board: &Board) -> Result<(), StartError> {
    let mut boot = board.boot()?;
    let mut record = boot.load().map_err(BoardError::from)?;
    if record.trial_started() {
        return Ok(());
    }
    tracing::warn!("the boot loader started the choice without counting an attempt");
    let _: Vec<_> = record.start();
    Ok(boot.store(&record).map_err(BoardError::from)?)
}

async fn wait_for_lock(board: &Board) -> Result<UpdateLock, LockError> {
    loop {
        match UpdateLock::take(&board.config.state_dir) {
            Err(LockError::Busy) => sleep(LOCK_PAUSE).await,
            other => return other,
        }
    }
}

async fn is_healthy<H: Host>(board: &Board, host: &H) -> bool {
    let deadline = Instant::now() + board.config.host.health_time;
    loop {
        match timeout_at(deadline, host.health()).await {
            Ok(Ok(Health::Healthy)) => return true,
            Ok(Ok(Health::ByUptime)) => {
                sleep_until(deadline).await;
                return true;
            }
            Ok(Ok(Health::Unhealthy(why))) => tracing::info!(why, "not healthy yet"),
            Ok(Err(error)) => tracing::warn!(%error, "the health check failed"),
            Err(_elapsed) => return false,
        }
        if timeout_at(deadline, sleep(HEALTH_PAUSE)).await.is_err() {
            return false;
        }
    }
}

/// Confirms what runs, and adopts the key set that it brings.
pub(super) fn confirm_running(board: &Board) -> Result<(), StartError> {
    let views = board.running_views();
    let (mut boot, mut store) = (board.boot()?, board.store());
    confirm(&mut boot, &mut store, &facts(&views))?;
    let running: Vec<_> = views
        .iter()
        .filter_map(|(component, slot, view)| {
            Some(RunningManifest {
                component: &component.name,
                slot: *slot,
                signed: &view.held.as_ref()?.signed,
            })
        })
        .collect();
    let adoption = adopt_keys(&mut boot, &mut store, &board.trust, &running)?;
    if let Some(adopted) = adoption.adopted {
        tracing::warn!(
            number = adopted.number,
            "a new key set is adopted: what only earlier keys signed is refused from now on"
        );
    }
    for (component, error) in adoption.refused {
        tracing::warn!(component, %error, "what runs is not signed as an image would have to be now");
    }
    Ok(())
}

/// Confirms what runs on trial without waiting for its health; the inner error says why not.
pub(super) fn confirm_now(board: &Board) -> Result<Result<String, String>, StartError> {
    Ok(match assess(board)? {
        Standing::OnTrial => {
            count_attempt(board)?;
            confirm_running(board)?;
            Ok("what runs is confirmed".to_owned())
        }
        Standing::Settled => Err("nothing is on trial".to_owned()),
        Standing::Pending => {
            Err("what was chosen does not run yet; restart the device first".to_owned())
        }
        _ => Err("what was chosen does not run; the device fell back".to_owned()),
    })
}

/// Gives up the trial that runs or waits; the inner error says why there is nothing to give up.
pub(super) fn roll_back(
    board: &Board,
    clock: &Clock,
) -> Result<Result<String, String>, StartError> {
    let mut boot = board.boot()?;
    let mut record = boot.load().map_err(BoardError::from)?;
    Ok(match standing(&record, &board.running_pairs()) {
        Standing::Settled => {
            Err("nothing is on trial; install the other build to go back to it".to_owned())
        }
        Standing::Pending => {
            record.revert();
            boot.store(&record).map_err(BoardError::from)?;
            Ok("what was chosen is taken back; the confirmed slots boot".to_owned())
        }
        Standing::OnTrial => {
            abandon(board, Reason::NeverConfirmed, clock)?;
            Ok("the trial is given up; the confirmed slots boot next".to_owned())
        }
        _ => {
            abandon(board, Reason::NeverConfirmed, clock)?;
            Ok("the trial had failed already; that is noted".to_owned())
        }
    })
}

fn abandon(board: &Board, reason: Reason, clock: &Clock) -> Result<Vec<Evidence>, StartError> {
    let record = board.boot_record()?;
    let state = board.state()?;
    let chosen = board.chosen_views(&record);
    let mut chosen = facts(&chosen);
    for facts in &mut chosen {
        // A slot that cannot be read is known by its record: the image is to be rejected all the same.
        if let (None, Some(known)) = (facts.manifest, state.slot(facts.component, facts.slot)) {
            facts.manifest = Some(known.manifest);
            facts.build = &known.build;
        }
    }
    Ok(give_up(
        &mut board.boot()?,
        &mut board.store(),
        &chosen,
        &board.running_pairs(),
        reason,
        clock.known(),
    )?)
}

fn facts<'a>(views: &'a [(&'a ComponentConfig, SlotId, SlotView)]) -> Vec<SlotFacts<'a>> {
    views
        .iter()
        .map(|(component, slot, view)| view.facts(&component.name, *slot))
        .collect()
}

/// Between two questions to the health program.
const HEALTH_PAUSE: Duration = Duration::from_secs(1);

/// Between two attempts at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(500);
