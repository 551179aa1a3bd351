//! Header blocks of HTTP/2, read by the letter of RFC 7541: it shares no line with what the gateway writes them with.

use std::collections::{HashMap, VecDeque};
use std::sync::LazyLock;

/// A name and its value.
pub type Field = (Vec<u8>, Vec<u8>);

/// The tables of one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    table: VecDeque<Field>,
    /// What the other side chose, at most [`TABLE_BYTES`].
    most: usize,
}

/// The size of the table where nothing else was offered.
const TABLE_BYTES: usize = 4096;

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), most: TABLE_BYTES }
    }
}

impl Decoder {
    /// The fields of a whole block.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn block(&mut self, mut bytes: &[u8]) -> Result<Vec<Field>, String> {
        let mut fields = Vec::new();
        while let Some(first) = bytes.first().copied() {
            match first {
                0x80.. => fields.push(self.find(integer(&mut bytes, 7)?)?),
                0x40.. => {
                    let field = self.literal(&mut bytes, 6)?;
                    self.table.push_front(field.clone());
                    self.evict();
                    fields.push(field);
                }
                0x20.. if fields.is_empty() => {
                    self.most = integer(&mut bytes, 5)?;
                    if self.most > TABLE_BYTES {
                        return Err("a table larger than was offered".into());
                    }
                    self.evict();
                }
                0x20.. => return Err("another table size behind a field".into()),
                _ => fields.push(self.literal(&mut bytes, 4)?),
            }
        }
        Ok(fields)
    }

    fn literal(&self, bytes: &mut &[u8], bits: u8) -> Result<Field, String> {
        let name = match integer(bytes, bits)? {
            0 => text(bytes)?,
            index => self.find(index)?.0,
        };
        Ok((name, text(bytes)?))
    }

    fn find(&self, index: usize) -> Result<Field, String> {
        let at = index.checked_sub(1).ok_or("index 0")?;
        if let Some((name, value)) = STATIC.get(at) {
            return Ok((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        self.table.get(at - STATIC.len()).cloned().ok_or_else(|| format!("index {index} is in no table"))
    }

    fn evict(&mut self) {
        // RFC 7541 section 4.1.
        while self.table.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() > self.most
        {
            self.table.pop_back();
        }
    }
}

/// RFC 7541 section 5.1.
fn integer(bytes: &mut &[u8], bits: u8) -> Result<usize, String> {
    let mut next = || {
        let (first, rest) = bytes.split_first().ok_or("a block that ends within a number")?;
        *bytes = rest;
        Ok::<_, String>(usize::from(*first))
    };
    let most = (1 << bits) - 1;
    let mut value = next()? & most;
    if value < most {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = next()?;
        value += (byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number of more than 28 bits".into())
}

/// RFC 7541 section 5.2.
fn text(bytes: &mut &[u8]) -> Result<Vec<u8>, String> {
    let is_coded = bytes.first().is_some_and(|first| *first >= 0x80);
    let length = integer(bytes, 7)?;
    let (text, rest) = bytes.split_at_checked(length).ok_or("a block that ends within a text")?;
    *bytes = rest;
    if is_coded { huffman(text) } else { Ok(text.to_vec()) }
}

fn huffman(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let (mut out, mut code, mut bits) = (Vec::new(), 0_u32, 0_u8);
    for byte in bytes {
        for at in (0..8).rev() {
            (code, bits) = (code << 1 | u32::from(byte >> at & 1), bits + 1);
            if let Some(symbol) = CODES.get(&(bits, code)) {
                out.push(u8::try_from(*symbol).map_err(|_| "the end of a text within it")?);
                (code, bits) = (0, 0);
            } else if bits > 30 {
                return Err("a code of no byte".into());
            }
        }
    }
    // What fills the last byte is the beginning of the longest code: ones.
    if bits > 7 || code != (1 << bits) - 1 {
        return Err("padding that is none".into());
    }
    Ok(out)
}

/// The symbols by length and code. The code is canonical: what the lengths do not say follows from the order (RFC 7541
/// section 5.2).
static CODES: LazyLock<HashMap<(u8, u32), usize>> = LazyLock::new(|| {
    let mut order: Vec<usize> = (0..LENGTHS.len()).collect();
    order.sort_by_key(|symbol| (LENGTHS[*symbol], *symbol));
    let (mut code, mut bits) = (0_u32, LENGTHS[order[0]]);
    let number = |symbol: usize| {
        code <<= LENGTHS[symbol] - bits;
        bits = LENGTHS[symbol];
        code += 1;
        ((bits, code - 1), symbol)
    };
    order.into_iter().map(number).collect()
});

/// How long the code of each byte is, and of the end of a text (RFC 7541 appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6,
    6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6,
    6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22,
    20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23,
    22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22,
    23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22,
    25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// RFC 7541 appendix A.
#[rustfmt::skip]
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

/// The examples of RFC 7541 appendices C.2.1, C.4.1 and C.4.2: with and without compression, with and without the table.
#[test]
fn examples_of_the_rfc() {
    let bytes = |text: &str| -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    };
    let field = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let plain = bytes("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572");
    assert_eq!(Decoder::default().block(&plain), Ok(vec![field("custom-key", "custom-header")]));
    let mut decoder = Decoder::default();
    let mut expected = vec![
        field(":method", "GET"),
        field(":scheme", "http"),
        field(":path", "/"),
        field(":authority", "www.example.com"),
    ];
    let first = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
    assert_eq!(decoder.block(&first), Ok(expected.clone()));
    expected.push(field("cache-control", "no-cache"));
    assert_eq!(decoder.block(&bytes("8286 84be 5886 a8eb 1064 9cbf")), Ok(expected));
    for wrong in ["80", "c6", "40", "0081 ff01 61", "8220", "3fe2 1f", "0085 ffff ffff ff01 61"] {
        assert!(Decoder::default().block(&bytes(wrong)).is_err(), "{wrong}");
    }
}
