//! Texts as generators, editors and strangers get them wrong: blank, duplicated, cut short, oversized, nested too deeply,
//! of another type. One seed gives one text, so that what fails can be had again.

/// Values that stand where others are due.
const ODD: &[&str] = &[
    "\"\"",
    "\" \"",
    "[]",
    "{}",
    "true",
    "false",
    "0",
    "-1",
    "1e400",
    "9223372036854775807",
    "9223372036854775808",
    "nan",
    "inf",
    "1979-05-27",
    "[[[[[[]]]]]]",
    "{ a = { b = { c = {} } } }",
    "\"0\"",
    "\"-1s\"",
    "\"99999999999999999999d\"",
    "\"1000000GiB\"",
    "\"~(a{1000}){1000}\"",
    "\"~(\"",
    "\"{\"",
    "\"{path.nobody}\"",
    "\"${NOBODY}\"",
    "\"${\"",
    "\"\\u0000\"",
    "\"a\\r\\nb\"",
    "\"\\uD800\"",
    "\"🦀\"",
    "[\"\", \"\", \"\"]",
    "[1, \"a\", []]",
    "\"127.0.0.1:99999\"",
    "\"[::1\"",
    "null",
    "",
];

/// Makes texts of texts.
#[derive(Debug)]
pub struct Mutator(fastrand::Rng);

impl Mutator {
    /// The texts of this seed.
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A configuration, or what is left of it.
    pub fn toml(&mut self, text: &str) -> Vec<u8> {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for _ in 0..self.0.usize(1..4) {
            self.change_lines(&mut lines);
        }
        let mut bytes = lines.join("\n").into_bytes();
        bytes.push(b'\n');
        if self.0.u8(..4) == 0 {
            self.damage(&mut bytes);
        }
        bytes
    }

    fn change_lines(&mut self, lines: &mut Vec<String>) {
        if lines.is_empty() {
            return;
        }
        let at = self.0.usize(..lines.len());
        match self.0.u8(..14) {
            0 => drop(lines.remove(at)),
            1 => {
                let line = lines[at].clone();
                lines.insert(self.0.usize(..=lines.len()), line);
            }
            2 => {
                let other = self.0.usize(..lines.len());
                lines.swap(at, other);
            }
            3 => lines.truncate(at),
            // A block once more, or many times.
            4 => {
                let end = (at + self.0.usize(1..8)).min(lines.len());
                let block = lines[at..end].to_vec();
                let times = if self.0.u8(..8) == 0 { 60 } else { 1 };
                for _ in 0..times {
                    lines.extend(block.iter().cloned());
                }
            }
            5..=8 => {
                if let Some((key, _)) = lines[at].split_once('=') {
                    lines[at] = format!("{key}= {}", self.odd());
                }
            }
            9 => {
                if let Some((key, value)) = lines[at].split_once('=') {
                    // A typing error in the key.
                    let mut key = key.trim_end().to_owned();
                    if key.is_ascii() && !key.is_empty() {
                        key.remove(self.0.usize(..key.len()));
                    }
                    lines[at] = format!("{key} ={value}");
                }
            }
            10 => lines.insert(at, format!("x = {}", self.nested('[', ']'))),
            11 => {
                let depth = self.0.usize(2..400);
                lines.insert(at, format!("{}a = 1", "a.".repeat(depth)));
            }
            12 => {
                let long = "x".repeat(1 << self.0.u32(4..15));
                let name = ["name", "path", "upstream", "[upstreams.", "host"][self.0.usize(..5)];
                lines.insert(
                    at,
                    if name.starts_with('[') {
                        format!("{name}{long}]")
                    } else {
                        format!("{name} = \"/{long}\"")
                    },
                );
            }
            _ => {
                let header = [
                    "[]",
                    "[[routes]]",
                    "[routes]",
                    "[upstreams]",
                    "[defaults]",
                    "[[",
                    "[a.b.c.d]",
                    "include = [\"*\"]",
                    "\u{feff}",
                    "\t",
                    "= 1",
                    "'''",
                ];
                lines.insert(at, header[self.0.usize(..header.len())].to_owned());
            }
        }
    }

    /// A JSON document, or what is left of it.
    pub fn json(&mut self, text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..self.0.usize(1..4) {
            match self.0.u8(..9) {
                0 => self.damage(&mut bytes),
                1 => bytes.truncate(self.0.usize(..=bytes.len())),
                2 => bytes.clear(),
                3 => {
                    let nested = self.nested('[', ']').into_bytes();
                    self.insert(&mut bytes, &nested);
                }
                4 => {
                    // A piece once more, or very often.
                    if !bytes.is_empty() {
                        let start = self.0.usize(..bytes.len());
                        let end = (start + self.0.usize(1..200)).min(bytes.len());
                        let piece = bytes[start..end].repeat(if self.0.u8(..8) == 0 { 100 } else { 1 });
                        self.insert(&mut bytes, &piece);
                    }
                }
                _ => self.replace_value(&mut bytes),
            }
        }
        bytes
    }

    /// Puts something else behind one of the colons, in place of what is there up to a comma or the end.
    fn replace_value(&mut self, bytes: &mut Vec<u8>) {
        let colons: Vec<usize> =
            bytes.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at).collect();
        if colons.is_empty() {
            return;
        }
        let start = colons[self.0.usize(..colons.len())] + 1;
        let length = bytes[start..].iter().position(|byte| matches!(byte, b',' | b'}' | b'\n'));
        let end = length.map_or(bytes.len(), |length| start + length);
        let odd = self.odd();
        bytes.splice(start..end, odd.into_bytes());
    }

    fn odd(&mut self) -> String {
        match self.0.u8(..12) {
            0 => format!("\"{}\"", "a".repeat(1 << self.0.u32(4..14))),
            1 => self.nested('[', ']'),
            2 => format!("[{}]", vec!["\"a\""; self.0.usize(1..300)].join(",")),
            _ => ODD[self.0.usize(..ODD.len())].to_owned(),
        }
    }

    fn nested(&mut self, open: char, close: char) -> String {
        let depth = 1 << self.0.u32(2..12);
        let (open, close) = (open.to_string().repeat(depth), close.to_string().repeat(depth));
        open + &close
    }

    /// Changes bytes anywhere, so that it may be no text any more.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.0.usize(1..6) {
            if bytes.is_empty() {
                return;
            }
            let at = self.0.usize(..bytes.len());
            match self.0.u8(..3) {
                0 => bytes[at] = self.0.u8(..),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, *[0, 0xff, b'"', b'{', b'\n', b'\\'].get(self.0.usize(..6)).unwrap()),
            }
        }
    }

    fn insert(&mut self, bytes: &mut Vec<u8>, piece: &[u8]) {
        let at = self.0.usize(..=bytes.len());
        bytes.splice(at..at, piece.iter().copied());
    }

    /// One of `many`.
    pub fn one_of<'t, T>(&mut self, many: &'t [T]) -> &'t T {
        &many[self.0.usize(..many.len())]
    }
}
