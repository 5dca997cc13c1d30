//! What is told of a request and of a token request. Never a token, a header or a body; a query only when asked for.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::Method;
use tokio::time::Instant;

use super::context::Context;

/// The longest path or query that is told, in bytes: callers choose it.
const MAX_TEXT: usize = 1024;

/// When something began, by a clock that others share and one that does not step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    pub(super) wall: SystemTime,
    pub(super) monotonic: Instant,
}

impl Begin {
    pub(super) fn now() -> Self {
        Self { wall: SystemTime::now(), monotonic: Instant::now() }
    }
}

/// A span that has ended.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) context: Context,
    pub(super) start: SystemTime,
    pub(super) took: Duration,
    pub(super) what: What,
}

/// What a span is about.
#[derive(Debug)]
pub(super) enum What {
    Request(RequestSpan),
    Token(TokenSpan),
}

/// A request, from its head to the last byte of its answer.
#[derive(Debug)]
pub struct RequestSpan {
    /// How the caller asked.
    pub method: Method,
    /// For what, without the query.
    pub path: Box<str>,
    /// The query, where the operator wants it.
    pub query: Option<Box<str>>,
    /// The route and the host and port of its upstream, if a route took the request.
    pub route: Option<(Box<str>, Box<str>, u16)>,
    /// The status of the answer; 0 when there was none.
    pub status: u16,
    /// Why attaché itself answered.
    pub reason: Option<&'static str>,
    /// Whether it was sent once more with a new token.
    pub replayed: bool,
    /// The name of the status of a gRPC call, if one came.
    pub call_status: Option<&'static str>,
}

/// A token request.
#[derive(Debug)]
pub struct TokenSpan {
    /// For which credential.
    pub credential: Arc<str>,
    /// Why it brought no token.
    pub reason: Option<&'static str>,
}

/// A value of an attribute.
#[derive(Debug, PartialEq)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Number(i64),
    Flag(bool),
}

/// What the span of either kind shows. Names are those of OpenTelemetry's semantic conventions where it has one.
pub(super) struct Shown<'a> {
    pub(super) name: String,
    pub(super) attributes: Vec<(&'static str, Value<'a>)>,
    pub(super) is_error: bool,
}

impl Record {
    /// Start and end, in nanoseconds since 1970.
    pub(super) fn times(&self) -> (u64, u64) {
        // A clock before 1970 or beyond 2554 is wrong anyway.
        let nanos = |at: Duration| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let start = self.start.duration_since(UNIX_EPOCH).unwrap_or_default();
        (nanos(start), nanos(start + self.took))
    }

    pub(super) fn shown(&self) -> Shown<'_> {
        match &self.what {
            What::Request(request) => request.shown(),
            What::Token(token) => token.shown(),
        }
    }
}

impl RequestSpan {
    fn shown(&self) -> Shown<'_> {
        let method = known(&self.method);
        let mut attributes = vec![
            ("http.request.method", Value::Text(method)),
            ("url.path", Value::Text(&self.path)),
            ("attache.replayed", Value::Flag(self.replayed)),
        ];
        if let Some(query) = &self.query {
            attributes.push(("url.query", Value::Text(query)));
        }
        if self.status != 0 {
            attributes.push(("http.response.status_code", Value::Number(self.status.into())));
        }
        if self.replayed {
            attributes.push(("http.request.resend_count", Value::Number(1)));
        }
        let mut name = if method == OTHER { "HTTP".to_owned() } else { method.to_owned() };
        if let Some((route, host, port)) = &self.route {
            attributes.push(("attache.route", Value::Text(route)));
            attributes.push(("server.address", Value::Text(host)));
            attributes.push(("server.port", Value::Number((*port).into())));
            name = format!("{name} {route}");
        }
        // Of a call, the answer of HTTP tells next to nothing: it is 200 whatever comes of the call.
        let refused = self.call_status.filter(|status| *status != "OK");
        if let Some(status) = self.call_status {
            attributes.push(("rpc.system.name", Value::Text("grpc")));
            attributes.push(("rpc.response.status_code", Value::Text(status)));
        }
        if let Some(reason) = self.reason {
            attributes.push(("attache.reason", Value::Text(reason)));
        }
        if let Some(kind) = self.reason.or(refused) {
            attributes.push(("error.type", Value::Text(kind)));
        }
        // As for every span of a client: an answer from 400 on is an error, and any status of a call but OK. So is none at all.
        let is_error = self.reason.is_some() || refused.is_some() || !(100..400).contains(&self.status);
        Shown { name, attributes, is_error }
    }
}

impl TokenSpan {
    fn shown(&self) -> Shown<'_> {
        let mut attributes = vec![("attache.credential", Value::Text(&self.credential))];
        if let Some(reason) = self.reason {
            attributes.push(("attache.reason", Value::Text(reason)));
            attributes.push(("error.type", Value::Text(reason)));
        }
        let name = format!("token request {}", self.credential);
        Shown { name, attributes, is_error: self.reason.is_some() }
    }
}

/// What the conventions call a method that is none of the usual ones.
const OTHER: &str = "_OTHER";

/// The method, if it is one of a fixed set: callers may make up others.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER,
    }
}

/// The beginning of a text that a caller chose.
pub(super) fn short(text: &str) -> Box<str> {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RequestSpan {
        RequestSpan {
            method: Method::GET,
            path: "/orders".into(),
            query: None,
            route: Some(("orders".into(), "orders.internal".into(), 443)),
            status: 200,
            reason: None,
            replayed: false,
            call_status: None,
        }
    }

    #[test]
    fn a_good_answer_is_no_error_and_shows_where_it_came_from() {
        let request = request();
        let Shown { name, attributes, is_error } = request.shown();
        assert_eq!((name.as_str(), is_error), ("GET orders", false));
        assert!(attributes.contains(&("server.address", Value::Text("orders.internal"))));
        assert!(attributes.contains(&("http.response.status_code", Value::Number(200))));
        assert!(!attributes.iter().any(|(name, _)| *name == "url.query" || *name == "error.type"));
    }

    #[test]
    fn an_answer_of_attaché_itself_is_an_error_with_its_reason() {
        let request = RequestSpan { status: 503, reason: Some("token_unavailable"), ..request() };
        let shown = request.shown();
        assert!(shown.is_error);
        assert!(shown.attributes.contains(&("error.type", Value::Text("token_unavailable"))));
    }

    #[test]
    fn a_call_that_did_not_end_well_is_an_error_although_http_says_200() {
        let call = |status| RequestSpan { method: Method::POST, call_status: Some(status), ..request() };
        let (bad, good) = (call("UNAVAILABLE"), call("OK"));
        assert!(bad.shown().is_error && !good.shown().is_error);
        for (name, text) in [
            ("rpc.system.name", "grpc"),
            ("rpc.response.status_code", "UNAVAILABLE"),
            ("error.type", "UNAVAILABLE"),
        ] {
            assert!(bad.shown().attributes.contains(&(name, Value::Text(text))), "{name}");
        }
        assert!(!good.shown().attributes.iter().any(|(name, _)| *name == "error.type"));
    }

    #[test]
    fn a_method_that_a_caller_made_up_is_not_told() {
        let request =
            RequestSpan { method: Method::from_bytes(b"HUNTER2").unwrap(), route: None, ..request() };
        let shown = request.shown();
        assert_eq!(shown.name, "HTTP");
        assert!(shown.attributes.contains(&("http.request.method", Value::Text("_OTHER"))));
    }

    #[test]
    fn a_long_path_is_cut_between_characters() {
        let path = "é".repeat(MAX_TEXT);
        assert_eq!(short(&path).len(), MAX_TEXT);
        assert_eq!(short(&format!("x{path}")).len(), MAX_TEXT - 1);
    }
}
