//! The upstream in HTTP/2, with prior knowledge or after ALPN: answers made beforehand.

use std::{io, rc::Rc};

use super::{
    frames::{self, Frames},
    hpack::Decoder,
    origin::{Answer, Answers},
    wire::Wire,
};

pub struct Origin2 {
    frames: Frames,
    decoder: Decoder,
    block: Vec<u8>,
    /// Whether the request whose block is not complete has no body.
    bodiless: bool,
    /// Requests whose bodies are still coming.
    open: Vec<(u32, Rc<Answer>)>,
    out: Vec<u8>,
}

impl Origin2 {
    pub fn new() -> Self {
        let mut out = Vec::new();
        frames::greeting(&mut out);
        Self {
            frames: Frames::default(),
            decoder: Decoder::new(),
            block: Vec::new(),
            bodiless: false,
            open: Vec::new(),
            out,
        }
    }

    /// Takes what came, and answers with one write what is complete.
    pub fn take(&mut self, bytes: &[u8], answers: &Answers, wire: &mut Wire) -> io::Result<()> {
        let mut frames = std::mem::take(&mut self.frames);
        frames.feed(bytes, |frame| self.frame(&frame, answers))?;
        frames.refill(&mut self.out);
        self.frames = frames;
        if !self.out.is_empty() {
            wire.send_bytes(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    fn frame(&mut self, frame: &frames::Frame<'_>, answers: &Answers) -> io::Result<()> {
        frames::housekeeping(frame, &mut self.out)?;
        let ends = frame.flags & frames::END_STREAM != 0;
        match frame.kind {
            frames::HEADERS | frames::CONTINUATION => {
                if frame.kind == frames::HEADERS {
                    self.bodiless = ends;
                }
                self.block.extend_from_slice(frame.payload);
                if frame.flags & frames::END_HEADERS == 0 {
                    return Ok(());
                }
                let answer = self.choose(answers)?;
                self.block.clear();
                if self.bodiless {
                    frames::put_ready(&mut self.out, &answer.http2, frame.stream);
                } else {
                    self.open.push((frame.stream, answer));
                }
            }
            frames::DATA if ends => {
                if let Some(at) = self.open.iter().position(|(stream, _)| *stream == frame.stream) {
                    let (stream, answer) = self.open.swap_remove(at);
                    frames::put_ready(&mut self.out, &answer.http2, stream);
                }
            }
            frames::RST_STREAM => self.open.retain(|(stream, _)| *stream != frame.stream),
            _ => {}
        }
        Ok(())
    }

    fn choose(&mut self, answers: &Answers) -> io::Result<Rc<Answer>> {
        let (mut path, mut permitted) = (Vec::new(), answers.credential.is_none());
        self.decoder.read(&self.block, |name, value| match name {
            b":path" => path.extend_from_slice(value),
            b"authorization" => {
                permitted |= value.split_last().map(|(_, start)| start) == answers.credential.as_deref();
            }
            _ => {}
        })?;
        answers.select(&path, permitted).cloned().ok_or_else(|| io::Error::other("an unknown path"))
    }
}
