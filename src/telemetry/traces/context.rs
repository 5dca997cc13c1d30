//! Who calls whom, as W3C Trace Context has it (<https://www.w3.org/TR/trace-context/>): the field `traceparent`, read
//! and written.

use http::{HeaderMap, HeaderName, HeaderValue, header::AsHeaderName};

/// The field that names a trace and its latest span.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The field in which vendors keep more of it. It belongs to the other one.
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// §3.2.2.5.1
const SAMPLED: u8 = 0b01;
/// Level 2, §3.2.2.5.2: told on as it came.
const RANDOM: u8 = 0b10;

/// The place of a span in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
    /// The caller's span; a span without one begins its trace.
    pub(super) parent: Option<[u8; 8]>,
    pub(super) flags: u8,
}

/// What a caller says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
}

impl Parent {
    /// What stands in the fields. Two lines, or one that is malformed, are none (§4.3).
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(only(headers, TRACEPARENT)?.as_bytes())
    }

    /// §3.2: `version-trace-parent-flags`, in lower-case hex. A later version may have more behind that (§4.3).
    fn parse(text: &[u8]) -> Option<Self> {
        let (head, more) = text.split_at_checked(55)?;
        if [2, 35, 52].iter().any(|at| head[*at] != b'-') {
            return None;
        }
        let [version] = hex(&head[..2])?;
        let is_longer = version != 0 && more.first() == Some(&b'-');
        if version == 0xff || !(more.is_empty() || is_longer) {
            return None;
        }
        let (trace, span, [flags]) = (hex(&head[3..35])?, hex(&head[36..52])?, hex(&head[53..55])?);
        // All zeros are invalid (§3.2.2.3, §3.2.2.4).
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, flags })
    }

    pub(super) fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// A span of ours below the caller's.
    pub(super) fn child(self, span: [u8; 8]) -> Context {
        // Flags that this version does not know are not told on (§3.2.2.5.2).
        let flags = self.flags & (SAMPLED | RANDOM);
        Context { trace: self.trace, span, parent: Some(self.span), flags }
    }
}

impl Context {
    /// The first span of a trace.
    pub(super) fn root(trace: [u8; 16], span: [u8; 8]) -> Self {
        Self { trace, span, parent: None, flags: SAMPLED | RANDOM }
    }

    /// The field that names this span to the upstream.
    pub(super) fn traceparent(&self) -> HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let mut write = |at: usize, bytes: &[u8]| {
            for (number, byte) in bytes.iter().enumerate() {
                text[at + 2 * number] = DIGITS[usize::from(byte >> 4)];
                text[at + 2 * number + 1] = DIGITS[usize::from(byte & 15)];
            }
        };
        write(3, &self.trace);
        write(36, &self.span);
        write(53, &[self.flags]);
        HeaderValue::from_bytes(&text).expect("hex digits and dashes are visible ASCII")
    }
}

/// The only value of a field; two are none.
fn only(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Lower-case hex digits, exactly as many as the bytes have.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_span_takes_the_place_of_its_parent_and_nothing_else_changes() {
        let parent = Parent::parse(GOOD.as_bytes()).unwrap();
        assert!(parent.is_sampled());
        let child = parent.child(*b"\x01\x02\x03\x04\x05\x06\x07\x08");
        assert_eq!(child.traceparent(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0102030405060708-01");
        assert_eq!(child.parent, Some(parent.span));
    }

    #[test]
    fn what_is_not_a_traceparent_is_none() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736x00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
        ] {
            assert_eq!(Parent::parse(bad.as_bytes()), None, "{bad}");
        }
        let mut twice = HeaderMap::new();
        twice.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(Parent::of(&twice).is_some());
        twice.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(Parent::of(&twice), None);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known_and_unknown_flags_are_not_told_on() {
        for (more, flags) in [("cc", "00"), ("cd", "01"), ("03", "03"), ("02", "02")] {
            let text = format!("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{more}-what-comes");
            let parent = Parent::parse(text.as_bytes()).unwrap();
            let told = parent.child([1; 8]).traceparent();
            assert!(told.to_str().unwrap().starts_with("00-4bf9"));
            assert!(told.to_str().unwrap().ends_with(&format!("-{flags}")), "{told:?}");
        }
    }
}
