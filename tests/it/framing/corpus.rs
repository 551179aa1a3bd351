//! Requests over HTTP/1 that two servers could read in two ways, and their like. Some are right after all: what counts is
//! what is forwarded.

use super::payload::{Corpus, HIDDEN, NEXT, Way, chunked, length};

/// All of them, numbered from `from`.
pub fn all(way: Way, from: usize) -> Corpus {
    let mut corpus = Corpus::new(way, from);
    transfer_codings(&mut corpus);
    lengths(&mut corpus);
    chunks(&mut corpus);
    bytes_everywhere(&mut corpus);
    line_ends(&mut corpus);
    names(&mut corpus);
    hosts(&mut corpus);
    targets(&mut corpus);
    versions(&mut corpus);
    upgrades(&mut corpus);
    expectations(&mut corpus);
    connection_options(&mut corpus);
    pipelines(&mut corpus);
    large(&mut corpus);
    cut_off(&mut corpus);
    // A third comes in pieces, cut at places that mean something: at line ends, and anywhere.
    for (at, payload) in corpus.payloads.iter_mut().enumerate() {
        let length = payload.bytes.len();
        if at % 3 != 0 || length > 4096 {
            continue;
        }
        let line_end = payload.bytes.iter().position(|byte| *byte == b'\r').map_or(1, |at| at + 1);
        payload.cuts = match at % 9 {
            0 => vec![line_end.min(length)],
            3 => vec![1 + at * 7 % length.max(1), length.saturating_sub(1)],
            _ => vec![line_end, length / 2, length / 2 + 1, length.saturating_sub(2)],
        };
        payload.cuts.retain(|cut| *cut < length);
        payload.cuts.sort_unstable();
    }
    corpus
}

/// Spellings of `Transfer-Encoding`, some of them right.
const CODINGS: &[&str] = &[
    "Transfer-Encoding: chunked",
    "transfer-encoding: chunked",
    "TRANSFER-ENCODING: CHUNKED",
    "Transfer-Encoding:chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: chunked\t",
    "Transfer-Encoding:  chunked  ",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    " Transfer-Encoding: chunked",
    "\tTransfer-Encoding: chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: 'chunked'",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: chunked; x",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked gzip",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding:",
    "Transfer-Encoding: \t ",
    "Transfer-Encoding: cow",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\ntransfer-encoding: chunked",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: \r\n\tchunked",
    "Transfer-Encoding: chu\r\n nked",
    "Transfer-Encoding: chunked\r\n , x",
    "X: y\r\n Transfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\0\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\n",
    "Transfer-Encoding: chunked\r",
    "Transfer-Encoding\n: chunked",
    "Transfer-Encoding:\n chunked",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding: chunked\x0c",
    "Transfer-Encoding: chunked\0",
    "Transfer-Encoding: \0chunked",
    "Transfer-Encoding\0: chunked",
    "Transfer_Encoding: chunked",
    "Transfer Encoding: chunked",
    "Transfer-Encoding; chunked",
    "Transfer-Encoding= chunked",
    "Transfer-Encoding chunked",
    "Transfer-Encoding:: chunked",
    "Transfer-Encoding: :chunked",
    ": chunked\r\nTransfer-Encoding",
    "Transfer-Encoding: \u{a0}chunked",
    "Transfer-Encoding: chun\u{212a}ed",
    "\u{feff}Transfer-Encoding: chunked",
    "Transfer-Enco\u{0}ding: chunked",
    "Transfer-Encoding: chunked\u{2028}",
    "Transfer-Encoding:\u{85}chunked",
    "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    "Trailer: Transfer-Encoding\r\nTransfer-Encoding: chunked",
];

fn transfer_codings(corpus: &mut Corpus) {
    for coding in CODINGS {
        let name = coding.escape_debug();
        let body = format!("0\r\n\r\n{HIDDEN}");
        let start = "POST <0> HTTP/1.1\r\nHost: x\r\n";
        let length_line = format!("Content-Length: {}", length(&body));
        corpus.add(format!("CL.TE {name}"), format!("{start}{length_line}\r\n{coding}\r\n\r\n{body}"));
        // A field that is nearly one is another one, and what follows the length another request.
        if coding.contains('_') {
            continue;
        }
        corpus.add(
            format!("TE.CL {name}"),
            format!("{start}{coding}\r\nContent-Length: 4\r\n\r\n{}", chunked(HIDDEN)),
        );
        corpus.add(format!("TE {name}"), format!("{start}{coding}\r\n\r\n{}{NEXT}", chunked(HIDDEN)));
    }
    for method in ["GET", "HEAD", "OPTIONS"] {
        let text = format!(
            "{method} <0> HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            chunked(HIDDEN)
        );
        corpus.add(format!("both with {method}"), text).methods =
            vec![if method == "HEAD" { "HEAD" } else { "GET" }];
    }
    corpus.add(
        "TE without a body",
        format!("GET <0> HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n{HIDDEN}"),
    );
}

fn lengths(corpus: &mut Corpus) {
    let real = length(HIDDEN);
    let mut values: Vec<String> = [
        "+#",
        "-#",
        "#-",
        "# #",
        "#,#",
        "#, #",
        "0, #",
        "#, 0",
        "#;",
        "#; x",
        "0x#",
        "#.0",
        "#e0",
        "#\0",
        "\0#",
        "\x0b#",
        "#\x0b",
        "#\x0c",
        "#_",
        "_#",
        "#L",
        "\"#\"",
        "{#}",
        "[#]",
        "(#)",
        "#/1",
        "#=",
        "=#",
        ":#",
        "#:",
        "'#'",
        "$#",
        "#%",
        "\u{a0}#",
        "#\u{a0}",
        "\u{ff15}",
        "-0",
        "+0",
        "--#",
        "0-#",
        "",
        " ",
        "five",
        "NaN",
        "Infinity",
        "null",
        "true",
        "0b11",
        "0o7",
        "0x5f",
        "1_000",
        "1,000",
        "#\r\n 0",
        "\r\n #",
        "#\r",
        "#\n",
        "#\nX: y",
        "#\rX: y",
        "#\tx",
        "# x",
        "00#",
        "0#",
        "000000000000000000000000000#",
        "\t#",
        "#\t ",
        "#",
    ]
    .map(|value| value.replace('#', &real.to_string()))
    .into();
    values.extend([
        "18446744073709551615".into(),
        "18446744073709551616".into(),
        format!("{}", (1_u128 << 64) + real as u128),
        format!("{}", (1_u128 << 32) + real as u128),
        format!("{}", (1_u128 << 127) + real as u128),
        "9223372036854775807".into(),
        "9223372036854775808".into(),
        "9".repeat(400),
        "1".repeat(39),
    ]);
    for value in values {
        let text = format!("POST <0> HTTP/1.1\r\nHost: x\r\nContent-Length: {value}\r\n\r\n{HIDDEN}");
        corpus.add(format!("a length of {:.40}", value.escape_debug().to_string()), text);
    }
    let right = format!("Content-Length: {real}");
    for lines in [
        format!("{right}\r\n{right}"),
        format!("{right}\r\ncontent-length: {real}"),
        format!("{right}\r\nContent-Length: 0"),
        format!("Content-Length: 0\r\n{right}"),
        format!("{right}\r\nX: y\r\nContent-Length: 0"),
        format!("{right}\r\nContent-Length:"),
        format!("{right}\r\nContent-Length: x"),
        format!("Content-Length : {real}"),
        format!("Content-Length\t: {real}"),
        format!(" {right}"),
        format!("\t{right}"),
        format!("X: y\r\n {right}"),
        format!("X: y\r{right}"),
        format!("X: y\n{right}"),
        format!("Content-Length\0: {real}"),
        format!("Content_Length: {real}"),
        format!("Content Length: {real}"),
        format!("Content-Length= {real}"),
        format!("Content-Length {real}"),
        format!("Content-Length\r\n: {real}"),
        format!("Content-Length:\r\n {real}"),
        format!("Connection: Content-Length\r\n{right}"),
        format!("Connection: close, content-length\r\n{right}"),
        format!("\u{feff}{right}"),
        "X: y".into(),
    ] {
        for method in ["POST", "GET"] {
            // Without a length what follows is another request.
            let behind = if lines == "X: y" || lines.contains('_') { NEXT } else { HIDDEN };
            let text = format!("{method} <0> HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n{behind}");
            corpus.add(format!("{method} {}", lines.escape_debug()), text);
        }
    }
}

fn chunks(corpus: &mut Corpus) {
    let head = "POST <0> HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let size = format!("{:x}", length(HIDDEN));
    let long_extension = format!("#;{}", "x".repeat(10_000));
    let sizes = [
        "+#",
        "-#",
        "0x#",
        "0X#",
        "x#",
        "#h",
        " #",
        "# ",
        "\t#",
        "#\t",
        "#;",
        "#;;",
        "#;=",
        "#;x=",
        "#;x=\"",
        "#;x=\"\\\"",
        "#;x\ny",
        "#;x=\"a\rb\"",
        "#;x=\"a\nb\"",
        "#;x=\"\r\n\"",
        "#;x\0",
        "#;\x7f",
        "#\n",
        "\n#",
        "#\r",
        "\r#",
        "#\r\r",
        "#\n\r",
        "0#",
        "00000000000000000000#",
        "#,",
        "#.0",
        "#_",
        "#\0",
        "\0#",
        "#g",
        "g",
        "",
        ";x",
        "#=x",
        "#:",
        "# x",
        "\u{ff15}",
        "fffffffffffffffff",
        "1000000000000000000000000#",
        "ffffffffffffffff",
        "ffffffffffffff#",
        "8000000000000000",
        "7fffffffffffffff",
        "100000000#",
        "0",
        "-1",
        "-0",
        "1e3",
        "\"#\"",
        "# ;x",
        "#\x0b",
        "#\x0c",
        &long_extension,
    ];
    for spelled in sizes {
        let line = spelled.replace('#', &size);
        let name = format!("a chunk of {:.60}", spelled.escape_debug().to_string());
        corpus.add(&name, format!("{head}{line}\r\n{HIDDEN}\r\n0\r\n\r\n{NEXT}"));
        corpus.add(format!("{name}, with LF"), format!("{head}{line}\n{HIDDEN}\r\n0\r\n\r\n{NEXT}"));
    }
    for (name, body) in [
        ("nothing behind the data", format!("5\r\nhello0\r\n\r\n{HIDDEN}")),
        ("LF behind the data", format!("5\r\nhello\n0\r\n\r\n{NEXT}")),
        ("CR behind the data", format!("5\r\nhello\r0\r\n\r\n{NEXT}")),
        ("two bytes behind the data", format!("5\r\nhelloXX0\r\n\r\n{HIDDEN}")),
        ("CR and another byte behind the data", format!("5\r\nhello\rX0\r\n\r\n{HIDDEN}")),
        ("a byte too many", format!("5\r\nhello!\r\n0\r\n\r\n{NEXT}")),
        ("a byte too few", format!("6\r\nhello\r\n0\r\n\r\n{NEXT}")),
        ("LF alone", "5\nhello\n0\n\n".to_owned()),
        ("LF at the end", format!("5\r\nhello\r\n0\r\n\n{NEXT}")),
        ("LF behind the last size", format!("5\r\nhello\r\n0\n\r\n{NEXT}")),
        ("an empty line more", format!("5\r\nhello\r\n\r\n0\r\n\r\n{NEXT}")),
        ("the last chunk twice", format!("5\r\nhello\r\n0\r\n\r\n0\r\n\r\n{HIDDEN}")),
        ("no last line end", format!("5\r\nhello\r\n0\r\n{HIDDEN}")),
        ("a signed last chunk", format!("5\r\nhello\r\n-0\r\n\r\n{HIDDEN}")),
        ("a last chunk in hexadecimal", format!("5\r\nhello\r\n0x0\r\n\r\n{HIDDEN}")),
        ("a space behind the last size", format!("5\r\nhello\r\n0 \r\n\r\n{HIDDEN}")),
        ("a last chunk of nothing", format!("5\r\nhello\r\n\r\n\r\n{HIDDEN}")),
    ] {
        corpus.add(name, format!("{head}{body}"));
    }
    for trailer in [
        "Content-Length: 5",
        "Content-Length: 0\r\nContent-Length: 9",
        "Transfer-Encoding: chunked",
        "Host: evil",
        "Authorization: Basic eDp5",
        "Connection: close",
        "Trailer: X",
        "X-Evil: 1",
        " folded",
        "A: b\r\n folded",
        "A : b",
        "A\0: b",
        "A: b\0",
        "A: \x7f",
        "A: b\nX-Evil: 1",
        "A: b\rX-Evil: 1",
        "no colon",
        ": x",
        "A;b: c",
        "GET <E> HTTP/1.1",
        "GET <E> HTTP/1.1\r\nHost: x",
    ] {
        let text = format!("{head}5\r\nhello\r\n0\r\n{trailer}\r\n\r\n{NEXT}");
        corpus.add(format!("a trailer {}", trailer.escape_debug()), text);
    }
    let many = "A: b\r\n".repeat(3_000);
    corpus.add("many trailers", format!("{head}0\r\n{many}\r\n{NEXT}"));
    corpus.add("a long trailer", format!("{head}0\r\nA: {}\r\n\r\n{NEXT}", "b".repeat(20_000)));
}

/// Bytes that have no place in a head, or only in few, in each place of one.
fn bytes_everywhere(corpus: &mut Corpus) {
    const BYTES: &[u8] =
        &[0, 1, 7, 8, 9, 10, 11, 12, 13, 0x1b, 0x1f, 0x20, 0x22, 0x2c, 0x3b, 0x5c, 0x7f, 0x80, 0xa0, 0xff];
    const PLACES: &[(&str, &str)] = &[
        ("before the method", "@POST <0> HTTP/1.1\r\nHost: x\r\nX: y\r\nContent-Length: 5\r\n\r\nhello"),
        ("in the method", "PO@ST <0> HTTP/1.1\r\nHost: x\r\nX: y\r\nContent-Length: 5\r\n\r\nhello"),
        ("behind the method", "POST@ <0> HTTP/1.1\r\nHost: x\r\nX: y\r\nContent-Length: 5\r\n\r\nhello"),
        ("in the path", "POST <0>@ HTTP/1.1\r\nHost: x\r\nX: y\r\nContent-Length: 5\r\n\r\nhello"),
        ("in the query", "POST <0>?a@b HTTP/1.1\r\nHost: x\r\nX: y\r\nContent-Length: 5\r\n\r\nhello"),
        ("in the version", "POST <0> HTTP@/1.1\r\nHost: x\r\nX: y\r\nContent-Length: 5\r\n\r\nhello"),
        ("behind the version", "POST <0> HTTP/1.1@\r\nHost: x\r\nX: y\r\nContent-Length: 5\r\n\r\nhello"),
        ("in the line end", "POST <0> HTTP/1.1\r@\nHost: x\r\nX: y\r\nContent-Length: 5\r\n\r\nhello"),
        ("in Host", "POST <0> HTTP/1.1\r\nHost: x@x\r\nX: y\r\nContent-Length: 5\r\n\r\nhello"),
        ("in a name", "POST <0> HTTP/1.1\r\nHost: x\r\nX@Z: y\r\nContent-Length: 5\r\n\r\nhello"),
        ("before a name", "POST <0> HTTP/1.1\r\nHost: x\r\n@X: y\r\nContent-Length: 5\r\n\r\nhello"),
        ("behind a name", "POST <0> HTTP/1.1\r\nHost: x\r\nX@: y\r\nContent-Length: 5\r\n\r\nhello"),
        ("in a value", "POST <0> HTTP/1.1\r\nHost: x\r\nX: y@X-Evil: 1\r\nContent-Length: 5\r\n\r\nhello"),
        ("before a value", "POST <0> HTTP/1.1\r\nHost: x\r\nX:@y\r\nContent-Length: 5\r\n\r\nhello"),
        ("behind a value", "POST <0> HTTP/1.1\r\nHost: x\r\nX: y@\r\nContent-Length: 5\r\n\r\nhello"),
        ("before a length", "POST <0> HTTP/1.1\r\nHost: x\r\nX: y\r\nContent-Length:@5\r\n\r\nhello"),
        ("behind a length", "POST <0> HTTP/1.1\r\nHost: x\r\nX: y\r\nContent-Length: 5@\r\n\r\nhello"),
        (
            "in the name of the length",
            "POST <0> HTTP/1.1\r\nHost: x\r\nX: y\r\nContent-Leng@th: 5\r\n\r\nhello",
        ),
        ("before the empty line", "POST <0> HTTP/1.1\r\nHost: x\r\nX: y\r\nContent-Length: 5\r\n@\r\nhello"),
        ("in the empty line", "POST <0> HTTP/1.1\r\nHost: x\r\nX: y\r\nContent-Length: 5\r\n\r@\nhello"),
    ];
    for (place, text) in PLACES {
        for byte in BYTES {
            let (before, behind) = text.split_once('@').unwrap();
            let bytes = [before.as_bytes(), &[*byte], behind.as_bytes()].concat();
            corpus.add(format!("{byte:#04x} {place}"), bytes);
        }
    }
}

fn line_ends(corpus: &mut Corpus) {
    let text = "POST <0> HTTP/1.1\r\nHost: x\r\nX: y\r\nContent-Length: 5\r\n\r\nhello";
    for end in [
        "\n", "\r", "\r\r\n", "\n\r", "\r\n ", "\r\n\t", "\n\n", "\u{85}", "\u{2028}", " \r\n", "\t\r\n",
        "\0\r\n", "\\r\\n",
    ] {
        corpus.add(format!("all lines end in {}", end.escape_debug()), text.replace("\r\n", end));
        for (at, _) in text.match_indices("\r\n") {
            let changed = [&text[..at], end, &text[at + 2..]].concat();
            corpus.add(format!("the line end at {at} is {}", end.escape_debug()), changed);
        }
    }
    for before in [
        "\r\n\r\n",
        "\r\n\r\n\r\n",
        "\n",
        "\r",
        "\n\n",
        "\r\n\n",
        " \r\n",
        " ",
        "\t",
        "\0",
        "\r\n ",
        "x\r\n",
        "\r\n\0",
    ] {
        corpus.add(format!("{} before all", before.escape_debug()), format!("{before}{text}"));
    }
    for (name, folded) in [
        ("the first field", "GET <0> HTTP/1.1\r\n Host: x\r\n\r\n"),
        ("the request line", "GET <0>\r\n HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("Host", "GET <0> HTTP/1.1\r\nHost:\r\n x\r\n\r\n"),
        ("Host, on", "GET <0> HTTP/1.1\r\nHost: x\r\n y\r\n\r\n"),
        ("a field", "GET <0> HTTP/1.1\r\nHost: x\r\nA: b\r\n\tc\r\n\r\n"),
        ("a field, with a name in it", "GET <0> HTTP/1.1\r\nHost: x\r\nA: b\r\n X-Evil: 1\r\n\r\n"),
        ("a field, by nothing", "GET <0> HTTP/1.1\r\nHost: x\r\nA: b\r\n \r\n\r\n"),
        ("the end", "GET <0> HTTP/1.1\r\nHost: x\r\n \r\n\r\n"),
    ] {
        corpus.add(format!("{name} is folded"), folded);
    }
}

/// Names that are no tokens.
fn names(corpus: &mut Corpus) {
    for byte in "()<>@,;:\\\"/[]?={} \t\r\n\0\x7f".chars().chain(['\u{e9}', '\u{a0}']) {
        let of = byte.escape_debug();
        corpus
            .add(format!("{of} in a name"), format!("GET <0> HTTP/1.1\r\nHost: x\r\nX{byte}Evil: 1\r\n\r\n"));
        let text = format!(
            "POST <0> HTTP/1.1\r\nHost: x\r\nTransfer{byte}Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello"
        );
        corpus.add(format!("{of} in the name of the coding"), text);
        let text = format!("POST <0> HTTP/1.1\r\nHost: x\r\nContent-Length{byte}: 5\r\n\r\n{HIDDEN}");
        corpus.add(format!("{of} behind the name of the length"), text);
        corpus.add(format!("{of} in the method"), format!("G{byte}T <0> HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
    for line in [
        "",
        ":",
        ": y",
        "X",
        "X y",
        "=",
        "X-Evil",
        "\"X\": y",
        "GET <E> HTTP/1.1",
        "GET http://x<E> HTTP/1.1",
    ] {
        corpus.add(
            format!("a line {line:?}"),
            format!("GET <0> HTTP/1.1\r\nHost: x\r\n{line}\r\nA: b\r\n\r\n"),
        );
    }
}

fn hosts(corpus: &mut Corpus) {
    let long = "h".repeat(300);
    for host in [
        "",
        " ",
        "a b",
        "a,b",
        "a, b",
        "a/b",
        "/",
        "a?b",
        "a#b",
        "u@h",
        "u:p@h",
        "@",
        "h:x",
        "h:99999",
        "h:-1",
        "h:+1",
        "h: 1",
        "h:80:80",
        ":80",
        ":",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]:x",
        "[]",
        "[x]",
        "[::1%25eth0]",
        "h%00",
        "h%2f",
        "%68",
        "h\\x",
        "a..b",
        ".a",
        ".",
        "..",
        "*",
        "*.a",
        "http://h",
        "//h",
        "h;x",
        "h'--",
        "h\"",
        "h<x>",
        "{h}",
        "h|x",
        "h^",
        "h`id`",
        "h$x",
        "h!",
        "h&x",
        "h(x)",
        "h=x",
        "~h",
        "h\u{e9}",
        "\u{a0}h",
        "h\u{a0}",
        "h\0",
        "h\x7f",
        "\x0bh",
        "-",
        "_",
        "h\tx",
        "h:80 ",
        "127.1",
        "0x7f000001",
        &long,
    ] {
        corpus.add(
            format!("Host: {:.20}", host.escape_debug().to_string()),
            format!("GET <0> HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        );
    }
    for (name, lines) in [
        ("no Host", "X: y"),
        ("Host twice", "Host: x\r\nHost: x"),
        ("two Hosts", "Host: x\r\nHost: evil"),
        ("Host twice, in two spellings", "Host: x\r\nhost: x"),
        ("Host twice, far apart", "Host: x\r\nA: b\r\nHost: x"),
        ("Host and an empty one", "Host: x\r\nHost:"),
        ("a space before Host", " Host: x"),
        ("a space behind Host", "Host : x"),
        ("a tab behind Host", "Host\t: x"),
        ("Host without a colon", "Host x"),
        ("Host in the value of another", "A: b\nHost: x"),
        ("Connection names Host", "Host: x\r\nConnection: Host"),
        ("Host and one that is named", "Host: x\r\nX-Host: evil\r\nConnection: x-host"),
    ] {
        corpus.add(name, format!("GET <0> HTTP/1.1\r\n{lines}\r\n\r\n"));
        corpus.add(format!("{name}, in 1.0"), format!("GET <0> HTTP/1.0\r\n{lines}\r\n\r\n"));
    }
}

fn targets(corpus: &mut Corpus) {
    for target in [
        "http://y<0>",
        "http://X<0>",
        "http://x:81<0>",
        "http://x:80<0>",
        "http://u@x<0>",
        "http://u:p@x<0>",
        "http://x@y<0>",
        "http://x:80@y<0>",
        "http://@x<0>",
        "http:<0>",
        "http:/x<0>",
        "http:///x<0>",
        "http://<0>",
        "https://y<0>",
        "ftp://x<0>",
        "ws://x<0>",
        "x://x<0>",
        "http:\\\\x<0>",
        "http://x\\<0>",
        "http://x?<0>",
        "http://x#<0>",
        "http://x",
        "http://",
        "http://x%00<0>",
        "http://x .y<0>",
        "//y<0>",
        "//x<0>",
        "///x<0>",
        "x<0>",
        "x:80",
        "x",
        "*",
        "*<0>",
        "?a",
        "#a",
        "",
        ".",
        "..<0>",
        "/..<0>",
        "/../..<0>",
        "/%2e%2e<0>",
        "/%2e.<0>/..",
        "<0>/../../../..",
        "\\<0>",
        "/\\<0>",
        "<0>#a",
        "<0>?a#b",
        "<0>%",
        "<0>%0",
        "<0>%zz",
        "<0>%00",
        "<0>%0d%0a",
        "<0>%0aX-Evil:1",
        "<0>%20HTTP/1.1",
        "<0>%2f..%2fx",
        "<0>%5c..%5c",
        "<0>%c0%af",
        "<0>%ff",
        "<0>%u0041",
        "<0>%25%32%66",
        "<0>;a",
        "<0>;/../x",
        "<0>/.;/x",
        "<0>?%",
        "<0>?%zz",
        "<0>?%0",
        "<0>?a%00",
        "<0>?\"",
        "<0>?<x>",
        "<0>?a\\b",
        "<0>?[",
        "<0>?{|}^`",
        "<0>\"",
        "<0><",
        "<0>>",
        "<0>^",
        "<0>`",
        "<0>{a}",
        "<0>|",
        "<0>[",
        "<0>]",
        "<0>~",
        "<0>'",
        "<0>(a)",
        "<0>$",
        "<0>!",
        "<0>&a=b",
        "<0>=",
        "<0>+",
        "<0>,",
        "<0>:",
        "<0>@",
        "<0>\u{e9}",
        "<0>?\u{e9}",
        "<0>\u{212a}",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "data:,x",
        "urn:x",
        "[::1]",
        "[::1]:80",
        "http://[::1<0>",
        "http://[::1]<0>",
        "<0>\\..\\x",
        "<0>//",
        "//<0>",
        "<0>/./",
        "<0>/%2E/",
        "<0>/...",
        "<0>/.",
        "<0>/%2e%2e%2fx",
        "<0>?http://y",
        "/http://x<0>",
        "<0>%09",
        "<0>%7f",
    ] {
        corpus.add(format!("GET {target}"), format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
    for line in [
        "CONNECT x:80 HTTP/1.1",
        "CONNECT <0> HTTP/1.1",
        "CONNECT x HTTP/1.1",
        "CONNECT * HTTP/1.1",
        "CONNECT http://x<0> HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "OPTIONS x:80 HTTP/1.1",
        "OPTIONS http://x HTTP/1.1",
        "HEAD * HTTP/1.1",
        "POST * HTTP/1.1",
        "GET * HTTP/1.1",
        "OPTIONS ** HTTP/1.1",
        "OPTIONS /* HTTP/1.1",
    ] {
        corpus.add(line, format!("{line}\r\nHost: x\r\n\r\n{NEXT}")).methods =
            vec![if line.starts_with("HEAD") { "HEAD" } else { "GET" }];
    }
    for (name, text) in [
        ("TRACE with a body", "TRACE <0> HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
        (
            "TRACE with chunks",
            "TRACE <0> HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        ("TRACE with an empty body", "TRACE <0> HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
        ("a body of HEAD", "HEAD <0> HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
    ] {
        corpus.add(name, text).methods = vec![if name.ends_with("HEAD") { "HEAD" } else { "GET" }];
    }
}

fn versions(corpus: &mut Corpus) {
    for line in [
        "GET",
        "GET ",
        "GET <0>",
        "GET <0> ",
        "<0> HTTP/1.1",
        " GET <0> HTTP/1.1",
        "GET  <0> HTTP/1.1",
        "GET <0>  HTTP/1.1",
        "GET <0> HTTP/1.1 ",
        "GET\t<0>\tHTTP/1.1",
        "GET <0>\tHTTP/1.1",
        "GET\t<0> HTTP/1.1",
        "GET <0> HTTP/1.1\t",
        "GET <0> <E> HTTP/1.1",
        "GET <0> x HTTP/1.1",
        "GET <0> HTTP/1.1 HTTP/1.1",
        "GET <0> HTTP/1.1 x",
        "GET <0> HTTP/0.9",
        "GET <0> HTTP/1.2",
        "GET <0> HTTP/1.9",
        "GET <0> HTTP/1.10",
        "GET <0> HTTP/1.01",
        "GET <0> HTTP/01.1",
        "GET <0> HTTP/2",
        "GET <0> HTTP/2.0",
        "GET <0> HTTP/3.0",
        "GET <0> HTTP/9.9",
        "GET <0> HTTP/1",
        "GET <0> HTTP/1.",
        "GET <0> HTTP/.1",
        "GET <0> HTTP/",
        "GET <0> HTTP",
        "GET <0> http/1.1",
        "GET <0> Http/1.1",
        "GET <0> HTTP/1.1x",
        "GET <0> xHTTP/1.1",
        "GET <0> HTTPS/1.1",
        "GET <0> HTTP /1.1",
        "GET <0> HTTP/ 1.1",
        "GET <0> HTTP/1 .1",
        "GET <0> HTTP/1,1",
        "GET <0> HTTP/11",
        "GET <0> HTTP/-1.1",
        "GET <0> HTTP/+1.1",
        "GET <0> HTTP/1.1;x",
        "GET <0> HTTP\\1.1",
        "GET <0> HTTP//1.1",
        "GET <0> ICY/1.1",
        "GET <0> RTSP/1.0",
        "GET <0> SIP/2.0",
        "GET<0> HTTP/1.1",
        "GET <0>HTTP/1.1",
        "\"GET\" <0> HTTP/1.1",
        "G\u{c9}T <0> HTTP/1.1",
        "GET: <0> HTTP/1.1",
        "HTTP/1.1 200 OK",
        "GET\0<0> HTTP/1.1",
    ] {
        corpus.add(format!("{line:?}"), format!("{line}\r\nHost: x\r\nConnection: close\r\n\r\n"));
        corpus.add(
            format!("{line:?} with a body"),
            format!("{line}\r\nHost: x\r\nContent-Length: {}\r\n\r\n{HIDDEN}", length(HIDDEN)),
        );
    }
    for (name, text) in [
        (
            "1.0 with chunks",
            format!("POST <0> HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunked(HIDDEN)),
        ),
        (
            "1.0 with both",
            format!(
                "POST <0> HTTP/1.0\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"
            ),
        ),
        (
            "1.0 kept, and another",
            format!("GET <0> HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n{NEXT}"),
        ),
        ("1.0 not kept, and another", format!("GET <0> HTTP/1.0\r\nHost: x\r\n\r\n{HIDDEN}")),
        ("1.0 with a body without length", format!("POST <0> HTTP/1.0\r\nHost: x\r\n\r\n{HIDDEN}")),
        (
            "1.0 that upgrades",
            format!(
                "GET <0> HTTP/1.0\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n{HIDDEN}"
            ),
        ),
        ("close, and another", format!("GET <0> HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n{HIDDEN}")),
    ] {
        corpus.add(name, text);
    }
}

/// The recorder switches no protocol: what follows a handshake must not reach it.
fn upgrades(corpus: &mut Corpus) {
    const KEY: &str = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13";
    for lines in [
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{KEY}"),
        format!("Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n{KEY}"),
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{KEY}\r\nContent-Length: 0"),
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{KEY}\r\nContent-Length: 5"),
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{KEY}\r\nTransfer-Encoding: chunked"),
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n{KEY}"),
        format!("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n{KEY}"),
        format!("Upgrade: websocket\r\n{KEY}"),
        "Connection: Upgrade\r\nUpgrade: websocket".into(),
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13"
            .into(),
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 7".into(),
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__".into(),
        "Connection: Upgrade\r\nUpgrade: TLS/1.0".into(),
        "Connection: Upgrade\r\nUpgrade: anything".into(),
        "Connection: Upgrade\r\nUpgrade:".into(),
        "Connection: Upgrade".into(),
    ] {
        for method in ["GET", "POST"] {
            let name = format!("{method} {}", lines.escape_debug());
            // Those that are no handshake are requests like others, behind which another one may follow.
            corpus.add(
                name,
                format!(
                    "{method} <0> HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\nGET <1> HTTP/1.1\r\nHost: x\r\n\r\n"
                ),
            );
        }
    }
}

fn expectations(corpus: &mut Corpus) {
    for value in [
        "100-continue",
        "100-Continue",
        "100-continue, 100-continue",
        "100-continue; x",
        "100-continue,",
        "100",
        "200-ok",
        "x",
        "",
        "\"100-continue\"",
        "100-continue x",
        "100 - continue",
        "100-continue\r\nExpect: 100-continue",
        "100-continue\r\nExpect: x",
    ] {
        let start = format!("POST <0> HTTP/1.1\r\nHost: x\r\nExpect: {value}\r\n");
        let name = value.escape_debug();
        corpus.add(format!("Expect: {name}"), format!("{start}Content-Length: 5\r\n\r\nhello{NEXT}"));
        corpus.add(
            format!("Expect: {name} with chunks"),
            format!("{start}Transfer-Encoding: chunked\r\n\r\n{}{NEXT}", chunked(HIDDEN)),
        );
        corpus.add(format!("Expect: {name} without a body"), format!("{start}\r\n{NEXT}"));
        corpus
            .add(
                format!("Expect: {name}, not sent"),
                format!("{start}Content-Length: {}\r\n\r\n", length(HIDDEN)),
            )
            .ends = true;
    }
}

fn connection_options(corpus: &mut Corpus) {
    for option in [
        "host",
        "content-length",
        "transfer-encoding",
        "content-type",
        "content-encoding",
        "authorization",
        "cookie",
        "expect",
        "te",
        "trailer",
        "upgrade",
        "via",
        "date",
        "range",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "forwarded",
        "x-request-id",
        "traceparent",
        "connection",
        "keep-alive",
        "proxy-connection",
        "origin",
        "if-match",
        "sec-websocket-key",
        "max-forwards",
        "accept",
        "x-mine",
        "close",
        "a b",
        "\"x\"",
        "x;y",
        "x=y",
        "(x)",
        "*",
        "close,host",
        "x-a\r\nConnection: host",
        "a,b,c,d,e,f,g,h,i,j,k",
        "\u{e9}",
        "\0",
        ",,,,",
        "",
    ] {
        let name = option.escape_debug();
        let text = format!(
            "POST <0> HTTP/1.1\r\nHost: x\r\nConnection: {option}\r\nX-Mine: 1\r\nX-Forwarded-For: 9.9.9.9\r\nTE: trailers\r\nContent-Length: {}\r\n\r\n{HIDDEN}",
            length(HIDDEN)
        );
        corpus.add(format!("Connection: {name}"), text);
        let text = format!(
            "POST <0> HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: {option}\r\nHost: x\r\n\r\n{}",
            chunked(HIDDEN)
        );
        corpus.add(format!("Connection: {name}, with chunks"), text);
    }
}

fn pipelines(corpus: &mut Corpus) {
    let good = "GET <0> HTTP/1.1\r\nHost: x\r\n\r\n";
    let bad = "GET <1> HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n";
    for (name, text) in [
        ("good behind bad", format!("{bad}{good}")),
        ("bad behind good", format!("{good}{bad}")),
        ("good, bad, good", format!("{good}{bad}GET <2> HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("rubbish behind good", format!("{good}\0\x01rubbish\r\n\r\n")),
        ("half of one behind good", format!("{good}GET <1> HTT")),
        ("an answer behind good", format!("{good}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")),
        ("a body nobody announced", format!("POST <0> HTTP/1.1\r\nHost: x\r\n\r\nhello{NEXT}")),
        (
            "a body longer than said",
            format!("POST <0> HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhello{NEXT}"),
        ),
        ("HTTP/2 behind good", format!("{good}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
        ("spaces behind good", format!("{good}   {NEXT}")),
        ("no colon, then good", format!("GET <1> HTTP/1.1\r\nHost x\r\n\r\n{good}")),
    ] {
        corpus.add(name, text);
    }
}

fn large(corpus: &mut Corpus) {
    let long = "l".repeat(70_000);
    for (name, text) in [
        ("a long path", format!("GET <0>/{long} HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("a long query", format!("GET <0>?{long} HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("a long method", format!("{long} <0> HTTP/1.1\r\nHost: x\r\n\r\n")),
        ("a method somewhat long", format!("{} <0> HTTP/1.1\r\nHost: x\r\n\r\n", "M".repeat(33))),
        ("a long name", format!("GET <0> HTTP/1.1\r\nHost: x\r\n{long}: 1\r\n\r\n")),
        ("a name somewhat long", format!("GET <0> HTTP/1.1\r\nHost: x\r\n{}: 1\r\n\r\n", "n".repeat(9_000))),
        ("a long value", format!("GET <0> HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n")),
        ("a long Host", format!("GET <0> HTTP/1.1\r\nHost: {long}\r\n\r\n")),
        ("a long version", format!("GET <0> HTTP/1.1{long}\r\nHost: x\r\n\r\n")),
        ("many fields", format!("GET <0> HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(5_000))),
        (
            "a hundred and one fields",
            format!("GET <0> HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(100)),
        ),
        ("many empty lines", format!("{}GET <0> HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n".repeat(10_000))),
        ("many spaces", format!("GET <0> HTTP/1.1\r\nHost:{}x\r\n\r\n", " ".repeat(70_000))),
        (
            "many chunks",
            format!(
                "POST <0> HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n{NEXT}",
                "1\r\nx\r\n".repeat(3_000)
            ),
        ),
    ] {
        corpus.add(name, text);
    }
}

/// A client that leaves in the middle.
fn cut_off(corpus: &mut Corpus) {
    let length_head =
        format!("POST <0> HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{HIDDEN}", length(HIDDEN));
    let chunked_head =
        format!("POST <0> HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunked(HIDDEN));
    for (name, text) in [("a length", length_head), ("chunks", chunked_head)] {
        let whole = corpus.filled(text.as_bytes());
        for end in (1..whole.len()).step_by(5) {
            let payload = corpus.add(format!("{name}, cut off at {end}"), &text);
            payload.bytes.truncate(end);
            payload.ends = true;
        }
    }
}
