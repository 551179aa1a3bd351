//! JSON Web Tokens in compact form (RFC 7515, 7519), read strictly and judged by a provider's rules.
//!
//! The library `jsonwebtoken` verifies signatures, and nothing else of it is used: what a token is, which key may judge it,
//! and every claim are decided here, where nothing is optional that attackers like to leave out.
//!
//! ```text
//! text ─► Jws (size, three parts, base64url, header) ─► KeySet::verify (key, signature) ─► Rules::check (claims) ─► Token
//! ```

pub mod algorithm;
pub mod claims;
pub mod compact;
pub mod json;

#[cfg(test)]
mod tests;

pub use algorithm::Algorithm;
pub use claims::Rules;
pub use compact::{Jws, TOKEN_BYTES_MAX};
