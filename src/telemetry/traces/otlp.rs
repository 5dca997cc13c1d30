//! Spans as OTLP has them (opentelemetry-proto 1.x, `ExportTraceServiceRequest`), written as protobuf by hand: a dozen
//! fields of a stable format need no generated code, which would be larger than everything else here together.

use super::{
    context::Context,
    span::{Record, Shown, Value},
};

/// `SPAN_KIND_CLIENT`: attaché calls the upstream or the provider.
const CLIENT: u64 = 3;
/// `STATUS_CODE_ERROR`
const ERROR: u64 = 2;
/// The bits of `Span.flags` that say whether the parent is of another process: known, and yes.
const REMOTE_KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

/// A message on its way to the wire.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    fn number(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn fixed64(&mut self, field: u32, value: u64) {
        self.key(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn fixed32(&mut self, field: u32, value: u32) {
        self.key(field, 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// `KeyValue`
    fn attribute(&mut self, field: u32, name: &str, value: &Value<'_>) {
        self.message(field, |pair| {
            pair.bytes(1, name.as_bytes());
            pair.message(2, |any| match value {
                Value::Text(text) => any.bytes(1, text.as_bytes()),
                Value::Flag(flag) => any.number(2, u64::from(*flag)),
                // Two's complement, as `int64` is written.
                Value::Number(number) => any.number(3, *number as u64),
            });
        });
    }
}

/// `ExportTraceServiceRequest`
pub(super) fn request(service: &str, version: &str, records: &[Record]) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |resource_spans| {
        resource_spans.message(1, |resource| {
            resource.attribute(1, "service.name", &Value::Text(service));
            resource.attribute(1, "service.version", &Value::Text(version));
        });
        resource_spans.message(2, |scope_spans| {
            scope_spans.message(1, |scope| {
                scope.bytes(1, b"attache");
                scope.bytes(2, version.as_bytes());
            });
            for record in records {
                scope_spans.message(2, |span| write_span(span, record));
            }
        });
    });
    request.0
}

fn write_span(span: &mut Message, record: &Record) {
    let Context { trace, span: id, parent, flags } = record.context;
    let Shown { name, attributes, is_error } = record.shown();
    let (start, end) = record.times();
    span.bytes(1, &trace);
    span.bytes(2, &id);
    if let Some(parent) = parent {
        span.bytes(4, &parent);
    }
    span.bytes(5, name.as_bytes());
    span.number(6, CLIENT);
    span.fixed64(7, start);
    span.fixed64(8, end);
    for (name, value) in &attributes {
        span.attribute(9, name, value);
    }
    if is_error {
        span.message(15, |status| status.number(3, ERROR));
    }
    let remote = if parent.is_some() { REMOTE_KNOWN | REMOTE } else { REMOTE_KNOWN };
    span.fixed32(16, u32::from(flags) | remote);
}

/// How many spans the collector says that it did not take (`ExportTraceServiceResponse.partial_success`). An answer
/// that cannot be read says nothing.
pub(super) fn rejected(response: &[u8]) -> u64 {
    field(response, 1).and_then(count).unwrap_or(0)
}

/// `rejected_spans`, which stands first.
fn count(partial: &[u8]) -> Option<u64> {
    let (key, rest) = varint(partial)?;
    (key == 1 << 3).then_some(varint(rest)?.0)
}

/// The content of the first length-delimited field of this number.
fn field(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
    while !message.is_empty() {
        let (key, rest) = varint(message)?;
        let (len, rest) = varint(rest)?;
        message = match key & 7 {
            0 => rest,
            2 => {
                let (content, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
                if key >> 3 == wanted {
                    return Some(content);
                }
                rest
            }
            _ => return None,
        };
    }
    None
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (number, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * number);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[number + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::Method;

    use super::*;
    use crate::telemetry::traces::span::{RequestSpan, What};

    /// What the published protobuf definitions make of the same span (PyPI `opentelemetry-proto` 1.45.2).
    const PUBLISHED: &str = "0af5020a310a130a0c736572766963652e6e616d6512030a01730a1a0a0f736572766963652e76657273696f6e12070a05302e3\
        12e3012bf020a100a07617474616368651205302e312e3012aa020a104bf92f3577b34da6a3ce929d0e0e473612080102030405060708220800f06\
        7aa0ba902b72a0a474554206f726465727330033901002a36fe9c971741a1255036fe9c97174a1c0a13687474702e726571756573742e6d6574686\
        f6412050a034745544a100a0875726c2e7061746812040a022f614a160a10617474616368652e7265706c61796564120210004a200a19687474702\
        e726573706f6e73652e7374617475735f636f6465120318f7034a190a0d617474616368652e726f75746512080a066f72646572734a150a0e73657\
        27665722e6164647265737312030a01684a120a0b7365727665722e706f7274120318bb034a150a0e617474616368652e726561736f6e12030a017\
        84a110a0a6572726f722e7479706512030a01787a021802850101030000";

    #[test]
    fn a_span_is_written_as_the_published_definitions_write_it() {
        let record = Record {
            context: Context {
                trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes(),
                span: [1, 2, 3, 4, 5, 6, 7, 8],
                parent: Some(0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()),
                flags: 1,
            },
            start: UNIX_EPOCH + Duration::new(1_700_000_000, 1),
            took: Duration::from_micros(2500),
            what: What::Request(RequestSpan {
                method: Method::GET,
                path: "/a".into(),
                query: None,
                route: Some(("orders".into(), "h".into(), 443)),
                status: 503,
                reason: Some("x"),
                call_status: None,
                replayed: false,
            }),
        };
        let written: String =
            request("s", "0.1.0", &[record]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written, PUBLISHED);
    }

    #[test]
    fn what_a_collector_did_not_take_is_read_from_its_answer() {
        assert_eq!(rejected(b"\x0a\x07\x08\xac\x02\x12\x02no"), 300);
        assert_eq!(rejected(b"\x0a\x04\x12\x02no"), 0);
        for nonsense in [&b""[..], b"\x0a", b"\x0a\xff", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
            assert_eq!(rejected(nonsense), 0);
        }
    }
}
