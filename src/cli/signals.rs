//! The signals of the process, on a thread of their own: neither a busy runtime nor a blocked one delays them.
//!
//! SIGTERM and SIGINT: the first drains, a second one ends at once. SIGHUP: the configuration is loaded again.

use std::{io, sync::Arc, thread};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::shutdown::{Stage, Trigger};

/// Listens from now on; what is returned is notified of each SIGHUP.
pub(super) fn listen(trigger: Trigger) -> io::Result<Arc<Notify>> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let hangup = Arc::new(Notify::new());
    let (mut terminate, mut interrupt, mut reload) = {
        // Streams are registered with the runtime that is entered.
        let _entered = runtime.enter();
        let stream = |kind| signal(kind);
        (stream(SignalKind::terminate())?, stream(SignalKind::interrupt())?, stream(SignalKind::hangup())?)
    };
    let notify = Arc::clone(&hangup);
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let mut next = Stage::Leaving;
            loop {
                let name = tokio::select! {
                    Some(()) = terminate.recv() => "SIGTERM",
                    Some(()) = interrupt.recv() => "SIGINT",
                    Some(()) = reload.recv() => {
                        notify.notify_one();
                        continue;
                    }
                    else => return,
                };
                tracing::info!(signal = name, "leaving");
                trigger.advance(next);
                next = Stage::Now;
            }
        });
    })?;
    Ok(hangup)
}
