//! Of HTTP/2 on the wire: the frames of both directions.

use super::pieces;
use crate::base::clock;
use crate::ingress::frames::{Ended, Glance, Watch};

/// Both directions of an HTTP/2 connection: first a byte that says how long the client's is, in eighths.
pub fn frames(bytes: &[u8]) {
    let (ends, bytes) = pieces(bytes);
    let (share, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let (inbound, outbound) = bytes.split_at(bytes.len() * usize::from(share % 9) / 8);
    watch(inbound, outbound, &ends);
}

/// What the watch tells does not depend on how the bytes were cut; it is bounded, and tells each stream once.
pub fn watch(inbound: &[u8], outbound: &[u8], cuts: &[usize]) {
    let now = clock::now();
    let (mut whole, mut split) = (Watch::new(now), Watch::new(now));
    let passed = whole.received(inbound, || now).passed;
    // It can be asked of any bytes.
    let _is_vague = whole.is_vague(outbound);
    whole.sent(outbound, || now);
    let feed = |bytes: &[u8], take: &mut dyn FnMut(&[u8])| {
        let mut ends: Vec<usize> =
            cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
        ends.sort_unstable();
        let mut at = 0;
        for end in ends {
            take(&bytes[at..end]);
            at = end;
        }
    };
    let (mut passed_split, mut is_over) = (0, false);
    feed(inbound, &mut |piece| {
        let seen = split.received(piece, || now).passed;
        passed_split += if is_over { 0 } else { seen };
        is_over |= seen < piece.len();
    });
    // What the library sees ends before the frame that broke the rules.
    assert_eq!(passed, passed_split);
    feed(outbound, &mut |piece| split.sent(piece, || now));
    assert_eq!(whole.undecided(), split.undecided());
    // Nine bytes a frame: no more streams than those can have been opened.
    assert!(whole.undecided() <= inbound.len() / 9);
    let told = |watch: &mut Watch| -> (Vec<Ended>, Glance) {
        let mut told = Vec::new();
        loop {
            match watch.glance() {
                Glance { ended: Some(ended), .. } => told.push(ended),
                last => return (told, last),
            }
        }
    };
    let (ended, last) = told(&mut whole);
    assert_eq!(told(&mut split), (ended.clone(), last));
    let mut streams: Vec<u32> = ended.iter().map(|ended| ended.stream).collect();
    assert!(streams.iter().all(|stream| stream % 2 == 1));
    streams.sort_unstable();
    streams.dedup();
    assert_eq!(streams.len(), ended.len(), "a stream ends once");
    // Some frames cost more than others, and SETTINGS as long as can be all there is; but each has a head of nine bytes.
    assert!(!last.flooded || inbound.len() + outbound.len() >= 9);
}
