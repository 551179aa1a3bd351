//! The code in which HPACK compresses texts.

/// A text in Huffman's code (RFC 7541 section 5.2 and appendix B).
pub(super) fn decompressed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(bytes.len() * 2);
    let mut code = Code::default();
    for byte in bytes {
        for bit in (0..8).rev() {
            if let Some(symbol) = code.take(byte >> bit & 1)? {
                text.push(symbol);
                code = Code::default();
            }
        }
    }
    // What is left is the beginning of the code that ends texts, which is all ones.
    (code.bits < 8 && code.is_ones).then_some(text)
}

/// The beginning of a code. Codes of one length follow each other, and those of the next length them.
struct Code {
    bits: usize,
    value: usize,
    /// The first code of this length.
    first: usize,
    is_ones: bool,
}

impl Default for Code {
    fn default() -> Self {
        Self { bits: 0, value: 0, first: 0, is_ones: true }
    }
}

impl Code {
    /// Takes the next bit; gives the byte that the code stands for once it is whole. `None`: it stands for none.
    fn take(&mut self, bit: u8) -> Option<Option<u8>> {
        self.bits += 1;
        self.value = self.value << 1 | usize::from(bit);
        self.is_ones &= bit == 1;
        let symbols =
            CODES.iter().find(|(bits, _)| *bits == self.bits).map_or(&[][..], |(_, symbols)| symbols);
        if let Some(symbol) = symbols.get(self.value - self.first) {
            return Some(Some(*symbol));
        }
        self.first = (self.first + symbols.len()) << 1;
        // The last code, which ends texts, may not stand in one.
        (self.bits < CODE_BITS_MAX).then_some(None)
    }
}

const CODE_BITS_MAX: usize = 30;

/// What the codes of each length stand for, in the order of the codes (RFC 7541 appendix B), but for the end of texts, which is the last.
const CODES: [(usize, &[u8]); 21] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, &[92, 195, 208]),
    (20, &[128, 130, 131, 162, 184, 194, 224, 226]),
    (21, &[153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230]),
    (
        22,
        &[
            129, 132, 133, 134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187,
            189, 190, 196, 198, 228, 232, 233,
        ],
    ),
    (
        23,
        &[
            1, 135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174,
            175, 180, 182, 183, 188, 191, 197, 231, 239,
        ],
    ),
    (24, &[9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237]),
    (25, &[199, 207, 234, 235]),
    (26, &[192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255]),
    (27, &[203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252, 253, 254]),
    (
        28,
        &[
            2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31,
            127, 220, 249,
        ],
    ),
    (30, &[10, 13, 22]),
];

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The opposite of [`decompressed`].
    pub(in super::super) fn compressed(text: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for byte in text {
            let (mut code, mut length) = (0_u32, 0);
            for (bits, symbols) in CODES {
                code <<= bits - length;
                length = bits;
                if let Some(at) = symbols.iter().position(|symbol| symbol == byte) {
                    code += at as u32;
                    break;
                }
                code += symbols.len() as u32;
            }
            bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
        }
        bits.resize(bits.len().next_multiple_of(8), true);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit))).collect()
    }

    /// Every code is there, and each once: together they leave no room for another (Kraft), but for the end of texts.
    #[test]
    fn the_code_is_complete() {
        let mut symbols: Vec<u8> = CODES.iter().flat_map(|(_, symbols)| symbols.iter().copied()).collect();
        symbols.sort_unstable();
        assert_eq!(symbols, (0..=255).collect::<Vec<u8>>());
        let taken: u64 =
            CODES.iter().map(|(bits, symbols)| (symbols.len() as u64) << (CODE_BITS_MAX - bits)).sum();
        assert_eq!(taken + 1, 1 << CODE_BITS_MAX);
    }

    /// The examples of RFC 7541, appendix C.4 and C.6.
    #[test]
    fn texts_are_decompressed() {
        for (bytes, text) in [
            (&b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..], "www.example.com"),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf", "custom-value"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            (
                b"\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3",
                "https://www.example.com",
            ),
            (b"", ""),
        ] {
            assert_eq!(decompressed(bytes).as_deref(), Some(text.as_bytes()), "{text}");
        }
        // Padding of eight bits, of zeros, and the end of texts inside of one.
        for bytes in [&b"\x49\x50\x9f\xff"[..], b"\x49\x50\x90", b"\x49\x51\xff\xff\xff\xfa\x7f"] {
            assert_eq!(decompressed(bytes), None, "{bytes:?}");
        }
    }
}
