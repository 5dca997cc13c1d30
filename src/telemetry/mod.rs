//! What attaché tells about itself.
//!
//! 1. [`logging`] sets up the one subscriber of the process: text, logfmt or JSON, filtered by `log.filter`.
//!    Its lines are written by a thread of their own (`lines`), so that nobody waits for who reads them.
//! 2. [`metrics`] holds every metric family that `/metrics` shows; parts ask it for handles with their labels resolved.
//! 3. [`traces`] sends spans to a collector, off unless one is configured, from a thread of its own too.

mod lines;
mod logfmt;
pub mod logging;
pub mod metrics;
pub mod traces;
