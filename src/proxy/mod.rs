//! The way of a request.
//!
//! 1. `listener` accepts a connection and hands it to the least loaded `worker`, which is a thread of its own, with a coarse
//!    clock (`ticks`, by an `alarm`).
//! 2. `serve` waits for its first byte and serves it with `http1` or, if it begins so, with `http2`; `activity` keeps the time
//!    and, by `presence`, sees callers go away.
//! 3. `handle` is the road of each request, in order: `check`, the guard, the `route`, the `path` policy, the token,
//!    `hop` and `inject`.
//! 4. `exchange` (and `exchange_http2`) sends it, an `outgoing` request, to the `upstream` and decides what may be sent once more;
//!    `unauthorized` is what a 401 leads to.
//! 5. `inflow`, `upload` and `body` stream both ways and tie the upstream's connection to the answer, the kernel moves large bodies
//!    through a `pipe`; after an `upgrade` to WebSocket,
//!    bytes go both ways instead.
//! 6. `error` is the one place where an error becomes an answer; `complaint` keeps the log short when there are many.
//!
//! [`Routes`] is what the configuration becomes, [`Server`] binds and runs it, [`Swap`] replaces it while it runs.

mod activity;
mod alarm;
mod body;
mod caller;
mod check;
mod complaint;
mod config;
mod early;
mod error;
mod exchange;
mod exchange_http2;
#[cfg(fuzzing)]
pub mod fuzzing;
mod grpc;
mod handle;
mod hop;
mod http1;
mod http2;
mod inflow;
mod inject;
mod listener;
mod location;
mod outgoing;
mod path;
mod pipe;
mod presence;
mod reach;
mod refuse;
mod registry;
mod route;
mod seen;
mod serve;
mod server;
mod site;
mod swap;
mod ticks;
mod trailers;
mod unauthorized;
mod upgrade;
mod upload;
mod upstream;
mod worker;

pub use self::{
    config::{
        AccessLog, CallerAuthorization, HttpProxyAuthConfig, InjectConfig, NO_CREDENTIAL, ProxyConfig,
        Replay, RouteConfig, RouteTlsConfig, UpstreamProtocol,
    },
    error::Reason,
    reach::Reached,
    server::{BindError, Running, Server},
    site::Routes,
    swap::Swap,
};
