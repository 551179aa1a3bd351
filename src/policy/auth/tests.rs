//! Who gets in, with what, and what the others are told.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderName, HeaderValue};
use indexmap::IndexMap;
use serde_json::json;

use super::*;
use crate::base::decode::decode_str;
use crate::base::diagnostic::Diagnostics;
use crate::identity::directory::{Configured, ConfiguredConsumer};
use crate::identity::forms::{Encoding, Form};
use crate::identity::jwt::{Algorithm, Rules};
use crate::identity::keys::{Key, KeySet};
use crate::identity::provider::{Keys, Provider, Settings};
use crate::identity::signing::Issuer;
use crate::keys;
use crate::routing::PathPattern;
use crate::routing::template::{Scope, Who};

keys! {
    /// A route.
    struct RouteRaw {
        /// Its auth.
        auth: optional AuthRaw,
    }
}

const NOW: i64 = 1_700_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

type All = IndexMap<String, Arc<Provider>>;

fn provider(name: &str, issuer: Option<&str>, consumer: Option<&str>) -> Arc<Provider> {
    provider_with(SECRET, name, issuer, consumer)
}

fn provider_with(secret: &[u8], name: &str, issuer: Option<&str>, consumer: Option<&str>) -> Arc<Provider> {
    let algorithms = [Algorithm::Hs256].into_iter().collect();
    Arc::new(Provider::new(Settings {
        name: name.into(),
        rules: Rules {
            issuer: issuer.map(Box::from),
            audience: Box::default(),
            typ: None,
            leeway: 60,
            require: ["exp".into()].into(),
            roles_claim: "roles".into(),
        },
        algorithms,
        keys: Keys::Fixed(KeySet::new([Key::secret(None, secret, algorithms)])),
        issuer: None,
        consumer: consumer.map(Arc::from),
        generated: None,
    }))
}

/// `local` and `other`, whose tokens are all of `partner`; the consumer `mobile` has a key and the subject alice.
fn known() -> (All, Arc<Directory>, Arc<Places>) {
    let providers = [
        provider("local", Some("local"), None),
        provider("other", Some("other"), Some("partner")),
        provider("lost", Some("lost"), Some("gone")),
        provider("twin", Some("local"), None),
        provider("any", None, None),
        provider_with(b"fedcba9876543210fedcba9876543210", "strict", Some("strict"), None),
    ];
    let providers = providers.into_iter().map(|provider| (provider.name().to_string(), provider)).collect();
    let consumer = |name: &str, groups: &[&str], plan: Option<&str>| {
        let groups = groups.iter().map(|group| Box::from(*group)).collect();
        Arc::new(Consumer { name: name.into(), groups, plan: plan.map(Box::from), ..Consumer::default() })
    };
    let directory = Arc::new(Directory::default());
    directory.configure(Arc::new(Configured {
        consumers: vec![
            ConfiguredConsumer {
                consumer: consumer("mobile", &["paid"], Some("gold")),
                keys: vec![crate::base::secret::Secret::new("mobile-key-0123456789".to_owned())],
                subjects: vec![("local".to_owned(), "alice".to_owned())],
            },
            ConfiguredConsumer {
                consumer: consumer("partner", &[], None),
                keys: Vec::new(),
                subjects: Vec::new(),
            },
        ],
    }));
    let places = Arc::new(Places {
        realm: "shop".into(),
        cookie: Some("session".into()),
        key_header: Some(HeaderName::from_static("x-api-key")),
        key_query: None,
    });
    (providers, directory, places)
}

fn compile(text: &str) -> (Option<(Auth, Arc<Directory>)>, Diagnostics) {
    let (raw, mut out) = decode_str::<RouteRaw>(&format!("auth = {text}"));
    let (providers, directory, places) = known();
    let pattern = PathPattern::parse("/a/{id}").unwrap();
    let scope = Scope { pattern: &pattern, groups: None };
    let known = Known { providers: &providers, directory: &directory, places: &places, scope };
    let auth = raw.and_then(|raw| raw.auth).and_then(|auth| auth.compile("routes[0].auth", known, &mut out));
    (auth.map(|auth| (auth, directory)), out)
}

fn auth(text: &str) -> (Auth, Arc<Directory>) {
    let (auth, out) = compile(text);
    assert!(out.is_empty(), "{text}: {out:?}");
    auth.unwrap()
}

fn token(claims: serde_json::Value) -> String {
    let mut all =
        json!({ "iss": "local", "sub": "alice", "exp": NOW + 100, "roles": ["admin"], "scope": "a b" });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let issuer = Issuer::with_secret(SECRET, Algorithm::Hs256).unwrap();
    issuer.issue(all.as_object().unwrap()).unwrap()
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn shown(headers: &HeaderMap) -> Shown<'_> {
    let wall = UNIX_EPOCH + Duration::from_secs(u64::try_from(NOW).unwrap());
    let at = Moment { now: crate::base::clock::now(), wall };
    Shown { headers, query: None, certificate: None, at, has_waited: false }
}

/// Who it is, or the code and the challenges.
fn judge(auth: &Auth, lines: &[(&'static str, &str)]) -> Result<Option<String>, (&'static str, String)> {
    let headers = headers(lines);
    let told = |denied: Box<Denied>| (denied.problem.reason.code(), denied.problem.challenges.join(", "));
    let principal = match auth.identify(&shown(&headers)) {
        Identified::Known(principal) => Some(principal),
        Identified::Nobody => None,
        Identified::Refused(denied) => return Err(told(denied)),
        Identified::Wait(_) => panic!("nothing is fetched"),
    };
    let who = principal.as_ref().map(Principal::view).unwrap_or_default();
    auth.authorize(principal.as_ref(), |when| holds(when, who)).map_err(told)?;
    Ok(principal.map(|principal| principal.subject().unwrap_or("?").to_owned()))
}

fn holds(when: &Expression, who: Who<'_>) -> Result<bool, Failed> {
    let request = crate::routing::RequestView {
        listener: 0,
        host: "",
        path: "/a/1",
        query: None,
        method: &http::Method::GET,
        headers: &HeaderMap::new(),
    };
    when.holds(&crate::routing::Values {
        request: &request,
        captures: &PathPattern::parse("/a/{id}").unwrap().captures("/a/1").unwrap(),
        scheme: "http",
        id: "",
        client: None,
        client_cert: None,
        who,
    })
}

fn bearer(claims: serde_json::Value) -> String {
    format!("Bearer {}", token(claims))
}

const WANTED: &str = "Bearer realm=\"shop\"";

#[test]
fn the_first_kind_that_is_shown_decides() {
    let (auth, _) = auth("{ with = ['jwt:local', 'jwt:other', 'api_key', 'none'] }");
    let good = bearer(json!({}));
    let bad = format!("{WANTED}, error=\"invalid_token\", error_description=\"token expired\"");
    let key = ("x-api-key", "mobile-key-0123456789");
    let who = |name: &str| Ok(Some(name.to_owned()));
    assert_eq!(judge(&auth, &[]), Ok(None));
    assert_eq!(judge(&auth, &[("authorization", "Basic YTpi")]), Ok(None));
    assert_eq!(judge(&auth, &[("authorization", &good)]), who("alice"));
    assert_eq!(judge(&auth, &[("authorization", &bearer(json!({ "iss": "other" })))]), who("alice"));
    assert_eq!(judge(&auth, &[key]), who("mobile"));
    assert_eq!(judge(&auth, &[key, ("authorization", &good)]), who("alice"));
    // A bad one is never passed over for a good one of another kind, or for nobody.
    let expired = bearer(json!({ "exp": NOW - 100 }));
    assert_eq!(judge(&auth, &[key, ("authorization", &expired)]), Err(("auth.token_expired", bad)));
    let (code, challenge) = judge(&auth, &[("x-api-key", "wrong")]).unwrap_err();
    assert_eq!((code, &*challenge), ("auth.api_key_invalid", "ApiKey realm=\"shop\""));
    assert_eq!(judge(&auth, &[("x-api-key", "")]).unwrap_err().0, "auth.api_key_invalid");
    assert_eq!(judge(&auth, &[("authorization", "Bearer x")]).unwrap_err().0, "auth.token_malformed");
}

#[test]
fn challenges_say_what_is_wanted_and_no_more() {
    let (both, _) = auth("{ with = ['api_key', 'jwt:local'] }");
    let (code, challenge) = judge(&both, &[]).unwrap_err();
    assert_eq!(
        (code, &*challenge),
        ("auth.credentials_required", "ApiKey realm=\"shop\", Bearer realm=\"shop\"")
    );
    let (mtls, _) = auth("{ with = ['mtls'] }");
    assert_eq!(judge(&mtls, &[]), Err(("auth.certificate_required", String::new())));
    // What it does not take it does not look at.
    assert_eq!(
        judge(&mtls, &[("authorization", "Bearer a"), ("authorization", "b")]).unwrap_err().0,
        "auth.certificate_required"
    );
    let (local, _) = auth("{ with = ['jwt:local'] }");
    let invalid = |claims| judge(&local, &[("authorization", &bearer(claims))]).unwrap_err();
    for (claims, code, description) in [
        (json!({ "iss": "other" }), "auth.token_invalid", "token not valid"),
        (json!({ "nbf": NOW + 1000 }), "auth.token_not_yet_valid", "token not valid yet"),
        (json!({ "exp": null }), "auth.token_invalid", "token not valid"),
    ] {
        let expected = format!("{WANTED}, error=\"invalid_token\", error_description=\"{description}\"");
        assert_eq!(invalid(claims), (code, expected));
    }
    let good = bearer(json!({}));
    let twice = judge(&local, &[("authorization", &good), ("cookie", "session=x")]).unwrap_err();
    let expected = format!("{WANTED}, error=\"invalid_request\", error_description=\"several tokens\"");
    assert_eq!(twice, ("auth.credentials_ambiguous", expected));
    assert_eq!(
        judge(&local, &[("authorization", &good), ("authorization", &good)]).unwrap_err().0,
        "auth.credentials_ambiguous"
    );
    assert_eq!(
        judge(&local, &[("cookie", &format!("session={}", token(json!({}))))]),
        Ok(Some("alice".to_owned()))
    );
}

#[test]
fn everything_that_is_asked_has_to_be_held() {
    let good = bearer(json!({ "tenant": "acme" }));
    let key = ("x-api-key", "mobile-key-0123456789");
    let insufficient = format!("{WANTED}, error=\"insufficient_scope\"");
    for (asked, code) in [
        ("roles = ['admin', 'paid']", None),
        ("roles = ['admin', 'root']", Some("auth.role_missing")),
        ("any_role = ['root', 'paid']", None),
        ("any_role = ['root', 'sudo']", Some("auth.role_missing")),
        ("scopes = ['b', 'a']", None),
        ("roles = ['admin'], any_role = ['admin'], when = 'jwt.tenant == \"acme\"'", None),
        ("when = 'jwt.tenant == \"other\"'", Some("auth.denied")),
        ("when = 'jwt.missing == 1'", Some("auth.denied")),
        ("when = 'consumer.name == \"mobile\" && path.id == \"1\"'", None),
    ] {
        let (auth, _) = auth(&format!("{{ with = ['jwt:local', 'api_key'], {asked} }}"));
        let judged = judge(&auth, &[("authorization", &good)]);
        match code {
            None => assert_eq!(judged, Ok(Some("alice".to_owned())), "{asked}"),
            Some(code) => assert_eq!(judged, Err((code, insufficient.clone())), "{asked}"),
        }
    }
    let (auth, _) = auth("{ with = ['jwt:local', 'api_key'], scopes = ['a', 'c'] }");
    let scoped = format!("{insufficient}, scope=\"a c\"");
    assert_eq!(judge(&auth, &[("authorization", &good)]), Err(("auth.scope_missing", scoped)));
    assert_eq!(judge(&auth, &[key]), Err(("auth.scope_missing", String::new())));
}

#[test]
fn an_expression_may_let_nobody_in() {
    let (auth, _) = auth("{ with = ['jwt:local', 'none'], when = 'jwt == null || jwt.sub == \"alice\"' }");
    assert_eq!(judge(&auth, &[]), Ok(None));
    assert_eq!(judge(&auth, &[("authorization", &bearer(json!({})))]), Ok(Some("alice".to_owned())));
    assert_eq!(
        judge(&auth, &[("authorization", &bearer(json!({ "sub": "bob" })))]).unwrap_err().0,
        "auth.denied"
    );
}

#[test]
fn revocation_is_asked_every_time() {
    let (auth, directory) = auth("{ with = ['jwt:local'] }");
    let line = bearer(json!({ "jti": "t1", "iat": NOW - 10 }));
    let lines = [("authorization", line.as_str())];
    assert!(judge(&auth, &lines).is_ok());
    directory.revoke_token("local", "t1", NOW + 100);
    let (code, challenge) = judge(&auth, &lines).unwrap_err();
    assert_eq!(code, "auth.token_revoked");
    assert!(challenge.ends_with("error=\"invalid_token\", error_description=\"token revoked\""));
    let other = bearer(json!({ "jti": "t2", "iat": NOW - 10 }));
    assert!(judge(&auth, &[("authorization", &other)]).is_ok());
    directory.revoke_subject("local", "alice", NOW - 5, NOW + 100);
    assert_eq!(judge(&auth, &[("authorization", &other)]).unwrap_err().0, "auth.token_revoked");
    let later = bearer(json!({ "jti": "t3", "iat": NOW }));
    assert!(judge(&auth, &[("authorization", &later)]).is_ok());
}

#[test]
fn services_are_told_who_it_is() {
    let (auth, _) = auth("{ with = ['jwt:local', 'jwt:other', 'api_key'], plan = 'basic' }");
    let identify = |lines: &[(&'static str, &str)]| {
        let headers = headers(lines);
        match auth.identify(&shown(&headers)) {
            Identified::Known(principal) => principal,
            other => panic!("{other:?}"),
        }
    };
    let text = |form: &Form| match form {
        Form::Value(value) => value.to_str().unwrap().to_owned(),
        other => format!("{other:?}"),
    };
    let told = |principal: &Principal| {
        let claims = principal.claims_form(Encoding::Base64Url).map_or("none", |form| match form {
            Form::Value(_) => "some",
            _ => "unusable",
        });
        let consumer = principal.consumer.as_deref();
        let plan = consumer.and_then(|consumer| consumer.plan.as_deref()).unwrap_or("none").to_owned();
        [
            text(&principal.subject_form()),
            text(&principal.roles_form()),
            claims.to_owned(),
            text(&principal.consumer_form()),
            plan,
        ]
    };
    let alice = identify(&[("authorization", &bearer(json!({})))]);
    assert_eq!(told(&alice), ["alice", "admin,paid", "some", "mobile", "gold"]);
    assert_eq!((alice.until, alice.method().as_str()), (Some(NOW + 160), "jwt:local"));
    let bob = identify(&[("authorization", &bearer(json!({ "sub": "bob" })))]);
    assert_eq!(told(&bob), ["bob", "admin", "some", "Absent", "none"]);
    let other =
        identify(&[("authorization", &bearer(json!({ "iss": "other", "sub": "b\nX: y", "roles": "a b" })))]);
    assert_eq!(told(&other), ["Unusable", "a,b", "some", "partner", "none"]);
    let key = identify(&[("x-api-key", "mobile-key-0123456789")]);
    assert_eq!(told(&key), ["mobile", "paid", "none", "mobile", "gold"]);
}

#[test]
fn what_says_nothing_or_contradicts_itself_is_an_error() {
    for (text, expected) in [
        ("{}", "the key \"with\" is missing"),
        ("false", "expected a table or \"none\""),
        ("'mtls'", "expected a table or \"none\""),
        ("{ with = [] }", "nobody could prove anything"),
        ("{ with = 'mtls' }", "expected a list"),
        ("{ with = ['none', 'mtls'] }", "\"none\" stands at the end"),
        ("{ with = ['mtls', 'mtls'] }", "stands here twice"),
        ("{ with = ['jwt:local', 'jwt:local'] }", "stands here twice"),
        ("{ with = ['tls'] }", "\"tls\" is not known here"),
        ("{ with = ['jwt'] }", "\"jwt\" names no provider"),
        ("{ with = ['jwt:'] }", "\"jwt:\" names no provider"),
        ("{ with = ['jwt:lokal'] }", "the provider \"lokal\" is not defined"),
        ("{ with = ['jwt:local', 'jwt:twin'] }", "cannot be told apart"),
        ("{ with = ['jwt:local'], when = 'jtw.a == 1' }", "`jtw` is not a source"),
        ("{ with = ['jwt:local'], when = 'path.x == 1' }", "declares no `x`"),
        ("{ with = ['jwt:local', 'none'], roles = ['a'] }", "lets nobody in beside `roles`"),
        ("{ with = ['api_key'], scopes = ['a'] }", "only tokens have scopes"),
        ("{ with = ['jwt:local'], scopes = ['a b'] }", "\"a b\" is not a scope"),
        ("{ with = ['jwt:local'], roles = [''] }", "a role has a name"),
        ("{ with = ['mtls'], extra = 1 }", "unknown key \"extra\""),
    ] {
        let (_, out) = compile(text);
        let found: Vec<_> = out.iter().map(|item| item.message.clone()).collect();
        assert!(out.has_errors() && found.iter().any(|found| found.contains(expected)), "{text}: {found:?}");
    }
}

#[test]
fn a_provider_whose_consumer_is_not_there_lets_nobody_in() {
    let (auth, directory) = auth("{ with = ['jwt:lost'] }");
    let told = |auth: &Auth| {
        let headers = headers(&[("authorization", &bearer(json!({ "iss": "lost" })))]);
        match auth.identify(&shown(&headers)) {
            Identified::Refused(denied) => (denied.problem.reason, denied.detail),
            other => panic!("{other:?}"),
        }
    };
    let detail = "provider lost: the consumer of its tokens, gone, is not there";
    assert_eq!(told(&auth), (Reason::TokenRevoked, detail.to_owned()));
    // It may stand in the store.
    directory.await_store();
    assert_eq!(told(&auth).0, Reason::StoreUnavailable);
    let consumer = Arc::new(Consumer { name: "gone".into(), groups: Box::default(), ..Consumer::default() });
    directory.configure(Arc::new(Configured {
        consumers: vec![ConfiguredConsumer { consumer, keys: Vec::new(), subjects: Vec::new() }],
    }));
    assert!(judge(&auth, &[("authorization", &bearer(json!({ "iss": "lost" })))]).is_ok());
}

/// Which provider judges does not depend on who has seen the token before.
#[test]
fn a_token_that_another_route_has_seen_is_judged_as_if_it_were_new() {
    let (providers, directory, places) = known();
    let pattern = PathPattern::parse("/a").unwrap();
    let scope = Scope { pattern: &pattern, groups: None };
    let known = Known { providers: &providers, directory: &directory, places: &places, scope };
    let route = |text: &str| {
        let (raw, mut out) = decode_str::<RouteRaw>(&format!("auth = {{ with = {text} }}"));
        raw.unwrap().auth.unwrap().compile("routes[0].auth", known, &mut out).unwrap()
    };
    // `strict` is of the issuer and has another key.
    let (loose, strict) = (route("['jwt:any']"), route("['jwt:strict', 'jwt:any']"));
    let shows = bearer(json!({ "iss": "strict" }));
    let shows = [("authorization", shows.as_str())];
    let cold = judge(&strict, &shows);
    assert!(cold.is_err(), "{cold:?}");
    assert!(judge(&loose, &shows).is_ok());
    assert_eq!(judge(&strict, &shows), cold);
    // And one that it would choose itself is found.
    let others = bearer(json!({ "iss": "elsewhere" }));
    assert!(judge(&strict, &[("authorization", &others)]).is_ok());
}

/// A certificate that proves itself is told like anybody else.
#[test]
fn a_certificate_opens_what_asks_for_one() {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let certificate = Arc::new(ClientCert::read(made.der()).unwrap());
    let (auth, directory) = auth("{ with = ['mtls'] }");
    let none = HeaderMap::new();
    let shown = Shown { certificate: Some(&certificate), ..shown(&none) };
    assert!(matches!(auth.identify(&shown), Identified::Known(Principal { consumer: None, .. })));
    let consumer =
        Arc::new(Consumer { name: "partner".into(), groups: Box::default(), ..Consumer::default() });
    let subject = certificate.principal().unwrap().to_str().unwrap().to_owned();
    directory.configure(Arc::new(Configured {
        consumers: vec![ConfiguredConsumer {
            consumer: consumer.clone(),
            keys: Vec::new(),
            subjects: vec![("mtls".to_owned(), subject)],
        }],
    }));
    match auth.identify(&shown) {
        Identified::Known(principal) => {
            assert_eq!((principal.proof.scheme(), &principal.consumer), ("mtls", &Some(consumer)));
            assert_eq!(principal.until, Some(certificate.not_after));
            assert!(auth.authorize(Some(&principal), |_| Ok(false)).is_ok());
        }
        other => panic!("{other:?}"),
    }
}
