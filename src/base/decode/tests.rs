//! Tables and values as a feature author meets them.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use indexmap::IndexMap;
use ipnet::IpNet;
use proptest::prelude::*;
use regex::Regex;

use super::*;
use crate::base::origin::{At, Origin};

enum_value! {
    /// Who gets the next request.
    enum Balance {
        /// In turn.
        RoundRobin = "round_robin",
        /// By chance.
        Random = "random",
    }
}

keys! {
    /// How a server is watched.
    ///
    /// Second paragraph.
    struct WatchRaw {
        /// Path asked.
        path: optional String,
        /// How often.
        interval: Duration = Duration::from_secs(5),
        /// How many at once.
        threads: upgrade u16 = 4,
        /// Who may look.
        token: secret optional Secret,
    }
}

keys! {
    /// One server.
    struct ServerRaw {
        /// Where it is.
        address: required String,
        /// Its share.
        weight: u32 = 1,
        /// How it is watched.
        watch: WatchRaw = WatchRaw::default(),
        /// How it is chosen.
        balance: Balance = Balance::RoundRobin,
        /// A keyword as a name.
        r#type: optional String
    }
}

keys! {
    /// The whole.
    struct RootRaw {
        /// Servers by name.
        servers: IndexMap<String, At<ServerRaw>> = IndexMap::new(),
        /// A list.
        routes: Vec<At<WatchRaw>> = Vec::new(),
        /// When to give up.
        timeout: optional Duration,
    }
}

fn problems(out: &Diagnostics) -> Vec<(&'static str, String, String, String)> {
    out.iter()
        .map(|item| {
            (item.code, item.path.clone(), item.message.clone(), item.hint.clone().unwrap_or_default())
        })
        .collect()
}

fn one<T: Value>(value: &str) -> Result<T, (String, String)> {
    keys_of_one::<T>(&format!("value = {value}"), &|_| None)
}

fn keys_of_one<T: Value>(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<T, (String, String)> {
    let mut out = Diagnostics::default();
    let mut sources = Sources::default();
    let file = sources.add("conf/main.toml".into(), text.to_owned());
    let mut root = parse(file, text, &mut out);
    substitute(&mut root, env, &mut out);
    let read = |path: &std::path::Path| match path.to_str() {
        Some("conf/secret") => Ok(b"hush\n".to_vec()),
        _ => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
    };
    let mut cx = Decoder::new(&sources, Surroundings { env, read: &read }, &[], &mut out);
    let value = cx.key("value", |cx| T::decode(root.get("value").unwrap(), cx));
    match out.iter().next() {
        Some(item) => Err((item.message.clone(), item.hint.clone().unwrap_or_default())),
        None => Ok(value.unwrap()),
    }
}

fn message<T: Value + std::fmt::Debug>(value: &str) -> (String, String) {
    one::<T>(value).unwrap_err()
}

#[test]
fn a_declared_table_decodes_with_places_and_defaults() {
    let (root, out) = decode_str::<RootRaw>(
        "timeout = \"2s\"\n[servers.a]\naddress = \"x\"\ntype = \"t\"\n[servers.a.watch]\ninterval = \"1m\"\n",
    );
    assert!(out.is_empty(), "{out:?}");
    let root = root.unwrap();
    let server = &root.servers["a"];
    assert_eq!((server.address.value.as_str(), server.weight.value), ("x", 1));
    assert_eq!(server.weight.origin, Origin::Default);
    assert_eq!(server.r#type.as_ref().map(|at| at.value.as_str()), Some("t"));
    assert_eq!(*server.watch.interval, Duration::from_secs(60));
    assert!(matches!(&server.watch.interval.origin, Origin::File { span, .. } if span.start > 0));
    assert_eq!(root.timeout.unwrap().value, Duration::from_secs(2));
}

/// One broken value must hide neither its neighbours nor other problems.
#[test]
fn every_problem_is_reported_and_the_rest_decodes() {
    let (root, out) = decode_str::<RootRaw>(
        "timeout = 5\n[servers.a]\nadress = \"x\"\nweight = -1\nbalance = \"randon\"\n\
         [servers.b]\naddress = \"y\"\ninterval = 3\nwatch = { threads = \"4\", interval = \"5 sec\" }\n",
    );
    let expected = [
        ("unknown-key", "servers.a.adress", "unknown key \"adress\"", "did you mean \"address\"?"),
        ("missing-key", "servers.a", "the key \"address\" is missing", ""),
        ("invalid-value", "servers.a.weight", "-1 is not between 0 and 4294967295", ""),
        ("invalid-value", "servers.a.balance", "\"randon\" is not known here", "did you mean \"random\"?"),
        ("unknown-key", "servers.b.interval", "unknown key \"interval\"", ""),
        ("invalid-value", "servers.b.watch.interval", "\"5 sec\" is not a duration such as \"5s\"", ""),
        (
            "wrong-type",
            "servers.b.watch.threads",
            "expected an integer, found a string",
            "write 4 without quotes",
        ),
        ("wrong-type", "timeout", "expected a duration such as \"5s\", found an integer", "write \"5s\""),
    ];
    let expected: Vec<_> =
        expected.iter().map(|(c, p, m, h)| (*c, (*p).to_owned(), (*m).to_owned(), (*h).to_owned())).collect();
    assert_eq!(problems(&out), expected);
    let root = root.unwrap();
    assert_eq!(root.servers.keys().collect::<Vec<_>>(), ["b"], "a has no address, b only broken options");
    assert_eq!(*root.servers["b"].watch.threads, 4);
}

#[test]
fn a_misplaced_key_is_told_its_place_and_a_later_one_its_time() {
    let text = "[[routes]]\ntimeout = \"5s\"\naddress = \"x\"\ngrpc = {}\n[cache]\n";
    let mut out = Diagnostics::default();
    let mut sources = Sources::default();
    let file = sources.add("main.toml".into(), text.to_owned());
    let root = parse(file, text, &mut out);
    let surroundings = Surroundings { env: &|_| None, read: &|file| panic!("{file:?} is read") };
    let tables = tables(&RootRaw::shape());
    assert_eq!(
        tables.iter().map(|table| table.path.as_str()).collect::<Vec<_>>(),
        ["", "servers.*", "servers.*.watch", "servers.*.watch.token", "routes", "routes.token"]
    );
    RootRaw::decode(&root, &mut Decoder::new(&sources, surroundings, &tables, &mut out));
    let hints: Vec<_> =
        problems(&out).into_iter().map(|(code, _, message, hint)| (code, message, hint)).collect();
    let belongs = "\"timeout\" belongs at the top of the file, before the first table";
    assert_eq!(
        hints,
        [
            ("not-available", "\"cache\" is not available in this version".to_owned(), String::new()),
            ("unknown-key", "unknown key \"timeout\"".to_owned(), belongs.to_owned()),
            (
                "unknown-key",
                "unknown key \"address\"".to_owned(),
                "\"address\" belongs in [servers.NAME]".to_owned()
            ),
            ("not-available", "\"grpc\" is not available in this version".to_owned(), String::new()),
        ]
    );
}

#[test]
fn keys_carry_what_schema_and_reload_need() {
    let keys = WatchRaw::KEYS;
    assert_eq!(doc_text(WatchRaw::DOC), "How a server is watched.\n\nSecond paragraph.");
    let threads = keys.iter().find(|key| key.name == "threads").unwrap();
    assert!(threads.needs_upgrade && !threads.secret);
    assert!(matches!(threads.presence, Presence::Default(render) if render() == "4"));
    assert!(matches!((threads.shape)(), Shape::Integer { min: 0, max: 65_535 }));
    assert!(keys.iter().find(|key| key.name == "token").unwrap().secret);
    assert_eq!(doc_text(keys[0].doc), "Path asked.");
    assert!(matches!(ServerRaw::KEYS[0].presence, Presence::Required));
    assert_eq!(ServerRaw::KEYS[4].name, "type");
    assert_eq!(WatchRaw::default().render(), "{ interval = \"5s\", threads = 4 }");
}

#[test]
fn numbers_and_booleans() {
    assert_eq!(one::<u16>("8080"), Ok(8080));
    assert_eq!(message::<u16>("70000").0, "70000 is not between 0 and 65535");
    assert_eq!(message::<u64>("-3").0, "-3 is negative");
    assert_eq!(one::<f64>("1"), Ok(1.0));
    assert_eq!(message::<f64>("nan").0, "NaN is not a finite number");
    assert_eq!(message::<bool>("\"true\"").1, "write true without quotes");
    assert_eq!(message::<bool>("\"On\"").1, "write true without quotes");
    assert_eq!(message::<bool>("\"maybe\"").1, "");
    assert_eq!(message::<String>("8").1, "write it in quotes: \"8\"");
    assert_eq!(message::<u16>("1.5").0, "expected an integer, found a number");
}

#[test]
fn quantities_ask_for_their_unit() {
    assert_eq!(one::<Size>("\"64KiB\""), Ok(Size(65_536)));
    assert_eq!(message::<Size>("10").1, "write \"10B\"");
    assert_eq!(message::<Duration>("\"30\""), ("\"30\" has no unit".to_owned(), "write \"30s\"".to_owned()));
    assert_eq!(message::<Duration>("\"1m1h\"").1, "larger units stand first, each once: \"1h30m\"");
    assert_eq!(message::<Percentage>("\"120%\"").0, "\"120%\" is too large");
    assert_eq!(one::<Rate>("\"10/15min\""), Ok(Rate { count: 10, per: Duration::from_secs(900) }));
    assert_eq!(one::<Rate>("\"5000/h\"").map(|rate| rate.render()), Ok("\"5000/h\"".to_owned()));
    for wrong in ["10", "x/s", "10/", "10/y", "0/s", "10/0s", "10/99999999999999999999s", "/s", "-1/s"] {
        assert!(one::<Rate>(&quote(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn networks_and_http_words() {
    assert_eq!(one::<IpNet>("\"10.0.0.1\"").unwrap().to_string(), "10.0.0.1/32");
    assert_eq!(one::<IpNet>("\"::1\"").unwrap().to_string(), "::1/128");
    let (wrong, hint) = message::<IpNet>("\"10.0.0.7/8\"");
    assert_eq!(wrong, "\"10.0.0.7/8\" has bits set after its prefix");
    assert_eq!(hint, "the network is \"10.0.0.0/8\", the address alone \"10.0.0.7\"");
    assert_eq!(one::<Method>("\"PURGE\"").unwrap().as_str(), "PURGE");
    assert_eq!(message::<Method>("\"get\"").1, "did you mean \"GET\"?");
    assert!(one::<HeaderName>("\"X Y\"").is_err());
    assert!(one::<HeaderValue>("\"a\\nb\"").is_err());
    assert_eq!(one::<StatusCode>("404"), Ok(StatusCode::NOT_FOUND));
    assert!(one::<StatusCode>("101").is_err());
    assert_eq!(message::<Regex>("\"a(b\"").0, "\"a(b\" is not a regular expression: unclosed group");
    let headers = one::<IndexMap<HeaderName, At<String>>>("{ X-A = \"1\", x-a = \"2\" }");
    assert_eq!(headers.unwrap_err().0, "\"x-a\" is given twice");
}

/// Where a number, boolean or list is due, a string holding a substitution is read as one; any other string is not.
#[test]
fn a_variable_may_stand_for_any_scalar() {
    let env = |name: &str| match name {
        "N" => Some("7".to_owned()),
        "B" => Some("true".to_owned()),
        "L" => Some("a, b".to_owned()),
        "J" => Some("[\"10.0.0.0/8\", '::1']".to_owned()),
        _ => None,
    };
    assert_eq!(keys_of_one::<u16>("value = \"${N}\"", &env), Ok(7));
    assert_eq!(keys_of_one::<u16>("value = \"${N}${N}\"", &env), Ok(77));
    assert_eq!(keys_of_one::<bool>("value = \"${B}\"", &env), Ok(true));
    assert_eq!(
        keys_of_one::<Vec<String>>("value = \"${L}\"", &env),
        Ok(vec!["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(keys_of_one::<Vec<IpNet>>("value = \"${J}\"", &env).unwrap().len(), 2);
    assert_eq!(keys_of_one::<Vec<String>>("value = \"${NONE:-}\"", &env), Ok(Vec::new()));
    assert_eq!(keys_of_one::<Duration>("value = \"${N}s\"", &env), Ok(Duration::from_secs(7)));
    let wrong = keys_of_one::<u16>("value = \"${L}\"", &env).unwrap_err();
    assert_eq!(wrong.0, "\"a, b\" (from a variable) is not an integer");
    assert_eq!(message::<Vec<String>>("\"a\"").1, "write [\"a\"]");
}

#[test]
fn secrets_come_from_files_and_variables_and_never_show() {
    let env = |name: &str| (name == "TOKEN").then(|| "hush".to_owned());
    for text in ["{ file = \"secret\" }", "{ env = \"TOKEN\" }", "\"${TOKEN}\""] {
        let secret = keys_of_one::<Secret>(&format!("value = {text}"), &env).unwrap();
        assert_eq!(secret.expose(), "hush", "{text}");
        assert!(!secret.render().contains("hush"));
    }
    let error = |text: &str| keys_of_one::<Secret>(&format!("value = {text}"), &env).unwrap_err().0;
    // One that is written there works, and is warned of.
    let (message, hint) = keys_of_one::<Secret>("value = \"hush\"", &env).unwrap_err();
    assert!(message.starts_with("this secret stands in the configuration") && !message.contains("hush"));
    assert_eq!(hint, "keep it elsewhere: { file = \"path\" } or { env = \"NAME\" }");
    assert_eq!(error("{ env = \"NONE\" }"), "the variable NONE is not set");
    assert_eq!(error("{ file = \"none\" }"), "cannot read the file conf/none: entity not found");
    assert_eq!(error("{}"), "a secret is either { file = \"path\" } or { env = \"NAME\" }");
    assert_eq!(error("{ fil = \"x\" }"), "unknown key \"fil\"");
    assert_eq!(error("7"), "expected { file = \"path\" } or { env = \"NAME\" }, found an integer");
}

#[test]
fn paths_start_at_the_file_that_names_them() {
    assert_eq!(one::<ConfigPath>("\"run/x\"").unwrap().to_str(), Some("conf/run/x"));
    assert_eq!(one::<ConfigPath>("\"/run/x\"").unwrap().to_str(), Some("/run/x"));
    assert!(one::<ConfigPath>("\"\"").is_err());
}

#[test]
fn every_effective_value_is_listed_with_its_place() {
    let text = "[servers.a]\naddress = \"x\"\n[servers.a.watch]\ntoken = \"hush\"\npath = \"/\"\n";
    let server = decode_str::<RootRaw>(text).0.unwrap().servers["a"].clone();
    let mut settings = Vec::new();
    server.settings("a", &Origin::Default, &mut settings);
    let shown: Vec<_> = settings
        .iter()
        .map(|setting| format!("{} = {} {}", setting.key, setting.value, setting.origin == Origin::Default))
        .collect();
    assert_eq!(
        shown,
        [
            "a.address = \"x\" false",
            "a.weight = 1 true",
            "a.watch.path = \"/\" false",
            "a.watch.interval = \"5s\" true",
            "a.watch.threads = 4 true",
            "a.watch.token = \"***\" false",
            "a.balance = \"round_robin\" true",
        ]
    );
}

proptest! {
    #[test]
    fn strings_survive_writing(text in "\\PC{0,20}|[\\x00-\\x7f]{0,20}") {
        prop_assert_eq!(one::<String>(&text.render()), Ok(text));
    }

    #[test]
    fn rates_survive_writing(count in 1_u64..1_000_000, seconds in 1_u64..10_000_000) {
        let rate = Rate { count, per: Duration::from_secs(seconds) };
        prop_assert_eq!(one::<Rate>(&rate.render()), Ok(rate));
    }

    #[test]
    fn percentages_survive_writing(tenths in 0_u32..=1000) {
        let ratio = one::<Percentage>(&format!("\"{}.{}%\"", tenths / 10, tenths % 10)).unwrap();
        prop_assert_eq!(one::<Percentage>(&ratio.render()), Ok(ratio));
    }

    #[test]
    fn no_text_panics(text in "(timeout|routes|servers|watch|a|x)?[\\[\\]{}=.,\"a-x0-9 \n$-]{0,60}") {
        let _ = decode_str::<RootRaw>(&text);
    }
}
