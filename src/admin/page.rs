//! `/status` for people: the same facts as the JSON, as one page without anything from elsewhere.
//!
//! Written on the server, because a page that asked again by itself would be refused: this port answers no web page. Its
//! script only lets the bars run down; whoever wants news reloads.

use std::fmt::Write as _;

use axum::{
    http::{HeaderValue, header},
    response::{Html, IntoResponse as _, Response},
};
use serde_json::Value;

const HEAD: &str = include_str!("page.html");

/// Nothing from elsewhere, in no frame, and no form that could send anything.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The page for this status.
pub(super) fn answer(status: &Value) -> Response {
    let mut response = Html(render(status)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn render(status: &Value) -> String {
    let (word, class) = match (status["draining"].as_bool(), status["ready"].as_bool()) {
        (Some(true), _) => ("draining", "bad"),
        (_, Some(true)) => ("ready", "good"),
        _ => ("not ready", "bad"),
    };
    let mut page = HEAD.to_owned();
    row(
        &mut page,
        "<h1>attaché ",
        &text(&status["version"]),
        &format!(" <span class={class}>{word}</span></h1>"),
    );
    if let Some(why) = status["configuration"]["rejected"].as_str() {
        row(
            &mut page,
            "<p class=bad>The changed configuration cannot be used; the old one is in force: ",
            why,
            "</p>",
        );
    }
    page.push_str(
        "<p>As it was when this page was asked for; the seconds run by themselves. Reload for news.</p>",
    );
    page.push_str("<h2>Credentials</h2><table><tr><th>name<th>type<th>state<th>life left<th>next attempt<th>last error</tr>");
    for credential in status["credentials"].as_array().into_iter().flatten() {
        page.push_str("<tr>");
        for key in ["name", "type"] {
            row(&mut page, "<td>", &text(&credential[key]), "");
        }
        let state = text(&credential["state"]);
        row(&mut page, if state == "fresh" { "<td class=good>" } else { "<td class=bad>" }, &state, "");
        // Numbers only, and writing to a `String` cannot fail.
        let _ = match credential["expires_in_seconds"].as_u64() {
            Some(left) => {
                let whole = credential["lifetime_seconds"].as_u64().unwrap_or(left).max(left);
                write!(page, "<td><progress value={left} max={whole}></progress> <b>{left}</b> s of {whole}")
            }
            None => write!(page, "<td>-"),
        };
        let _ = match credential["next_attempt_in_seconds"].as_u64() {
            Some(left) => write!(page, "<td><b>{left}</b> s"),
            None => write!(page, "<td>-"),
        };
        let error = &credential["last_error"];
        row(&mut page, "<td>", error["message"].as_str().unwrap_or("-"), "");
        if let Some(hint) = error["hint"].as_str() {
            row(&mut page, "<br><small>", hint, "</small>");
        }
        page.push_str("</tr>");
    }
    page.push_str(
        "</table><h2>Routes</h2><table><tr><th>name<th>host<th>path<th>upstream<th>credential</tr>",
    );
    for route in status["routes"].as_array().into_iter().flatten() {
        page.push_str("<tr>");
        for key in ["name", "host", "path", "upstream", "credential"] {
            row(&mut page, "<td>", route[key].as_str().unwrap_or("any"), "");
        }
        page.push_str("</tr>");
    }
    page.push_str(
        "</table><h2>Answered in place of an upstream</h2><table>\
         <tr><th>route<th>reason<th>in the last 15 minutes<th>since it started</tr>",
    );
    for answer in status["own_answers"].as_array().into_iter().flatten() {
        page.push_str("<tr>");
        for key in ["route", "reason"] {
            row(&mut page, "<td>", &text(&answer[key]), "");
        }
        bars(&mut page, answer);
        row(&mut page, "<td>", &answer["count"].to_string(), "</tr>");
    }
    page.push_str("</table>\n");
    page
}

/// How many lately, and a bar for each minute as high as its share of the highest.
fn bars(page: &mut String, answer: &Value) {
    const WIDTH: usize = 5;
    const HEIGHT: u64 = 16;
    let _ = write!(page, "<td>{}", answer["recent"].as_u64().unwrap_or(0));
    let minutes: Vec<u64> =
        answer["by_minute"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let Some(highest @ 1..) = minutes.iter().copied().max() else { return };
    let _ = write!(page, " <svg width={} height={HEIGHT} aria-hidden=true>", WIDTH * minutes.len());
    for (place, &count) in minutes.iter().enumerate() {
        // One is seen beside thousands.
        let height = (count * HEIGHT).div_ceil(highest);
        let (x, y, width) = (place * WIDTH, HEIGHT - height, WIDTH - 1);
        let _ = write!(page, "<rect x={x} y={y} width={width} height={height} />");
    }
    page.push_str("</svg>");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Adds text between markup.
fn row(page: &mut String, before: &str, text: &str, after: &str) {
    page.push_str(before);
    for c in text.chars() {
        match c {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            c => page.push(c),
        }
    }
    page.push_str(after);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_that_was_configured_becomes_markup() {
        let bad = "<script>alert(1)</script>\"'&";
        let status = json!({
            "version": "1", "ready": true, "draining": false,
            "configuration": { "rejected": bad },
            "own_answers": [{ "route": "(none)", "reason": "no_route", "count": 3, "recent": 2, "by_minute": [0, 2] }],
            "routes": [{ "name": bad, "host": bad, "path": bad, "upstream": bad, "credential": bad }],
            "credentials": [{ "name": bad, "type": "x", "state": bad, "last_error": { "message": bad, "hint": bad } }],
        });
        let page = render(&status);
        assert!(!page[HEAD.len()..].contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("<td>no_route<td>2 <svg"), "{page}");
    }

    #[test]
    fn the_page_takes_nothing_from_elsewhere() {
        assert!(
            !HEAD.contains("http:")
                && !HEAD.contains("https:")
                && !HEAD.contains("src=")
                && !HEAD.contains("@import")
        );
    }
}
