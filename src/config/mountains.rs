//! Mountains of input, and exactly what is said about them: every bound of the compiler, one past it. The cases are made here,
//! as nobody could read them in a file; what is said stands in `tests/golden/limits.txt`. After a wanted change of words run
//! the test with `EDGEWARD_BLESS=1` and read the difference.

use std::fs;
use std::path::Path;

use crate::base::decode::Surroundings;
use crate::base::diagnostic::Severity;
use crate::config::numbers::NUMBERS;
use crate::config::{Runtime, load, load_text};
use crate::store::{ServiceRow, Services};

const LISTENER: &str = "[[listeners]]\nname = \"main\"\naddress = \"127.0.0.1:0\"\n";

/// A configuration in a directory of its own.
struct Mountain {
    name: &'static str,
    main: String,
    files: Vec<(String, Vec<u8>)>,
}

fn of(name: &'static str, main: impl Into<String>) -> Mountain {
    Mountain { name, main: format!("{}\n{LISTENER}", main.into()), files: Vec::new() }
}

impl Mountain {
    fn file(mut self, name: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.into(), content.into()));
        self
    }

    /// What is said about it: code, path, message and hint of each problem, without excerpts, which would be mountains.
    fn told(&self) -> String {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("main.toml"), &self.main).unwrap();
        for (name, content) in &self.files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let env = |name: &str| (name == "LONG").then(|| "x".repeat((1 << 20) - 10));
        let surroundings = Surroundings { env: &env, read: &super::read_named_file };
        let compiled = load(&directory.path().join("main.toml"), surroundings).compile(&Runtime::detached());
        let mut told = format!("== {}\n", self.name);
        let mut errors: Vec<_> =
            compiled.diagnostics.iter().filter(|item| item.severity == Severity::Error).collect();
        // What is left of too many may have faults of its own, and stands before those that are left out.
        errors.sort_by_key(|item| item.code != "too-many");
        let shown = if errors.first().is_some_and(|item| item.code == "too-many") { 1 } else { 3 };
        for item in errors.into_iter().take(shown) {
            let message = item.message.replace(&format!("{}/", directory.path().display()), "");
            told.push_str(&format!("{}: {}: {}\n", item.code, item.path, shortened(&message)));
            if let Some(hint) = &item.hint {
                told.push_str(&format!("  hint: {}\n", shortened(hint)));
            }
        }
        told
    }
}

/// Without the middle of what is long.
fn shortened(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= 200 {
        return text.to_owned();
    }
    let (begin, end) = (&characters[..90], &characters[characters.len() - 90..]);
    format!("{}…{}", begin.iter().collect::<String>(), end.iter().collect::<String>())
}

fn route(keys: &str) -> String {
    format!("[[routes]]\nname = \"r\"\npath = \"/a\"\nrespond = {{}}\n{keys}\n")
}

fn forwarded(keys: &str) -> String {
    format!(
        "[upstreams.u]\nservers = [\"127.0.0.1:1\"]\n[[routes]]\nname = \"r\"\npath = \"/a/*\"\nupstream = \"u\"\n{keys}\n"
    )
}

fn at_path(path: &str) -> String {
    format!("[[routes]]\nname = \"r\"\npath = '{path}'\nrespond = {{}}\n")
}

fn repeated(text: &str, times: usize, between: &str) -> String {
    vec![text; times].join(between)
}

/// So many tables below one, with names and nothing in them.
fn named(table: &str, count: usize) -> String {
    let names: String = (0..count).map(|number| format!("n{number} = {{}}\n")).collect();
    format!("[{table}]\n{names}")
}

/// The development certificate, which is there for everybody.
fn certificate() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
}

const LOGIN: &str = "[store]\nurl = \"sqlite:x.db\"\n[identity.providers.p]\nissuer = \"i\"\naudience = [\"a\"]\n\
    algorithms = [\"HS256\"]\nsecret = \"0123456789abcdef0123456789abcdef\"\n[identity.login]\nprovider = \"p\"\n";
const TLS: &str = "[[listeners]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\n";

fn files_and_numbers() -> Vec<Mountain> {
    let mut mountains = vec![
        of("a file", format!("# {}", "x".repeat(16 << 20))),
        of("brackets", format!("x = {}{}", "[".repeat(65), "]".repeat(65))),
        of("dotted keys", format!("{}a = 1", "a.".repeat(70_000))),
        of("syntax errors", repeated("a = \n", 25, "")),
        of("an integer", "[limits]\nconnections = 99999999999999999999"),
        of("problems", repeated("[[routes]]\nx = 1\n", 700, "")),
        of(
            "a variable",
            format!(
                "[[routes]]\nname = \"a\"\npath = \"/a\"\nrespond = {{ text = \"{}\" }}",
                "${LONG}".repeat(2)
            ),
        ),
        of("variables in all", {
            let text =
                |number| format!("[[routes]]\npath = \"/{number}\"\nrespond = {{ text = \"${{LONG}}\" }}\n");
            (0..66).map(text).collect::<String>()
        }),
        of(
            "brokers",
            (0..257)
                .map(|number| format!("[brokers.b{number}]\nurl = \"amqp://127.0.0.1\"\n"))
                .collect::<String>(),
        ),
        // Of what there is too much of, the first part is looked at: it is as little as can be.
        of("routes", format!("routes = [{}]", "{},".repeat(100_001))),
        of("listeners", "[[listeners]]\n".repeat(1024)),
        of("upstreams", named("upstreams", 20_001)),
        of("limits", named("rate_limits", 10_001)),
        of("plans", named("plans", 10_001)),
        of("consumers", named("consumers", 100_001)),
        of("providers", named("identity.providers", 1025)),
        of("what routes inherit", {
            let headers: String = (0..2000).map(|number| format!("x-{number} = \"y\"\n")).collect();
            format!("routes = [{}]\n[defaults.request.set]\n{headers}", "{},".repeat(5000))
        }),
        of("threads", "[server]\nthreads = 257"),
        of("bytes of a head", "[limits]\nheader_bytes = \"1048577B\""),
        of("regexes of paths", {
            let route = |number| {
                format!("[[routes]]\nname = \"r{number}\"\npath = \"~^/{number}$\"\nrespond = {{}}\n")
            };
            (0..4097).map(route).collect::<String>()
        }),
        of("regexes of values", {
            let route = |number| {
                format!(
                    "[[routes]]\nname = \"r{number}\"\npath = \"/{number}\"\nheaders = {{ x = \"~a\" }}\nrespond = {{}}\n"
                )
            };
            (0..1025).map(route).collect::<String>()
        }),
        of(
            "servers",
            format!(
                "[upstreams.u]\nservers = [{}]",
                (1..1026).map(|port| format!("\"127.0.0.1:{port}\"")).collect::<Vec<_>>().join(", ")
            ),
        ),
        of("legs", {
            let leg = |number| {
                format!("[[routes.aggregate.legs]]\nname = \"l{number}\"\nupstream = \"u\"\npath = \"/x\"\n")
            };
            let legs: String = (0..65).map(leg).collect();
            format!(
                "[upstreams.u]\nservers = [\"127.0.0.1:1\"]\n[[routes]]\nname = \"r\"\npath = \"/a\"\n[routes.aggregate]\n{legs}"
            )
        }),
        of(
            "windows of a limit",
            "[rate_limits.l]\nkey = \"ip\"\nlimits = [\"1/s\", \"2/min\", \"3/h\", \"4/day\", \"5/2day\", \"6/3day\"]",
        ),
        of(
            "parts of a key",
            "[rate_limits.l]\nkey = [\"ip\", \"route\", \"header:a\", \"header:b\", \"header:c\"]\nlimits = [\"1/s\"]",
        ),
        of("a weight", "[upstreams.u]\nservers = [{ address = \"127.0.0.1:1\", weight = 65536 }]"),
        of("a duration", format!("[limits]\nrequest_timeout = \"{}d\"", u64::MAX)),
        of("a size", "[limits]\nbody_bytes = \"99999999999999999GiB\""),
    ];
    let mut many = of("included files", "").file("unused.txt", "");
    many.main = format!("include = [\"many/*.toml\"]\n{LISTENER}");
    for number in 0..4097 {
        many = many.file(format!("many/{number}.toml"), "");
    }
    mountains.push(many);
    let mut large = of("all files", "");
    large.main = format!("include = [\"large/*.toml\"]\n{LISTENER}");
    for number in 0..5 {
        large = large.file(format!("large/{number}.toml"), format!("# {}", "x".repeat(15 << 20)));
    }
    mountains.push(large);
    mountains
}

fn texts() -> Vec<Mountain> {
    let long = |length: usize| "x".repeat(length);
    vec![
        of("the name of a route", at_path("/a").replace("\"r\"", &format!("\"{}\"", long(257)))),
        of("the name of an upstream", format!("[upstreams.{}]\nservers = [\"127.0.0.1:1\"]", long(257))),
        of(
            "the name of a listener",
            LISTENER.replace("\"main\"", &format!("\"{}\"", long(257))).replace(":0", ":1"),
        ),
        of("a host", route(&format!("hosts = [\"{}.example\"]", repeated(&long(60), 5, ".")))),
        of("a label of a server", format!("[upstreams.u]\nservers = [\"{}.example:80\"]", long(64))),
        of("a path", at_path(&format!("/{}", long(2048)))),
        of("segments of a path", at_path(&"/a".repeat(65))),
        of("a regex of a path", at_path(&format!("~^/{}$", long(2048)))),
        of("a regex of a path, compiled", at_path("~^/(a{100}){100}$")),
        of("a value", route(&format!("headers = {{ x = \"{}\" }}", long(4097)))),
        of("a regex of a value, compiled", route("headers = { x = '~(\\w{100}){10}' }")),
        of("an expression", route(&format!("when = 'query.x == \"{}\"'", long(2048)))),
        of("depth of an expression", route(&format!("when = '{}true{}'", "(".repeat(40), ")".repeat(40)))),
        of(
            "parts of an expression",
            route(&format!("when = '{}'", repeated("query.x == \"1\"", 90, " || "))),
        ),
        of("loops in an expression", route("when = '[1].exists(i, [2].exists(j, i == j))'")),
        of("a regex in an expression, compiled", route("when = 'query.x.matches(\"(\\\\w{100}){2000}\")'")),
        of("a template", forwarded(&format!("rewrite = {{ path = \"/{}\" }}", long(4096)))),
        of(
            "an address to redirect to",
            format!("[[routes]]\npath = \"/a\"\nredirect = {{ to = \"https://h.example/{}\" }}", long(4096)),
        ),
        of(
            "a header that is set",
            forwarded(&format!("[routes.request]\nset = {{ x = \"{}\" }}", long(4097))),
        ),
        of("a shape", {
            format!(
                "[upstreams.u]\nservers = [\"127.0.0.1:1\"]\n[[routes]]\npath = \"/a\"\n[routes.aggregate]\nshape = {{ a = \"one.{}\" }}\n[[routes.aggregate.legs]]\nname = \"one\"\nupstream = \"u\"\npath = \"/x\"",
                long(1024)
            )
        }),
        of("depth of a shape", {
            format!(
                "[upstreams.u]\nservers = [\"127.0.0.1:1\"]\n[[routes]]\npath = \"/a\"\n[routes.aggregate]\nshape = {{ a = \"{}one{}\" }}\n[[routes.aggregate.legs]]\nname = \"one\"\nupstream = \"u\"\npath = \"/x\"",
                "[".repeat(33),
                "]".repeat(33)
            )
        }),
        of(
            "a message of a limit",
            format!("[rate_limits.l]\nkey = \"ip\"\nlimits = [\"1/s\"]\nmessage = \"{}\"", long(1025)),
        ),
        of("a format of the log", format!("[log.access]\nformat = \"$status {}\"", long(16 << 10))),
        of(
            "a queue",
            format!(
                "[brokers.main]\nurl = \"amqp://127.0.0.1\"\n[[routes]]\npath = \"/a\"\nmethods = [\"POST\"]\namqp = {{ broker = \"main\", queue = \"{}\" }}",
                long(256)
            ),
        ),
        of("a realm", format!("[identity]\nrealm = \"{}\"", long(129))),
        of("a lifetime", format!("{LOGIN}lifetime = \"3661d\"")),
        of("workers", format!("{LOGIN}passwords = {{ workers = 65 }}")),
        of(
            "the buffer of the log bus",
            "[brokers.main]\nurl = \"amqp://127.0.0.1\"\n[log.bus]\nbroker = \"main\"\nexchange = \"log\"\nbuffer = \"4097MiB\"",
        ),
        of("an origin", route(&format!("cors = {{ origins = [\"https://{}.example\"] }}", long(300)))),
        of(
            "the path of a socket",
            LISTENER.replace("\"main\"", "\"unix\"").replace("127.0.0.1:0", &format!("unix:/{}", long(108))),
        ),
    ]
}

fn named_files() -> Vec<Mountain> {
    let pem = certificate();
    let certificate = |name| {
        of(name, format!("{TLS}[[listeners.certificates]]\ncert = \"site.pem\"\nkey = \"site-key.pem\""))
    };
    let authority = |name| {
        of(
            name,
            format!(
                "{TLS}[[listeners.certificates]]\ncert = \"a.pem\"\nkey = \"a.pem\"\n[listeners.client_auth]\nca = \"ca.pem\"\nmode = \"optional\""
            ),
        )
    };
    let keys = |name| {
        of(
            name,
            "[identity.providers.p]\nissuer = \"i\"\naudience = [\"a\"]\nalgorithms = [\"RS256\"]\njwks_file = \"keys.json\"",
        )
    };
    vec![
        certificate("a certificate's file").file("site.pem", vec![b'x'; (1 << 20) + 1]).file("site-key.pem", ""),
        certificate("a chain").file("site.pem", pem.repeat(33)).file("site-key.pem", ""),
        {
            let key = rcgen::KeyPair::generate().unwrap();
            let names: Vec<String> = (0..10_001).map(|number| format!("n{number}.example")).collect();
            let wide = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
            certificate("names of a certificate").file("site.pem", wide.pem()).file("site-key.pem", key.serialize_pem())
        },
        authority("authorities of clients").file("ca.pem", pem.repeat(1025)).file("a.pem", ""),
        keys("a key set's file").file("keys.json", vec![b' '; (1 << 20) + 1]),
        keys("a key set nested too deeply").file("keys.json", format!("{{\"keys\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000))),
        of("a secret", "[identity.providers.p]\nissuer = \"i\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\nsecret = { file = \"secret\" }").file("secret", vec![b'x'; (64 << 10) + 1]),
        of("a static answer", "[[routes]]\npath = \"/a\"\nrespond = { file = \"large.html\" }").file("large.html", vec![b'x'; (4 << 20) + 1]),
        of("a list of networks", route("ip = { deny = [\"file:networks.txt\"] }")).file("networks.txt", vec![b'#'; (16 << 20) + 1]),
        of("a public key", "[identity.providers.p]\nissuer = \"i\"\naudience = [\"a\"]\nalgorithms = [\"RS256\"]\npublic_key = \"key.pem\"").file("key.pem", vec![b'x'; (1 << 20) + 1]),
    ]
}

/// What is said about rows of services, which stand in no file.
fn rows() -> Vec<String> {
    let endpoints = |count: usize| {
        let one = "{\"type\":\"http-get\",\"url\":\"http://127.0.0.1:2/x\"}";
        format!("[{}]", vec![one; count].join(","))
    };
    let row = |name: &str, count: usize| ServiceRow {
        name: name.to_owned(),
        path: "/s".to_owned(),
        endpoints: endpoints(count),
        enabled: true,
        ..ServiceRow::default()
    };
    let text = format!("{LISTENER}[store]\nurl = \"sqlite:x.db\"\nservices = true\n");
    let surroundings = || Surroundings { env: &|_| None, read: &super::read_named_file };
    let loaded = load_text(Path::new("/nowhere/edgeward.toml"), &text, surroundings());
    let told = |(title, row): (&str, ServiceRow)| {
        let services = Services { number: 1, rows: vec![row], cut: false };
        let report = loaded.compile_with(&services, surroundings(), &Runtime::detached()).services;
        let lines = report.left_out.iter().flat_map(|left| &left.problems);
        let lines: String = lines.map(|problem| format!("{}\n", shortened(&problem.line()))).collect();
        format!("== {title}\n{lines}")
    };
    let cases =
        [("endpoints of a service", row("s", 33)), ("the name of a service", row(&"x".repeat(129), 1))];
    cases.map(told).into()
}

fn all() -> Vec<String> {
    let mountains = files_and_numbers().into_iter().chain(texts()).chain(named_files());
    mountains.map(|mountain| mountain.told()).chain(rows()).collect()
}

#[test]
fn every_bound_is_told_in_these_words() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/limits.txt");
    let told = all();
    let taken: Vec<&String> = told.iter().filter(|told| told.lines().count() < 2).collect();
    assert!(taken.is_empty(), "nothing is said about {taken:?}");
    let told = told.join("\n");
    if std::env::var_os("EDGEWARD_BLESS").is_some() {
        fs::write(&golden, &told).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    assert!(told == expected, "{told}");
}

/// Which case is one past each bound that stands in `src/config`, by file and name.
const CASES: &[(&str, &str, &str)] = &[
    ("numbers.rs", "ROUTES_MAX", "routes"),
    ("numbers.rs", "REGEX_PATHS_MAX", "regexes of paths"),
    ("numbers.rs", "REGEX_VALUES_MAX", "regexes of values"),
    ("numbers.rs", "INHERITED_MAX", "what routes inherit"),
    ("files.rs", "INCLUDED_FILES_MAX", "included files"),
    ("files.rs", "ALL_BYTES_MAX", "all files"),
    ("mod.rs", "NAMED_FILE_BYTES_MAX", "a list of networks"),
    ("process.rs", "THREADS_MAX", "threads"),
    ("process.rs", "HEADER_BYTES_MAX", "bytes of a head"),
    ("process.rs", "SOCKET_PATH_BYTES_MAX", "the path of a socket"),
    ("identity.rs", "REALM_BYTES_MAX", "a realm"),
    ("login.rs", "LIFETIME_MAX", "a lifetime"),
    ("login.rs", "WORKERS_MAX", "workers"),
    ("compile/bus.rs", "BUFFER_MAX", "the buffer of the log bus"),
    ("compile/mod.rs", "NAME_BYTES_MAX", "the name of a route"),
    ("services/mod.rs", "ENDPOINTS_MAX", "endpoints of a service"),
    ("services/mod.rs", "NAME_BYTES_MAX", "the name of a service"),
    ("tls/pair.rs", "FILE_BYTES_MAX", "a certificate's file"),
    ("tls/pair.rs", "CHAIN_MAX", "a chain"),
    ("tls/pair.rs", "NAMES_MAX", "names of a certificate"),
    ("tls/client_auth.rs", "ROOTS_MAX", "authorities of clients"),
];

/// Those that nothing can be past, and why.
const NO_BOUNDS: &[(&str, &str, &str)] = &[
    ("diff.rs", "SHOWN_MAX", "how much of a difference is shown"),
    ("render.rs", "EXCERPT_COLUMNS_MAX", "how much of a line is shown"),
    ("schema.rs", "DEPTH_MAX", "of the schema, which is ours"),
    ("compile/login.rs", "PROVIDERS_SHOWN_MAX", "how many are shown"),
    ("services/mod.rs", "PASSES_MAX", "how often rows are compiled again"),
    ("services/report.rs", "WARNED_MAX", "how many warnings are kept"),
    ("tls/client_auth.rs", "HINT_BYTES_MAX", "beyond it no names are sent, which asks for any"),
    ("tls/sessions.rs", "CACHED_MAX", "of sessions, which make room for others"),
];

/// Every `*_MAX` that is declared in `src/config`, by its file.
fn declared() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config");
    let (mut folders, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let file = path.strip_prefix(&root).unwrap().display().to_string();
            let text = fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| {
                let (name, _) = line.split_once("const ")?.1.split_once(':')?;
                name.ends_with("_MAX").then(|| (file.clone(), name.to_owned()))
            });
            found.extend(names);
        }
    }
    found.sort();
    found
}

#[test]
fn every_bound_has_a_case() {
    let tied = CASES.iter().chain(NO_BOUNDS).map(|(file, name, _)| ((*file).to_owned(), (*name).to_owned()));
    let mut tied: Vec<_> = tied.collect();
    tied.sort();
    assert_eq!(declared(), tied, "each is one past somewhere here, or no bound");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/limits.txt");
    let golden = fs::read_to_string(golden).unwrap();
    for (file, name, case) in CASES {
        assert!(golden.contains(&format!("== {case}\n")), "{file}: {name}: there is no case {case:?}");
    }
    // Numbers of tables and lists are told with what is counted.
    for (path, most, what) in NUMBERS {
        let line = format!(
            "too-many: {}: there are {} {what}, at most {most} are allowed\n",
            path.join("."),
            most + 1
        );
        assert!(golden.contains(&line), "{line}");
    }
}
