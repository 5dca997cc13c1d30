//! Traces: a span a request and a span a token request, sent to an OTLP collector. Off unless it has an endpoint.
//!
//! 1. [`Traces::build`] checks the section and makes a queue; [`Traces::start`] starts the thread that empties it.
//! 2. A [`Tracer`] goes to whoever has something to tell. When nothing is traced it is one `None`.
//! 3. A request whose caller's `traceparent` says so, or one of its own choice, gets an [`OpenSpan`] (`context`), whose
//!    name stands in the `traceparent` that the upstream receives. Any other request passes as it came.
//! 4. Its end puts a record (`span`) into the queue. When that is full, the record is dropped and counted: nobody waits.
//! 5. The thread (`export`) takes batches out, writes them as OTLP (`otlp`) and sends them (`send`), again if that may
//!    help. A collector that is down or slow costs spans, and nothing else.

mod config;
mod context;
mod export;
mod otlp;
mod send;
mod span;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Uri};

pub use self::{
    config::{Protocol, TracesConfig},
    span::{RequestSpan, TokenSpan},
};
use self::{
    context::{Context, Parent, TRACEPARENT, TRACESTATE},
    export::{BATCH, Exporter, Running},
    span::{Begin, Record, What},
};
use super::metrics::{Metrics, SpanMetrics};
use crate::invalid::Invalid;

/// Spans that wait to be sent: a second of a busy sidecar, about 1 MiB.
const QUEUED: usize = 4096;

/// Begins spans, or does nothing. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Recorder>>);

/// What all spans share.
#[derive(Debug)]
struct Recorder {
    // A standard channel, like the log's: putting something in never waits.
    queue: SyncSender<Record>,
    queued: AtomicUsize,
    wake: tokio::sync::Notify,
    ratio: f64,
    query: bool,
    metrics: SpanMetrics,
}

/// The traces of the process, for as long as this is kept. Dropping it waits a moment for what is queued.
#[derive(Debug, Default)]
pub struct Traces {
    tracer: Tracer,
    exporter: Option<Exporter>,
    running: Option<Running>,
}

impl Traces {
    /// Checks the section. Nothing is sent before [`Traces::start`].
    pub fn build(config: &TracesConfig, metrics: &Metrics) -> Result<Self, Invalid> {
        let Some(collector) = config.collector()? else { return Ok(Self::default()) };
        let (queue, records): (_, Receiver<Record>) = sync_channel(QUEUED);
        let recorder = Arc::new(Recorder {
            queue,
            queued: AtomicUsize::new(0),
            wake: tokio::sync::Notify::new(),
            ratio: config.sample_ratio,
            query: config.query,
            metrics: metrics.spans(),
        });
        let exporter = Exporter::build(Arc::clone(&recorder), records, collector, &config.service_name)?;
        Ok(Self { tracer: Tracer(Some(recorder)), exporter: Some(exporter), running: None })
    }

    /// For whoever has something to tell.
    pub fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    /// Starts the thread that sends, if there is anything to send.
    pub fn start(&mut self) -> io::Result<()> {
        self.running = self.exporter.take().map(Exporter::start).transpose()?;
        Ok(())
    }
}

impl Tracer {
    /// A request begins. Its span, if it is recorded, has then taken the caller's place in `headers`.
    #[inline]
    pub fn request(&self, headers: &mut HeaderMap) -> Option<OpenSpan> {
        let recorder = self.0.as_ref()?;
        let context = recorder.place(headers)?;
        headers.insert(TRACEPARENT, context.traceparent());
        Some(OpenSpan { recorder: Arc::clone(recorder), context, begin: Begin::now() })
    }

    /// A token request has ended. They are rare, and each is recorded.
    pub fn token_request(&self, start: SystemTime, took: Duration, span: TokenSpan) {
        let Some(recorder) = &self.0 else { return };
        let Some((trace, id)) = random_ids() else { return };
        recorder.put(Record { context: Context::root(trace, id), start, took, what: What::Token(span) });
    }
}

impl Recorder {
    /// Where a request stands in its trace, if it is recorded. The caller decides; one that says nothing, or nothing that
    /// can be read, leaves it to us.
    fn place(&self, headers: &mut HeaderMap) -> Option<Context> {
        match Parent::of(headers) {
            Some(parent) if parent.is_sampled() => Some(parent.child(random_ids()?.1)),
            Some(_) => None,
            None => {
                let (trace, span) = random_ids()?;
                if !self.takes(&trace) {
                    return None;
                }
                // It belongs to the trace that the caller meant (W3C Trace Context §4.3).
                headers.remove(TRACESTATE);
                Some(Context::root(trace, span))
            }
        }
    }

    /// The same answer everywhere for the same trace, as OpenTelemetry's `TraceIdRatioBased` has it.
    fn takes(&self, trace: &[u8; 16]) -> bool {
        let [.., a, b, c, d, e, f, g, h] = *trace;
        let chance = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 11;
        // 53 bits, which an `f64` holds exactly.
        (chance as f64) < self.ratio * (1_u64 << 53) as f64
    }

    fn put(&self, record: Record) {
        let before = self.queued.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(record).is_err() {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            self.metrics.dropped(1);
        } else if before + 1 == BATCH {
            self.wake.notify_one();
        }
    }
}

/// A trace and a span that nobody else has; none without randomness.
fn random_ids() -> Option<([u8; 16], [u8; 8])> {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    let [trace @ .., a, b, c, d, e, f, g, h] = bytes;
    Some((trace, [a, b, c, d, e, f, g, h]))
}

/// A span that has begun.
#[derive(Debug)]
pub struct OpenSpan {
    recorder: Arc<Recorder>,
    context: Context,
    begin: Begin,
}

impl OpenSpan {
    /// The path that may be shown, and the query if the operator wants it.
    pub fn target(&self, uri: &Uri) -> (Box<str>, Option<Box<str>>) {
        (span::short(uri.path()), uri.query().filter(|_| self.recorder.query).map(span::short))
    }

    /// The request is over.
    pub fn end(&self, request: RequestSpan) {
        let (start, took) = (self.begin.wall, self.begin.monotonic.elapsed());
        self.recorder.put(Record { context: self.context, start, took, what: What::Request(request) });
    }
}

#[cfg(test)]
mod tests;
