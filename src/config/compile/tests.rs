//! Whole configurations, from text to snapshot.

use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::decode::Surroundings;
use crate::base::origin::Origin;
use crate::config::snapshot::{BindAddress, Route, RouteTimeout, Target};
use crate::config::{load, load_text, render};

fn surroundings() -> Surroundings<'static> {
    Surroundings { env: &|_| None, read: &|_| Err(std::io::Error::from(std::io::ErrorKind::NotFound)) }
}

fn compile(text: &str) -> Compiled {
    load_text(Path::new("main.toml"), text, surroundings()).compile(&Runtime::detached())
}

fn snapshot(text: &str) -> Snapshot {
    let compiled = compile(text);
    compiled
        .snapshot
        .unwrap_or_else(|| panic!("{}", render::text(&compiled.diagnostics, &compiled.sources, false)))
}

/// Files in a directory of their own, compiled from `main.toml` on.
fn compile_files(files: &[(&str, &str)]) -> Compiled {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    load(&directory.path().join("main.toml"), surroundings()).compile(&Runtime::detached())
}

fn setting<'a>(route: &'a Route, key: &str) -> (&'a str, &'a Origin) {
    let setting = route.settings.iter().find(|setting| setting.key == key).unwrap();
    (&setting.value, &setting.origin)
}

const LISTENER: &str = "[[listeners]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n";

#[test]
fn a_configuration_becomes_a_snapshot() {
    let text = format!(
        "{LISTENER}
        [upstreams.users]
        servers = [\"127.0.0.1:3001\"]

        [[routes]]
        hosts = [\"api.example.com\"]
        path = \"/users/*\"
        methods = [\"POST\", \"GET\"]
        upstream = \"users\"
        rewrite = {{ prefix = \"/users\", to = \"/\" }}
        timeout = \"5s\"
        body_bytes = \"1KiB\"

        [[routes]]
        name = \"old\"
        path = \"/old/*\"
        redirect = {{ to = \"/new/{{path.rest}}\" }}
        timeout = \"none\"

        [[routes]]
        path = \"/healthz\"
        respond = {{ text = \"ok\" }}
        access_log = false
        "
    );
    let snapshot = snapshot(&text);
    let names: Vec<&str> = snapshot.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["GET,POST api.example.com/users/*", "old", "/healthz"]);
    let [users, old, health] = snapshot.routes.as_slice() else { panic!() };
    assert!(matches!(&users.target, Target::Upstream(upstream) if **upstream.name() == *"users"));
    assert_eq!(users.timeout, RouteTimeout::Whole(Duration::from_secs(5)));
    assert!(users.rewrite.is_some() && users.access_log);
    assert!(matches!(&old.target, Target::Redirect(redirect) if redirect.status.as_u16() == 308));
    assert_eq!(old.timeout, RouteTimeout::Unlimited);
    assert!(matches!(&health.target, Target::Respond(answer) if answer.body() == "ok"));
    assert!(!health.access_log);
    assert_eq!(snapshot.listeners[0].address, BindAddress::Tcp("127.0.0.1:0".parse().unwrap()));
    assert_eq!(snapshot.route(users.id).name, users.name);
    assert!(snapshot.log.access.is_some() && snapshot.admin.is_none());
}

#[test]
fn an_empty_file_has_every_default() {
    let compiled = compile("");
    assert_eq!(compiled.diagnostics.len(), 1, "only that nothing will be accepted");
    let snapshot = compiled.snapshot.unwrap();
    assert_eq!(snapshot.limits.request_timeout, Duration::from_secs(60));
    assert_eq!(snapshot.unmatched.timeout, RouteTimeout::Default);
    assert!(snapshot.unmatched.access_log);
    assert!(matches!(snapshot.unmatched.target, Target::Nothing));
}

/// A team's file may refine what the main file says of all routes, and what it leaves alone stays.
#[test]
fn defaults_merge_key_by_key_and_know_where_they_come_from() {
    let main = format!(
        "include = [\"team.toml\"]\n{LISTENER}
        [defaults]
        timeout = \"5s\"
        body_bytes = \"1KiB\"
        ip = {{ allow = [\"10.0.0.0/8\"], deny = [\"10.9.0.0/16\"] }}
        [[routes]]
        path = \"/main\"
        respond = {{}}
        [[routes]]
        path = \"/open\"
        respond = {{}}
        ip = false
        "
    );
    let team = "
        [defaults]
        timeout = \"none\"
        ip = { deny = [] }
        [[routes]]
        path = \"/team\"
        respond = {}
        body_bytes = \"2KiB\"
        [[routes]]
        path = \"/team/open\"
        respond = {}
        ip = false
        ";
    let compiled = compile_files(&[("main.toml", &main), ("team.toml", team)]);
    let sources = compiled.sources;
    let snapshot = compiled.snapshot.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics));
    let [own, open, team, team_open] = snapshot.routes.as_slice() else { panic!() };
    let place = |origin: &Origin| sources.describe(origin).rsplit('/').next().unwrap().to_owned();
    let shown = |route: &Route, key| {
        let (value, origin) = setting(route, key);
        format!("{value} {}", place(origin))
    };
    assert_eq!(shown(own, "timeout"), "\"5s\" main.toml:7");
    assert_eq!(shown(own, "ip.deny"), "[\"10.9.0.0/16\"] main.toml:9");
    assert_eq!(shown(own, "access_log"), "true default");
    assert_eq!(shown(team, "timeout"), "\"none\" team.toml:3");
    assert_eq!(shown(team, "ip.allow"), "[\"10.0.0.0/8\"] main.toml:9");
    assert_eq!(shown(team, "ip.deny"), "[] team.toml:4");
    assert_eq!(shown(team, "body_bytes"), "\"2KiB\" team.toml:8");
    assert!(own.guard.ip.is_some() && open.guard.ip.is_none());
    assert!(team.guard.ip.is_some() && team_open.guard.ip.is_none());
    // What matches no route is governed by the main file alone.
    assert_eq!(shown(&snapshot.unmatched, "timeout"), "\"5s\" main.toml:7");
    assert!(snapshot.unmatched.guard.ip.is_some());
    assert!(snapshot.unmatched.settings.iter().all(|setting| setting.key != "path"));
}

#[test]
fn false_takes_away_what_is_inherited_and_nothing_else() {
    let upstreams = "[upstream_defaults]
        http2 = true
        timeouts = { read = \"50s\", connect = \"3s\" }
        health_check = { path = \"/health\" }
        balance = { hash = \"ip\" }
        [upstreams.a]
        servers = [\"127.0.0.1:1\"]
        http2 = false
        health_check = false
        balance = { hash = \"header:x-user\" }
        [upstreams.a.timeouts]
        connect = \"1s\"
        [upstreams.b]
        servers = [\"127.0.0.1:1\"]
        ";
    let loaded = load_text(Path::new("main.toml"), &format!("{LISTENER}{upstreams}"), surroundings());
    assert!(!loaded.diagnostics.has_errors(), "{:?}", loaded.diagnostics);
    let raw = loaded.raw.unwrap();
    let (a, b) = (&raw.upstreams["a"], &raw.upstreams["b"]);
    assert!(!*a.http2 && *b.http2, "a boolean is replaced, not taken away");
    assert!(a.health_check.is_none() && b.health_check.is_some());
    assert_eq!((a.timeouts.read.as_secs(), a.timeouts.connect.as_secs()), (50, 1));
    assert_eq!(b.timeouts.connect.as_secs(), 3);

    let routes =
        "[defaults]\nbody_bytes = \"1KiB\"\n[[routes]]\npath = \"/a\"\nrespond = {}\nbody_bytes = false\n";
    let raw = load_text(Path::new("main.toml"), &format!("{LISTENER}{routes}"), surroundings()).raw.unwrap();
    assert!(raw.routes[0].body_bytes.is_none(), "so an inherited value can be had back to its built-in one");
}

/// A value of several forms is one value: laying one form under another would make a third.
#[test]
fn a_value_of_several_forms_is_replaced_as_a_whole() {
    let text = "[upstream_defaults]\nbalance = \"least_connections\"\nfallback = { upstream = \"b\" }\n\
        [upstreams.a]\nservers = [\"127.0.0.1:1\"]\nbalance = { hash = \"ip\" }\nfallback = { status = 200 }\n\
        [upstreams.b]\nservers = [\"127.0.0.1:2\"]\nfallback = false\n";
    let compiled = compile(&format!("{LISTENER}{text}"));
    assert!(compiled.snapshot.is_some(), "{:?}", compiled.diagnostics);
}

#[test]
fn paths_count_what_could_not_be_decoded() {
    let text = format!(
        "{LISTENER}[[routes]]\npath = 7\n[[routes]]\npath = \"/a\"\n[[routes]]\npath = \"/b\"\nupstream = \"x\"\n"
    );
    let paths: Vec<String> = compile(&text).diagnostics.iter().map(|item| item.path.clone()).collect();
    assert_eq!(paths, ["routes[0].path", "routes[1]", "routes[2].upstream"]);
}

#[test]
fn ten_thousand_mistakes_are_counted_and_still_stop_a_start() {
    let text = format!("{LISTENER}{}", "[[routes]]\npath = \"a\"\n".repeat(10_000));
    let compiled = compile(&text);
    assert!(compiled.snapshot.is_none());
    assert!(compiled.diagnostics.len() <= 1000 && compiled.diagnostics.dropped() > 8000);
}

/// Texts to mutate: what the repository ships, and every broken case.
fn seeds() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seeds = vec![include_str!("../../cli/init.toml").to_owned()];
    for directory in ["conf", "tests/golden/config"] {
        let Ok(entries) = fs::read_dir(root.join(directory)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let path = if path.is_dir() { path.join("main.toml") } else { path };
            if let Ok(text) = fs::read_to_string(&path) {
                seeds.push(text);
            }
        }
    }
    seeds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever becomes of a file while it is edited: it is answered, never with a panic.
    #[test]
    fn no_mutation_panics(
        seed in any::<prop::sample::Index>(),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..12, any::<prop::sample::Index>(), 0_usize..40, any::<bool>()),
            1..6,
        ),
        noise in "[\\[\\]{}=.,#\"'a-z0-9 \n$*~/-]{0,6}",
    ) {
        let seeds = seeds();
        let mut text: Vec<char> = seed.get(&seeds).chars().collect();
        for (at, cut, from, length, with_noise) in edits {
            if text.is_empty() {
                break;
            }
            let (at, from) = (at.index(text.len()), from.index(text.len()));
            let piece: Vec<char> = if with_noise {
                noise.chars().collect()
            } else {
                text[from..(from + length).min(text.len())].to_vec()
            };
            let end = (at + cut).min(text.len());
            text.splice(at..end, piece);
        }
        let text: String = text.into_iter().collect();
        let compiled = compile(&text);
        let shown = render::text(&compiled.diagnostics, &compiled.sources, true);
        prop_assert_eq!(shown.is_empty(), compiled.diagnostics.is_empty());
        prop_assert_eq!(compiled.snapshot.is_none(), compiled.diagnostics.has_errors());
    }
}

/// What is behind a file counts, not its name: connections made under the rules of before are not used any more.
#[test]
fn changed_files_of_tls_change_the_connections_to_servers() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    let pair = |cert: &str, key: &str| {
        let made = rcgen::generate_simple_self_signed(["users.internal".to_owned()]).unwrap();
        put(cert, &made.cert.pem());
        put(key, &made.signing_key.serialize_pem());
    };
    let text = "[[listeners]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n[upstreams.users]\nservers = [\"127.0.0.1:443\"]\n\
         tls = { sni = \"users.internal\", ca = \"ca.pem\", client_cert = \"gw.pem\", client_key = \"gw-key.pem\" }\n\
         [[routes]]\npath = \"/\"\nupstream = \"users\"\n";
    put("main.toml", text);
    pair("ca.pem", "ca-key.pem");
    pair("gw.pem", "gw-key.pem");
    let runtime = Runtime::detached();
    let group = || {
        let compiled = load(&directory.path().join("main.toml"), surroundings()).compile(&runtime);
        let users = compiled.snapshot.unwrap().upstreams["users"].clone();
        let attempt = users.attempt(&mut crate::upstream::Tried::default(), 0, None, runtime.now).unwrap();
        attempt.peer().group_key
    };
    let first = group();
    assert_eq!(group(), first, "nothing changed");
    pair("ca.pem", "ca-key.pem");
    let second = group();
    assert_ne!(second, first, "another authority");
    pair("gw.pem", "gw-key.pem");
    assert_ne!(group(), second, "another certificate");
}

/// Said once where requests are redirected, it holds where they are led to, and is overruled there.
#[test]
fn who_redirects_can_say_for_how_long_browsers_stay() {
    let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs").display().to_string();
    let listener = |name: &str, port: u16, lines: &str| {
        format!("[[listeners]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\n{lines}\n")
    };
    let tls = |name: &str, port: u16, hsts: &str| {
        let pair = format!("cert = \"{certs}/localhost.pem\"\nkey = \"{certs}/localhost-key.pem\"");
        listener(name, port, &format!("{hsts}\n[[listeners.certificates]]\n{pair}"))
    };
    let secure = [tls("one", 8443, ""), tls("two", 9443, ""), tls("own", 8444, "hsts = \"1m\"")].concat();
    for (plain, expected) in [
        ("redirect_https = 8443\nhsts = \"1h\"", [Some("max-age=3600"), None, Some("max-age=60")]),
        ("redirect_https = 8444\nhsts = \"1h\"", [None, None, Some("max-age=60")]),
        // Whatever is in front passes 443 on to one of them.
        (
            "redirect_https = 443\nhsts = \"1h\"",
            [Some("max-age=3600"), Some("max-age=3600"), Some("max-age=60")],
        ),
        ("redirect_https = 8443", [None, None, Some("max-age=60")]),
    ] {
        let snapshot = snapshot(&format!("{}{secure}", listener("plain", 8080, plain)));
        let said: Vec<_> = snapshot.listeners.iter().filter_map(|listener| listener.tls.as_ref()).collect();
        let said: Vec<_> =
            said.iter().map(|tls| tls.hsts.as_ref().map(|value| value.to_str().unwrap())).collect();
        assert_eq!(said, expected, "{plain}");
    }
}

/// By what is in the files and by the mode: connections made under other rules are asked to come again.
#[test]
fn policies_for_clients_are_told_apart() {
    let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs").display().to_string();
    let policy = |client_auth: &str| {
        let snapshot = snapshot(&format!(
            "[[listeners]]\nname = \"secure\"\naddress = \"127.0.0.1:0\"\nhsts = \"1d\"\n{client_auth}\n\
             [[listeners.certificates]]\ncert = \"{certs}/localhost.pem\"\nkey = \"{certs}/localhost-key.pem\"\n"
        ));
        let tls = snapshot.listeners[0].tls.clone().unwrap();
        assert_eq!(tls.hsts.as_ref().unwrap(), "max-age=86400");
        tls.client_policy()
    };
    let asking = |ca: &str, mode: &str| policy(&format!("client_auth = {{ ca = \"{certs}/{ca}\"{mode} }}"));
    let required = asking("ca.pem", ", mode = \"required\"");
    assert!(required.is_some());
    assert_eq!(required, asking("ca.pem", ""), "who says nothing means it");
    assert_ne!(required, asking("ca.pem", ", mode = \"optional\""));
    assert_ne!(required, asking("localhost.pem", ""));
    assert_eq!(policy(""), None);
}

/// What is served may change every second; reading the configuration again for that would be for nothing.
#[test]
fn served_directories_are_no_part_of_the_configuration() {
    let text = format!(
        "{LISTENER}
        [[routes]]
        path = \"/*\"
        files = {{ root = \"www\" }}
        [[routes]]
        path = \"/page\"
        respond = {{ file = \"page.html\" }}
        "
    );
    let compiled = compile_files(&[("main.toml", &text), ("page.html", "page")]);
    let files = compiled.snapshot.unwrap().files;
    assert!(files.iter().any(|file| file.ends_with("page.html")), "{files:?}");
    assert!(!files.iter().any(|file| file.ends_with("www")), "{files:?}");
}

/// Header names are the same in any case, also where a route takes an inherited one away.
#[test]
fn inherited_header_rules_merge_in_any_case() {
    let text = format!(
        "{LISTENER}
        [defaults.response]
        set = {{ \"X-Frame-Options\" = \"DENY\", \"X-Other\" = \"1\" }}
        [defaults.request.query]
        set = {{ Lang = \"en\" }}
        [upstreams.app]
        servers = [\"127.0.0.1:3001\"]
        [[routes]]
        path = \"/*\"
        upstream = \"app\"
        response = {{ set = {{ x-frame-options = false, x-other = \"2\" }} }}
        request = {{ query = {{ set = {{ lang = \"de\" }} }} }}
        "
    );
    let snapshot = snapshot(&text);
    let route = &snapshot.routes[0];
    let written = |prefix: &str| -> Vec<&str> {
        let keys = route.settings.iter().map(|setting| setting.key.as_str());
        keys.filter(|key| key.starts_with(prefix)).collect()
    };
    assert_eq!(written("response.set."), ["response.set.x-other"]);
    assert_eq!(setting(route, "response.set.x-other").0, "\"2\"");
    // Parameters are told apart by case.
    assert_eq!(written("request.query.set.").len(), 2);
}
