//! The thread that sends spans: it has a runtime of its own, so that neither requests nor token requests share one with
//! a collector.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::{runtime, time};

use super::{
    Recorder,
    config::Collector,
    otlp,
    send::{SendError, Sender},
    span::Record,
};
use crate::invalid::Invalid;

/// The most spans that are sent at once.
pub(super) const BATCH: usize = 512;

/// How long a span waits for others to be sent with it.
const DELAY: Duration = Duration::from_secs(1);

/// How often a batch is sent before it is given up.
const ATTEMPTS: u32 = 5;

/// The wait before the second attempt; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// However long a collector wants us to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long the end of the process waits for its last spans.
const FAREWELL: Duration = Duration::from_secs(1);

/// Takes spans out of the queue and sends them.
#[derive(Debug)]
pub(super) struct Exporter {
    recorder: Arc<Recorder>,
    records: Receiver<Record>,
    sender: Sender,
    service: String,
    ending: Arc<AtomicBool>,
    // What has gone wrong is told once, until it goes well again.
    told: bool,
}

/// The thread.
#[derive(Debug)]
pub(super) struct Running {
    recorder: Arc<Recorder>,
    ending: Arc<AtomicBool>,
    // Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Exporter {
    pub(super) fn build(
        recorder: Arc<Recorder>,
        records: Receiver<Record>,
        collector: Collector,
        service: &str,
    ) -> Result<Self, Invalid> {
        let sender = Sender::build(collector)?;
        let ending = Arc::new(AtomicBool::new(false));
        Ok(Self { recorder, records, sender, service: service.into(), ending, told: false })
    }

    pub(super) fn start(mut self) -> io::Result<Running> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (alive, ended): (SyncSender<()>, _) = sync_channel(0);
        let running =
            Running { recorder: Arc::clone(&self.recorder), ending: Arc::clone(&self.ending), ended };
        thread::Builder::new().name("traces".into()).spawn(move || {
            runtime.block_on(self.run());
            // A name that is looked up just now must not hold up the end.
            runtime.shutdown_background();
            drop(alive);
        })?;
        Ok(running)
    }

    async fn run(&mut self) {
        loop {
            // Until there is a whole batch, or some have waited long enough.
            let _ = time::timeout(DELAY, self.recorder.wake.notified()).await;
            let is_last = self.ending.load(Ordering::Acquire);
            loop {
                let batch: Vec<_> = self.records.try_iter().take(BATCH).collect();
                self.recorder.queued.fetch_sub(batch.len(), Ordering::Relaxed);
                if batch.is_empty() {
                    break;
                }
                self.deliver(&batch).await;
            }
            if is_last {
                return;
            }
        }
    }

    /// Sends a batch, again where that can help.
    async fn deliver(&mut self, batch: &[Record]) {
        let (metrics, count) = (&self.recorder.metrics, batch.len() as u64);
        let body = Bytes::from(otlp::request(&self.service, env!("CARGO_PKG_VERSION"), batch));
        let mut wait = FIRST_WAIT;
        for attempt in 1..=ATTEMPTS {
            let error = match self.sender.send(body.clone()).await {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    metrics.exported(count - rejected);
                    metrics.failed(rejected);
                    if self.told {
                        tracing::info!("the collector takes spans again");
                        self.told = false;
                    }
                    return;
                }
                Err(error) => error,
            };
            if !self.told {
                tracing::warn!(%error, "the collector does not take spans");
                self.told = true;
            }
            let ending = || self.ending.load(Ordering::Acquire);
            if attempt == ATTEMPTS || !error.is_temporary() || ending() {
                break;
            }
            let asked = if let SendError::Refused { retry_after, .. } = error { retry_after } else { None };
            let end = time::Instant::now() + asked.unwrap_or(wait).min(LONGEST_WAIT);
            wait *= 2;
            while !ending() && time::timeout_at(end, self.recorder.wake.notified()).await.is_ok() {}
        }
        metrics.failed(count);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        self.recorder.wake.notify_one();
        if self.ended.recv_timeout(FAREWELL) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last spans were not sent in time");
        }
    }
}
