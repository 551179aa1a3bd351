//! Tokens of our own, verified; and what must not be.
