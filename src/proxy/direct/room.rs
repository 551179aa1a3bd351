//! How much of a body is moved at once: much for who takes it, little for who may not.

/// Bytes moved at once of longer bodies, at most; and the most that is held of what one side does not take.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// How much of an answer's body is read at once.
///
/// The kernel takes megabytes off us for a client that never reads a byte. So that it takes what we write says little;
/// only what the client's system has acknowledged says that more may be on its way at once.
#[derive(Debug)]
pub(super) struct Room {
    at_first: usize,
    /// So much.
    pub(super) most: usize,
    /// Passed on since `acknowledged` was asked for.
    passed: usize,
    acknowledged: Option<u64>,
}

impl Room {
    /// Of a client of which nothing is known yet, or not any more.
    pub(super) fn of(at_first: usize) -> Self {
        Self { at_first, most: at_first, passed: 0, acknowledged: None }
    }

    /// Whether the client takes much.
    pub(super) fn is_wide(&self) -> bool {
        self.most == PIECE_BYTES
    }

    /// What it takes was not counted for a while: it is to be looked at anew.
    pub(super) fn forget(&mut self) {
        (self.passed, self.acknowledged) = (0, None);
    }

    /// Takes in that the client was given so many bytes more; `acknowledged`: what its system has taken in all.
    pub(super) fn passed(&mut self, count: usize, acknowledged: impl FnOnce() -> Option<u64>) {
        self.passed += count;
        let before = self.acknowledged;
        if self.passed < self.most.saturating_mul(if before.is_some() { ASKED_EVERY } else { 1 }) {
            return;
        }
        let Some(now) = acknowledged() else { return };
        if let Some(before) = before {
            let is_taken = now.saturating_sub(before) >= self.passed as u64 / 2;
            self.most = if is_taken { PIECE_BYTES } else { self.at_first };
        }
        self.acknowledged = Some(now);
        self.passed = 0;
    }
}

/// Pieces after which it is looked at again whether the client takes what it is given.
const ASKED_EVERY: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const AT_FIRST: usize = 16 * 1024;

    /// Gives a client `pieces` of what its room is, of which its system acknowledges every byte or none.
    fn give(room: &mut Room, taken: &mut u64, pieces: usize, acknowledges: bool) {
        for _ in 0..pieces {
            let piece = room.most;
            *taken += if acknowledges { piece as u64 } else { 0 };
            room.passed(piece, || Some(*taken));
        }
    }

    #[test]
    fn only_who_acknowledges_gets_large_pieces() {
        // What was taken before counts for nothing.
        let (mut room, mut taken) = (Room::of(AT_FIRST), 1 << 40);
        give(&mut room, &mut taken, 100, false);
        assert_eq!(room.most, AT_FIRST);
        give(&mut room, &mut taken, 2 * ASKED_EVERY, true);
        assert_eq!(room.most, PIECE_BYTES);
        give(&mut room, &mut taken, ASKED_EVERY, false);
        assert_eq!(room.most, AT_FIRST, "it has stopped");
        // What went another way meanwhile says nothing.
        give(&mut room, &mut taken, 1, false);
        (room, taken) = (room, taken + (1 << 30));
        room.forget();
        give(&mut room, &mut taken, 2 * ASKED_EVERY, false);
        assert_eq!(room.most, AT_FIRST);
        // Nobody knows: as at first.
        let mut room = Room::of(AT_FIRST);
        (0..100).for_each(|_| room.passed(AT_FIRST, || None));
        assert_eq!(room.most, AT_FIRST);
    }
}
