//! The frames of a connection, as far as one must look to know that they are frames (AMQP 0-9-1, 4.2.3).
//!
//! The library believes any length: told of a frame of 4 GiB, it waits for all of it, takes whatever comes for a part of
//! that, heartbeats too, and never gives the connection up.

/// Longest payload of a frame, which is agreed with the broker: that of RabbitMQ, unless it is told otherwise.
pub(super) const PAYLOAD_BYTES_MAX: u32 = 128 * 1024;
/// Type, channel, length.
const HEAD_BYTES: usize = 7;
const END: u8 = 0xce;
/// Method, header, body, heartbeat.
const TYPES: [u8; 4] = [1, 2, 3, 8];

/// Where in the frames the bytes read so far end.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD_BYTES],
    /// Of the head.
    known: usize,
    /// Of the payload, with the byte behind it, that is to come.
    left: usize,
    /// The broker does not speak this version, and says which it does: the library knows what to make of that.
    is_refusal: bool,
    has_begun: bool,
}

/// What was read is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker sent what is no frame")]
pub(super) struct NoFrame;

impl Frames {
    /// Takes in what was read next.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), NoFrame> {
        if let (false, Some(first)) = (self.has_begun, bytes.first()) {
            self.has_begun = true;
            self.is_refusal = *first == b'A';
        }
        let mut bytes = if self.is_refusal { &[] } else { bytes };
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 1 {
                let passed = bytes.len().min(self.left - 1);
                self.left -= passed;
                bytes = bytes.get(passed..).unwrap_or_default();
                continue;
            }
            bytes = rest;
            if self.left == 1 {
                self.left = 0;
                if *first != END {
                    return Err(NoFrame);
                }
                continue;
            }
            if let Some(place) = self.head.get_mut(self.known) {
                *place = *first;
            }
            self.known += 1;
            if self.known == HEAD_BYTES {
                self.known = 0;
                let [kind, _, _, length @ ..] = self.head;
                let length = u32::from_be_bytes(length);
                if !TYPES.contains(&kind) || length > PAYLOAD_BYTES_MAX {
                    return Err(NoFrame);
                }
                self.left = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(1);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1], &length[..], payload, &[END]].concat()
    }

    proptest! {
        /// However the bytes come.
        #[test]
        fn frames_are_frames_in_any_pieces(
            frames in prop::collection::vec((0..4_usize, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            cuts in prop::collection::vec(1..20_usize, 1..40),
        ) {
            let all: Vec<u8> =
                frames.iter().flat_map(|(kind, payload)| frame(TYPES[*kind], payload)).collect();
            let (mut known, mut left, mut cuts) = (Frames::default(), &all[..], cuts.iter().cycle());
            while !left.is_empty() {
                let (now, later) = left.split_at(left.len().min(*cuts.next().unwrap()));
                prop_assert_eq!(known.read(now), Ok(()));
                left = later;
            }
            prop_assert_eq!(known.left + known.known, 0);
        }
    }

    #[test]
    fn what_is_no_frame_is_found_out_at_once() {
        let good = frame(1, b"method");
        for bad in [
            &b"\x01\0\0\xff\xff\xff\xff"[..],
            b"\x01\0\0\x00\x02\x00\x01",
            b"\x00\0\0\0\0\0\0",
            b"\x08\0\0\0\0\0\0\0",
            b"HTTP/1.1 400 Bad Request",
        ] {
            assert_eq!(Frames::default().read(bad), Err(NoFrame), "{bad:?}");
            assert_eq!(Frames::default().read(&[&good, bad].concat()), Err(NoFrame), "{bad:?}");
        }
        let largest = frame(3, &vec![END; 128 * 1024]);
        assert_eq!(Frames::default().read(&largest), Ok(()));
    }

    #[test]
    fn a_refusal_is_no_frame_and_no_error() {
        assert_eq!(Frames::default().read(b"AMQP\0\x01\0\0"), Ok(()));
        let mut later = Frames::default();
        assert_eq!(later.read(&frame(8, b"")), Ok(()));
        assert_eq!(later.read(b"AMQP\0\x01\0"), Err(NoFrame));
    }
}
