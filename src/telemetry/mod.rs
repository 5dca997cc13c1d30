//! What attaché tells about itself.
//!
//! 1. [`logging`] sets up the one subscriber of the process: text or JSON, filtered by `log.filter`.
//! 2. [`metrics`] holds every metric family that `/metrics` shows; parts ask it for handles with their labels resolved.

pub mod logging;
pub mod metrics;
