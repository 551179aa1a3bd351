//! RFC 7541: header blocks that cannot be decoded.

use super::*;

#[tokio::test]
async fn header_blocks() {
    run(cases).await;
}

pub(super) fn cases() -> Vec<Case> {
    let bad = |name, what, block: &[u8]| {
        case(name, what, headers(1, block), Expect::ConnectionError(&[COMPRESSION_ERROR]))
    };
    let behind = |name, what, bytes: &[u8]| bad(name, what, &[GET, bytes].concat());
    // "x-test" in Huffman's code; values below are "test".
    let named = |value: &[u8]| [b"\0\x85\xf2\xb2\x4a\x84\xff".as_slice(), value].concat();
    vec![
        behind("hpack/2.3.3/1", "an index beyond both tables", &indexed(70)),
        behind("hpack/2.3.3/2", "a name's index beyond both tables", b"\x7f\x07\0"),
        behind("hpack/4.2/1", "another table size at the end of a block", &table_size(1)),
        behind("hpack/5.2/1", "padding of more than seven bits", &named(b"\x84\x49\x50\x9f\xff")),
        behind("hpack/5.2/2", "padding of zeros", &named(b"\x83\x49\x50\x90")),
        behind(
            "hpack/5.2/3",
            "the end of a string inside of one",
            &named(b"\x87\x49\x51\xff\xff\xff\xfa\x7f"),
        ),
        behind("hpack/6.1/1", "index 0", &indexed(0)),
        bad("hpack/6.3/1", "a table larger than was offered", &[table_size(4097), GET.to_vec()].concat()),
    ]
}
