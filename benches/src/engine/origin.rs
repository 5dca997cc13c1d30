//! The upstream and the token endpoint: HTTP/1.1, answers made beforehand.

use std::{cell::Cell, io, rc::Rc};

use super::{frames::PREFACE, origin2::Origin2, stock::Stock, wire::Wire};

/// One answer in the forms of both protocols.
pub struct Answer {
    pub http1: Rc<[u8]>,
    /// If its body is large: how it is sent where there is no TLS.
    pub large: Option<Large>,
    /// Frames without their stream.
    pub http2: Vec<u8>,
    /// How often it was given.
    pub given: Cell<u64>,
}

/// An answer whose body is kept in the kernel.
pub struct Large {
    pub head: Rc<[u8]>,
    pub stock: Rc<Stock>,
    pub size: usize,
}

/// What a listener answers with.
pub struct Answers {
    /// By the segment of the path that names a size, or by the whole path of a token endpoint. Where a name stands twice, both
    /// are given in turn.
    pub by_name: Vec<(&'static str, Rc<Answer>)>,
    /// Every request must carry this and one byte more, which is another one after a refresh; else the answer is 401: a proxy that
    /// forgets the token must not look fast.
    pub credential: Option<Vec<u8>>,
    pub refusal: Rc<Answer>,
    /// Whether it is the turn of the second.
    pub second: Cell<bool>,
}

impl Answers {
    fn find(&self, head: &[u8]) -> Option<&Rc<Answer>> {
        let path = head.split(|byte| *byte == b' ').nth(1)?;
        let permitted = self.credential.as_ref().is_none_or(|credential| {
            memchr::memmem::find_iter(head, credential)
                .any(|at| head[at + credential.len() + 1..].starts_with(b"\r\n"))
        });
        self.select(path, permitted)
    }

    /// `permitted` says whether the credential was there.
    pub fn select(&self, path: &[u8], permitted: bool) -> Option<&Rc<Answer>> {
        let mut segments = path.split(|byte| *byte == b'/').skip(1);
        let first = segments.next()?;
        if first != b"token" && !permitted {
            return Some(&self.refusal);
        }
        let name = segments.next().unwrap_or(first);
        let mut found = self.by_name.iter().filter(|(known, _)| known.as_bytes() == name);
        let (first, second) = (found.next(), found.next());
        let second = second.filter(|_| self.second.replace(!self.second.get()));
        let (_, answer) = second.or(first)?;
        answer.given.set(answer.given.get() + 1);
        Some(answer)
    }
}

pub struct Origin {
    pub wire: Wire,
    answers: Rc<Answers>,
    head: Vec<u8>,
    body: Option<(Body, Rc<Answer>)>,
    /// The connection turned out to be HTTP/2.
    http2: Option<Box<Origin2>>,
}

enum Body {
    Length(usize),
    /// Chunked: what was seen of the last bytes.
    Chunked(Vec<u8>),
}

impl Origin {
    pub fn new(wire: Wire, answers: Rc<Answers>) -> Self {
        Self { wire, answers, head: Vec::new(), body: None, http2: None }
    }

    /// Takes what has arrived and answers what is complete; false when the connection is over.
    pub fn on_readable(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        while let Some(read) = self.wire.read(buffer)? {
            if read == 0 {
                return Ok(false);
            }
            self.take(&buffer[..read])?;
            if read < buffer.len() {
                break;
            }
        }
        Ok(true)
    }

    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if let Some(http2) = &mut self.http2 {
            return http2.take(bytes, &self.answers, &mut self.wire);
        }
        while !bytes.is_empty() {
            if let Some((body, answer)) = &mut self.body {
                let taken = match body {
                    Body::Length(left) => {
                        let taken = bytes.len().min(*left);
                        *left -= taken;
                        if *left > 0 {
                            return Ok(());
                        }
                        taken
                    }
                    Body::Chunked(tail) => {
                        tail.extend_from_slice(&bytes[bytes.len().saturating_sub(5)..]);
                        tail.drain(..tail.len().saturating_sub(5));
                        if tail != b"0\r\n\r\n" {
                            return Ok(());
                        }
                        bytes.len()
                    }
                };
                bytes = &bytes[taken..];
                let answer = answer.clone();
                self.body = None;
                self.wire.answer(&answer)?;
                continue;
            }
            // The common case parses in place: one request, whole.
            let before = self.head.len();
            let whole = if before == 0 {
                bytes
            } else {
                self.head.extend_from_slice(bytes);
                &self.head[..]
            };
            let Some(end) = memchr::memmem::find(whole, b"\r\n\r\n").map(|at| at + 4) else {
                if before == 0 {
                    self.head.extend_from_slice(bytes);
                }
                return Ok(());
            };
            let head = &whole[..end];
            // The preface looks like a head and six bytes more (RFC 9113 §3.4).
            if PREFACE.starts_with(head) {
                let rest = whole[end..].to_vec();
                self.head.clear();
                let Some(rest) = rest.strip_prefix(&PREFACE[end..]) else {
                    return Err(io::Error::other("a preface in pieces"));
                };
                return self.http2.insert(Box::new(Origin2::new())).take(rest, &self.answers, &mut self.wire);
            }
            let answer = self.answers.find(head).ok_or_else(|| io::Error::other("an unknown path"))?.clone();
            let body = if head.starts_with(b"GET ") {
                None
            } else if let Some(length) = header(head, b"content-length") {
                let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
                length.filter(|length| *length > 0).map(Body::Length)
            } else {
                Some(Body::Chunked(Vec::new()))
            };
            bytes = &bytes[end - before..];
            self.head.clear();
            match body {
                None => self.wire.answer(&answer)?,
                Some(body) => self.body = Some((body, answer)),
            }
        }
        Ok(())
    }
}

/// The value of a header, in any spelling of its name.
pub fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let (found, rest) = line.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_endpoint_gives_two_tokens_in_turn_and_both_are_let_in() {
        let answer = |text: &str| {
            Rc::new(Answer {
                http1: text.as_bytes().into(),
                large: None,
                http2: Vec::new(),
                given: Cell::new(0),
            })
        };
        let answers = Answers {
            by_name: vec![("short", answer("1")), ("128", answer("body")), ("short", answer("2"))],
            credential: Some(b"Bearer token-".to_vec()),
            refusal: answer("401"),
            second: false.into(),
        };
        let told = |head: &str| answers.find(head.as_bytes()).map(|answer| answer.http1.to_vec());
        let tokens = [(); 3].map(|()| told("POST /token/short HTTP/1.1\r\n\r\n").unwrap());
        assert_eq!(tokens, [b"1", b"2", b"1"]);
        assert_eq!([0, 2].map(|at| answers.by_name[at].1.given.get()), [2, 1]);
        for (token, wanted) in [("token-1", "body"), ("token-2", "body"), ("token-", "401"), ("", "401")] {
            let head = format!("GET /v1/128 HTTP/1.1\r\nauthorization: Bearer {token}\r\n\r\n");
            assert_eq!(told(&head).unwrap(), wanted.as_bytes(), "{token}");
        }
    }
}
