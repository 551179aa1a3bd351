//! What is written under `[identity.providers.NAME]`, and what becomes of it.

mod compile;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::compile::Surroundings;

use super::jwks::JwksUrl;
use super::jwt::Algorithm;
use crate::base::decode::{ConfigPath, Secret};
use crate::base::origin::At;
use crate::keys;

keys! {
    /// Who vouches for tokens, and what those have to be like. Its keys come from one of `jwks_url`, `jwks_file`,
    /// `public_key`, `signing_key` and `secret`.
    pub struct ProviderRaw {
        /// What `iss` of its tokens is, exactly; absent = not checked, with a warning.
        issuer: optional String,
        /// One of these has to be in `aud` of its tokens; absent = not checked, with a warning.
        audience: optional Vec<At<String>>,
        /// What its tokens may be signed with: of secrets HS256, HS384, HS512, or of key pairs RS256, RS384, RS512, PS256,
        /// PS384, PS512, ES256, ES384, EdDSA. The first is what it signs with itself.
        algorithms: required Vec<At<Algorithm>>,
        /// Where it publishes its public keys. They are fetched in the background and kept fresh; https, or this machine.
        jwks_url: optional JwksUrl,
        /// A file with its keys: a JSON Web Key Set.
        jwks_file: optional ConfigPath,
        /// A PEM file with its public key, or a certificate of it.
        public_key: optional ConfigPath,
        /// A PEM file with a private key: this provider can sign tokens as well.
        signing_key: optional ConfigPath,
        /// Makes the file of `signing_key` at start if there is none.
        generate: bool = false,
        /// PEM files of more keys beside `signing_key`, public or private: those before it, whose tokens are still good, and
        /// those to come. They are published with it.
        verify_keys: Vec<At<ConfigPath>> = Vec::new(),
        /// A secret shared with whoever signs: 32 bytes or more for HS256, 48 for HS384, 64 for HS512. It signs as well.
        secret: secret optional Secret,
        /// The claim with the roles: its name, or a path with dots. A list, or a text with spaces.
        roles_claim: String = "roles".to_owned(),
        /// How far clocks may be apart; at most an hour.
        leeway: Duration = Duration::from_secs(60),
        /// Claims that have to be there.
        require: Vec<At<String>> = vec![At::default_value("exp".to_owned())],
        /// What `typ` in the header has to be; absent = `JWT`, `at+jwt`, or none.
        typ: optional String,
        /// Every token of this provider is this consumer's.
        consumer: optional String,
    }
}
