//! Lines as `key=value` pairs, which people read and machines split: logfmt.

use std::fmt;

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

/// Writes an event: time, level, target, message, then its fields.
pub(super) struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let about = event.metadata();
        writer.write_str("ts=")?;
        SystemTime.format_time(&mut writer)?;
        let level = about.level().as_str().to_ascii_lowercase();
        write!(writer, " level={level} target={}", about.target())?;
        let mut pairs = Pairs { writer: &mut writer, result: Ok(()) };
        event.record(&mut pairs);
        pairs.result?;
        writeln!(writer)
    }
}

struct Pairs<'a, 'b> {
    writer: &'a mut Writer<'b>,
    result: fmt::Result,
}

impl Pairs<'_, '_> {
    fn pair(&mut self, field: &Field, value: &str) {
        let key = if field.name() == "message" { "msg" } else { field.name() };
        self.result = self.result.and_then(|()| {
            write!(self.writer, " {key}=")?;
            quoted(self.writer, value)
        });
    }
}

impl Visit for Pairs<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.pair(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.pair(field, &format!("{value:?}"));
    }
}

/// In quotes where it would not end where it should, with everything escaped that could end the quotes or the line.
fn quoted(writer: &mut impl fmt::Write, value: &str) -> fmt::Result {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\');
    if !value.is_empty() && value.chars().all(plain) {
        return writer.write_str(value);
    }
    writer.write_char('"')?;
    for c in value.chars() {
        match c {
            '"' | '\\' => write!(writer, "\\{c}")?,
            '\n' => writer.write_str("\\n")?,
            '\r' => writer.write_str("\\r")?,
            '\t' => writer.write_str("\\t")?,
            c if c.is_control() => write!(writer, "\\u{:04x}", u32::from(c))?,
            c => writer.write_char(c)?,
        }
    }
    writer.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_where_it_should() {
        for (value, written) in [
            ("/orders?q=1", "\"/orders?q=1\""),
            ("/orders", "/orders"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("a\nlevel=error", "\"a\\nlevel=error\""),
            ("a\u{1b}[31m", "\"a\\u001b[31m\""),
            ("é", "é"),
        ] {
            let mut text = String::new();
            quoted(&mut text, value).unwrap();
            assert_eq!(text, written);
        }
    }
}
