//! Work on the disk, on threads for blocking work: it is waited for with a limit, and goes on when that is over.

use std::time::Duration;

use tokio::{task::JoinHandle, time};

use super::error::StoreError;

/// Waits for work on the disk, if there is some, and notes as `problem` what became of it: as long as it has not ended, that it
/// has not, also when the caller goes away.
pub(super) async fn finish<T>(
    work: &mut Option<JoinHandle<Result<T, StoreError>>>,
    problem: &mut Option<StoreError>,
    patience: Duration,
) -> Result<Option<T>, StoreError> {
    let Some(running) = work else { return Ok(None) };
    *problem = Some(StoreError::Stalled);
    let Ok(ended) = time::timeout(patience, running).await else { return Err(StoreError::Stalled) };
    *work = None;
    let outcome = ended.unwrap_or(Err(StoreError::Panicked));
    *problem = outcome.as_ref().err().copied();
    outcome.map(Some)
}
