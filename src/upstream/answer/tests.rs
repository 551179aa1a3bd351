use proptest::prelude::*;

use super::*;

/// The verdict on `bytes` that arrive in pieces which end at `cuts`: status, framing, whether it is kept, fields, and
/// what is left behind the head.
type Verdict = Result<Option<(u16, Framing, bool, Vec<(String, Vec<u8>)>, Vec<u8>)>, &'static str>;

fn read(bytes: &[u8], cuts: &[usize], method: &Method) -> Verdict {
    let (mut reader, mut input) = (Reader::default(), BytesMut::new());
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
    ends.sort_unstable();
    let (mut at, mut found) = (0, None);
    for end in ends {
        input.extend_from_slice(&bytes[at..end]);
        at = end;
        if found.is_none() {
            found = reader.read(&mut input, method)?;
        }
    }
    Ok(found.map(|Answer { head, body, keep_alive }| {
        let fields = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        (head.status.as_u16(), body, keep_alive, fields.collect(), input.to_vec())
    }))
}

fn framing_of(text: &str) -> Result<Option<(Framing, bool)>, &'static str> {
    read(text.as_bytes(), &[], &Method::GET)
        .map(|found| found.map(|(_, body, keep_alive, ..)| (body, keep_alive)))
}

#[test]
fn bodies_end_where_rfc_9112_says() {
    for (text, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", (Framing::Length(5), true)),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", (Framing::Length(0), true)),
        ("HTTP/1.1 200 \r\nTransfer-Encoding: Chunked\r\n\r\n", (Framing::Chunked, true)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\n", (Framing::Length(5), false)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", (Framing::Length(5), false)),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
            (Framing::Length(5), true),
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", (Framing::UntilClose, false)),
        ("HTTP/1.1 204 No Content\r\n\r\n", (Framing::None, true)),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", (Framing::None, true)),
        ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", (Framing::None, true)),
        // Lines that LF alone ends may be taken for lines (RFC 9112 section 2.2): what goes on is written anew.
        ("HTTP/1.1 200 OK\nContent-Length: 5\n\n", (Framing::Length(5), true)),
        ("HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n", (Framing::Length(5), true)),
    ] {
        assert_eq!(framing_of(text), Ok(Some(expected)), "{text:?}");
    }
    let head = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", &[], &Method::HEAD).unwrap().unwrap();
    assert_eq!(head.1, Framing::None);
}

#[test]
fn what_two_readers_could_read_in_two_ways_is_no_answer() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 O\rK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 20x OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "hello",
    ] {
        assert!(framing_of(text).is_err(), "{text:?}");
    }
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(HEAD_BYTES_MAX / 6 + 1));
    assert!(framing_of(&endless).is_err());
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(300));
    assert!(framing_of(&many).is_err());
}

#[test]
fn an_own_phrase_is_kept() {
    let mut input = BytesMut::from(&b"HTTP/1.1 200 Fine, thanks\r\n\r\n"[..]);
    let answer = Reader::default().read(&mut input, &Method::GET).unwrap().unwrap();
    assert_eq!(answer.head.get_reason_phrase(), Some("Fine, thanks"));
}

proptest! {
    /// Where pieces end makes no difference to anything that is or looks like a head, and nothing panics.
    #[test]
    fn splitting_changes_nothing(
        lines in prop::collection::vec("(Content-Length: [0-9]{0,2}|Transfer-Encoding: chunked|Connection: close|[A-Za-z :\\t\0-]{0,12})", 0..5),
        ends in prop::collection::vec(prop::sample::select(vec!["\r\n", "\n", "\r", ""]), 7),
        rest in "[a-z\r\n]{0,9}",
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let mut text = format!("HTTP/1.1 200 OK{}", ends[0]);
        for (line, end) in lines.iter().zip(&ends[1..]) {
            text += line;
            text += end;
        }
        text += "\r\n";
        text += &rest;
        prop_assert_eq!(read(text.as_bytes(), &cuts, &Method::GET), read(text.as_bytes(), &[], &Method::GET));
    }

    /// Any bytes at all.
    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(any::<usize>(), 0..4)) {
        let mut head = b"HTTP/1.1 200".to_vec();
        head.extend(&bytes);
        for bytes in [&head, &bytes] {
            prop_assert_eq!(read(bytes, &cuts, &Method::GET), read(bytes, &[], &Method::GET));
        }
    }

    /// Well-formed heads come out as they went in, and nothing behind them is taken.
    #[test]
    fn heads_are_read_as_written(
        status in 200_u16..600,
        fields in prop::collection::vec(("x-[a-z]{1,9}", "([!-~]([ -~]{0,20}[!-~])?)?"), 0..9),
        rest in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = format!("HTTP/1.1 {status} Some Phrase\r\nContent-Length: 7\r\n").into_bytes();
        for (name, value) in &fields {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&rest);
        let (found, body, _, mut got, left) = read(&bytes, &[], &Method::GET).unwrap().unwrap();
        prop_assert_eq!((found, left), (status, rest));
        prop_assert_eq!(body == Framing::None, matches!(status, 204 | 304));
        let mut sent: Vec<_> = fields.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
        sent.push(("content-length".to_owned(), b"7".to_vec()));
        sent.sort();
        got.sort();
        prop_assert_eq!(got, sent);
    }
}
