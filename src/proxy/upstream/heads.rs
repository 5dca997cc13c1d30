//! The header fields of requests over HTTP/2, until [`Attaching`](super::attach::Attaching) writes them.

use std::{cell::RefCell, collections::VecDeque, fmt, mem};

use super::fields::Fields;

/// So many blocks of fields are kept for reuse: those of as many requests as a connection has at once.
const SPARES: usize = 64;

/// A block that became larger than this is not kept.
pub(super) const KEPT: usize = 8 * 1024;

/// The fields of requests whose heads have not been written yet.
#[derive(Default)]
pub(super) struct Heads(RefCell<Waiting>);

#[derive(Default)]
struct Waiting {
    // In the order of their streams.
    blocks: VecDeque<(u32, Vec<u8>)>,
    spares: Vec<Vec<u8>>,
}

impl Heads {
    /// The head of this stream will have these fields. It must not have been written yet: the library writes when its connection
    /// is polled, not when it is given a request.
    pub(super) fn add(&self, stream: u32, fields: &Fields<'_>) {
        let mut waiting = self.0.borrow_mut();
        let mut block = waiting.spares.pop().unwrap_or_default();
        fields.write(&mut block);
        waiting.blocks.push_back((stream, block));
    }

    /// So many heads wait, those of requests that were given up among them: the library writes them nevertheless.
    pub(super) fn waiting(&self) -> usize {
        self.0.borrow().blocks.len()
    }

    /// The head of this stream is written: exchanges the block of its fields for one that is not needed any more, and tells
    /// whether there was one. Heads of lower streams cannot be written any more (RFC 9113 §5.1.1).
    pub(super) fn take(&self, stream: u32, block: &mut Vec<u8>) -> bool {
        block.clear();
        let mut taken = false;
        let mut waiting = self.0.borrow_mut();
        while let Some((first, mut found)) = waiting.blocks.pop_front_if(|(first, _)| *first <= stream) {
            if first == stream {
                mem::swap(block, &mut found);
                taken = true;
            }
            found.clear();
            if waiting.spares.len() < SPARES && found.capacity() <= KEPT {
                waiting.spares.push(found);
            }
        }
        taken
    }
}

/// Tokens wait here: no bytes of them are shown.
impl fmt::Debug for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heads").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};

    use super::*;

    fn fields<'a>(headers: &'a HeaderMap, credential: Option<&'a HeaderValue>) -> Fields<'a> {
        Fields { headers, length: None, injected: &AUTHORIZATION, credential }
    }

    #[test]
    fn a_head_that_is_never_written_leaves_nothing_behind() {
        let heads = Heads::default();
        let headers = HeaderMap::new();
        for stream in [1, 3, 7] {
            heads.add(stream, &fields(&headers, Some(&HeaderValue::from(stream))));
        }
        let mut block = Vec::new();
        let mut taken = |stream| {
            heads.take(stream, &mut block);
            block.clone()
        };
        assert_eq!(taken(3), b"\x1f\x08\x013");
        // Trailers.
        assert_eq!((taken(3), taken(5)), (Vec::new(), Vec::new()));
        assert_eq!(taken(7), b"\x1f\x08\x017");
        assert_eq!(heads.waiting(), 0);
    }

    #[test]
    fn no_field_of_one_request_is_in_another() {
        let heads = Heads::default();
        let mut block = Vec::new();
        for stream in [1, 3, 5, 7] {
            let headers = HeaderMap::from_iter([(HeaderName::from_static("n"), HeaderValue::from(stream))]);
            heads.add(stream, &fields(&headers, None));
            if stream == 5 {
                // That of stream 3 is not written: its body broke off before.
                for stream in [1, 5] {
                    heads.take(stream, &mut block);
                    assert_eq!(block, [b"\x00\x01n\x01", stream.to_string().as_bytes()].concat());
                }
            }
        }
        heads.take(7, &mut block);
        assert_eq!(block, b"\x00\x01n\x017");
    }

    #[test]
    fn no_more_is_kept_for_reuse_than_requests_at_once_need() {
        let heads = Heads::default();
        let (short, long) = (HeaderMap::new(), HeaderValue::from_str(&"x".repeat(KEPT + 1)).unwrap());
        let mut block = Vec::new();
        for stream in 0..200 {
            let value = if stream < 100 { long.clone() } else { HeaderValue::from(stream) };
            heads.add(stream, &fields(&short, Some(&value)));
        }
        heads.take(199, &mut block);
        let kept = &heads.0.borrow().spares;
        assert_eq!(kept.len(), SPARES);
        assert!(kept.iter().all(|block| block.is_empty() && block.capacity() <= KEPT));
    }
}
