use super::*;
use crate::base::decode::decode_str;
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::Origin;
use crate::upstream::breaker::Trip;
use crate::upstream::fallback::Fallback;
use crate::upstream::retry::{Conditions, RetryPolicy};
use crate::upstream::{Settings, Timeouts};

fn compile(text: &str) -> (Option<Settings>, Diagnostics) {
    let (raw, mut out) = decode_str::<UpstreamRaw>(text);
    let settings = raw.and_then(|raw| raw.compile("users", "upstreams.users", &Origin::Default, &mut out));
    (settings, out)
}

fn good(text: &str) -> Settings {
    let (settings, out) = compile(text);
    assert!(out.is_empty(), "{text}: {:?}", messages(&out));
    settings.expect(text)
}

fn messages(out: &Diagnostics) -> Vec<String> {
    out.iter().map(|item| format!("{}: {}", item.path, item.message)).collect()
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let (_, out) = compile(text);
    assert!(out.has_errors(), "{text} passes");
    let messages = messages(&out);
    assert!(messages.iter().any(|message| message.contains(expected)), "{text}: {messages:?}");
}

#[test]
fn one_line_is_enough() {
    let settings = good("servers = [\"127.0.0.1:3001\"]");
    assert_eq!(settings.servers[0].target.to_string(), "127.0.0.1:3001");
    assert_eq!((settings.servers[0].weight, settings.servers[0].backup), (1, false));
    assert_eq!(settings.balance, Balance::RoundRobin);
    assert_eq!(settings.host, HostSent::Client);
    assert_eq!(settings.timeouts, Timeouts::default());
    assert_eq!(settings.retry, RetryPolicy::default());
    assert!(settings.tls.is_none() && !settings.http2);
    assert!(settings.check.is_none() && settings.breaker.is_none() && settings.fallback.is_none());
}

#[test]
fn every_key_arrives() {
    let settings = good(
        r#"
        servers = ["users.internal", { address = "backup.internal:444", weight = 2, backup = true }]
        balance = { hash = "header:X-User" }
        tls = { sni = "users.example" }
        http2 = true
        host = "users.example:8443"
        timeouts = { connect = "2s", read = "3s", write = "4s", idle = "5s" }
        health_check = { path = "/health?a=1", interval = "1s", timeout = "2s", healthy_after = 2, unhealthy_after = 4 }
        retry = { attempts = 3, on = ["timeout", "5xx"], non_idempotent = true, backoff = "1ms", budget = "50%" }
        circuit_breaker = { error_ratio = "25%", min_requests = 7, window = "30s", open_for = "1m" }
        fallback = { status = 200, json = { users = [] } }
        "#,
    );
    assert_eq!(settings.servers[0].target.to_string(), "users.internal:443", "the port follows tls");
    assert_eq!(settings.servers[1].target.to_string(), "backup.internal:444");
    assert_eq!((settings.servers[1].weight, settings.servers[1].backup), (2, true));
    assert_eq!(settings.balance, Balance::Hash(HashSource::Header(http::HeaderName::from_static("x-user"))));
    assert_eq!(settings.tls.as_ref().and_then(|tls| tls.sni.as_deref()), Some("users.example"));
    assert_eq!(settings.host, HostSent::Name(http::HeaderValue::from_static("users.example:8443")));
    let secs = Duration::from_secs;
    assert_eq!(
        settings.timeouts,
        Timeouts { connect: secs(2), read: secs(3), write: secs(4), idle: secs(5) }
    );
    let check = settings.check.unwrap();
    assert_eq!(
        (check.path.as_deref(), check.interval, check.timeout),
        (Some("/health?a=1"), secs(1), secs(2))
    );
    assert_eq!((check.thresholds.healthy_after, check.thresholds.unhealthy_after), (2, 4));
    let on = Conditions { timeout: true, status_5xx: true, ..Conditions::NONE };
    let backoff = Duration::from_millis(1);
    assert_eq!(settings.retry, RetryPolicy { attempts: 3, on, non_idempotent: true, backoff, budget: 0.5 });
    let breaker = settings.breaker.unwrap();
    assert_eq!(breaker.trip, Trip::Ratio { ratio: 0.25, min_requests: 7, window: secs(30) });
    assert_eq!(breaker.open_for, secs(60));
    let Some(Fallback::Answer(answer)) = settings.fallback else { panic!("no answer") };
    assert_eq!(answer.body().as_ref(), b"{\"users\":[]}");
}

#[test]
fn a_breaker_counts_to_five_unless_told() {
    let trip = |text: &str| {
        good(&format!("servers = [\"a\"]\ncircuit_breaker = {{ {text} }}"))
            .breaker
            .map(|breaker| breaker.trip)
    };
    assert_eq!(trip(""), Some(Trip::Consecutive(5)));
    assert_eq!(trip("failures = 2"), Some(Trip::Consecutive(2)));
}

#[test]
fn mistakes_in_servers() {
    refused("servers = []", "upstreams.users.servers: the upstream has no servers");
    refused("", "the key \"servers\" is missing");
    refused("servers = [\"http://a\"]", "servers[0]: the server \"http://a\" has a scheme");
    refused("servers = [\"a:99999\"]", "has a port that is not a number from 1 to 65535");
    refused("servers = [{ address = \"::1\" }]", "IPv6 address without brackets");
    refused("servers = [{ address = \"a\", weight = 0 }]", "servers[0].weight: a weight of 0 sends nothing");
    refused("servers = [{ address = \"a\", weight = 65536 }]", "a weight is at most 65535");
    refused("servers = [\"a\", \"a:80\"]", "servers[1]: a:80 is given twice");
    refused("servers = [{ address = \"a\", backup = true }]", "every server is a backup");
    refused("servers = [7]", "expected an address");
    refused("servers = \"a\"", "expected a list");
    refused(
        "servers = [\"10.0.0.1\"]\ntls = {}",
        "10.0.0.1:443 has no name that its certificate could prove",
    );
    refused("servers = [\"unix:/a\"]\ntls = {}", "unix:/a has no name that its certificate could prove");
    good("servers = [\"10.0.0.1\"]\ntls = { sni = \"10.0.0.1\" }");
}

#[test]
fn mistakes_elsewhere() {
    let with = |text: &str| format!("servers = [\"a\"]\n{text}");
    refused(&with("balance = \"round_robbin\""), "balance: \"round_robbin\" is not known here");
    refused(&with("balance = \"peak_ewma\""), "\"peak_ewma\" is not available in this version");
    refused(&with("balance = { sticky = \"s\" }"), "\"sticky\" is not available in this version");
    refused(&with("balance = { hash = \"cookie:a\" }"), "is neither \"ip\" nor \"header:NAME\"");
    refused(&with("balance = { hash = \"header: \" }"), "names no header");
    refused(&with("max_requests = -5"), "max_requests: -5 is not between 0 and");
    refused(&with("host = \"a b\""), "is neither \"client\" nor \"server\" nor a host name");
    refused(&with("timeouts = { read = \"0s\" }"), "timeouts.read: must be longer than 0");
    refused(&with("health_check = { path = \"health\" }"), "health_check.path: \"health\" is not a path");
    refused(&with("health_check = { path = \"/a b\" }"), "\"/a b\" is not a path");
    refused(&with("health_check = { unhealthy_after = 0 }"), "unhealthy_after: must be at least 1");
    refused(&with("retry = { attempts = 0 }"), "retry.attempts: must be between 1 and 10");
    refused(&with("retry = { on = [\"500\"] }"), "\"500\" is not known here");
    refused(&with("circuit_breaker = { failures = 0 }"), "failures: must be at least 1");
    refused(&with("circuit_breaker = { failures = 1, error_ratio = \"1%\" }"), "exclude each other");
    refused(&with("circuit_breaker = { window = \"1s\" }"), "does nothing without \"error_ratio\"");
    refused(&with("circuit_breaker = { error_ratio = \"0%\" }"), "would be open from the first request on");
    refused(&with("fallback = { status = 200, upstream = \"b\" }"), "exclude each other");
    refused(&with("tls = { sni = \"a b\" }"), "tls.sni: \"a b\" is neither a host name nor an IP address");
    refused(&with("tls = { client_cert = \"/none.pem\" }"), "`client_key` is missing");
    refused(&with("tls = { ca = \"/none.pem\" }"), "tls.ca: the file /none.pem cannot be read");
}

/// Everything that is wrong is said, not the first thing.
#[test]
fn all_mistakes_at_once() {
    let (_, out) = compile(
        "servers = [\"http://a\", \"b\", \"b\"]\nbalance = \"x\"\ntimeouts = { idle = \"0\" }\nhost = \"\"",
    );
    assert_eq!(out.len(), 5, "{:?}", messages(&out));
}

/// What the schema and the reference print as defaults reads as the same.
#[test]
fn defaults_read_as_written() {
    use crate::base::decode::{Keys, Presence};

    for key in UpstreamRaw::KEYS.iter() {
        if let Presence::Default(text) = key.presence {
            good(&format!("servers = [\"a\"]\n{} = {}", key.name, text()));
        }
    }
}

mod links {
    use std::sync::Arc;

    use indexmap::IndexMap;

    use super::*;
    use crate::base::clock;
    use crate::telemetry::metrics::Metrics;
    use crate::upstream::resolver::System;
    use crate::upstream::{Live, Upstream};

    fn link(text: &str) -> (IndexMap<String, Arc<Upstream>>, Vec<String>) {
        let (raw, mut out) = decode_str::<IndexMap<String, At<UpstreamRaw>>>(text);
        let raw = raw.unwrap();
        let live = Live::new(Metrics::new(), Arc::new(System));
        let upstreams = raw
            .iter()
            .filter_map(|(name, raw)| {
                let settings = raw.compile(name, &format!("upstreams.{name}"), &raw.origin, &mut out)?;
                Some((name.clone(), Upstream::new(settings, &live, clock::now())))
            })
            .collect();
        link_fallbacks(&upstreams, &raw, &mut out);
        (upstreams, messages(&out))
    }

    #[test]
    fn fallbacks_find_their_upstream() {
        let (upstreams, problems) = link(
            "users = { servers = [\"a\"], fallback = { upstream = \"still\" } }\nstill = { servers = [\"b\"] }",
        );
        assert_eq!(problems, Vec::<String>::new());
        let Some(Fallback::Upstream(link)) = upstreams["users"].fallback() else { panic!("no link") };
        assert!(Arc::ptr_eq(link.upstream().unwrap(), &upstreams["still"]));
    }

    #[test]
    fn fallbacks_that_lead_nowhere_are_refused() {
        let (_, problems) = link("users = { servers = [\"a\"], fallback = { upstream = \"stil\" } }");
        assert!(problems[0].contains("the upstream \"stil\" is not defined"), "{problems:?}");
        let to = |next: &str| format!("{{ servers = [\"a\"], fallback = {{ upstream = \"{next}\" }} }}");
        let (_, problems) =
            link(&format!("a = {}\nb = {}\nc = {}\nd = {}", to("b"), to("a"), to("c"), to("a")));
        assert_eq!(problems.len(), 3, "d leads into the circle but is not on it: {problems:?}");
    }
}
