//! Networks, written in place or in a file.

use std::ops::Deref;
use std::path::Path;

use ipnet::IpNet;

use super::super::{Decoder, Node, Shape, Value, quote};

/// Largest file of networks, in bytes: some half a million of them.
const FILE_BYTES_MAX: usize = 16 << 20;

/// A network, or `"file:PATH"`: those that stand in a file, one a line. What follows a `#` is a comment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NetworkList {
    written: String,
    networks: Box<[IpNet]>,
}

impl NetworkList {
    /// The network alone.
    pub fn of(network: IpNet) -> Self {
        Self { written: network.to_string(), networks: Box::new([network]) }
    }

    /// As it was written.
    pub fn shown(&self) -> &str {
        &self.written
    }

    /// Whether it comes from a file.
    pub fn is_file(&self) -> bool {
        self.written.starts_with(FILE)
    }
}

impl Deref for NetworkList {
    type Target = [IpNet];

    fn deref(&self) -> &[IpNet] {
        &self.networks
    }
}

const FILE: &str = "file:";

impl Value for NetworkList {
    fn shape() -> Shape {
        Shape::Text {
            pattern: None,
            examples: &["10.0.0.0/8", "2001:db8::/32", "192.0.2.7", "file:networks.txt"],
        }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Some(path) = node.as_str().and_then(|text| text.strip_prefix(FILE)) else {
            return IpNet::decode(node, cx).map(Self::of);
        };
        if path.is_empty() {
            return cx.invalid(node, "names no file");
        }
        let file = cx.resolve(&node.origin, path);
        cx.names_file(&file);
        let networks = read(&file, node, cx)?;
        Some(Self { written: format!("{FILE}{path}"), networks })
    }

    fn render(&self) -> String {
        quote(&self.written)
    }
}

fn read(file: &Path, node: &Node, cx: &mut Decoder<'_>) -> Option<Box<[IpNet]>> {
    let shown = file.display();
    let bytes = match (cx.surroundings.read)(file) {
        Ok(bytes) if bytes.len() <= FILE_BYTES_MAX => bytes,
        Ok(_) => {
            let message = format!("{shown} is larger than 16 MiB");
            cx.error("unreadable-file", &node.origin, message);
            return None;
        }
        Err(error) => {
            cx.error("unreadable-file", &node.origin, format!("cannot read {shown}: {error}"));
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut networks = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match parse(line) {
            // Bits after the prefix are as good as zero: such lists come from elsewhere.
            Some(network) => networks.push(network.trunc()),
            None => {
                // A list that is read in part would let in, or shut out, whom nobody meant: it is not used at all.
                let message = format!("line {number} of {shown} is not a network: {}", quote(line));
                cx.error("invalid-value", &node.origin, message);
                return None;
            }
        }
    }
    Some(networks.into())
}

fn parse(line: &str) -> Option<IpNet> {
    line.parse().ok().or_else(|| line.parse().ok().map(|address: std::net::IpAddr| IpNet::from(address)))
}
