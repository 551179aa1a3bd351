//! From what is written to a provider.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::ProviderRaw;
use crate::base::decode::{ConfigPath, Value};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{At, Origin};
use crate::base::units::format_duration;
use crate::identity::directory::LEEWAY_MAX;
use crate::identity::jwt::algorithm::{Algorithm, Algorithms, Kind};
use crate::identity::jwt::{Rules, claims};
use crate::identity::keys::jwk::{self, Secrets};
use crate::identity::keys::{Key, KeySet, Public, pem};
use crate::identity::live::Live;
use crate::identity::provider::{Generated, Keys, Provider, Settings};
use crate::identity::signing::{Issuer, SigningKey, verifying};

/// Largest key file read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The keys that say where keys come from.
const SOURCES: &[&str] = &["jwks_url", "jwks_file", "public_key", "signing_key", "secret"];

/// What a provider is compiled in.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Knows providers and keys from earlier configurations.
    pub live: &'a Live,
    /// The moment.
    pub now: Instant,
    /// Whether several instances serve one configuration.
    pub clustered: bool,
}

impl ProviderRaw {
    /// The provider called `name`; `path` is the configuration path of its table, which stands at `origin`.
    ///
    /// Beside errors it lacks what is wrong, and lets less pass, never more.
    pub fn compile(
        &self,
        name: &str,
        path: &str,
        origin: &Origin,
        surroundings: Surroundings<'_>,
        out: &mut Diagnostics,
    ) -> Compiled {
        let mut compiler = Compiler {
            raw: self,
            name: name.into(),
            path,
            origin,
            surroundings,
            content: DefaultHasher::new(),
            generated: None,
            out,
        };
        let algorithms = compiler.algorithms();
        let rules = compiler.rules();
        let (keys, issuer) = compiler.keys(algorithms);
        let consumer = self.consumer.as_ref().map(|consumer| consumer.value.as_str().into());
        let Compiler { name, content, generated, .. } = compiler;
        let settings = Settings { name, rules, algorithms, keys, issuer, consumer, generated };
        let content = content.finish();
        Compiled { provider: surroundings.live.provider(settings, &self.render(), content), content }
    }
}

/// A provider, and a number that tells apart what its files contained.
#[derive(Debug)]
pub struct Compiled {
    /// The provider.
    pub provider: Arc<Provider>,
    /// Differs where the contents of its files differ.
    pub content: u64,
}

struct Compiler<'a> {
    raw: &'a ProviderRaw,
    name: Arc<str>,
    path: &'a str,
    origin: &'a Origin,
    surroundings: Surroundings<'a>,
    content: DefaultHasher,
    generated: Option<Generated>,
    out: &'a mut Diagnostics,
}

impl Compiler<'_> {
    fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    fn algorithms(&mut self) -> Algorithms {
        let written = &self.raw.algorithms;
        if written.is_empty() {
            let message = "no token could be accepted";
            self.out
                .error("invalid-value", &written.origin, self.at("algorithms"), message)
                .hint("name what its tokens are signed with, such as [\"RS256\"]");
        }
        let is_secret = |at: &&At<Algorithm>| at.kind() == Kind::Secret;
        if let (Some(secret), Some(pair)) =
            (written.iter().find(is_secret), written.iter().find(|at| !is_secret(at)))
        {
            let message = format!(
                "{} is of shared secrets and {} of key pairs: one provider has either",
                secret.as_str(),
                pair.as_str()
            );
            self.out
                .error("conflicting-keys", &secret.origin, self.at("algorithms"), message)
                .related(&pair.origin, "the other one")
                .hint("a public key must never be taken for a secret: make two providers of them");
        }
        written.iter().map(|at| at.value).collect()
    }

    fn rules(&mut self) -> Rules {
        let raw = self.raw;
        if raw.issuer.is_none() {
            let message = "without `issuer`, `iss` of its tokens is not checked";
            self.out
                .warning("issuer-unchecked", self.origin, self.path, message)
                .hint("write what `iss` of its tokens is");
        }
        let audience = raw.audience.iter().flat_map(|at| at.iter());
        let audience: Box<[Box<str>]> = audience.map(|audience| audience.as_str().into()).collect();
        if audience.is_empty() {
            let message = "without `audience`, tokens that were meant for other services are good here, too";
            self.out
                .warning("audience-unchecked", self.origin, self.path, message)
                .hint("write what `aud` of its tokens is");
        }
        if !raw.require.iter().any(|name| name.value == "exp") {
            let message = "without \"exp\" a token that never ends is accepted";
            self.out
                .warning("exp-not-required", &raw.require.origin, self.at("require"), message)
                .hint("add \"exp\"");
        }
        let texts =
            [("issuer", raw.issuer.as_ref()), ("typ", raw.typ.as_ref()), ("consumer", raw.consumer.as_ref())];
        let texts = texts.into_iter().filter_map(|(key, at)| Some((key, at?)));
        for (key, at) in texts.chain([("roles_claim", &raw.roles_claim)]).filter(|(_, at)| at.is_empty()) {
            self.out.error("invalid-value", &at.origin, self.at(key), "is empty");
        }
        if *raw.leeway > LEEWAY_MAX {
            let message = format!(
                "the leeway ({}) is longer than {}: what was revoked is forgotten then",
                format_duration(*raw.leeway),
                format_duration(LEEWAY_MAX)
            );
            self.out
                .error("out-of-range", &raw.leeway.origin, self.at("leeway"), message)
                .hint("clocks that are set over the network are seconds apart at most");
        }
        let typ = raw.typ.as_ref().map(|typ| claims::without_prefix(typ).into());
        Rules {
            issuer: raw.issuer.as_ref().map(|issuer| issuer.as_str().into()),
            audience,
            typ,
            // Tokens count in seconds.
            leeway: i64::try_from(raw.leeway.min(LEEWAY_MAX).as_millis().div_ceil(1000)).unwrap_or(i64::MAX),
            require: raw.require.iter().map(|name| name.as_str().into()).collect(),
            roles_claim: raw.roles_claim.as_str().into(),
        }
    }

    /// Where keys come from. Of several the first is taken, and the others reported.
    fn keys(&mut self, algorithms: Algorithms) -> (Keys, Option<Issuer>) {
        let raw = self.raw;
        let sources = [
            ("jwks_url", raw.jwks_url.as_ref().map(|at| &at.origin)),
            ("jwks_file", raw.jwks_file.as_ref().map(|at| &at.origin)),
            ("public_key", raw.public_key.as_ref().map(|at| &at.origin)),
            ("signing_key", raw.signing_key.as_ref().map(|at| &at.origin)),
            // Not its own place: where that is shown, a secret written there would be.
            ("secret", raw.secret.as_ref().map(|_| self.origin)),
        ];
        let mut sources = sources.into_iter().filter_map(|(key, origin)| Some((key, origin?)));
        let Some((source, place)) = sources.next() else {
            if SOURCES.iter().any(|source| self.is_broken(source)) {
                return (Keys::Fixed(KeySet::default()), None);
            }
            let message = "nothing says where its keys come from";
            self.out
                .error("missing-key", self.origin, self.path, message)
                .hint("add one of jwks_url, jwks_file, public_key, signing_key, secret");
            return (Keys::Fixed(KeySet::default()), None);
        };
        for (other, origin) in sources {
            let message = format!("\"{source}\" and \"{other}\" exclude each other");
            self.out
                .error("conflicting-keys", origin, self.at(other), message)
                .hint("keys come from one place: whoever rotates them does it there")
                .related(place, "the other one");
        }
        self.check_unused(source);
        if !self.check_kinds(source, place) {
            return (Keys::Fixed(KeySet::default()), None);
        }
        match source {
            "jwks_url" => match &raw.jwks_url {
                Some(url) => {
                    let Surroundings { live, now, .. } = self.surroundings;
                    (Keys::Fetched(live.key_set(&self.name, url, now)), None)
                }
                None => (Keys::Fixed(KeySet::default()), None),
            },
            "jwks_file" => (Keys::Fixed(self.set_of_file(algorithms)), None),
            "secret" => self.secret(algorithms),
            _ => self.pairs(algorithms),
        }
    }

    /// Whether `key` stands there and could not be read: that was reported, and it is not missing.
    fn is_broken(&self, key: &str) -> bool {
        let path = self.at(key);
        self.out.iter().any(|problem| {
            problem.path.strip_prefix(&path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// What does nothing with this source.
    fn check_unused(&mut self, source: &str) {
        let raw = self.raw;
        if raw.generate.value && source != "signing_key" {
            let message = "\"generate\" does nothing without \"signing_key\"";
            self.out
                .error("unused-key", &raw.generate.origin, self.at("generate"), message)
                .hint("name the file that is to be made: `signing_key = \"keys/signing.pem\"`");
        }
        if !raw.verify_keys.is_empty() && source != "signing_key" {
            let message = format!("\"verify_keys\" does nothing beside \"{source}\"");
            self.out.error("unused-key", &raw.verify_keys.origin, self.at("verify_keys"), message).hint(
                "tokens of other signers name their keys as they like: a set of them stands in `jwks_file`",
            );
        }
        if raw.generate.value && self.surroundings.clustered {
            let message = "every instance of the cluster would make a key of its own";
            self.out
                .error("conflicting-keys", &raw.generate.origin, self.at("generate"), message)
                .hint("make one key and give it to all of them");
        }
    }

    /// A secret serves other algorithms than a key pair. Whether all fit, so that more can be said.
    fn check_kinds(&mut self, source: &str, place: &Origin) -> bool {
        let is_secret = |at: &At<Algorithm>| at.kind() == Kind::Secret;
        let algorithms = &self.raw.algorithms;
        if algorithms.iter().any(is_secret) && !algorithms.iter().all(is_secret) {
            // Reported already.
            return false;
        }
        let mut all_fit = true;
        for algorithm in self.raw.algorithms.iter() {
            let of_secrets = algorithm.kind() == Kind::Secret;
            let fits = match source {
                "secret" => of_secrets,
                "jwks_file" => true,
                _ => !of_secrets,
            };
            all_fit &= fits;
            if !fits {
                let needs = if of_secrets { "a shared secret" } else { "a key pair" };
                let message = format!("{} needs {needs}, which \"{source}\" is not", algorithm.as_str());
                self.out
                    .error("key-mismatch", &algorithm.origin, self.at("algorithms"), message)
                    .related(place, "the key");
            }
        }
        all_fit
    }

    fn secret(&mut self, algorithms: Algorithms) -> (Keys, Option<Issuer>) {
        let Some(at) = &self.raw.secret else { return (Keys::Fixed(KeySet::default()), None) };
        let secret = at.expose().as_bytes();
        secret.hash(&mut self.content);
        if secret.starts_with(b"-----BEGIN ") {
            let message = "the secret is a key or certificate in PEM";
            self.out.error("key-mismatch", self.origin, self.at("secret"), message)
                .hint("if it is public, everybody knows that secret: use `public_key`, or `signing_key` for a private one");
            return (Keys::Fixed(KeySet::default()), None);
        }
        for algorithm in self.raw.algorithms.iter().filter(|at| at.secret_bytes_min() > secret.len()) {
            let (name, least) = (algorithm.as_str(), algorithm.secret_bytes_min());
            let message =
                format!("the secret has {} bytes, and {name} needs {least} (RFC 7518)", secret.len());
            self.out.error("weak-secret", self.origin, self.at("secret"), message)
                .hint("whoever holds one token can try secrets at leisure: `openssl rand -hex 32` makes a good one")
                .related(&algorithm.origin, "the algorithm");
        }
        let first = self.raw.algorithms.first().filter(|at| at.secret_bytes_min() <= secret.len());
        let issuer = first.and_then(|at| Issuer::with_secret(secret, at.value));
        (Keys::Fixed(KeySet::new([Key::secret(None, secret, algorithms)])), issuer)
    }

    fn set_of_file(&mut self, algorithms: Algorithms) -> KeySet {
        let Some(at) = &self.raw.jwks_file else { return KeySet::default() };
        let Some(bytes) = self.read(at, "jwks_file") else { return KeySet::default() };
        let mut skipped = Vec::new();
        let set = match jwk::parse_set(&bytes, Secrets::Allowed, &mut skipped) {
            Ok(set) => set,
            Err(why) => {
                let message = format!("{} is no key set: it is {why}", at.display());
                self.out.error("key-unusable", &at.origin, self.at("jwks_file"), message);
                return KeySet::default();
            }
        };
        for why in skipped {
            let message = format!("{}: left out {why}", at.display());
            self.out.warning("key-skipped", &at.origin, self.at("jwks_file"), message);
        }
        if set.keys().iter().all(|key| key.algorithms().and(algorithms).is_empty()) {
            let message = format!("{} has no key for any of `algorithms`", at.display());
            self.out
                .error("key-mismatch", &at.origin, self.at("jwks_file"), message)
                .related(&self.raw.algorithms.origin, "the algorithms");
        }
        set
    }

    /// `public_key` or `signing_key`, and `verify_keys`.
    fn pairs(&mut self, algorithms: Algorithms) -> (Keys, Option<Issuer>) {
        let raw = self.raw;
        let (mut signing, mut first) = (None, None);
        if let Some(at) = &raw.signing_key {
            signing = self.signing_key(at);
            first = signing.as_ref().map(|key| (at, "signing_key".to_owned(), key.public().clone()));
        } else if let Some(at) = &raw.public_key {
            first = self.public_key(at, "public_key", false).map(|key| (at, "public_key".to_owned(), key));
        }
        let more = raw.verify_keys.iter().enumerate();
        let more: Vec<_> = more
            .filter_map(|(index, at)| {
                let key = format!("verify_keys[{index}]");
                let public = self.public_key(at, &key, true)?;
                Some((at, key, public))
            })
            .collect();
        let mut keys = Vec::new();
        for (at, key, public) in first.iter().chain(&more) {
            public.thumbprint().hash(&mut self.content);
            if algorithms.and(Algorithms::of(public.kind())).is_empty() && !algorithms.is_empty() {
                let message = format!(
                    "{} holds {}, which serves none of `algorithms`",
                    at.display(),
                    public.kind().describe()
                );
                let hint = Algorithms::of(public.kind()).iter().map(|algorithm| algorithm.as_str());
                let hint = format!("it serves {}", hint.collect::<Vec<_>>().join(", "));
                self.out
                    .error("key-mismatch", &at.origin, self.at(key), message)
                    .related(&raw.algorithms.origin, "the algorithms")
                    .hint(hint);
                continue;
            }
            // One that we sign with has a name in its tokens. One of others may be called anything there.
            keys.push(match raw.signing_key {
                Some(_) => verifying(public, algorithms),
                None => Key::public(None, public.clone(), algorithms),
            });
        }
        let issuer = signing.and_then(|key| {
            let algorithm = raw.algorithms.iter().find(|at| at.kind() == key.public().kind())?.value;
            let others: Vec<Public> = more.into_iter().map(|(_, _, public)| public).collect();
            Issuer::new(key, algorithm, &others)
        });
        (Keys::Fixed(KeySet::new(keys)), issuer)
    }

    fn signing_key(&mut self, at: &At<ConfigPath>) -> Option<SigningKey> {
        if self.raw.generate.value && !at.exists() {
            let algorithm = self.raw.algorithms.iter().find(|algorithm| algorithm.kind() != Kind::Secret)?;
            return match SigningKey::generate(algorithm.value) {
                Ok((key, pem)) => {
                    // As if it had been read, so that the next configuration finds the same provider.
                    pem.as_bytes().hash(&mut self.content);
                    self.generated = Some(Generated { path: at.value.0.clone(), pem });
                    Some(key)
                }
                Err(why) => {
                    self.out.error("key-unusable", &at.origin, self.at("signing_key"), why);
                    None
                }
            };
        }
        let bytes = self.read(at, "signing_key")?;
        match SigningKey::from_pem(&bytes) {
            Ok(key) => Some(key),
            Err(why) => {
                let message = format!("{} {why}", at.display());
                self.out.error("key-unusable", &at.origin, self.at("signing_key"), message);
                None
            }
        }
    }

    fn public_key(&mut self, at: &At<ConfigPath>, key: &str, private_too: bool) -> Option<Public> {
        let bytes = self.read(at, key)?;
        let read = pem::public_key(&bytes);
        let read = match SigningKey::from_pem(&bytes) {
            Ok(signing) if private_too => Ok(signing.public().clone()),
            _ => read,
        };
        match read {
            Ok(public) => Some(public),
            Err(why) => {
                let message = format!("{} {why}", at.display());
                self.out.error("key-unusable", &at.origin, self.at(key), message);
                None
            }
        }
    }

    fn read(&mut self, at: &At<ConfigPath>, key: &str) -> Option<Vec<u8>> {
        match read(at) {
            Ok(bytes) => {
                bytes.hash(&mut self.content);
                Some(bytes)
            }
            Err(error) => {
                let why = match error.kind() {
                    io::ErrorKind::NotFound => "it does not exist".to_owned(),
                    io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                    io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
                    _ => error.to_string(),
                };
                let missing = error.kind() == io::ErrorKind::NotFound;
                let message = format!("{} cannot be read: {why}", at.display());
                let problem =
                    self.out.error("key-unreadable", &at.origin, format!("{}.{key}", self.path), message);
                if missing && key == "signing_key" {
                    problem.hint("with `generate = true` it is made at start");
                }
                None
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(bytes)
}
