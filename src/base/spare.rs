//! One buffer for each thread, for bytes that are passed on at once.
//!
//! What a socket gives is mostly taken by another one in the same turn. So connections need no buffers of their own for
//! it, only for what was not taken; and a buffer that everybody uses in turn stays in the processor's cache.

use std::cell::Cell;

/// What [`take`] has room for.
pub const BYTES: usize = 128 * 1024;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An empty buffer with room for [`BYTES`]. It is given back by [`give_back`] before the thread does anything else;
/// who does not, has the next one wait for an allocation, and holds all of it.
pub fn take() -> Vec<u8> {
    let mut spare = SPARE.take();
    if spare.capacity() < BYTES {
        spare.reserve_exact(BYTES);
    }
    spare
}

/// Gives a buffer back, whatever is in it.
pub fn give_back(mut buffer: Vec<u8>) {
    if (BYTES..=2 * BYTES).contains(&buffer.capacity()) {
        buffer.clear();
        SPARE.set(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_buffer_comes_again_and_empty() {
        let mut buffer = take();
        let place = buffer.as_ptr();
        buffer.extend_from_slice(b"something");
        give_back(buffer);
        let again = take();
        assert!(again.is_empty() && again.as_ptr() == place);
        // Somebody else asks before it came back.
        assert!(take().capacity() >= BYTES);
        // What is no spare buffer is not kept as one.
        give_back(Vec::with_capacity(16));
        assert!(take().capacity() >= BYTES);
    }
}
