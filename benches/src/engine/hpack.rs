//! HPACK (RFC 7541), as much as the benchmark needs: the header fields that a proxy sends are read in full, its dynamic
//! table included; what the benchmark itself sends is made once, of literals only.

use std::{collections::VecDeque, io, rc::Rc};

use super::huffman;

/// RFC 7541 Appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// What a table may hold, as long as nobody has asked for something else.
const TABLE: usize = 4096;

type Field = (Rc<[u8]>, Rc<[u8]>);

/// Reads the header blocks of one direction of one connection.
pub struct Decoder {
    table: VecDeque<Field>,
    size: usize,
    limit: usize,
    scratch: (Vec<u8>, Vec<u8>),
}

impl Decoder {
    pub fn new() -> Self {
        Self { table: VecDeque::new(), size: 0, limit: TABLE, scratch: Default::default() }
    }

    /// Shows every field of a block, in its order.
    pub fn read(&mut self, mut block: &[u8], mut show: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        while let Some(first) = block.first().copied() {
            if first & 0x80 != 0 {
                let index = integer(&mut block, 7)?;
                match self.field(index)? {
                    Known::Static(name, value) => show(name.as_bytes(), value.as_bytes()),
                    Known::Dynamic((name, value)) => show(name, value),
                }
                continue;
            }
            if first & 0xe0 == 0x20 {
                self.limit = integer(&mut block, 5)?.min(TABLE);
                self.evict(0);
                continue;
            }
            let indexed = first & 0xc0 == 0x40;
            let index = integer(&mut block, if indexed { 6 } else { 4 })?;
            let (mut name, mut value) = std::mem::take(&mut self.scratch);
            name.clear();
            value.clear();
            if index == 0 {
                string(&mut block, &mut name)?;
            } else {
                name.extend_from_slice(match self.field(index)? {
                    Known::Static(name, _) => name.as_bytes(),
                    Known::Dynamic((name, _)) => name,
                });
            }
            string(&mut block, &mut value)?;
            show(&name, &value);
            if indexed {
                let size = name.len() + value.len() + 32;
                self.evict(size);
                if size <= self.limit {
                    self.size += size;
                    self.table.push_front((name.as_slice().into(), value.as_slice().into()));
                }
            }
            self.scratch = (name, value);
        }
        Ok(())
    }

    fn field(&self, index: usize) -> io::Result<Known<'_>> {
        match STATIC.get(index.wrapping_sub(1)) {
            Some((name, value)) => Ok(Known::Static(name, value)),
            None => self
                .table
                .get(index.wrapping_sub(STATIC.len() + 1))
                .map(Known::Dynamic)
                .ok_or_else(|| io::Error::other(format!("HPACK: no field has the index {index}"))),
        }
    }

    fn evict(&mut self, more: usize) {
        while self.size + more > self.limit
            && let Some((name, value)) = self.table.pop_back()
        {
            self.size -= name.len() + value.len() + 32;
        }
    }
}

enum Known<'a> {
    Static(&'static str, &'static str),
    Dynamic(&'a Field),
}

/// RFC 7541 §5.1.
fn integer(block: &mut &[u8], prefix: u32) -> io::Result<usize> {
    let short = || io::Error::other("HPACK: a block that ends too early");
    let full = (1usize << prefix) - 1;
    let (first, mut rest) = block.split_first().ok_or_else(short)?;
    let mut value = usize::from(*first) & full;
    if value == full {
        let mut shift = 0;
        loop {
            let (byte, after) = rest.split_first().ok_or_else(short)?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 28 {
                return Err(io::Error::other("HPACK: a number that is too large"));
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// RFC 7541 §5.2.
fn string(block: &mut &[u8], into: &mut Vec<u8>) -> io::Result<()> {
    let coded = block.first().is_some_and(|byte| byte & 0x80 != 0);
    let length = integer(block, 7)?;
    let (text, rest) = block
        .split_at_checked(length)
        .ok_or_else(|| io::Error::other("HPACK: a string that ends too early"))?;
    *block = rest;
    if coded {
        return huffman::decode(text, into);
    }
    into.extend_from_slice(text);
    Ok(())
}

/// A block of literals, which neither uses nor fills a table.
pub fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "longer strings are not needed");
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(decoder: &mut Decoder, hex: &str) -> Vec<String> {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        decoder.read(&bytes, |name, value| fields.push(format!("{}: {}", text(name), text(value)))).unwrap();
        fields
    }

    #[test]
    fn the_examples_of_rfc_7541_appendix_c_4_are_understood() {
        let mut decoder = Decoder::new();
        let first = read(&mut decoder, "828684418cf1e3c2e5f23a6ba0ab90f4ff");
        assert_eq!(first, [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"]);
        let second = read(&mut decoder, "828684be5886a8eb10649cbf");
        assert_eq!(second[3..], [":authority: www.example.com", "cache-control: no-cache"]);
        let third = read(&mut decoder, "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf");
        assert_eq!(third[3..], [":authority: www.example.com", "custom-key: custom-value"]);
        assert_eq!(decoder.size, 164);
    }

    #[test]
    fn what_is_sent_can_be_read() {
        let fields = [(":status", "200"), ("content-type", "application/grpc")];
        let mut seen = Vec::new();
        let block = literals(&fields);
        Decoder::new().read(&block, |name, value| seen.push((name.to_vec(), value.to_vec()))).unwrap();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[1].1, b"application/grpc");
    }
}
