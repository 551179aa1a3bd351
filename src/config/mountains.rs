//! Mountains of input, and exactly what is said about them: every bound of the compiler, one past it. The cases are made here,
//! as nobody could read them in a file; what is said stands in `tests/golden/limits.txt`. After a wanted change of words run
//! the test with `EDGEWARD_BLESS=1` and read the difference.

use std::fs;
use std::path::Path;

use crate::base::decode::Surroundings;
use crate::base::diagnostic::Severity;
use crate::config::{Runtime, load};

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
        for item in compiled.diagnostics.iter().filter(|item| item.severity == Severity::Error).take(3) {
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

/// The development certificate, which is there for everybody.
fn certificate() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
}

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
        authority("authorities of clients").file("ca.pem", pem.repeat(1025)).file("a.pem", ""),
        keys("a key set's file").file("keys.json", vec![b' '; (1 << 20) + 1]),
        keys("a key set nested too deeply").file("keys.json", format!("{{\"keys\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000))),
        of("a secret", "[identity.providers.p]\nissuer = \"i\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\nsecret = { file = \"secret\" }").file("secret", vec![b'x'; (64 << 10) + 1]),
        of("a static answer", "[[routes]]\npath = \"/a\"\nrespond = { file = \"large.html\" }").file("large.html", vec![b'x'; (4 << 20) + 1]),
        of("a list of networks", route("ip = { deny = [\"file:networks.txt\"] }")).file("networks.txt", vec![b'#'; (16 << 20) + 1]),
        of("a public key", "[identity.providers.p]\nissuer = \"i\"\naudience = [\"a\"]\nalgorithms = [\"RS256\"]\npublic_key = \"key.pem\"").file("key.pem", vec![b'x'; (1 << 20) + 1]),
    ]
}

#[test]
fn every_bound_is_told_in_these_words() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/limits.txt");
    let mountains = files_and_numbers().into_iter().chain(texts()).chain(named_files());
    let told: Vec<String> = mountains.map(|mountain| mountain.told()).collect();
    let taken: Vec<&String> = told.iter().filter(|told| told.lines().count() < 2).collect();
    assert!(taken.is_empty(), "nothing is said about {taken:?}");
    let told = told.join("\n");
    if std::env::var_os("EDGEWARD_BLESS").is_some() {
        fs::write(&golden, &told).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    assert!(told == expected, "{told}");
}
