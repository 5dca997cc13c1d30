//! The service of the demo: it knows a local URL and nothing of tokens.

use std::{io, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time,
};

use crate::{
    cli::{
        Failure,
        output::{self, Reader},
    },
    readiness::Readiness,
    shutdown::{Shutdown, Stage},
};

/// How long the first token may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One round trip, before and after.
pub(super) async fn once(proxy: SocketAddr, readiness: &Readiness) -> Result<(), Failure> {
    ready(readiness).await?;
    let request = format!("GET /orders?page=1 HTTP/1.1\r\nHost: {proxy}\r\nConnection: close\r\n\r\n");
    output::line("The service sends to attaché:\n")?;
    for line in request.trim_end().lines() {
        output::line(&format!("  {line}"))?;
    }
    let (status, received) = exchange(proxy, &request).await.map_err(failed)?;
    let field = |name: &str| received[name].as_str().unwrap_or("?").to_owned();
    output::line("\nThe upstream receives:\n")?;
    output::line(&format!("  {} {}", field("method"), field("target")))?;
    for (name, value) in received["headers"].as_object().into_iter().flatten() {
        output::line(&format!("  {name}: {}", value.as_str().unwrap_or_default()))?;
    }
    let claims = &received["token"]["claims"];
    output::line(&format!("\nIt has verified the signature of the token. Its claims:\n\n  {claims}\n"))?;
    if status != 200 || !claims.is_object() {
        return Err(Failure::other(format!("the upstream answered {status}")));
    }
    output::line(&format!("The service gets its answer: {status}"))
}

/// A request a second and a line for each, until the end or until nobody reads them.
pub(super) async fn flow(
    proxy: SocketAddr,
    readiness: &Readiness,
    mut shutdown: Shutdown,
) -> Result<(), Failure> {
    ready(readiness).await?;
    let request = format!("GET /orders HTTP/1.1\r\nHost: {proxy}\r\nConnection: close\r\n\r\n");
    let mut second = time::interval(Duration::from_secs(1));
    let mut last = String::new();
    loop {
        tokio::select! {
            () = shutdown.reached(Stage::Leaving) => return Ok(()),
            _ = second.tick() => {}
        }
        let line = match exchange(proxy, &request).await {
            Ok((status, received)) => {
                let token = received["token"]["claims"]["jti"].as_str().unwrap_or("no token").to_owned();
                let news =
                    if token == last || last.is_empty() { "" } else { "   refreshed while requests flow" };
                let line = format!("service    GET /orders -> {status}, with {token}{news}");
                last = token;
                line
            }
            Err(error) => format!("service    GET /orders -> {error}"),
        };
        // Whoever showed it to somebody has nobody left to show it to.
        if output::one_of_many(&line)? == Reader::Gone {
            return Ok(());
        }
    }
}

async fn ready(readiness: &Readiness) -> Result<(), Failure> {
    time::timeout(PATIENCE, readiness.ready())
        .await
        .map_err(|_| Failure::other("there was no token within 10 s"))
}

fn failed(error: io::Error) -> Failure {
    Failure::other(format!("the request failed: {error}"))
}

/// Sends a request and reads an answer with JSON, until the connection ends.
async fn exchange(proxy: SocketAddr, request: &str) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect(proxy).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.get(9..12).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let status = status.ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    Ok((status, serde_json::from_str(body).unwrap_or_default()))
}
