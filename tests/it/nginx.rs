//! nginx with a configuration, and Edgeward with what `edgeward import nginx` makes of it, answer the same requests alike.
//!
//! Each case is a directory of `tests/golden/nginx/` with an `nginx.conf`, `requests.toml`, and perhaps `files/`. In the
//! configuration `PORT_X` stands for a free port, `BACKEND_X` for the address of an echoing server called `x`,
//! `TLS_X` for one with a certificate, and `DIR` for a directory with the files, `cert.pem` (for example.com and
//! www.example.com) with `key.pem`, and `ca.pem`.
//!
//! Compared are the status, headers (`IGNORED` aside), the body where it is not the gateway's own words about an error,
//! and all that a server behind saw. What differs is named in `requests.toml` with a reason, and must really differ.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use regex::Regex;

use crate::support::*;

/// Headers that are each server's own business, or different in every answer.
const IGNORED: &[&str] = &[
    "server",
    "date",
    "connection",
    "keep-alive",
    "via",
    "x-request-id",
    // Of answers that are neither files nor a server's.
    "x-content-type-options",
    "transfer-encoding",
    "etag",
    "allow",
    // nginx leaves it out of parts and of errors.
    "accept-ranges",
    // Compared on their own.
    "location",
    "content-length",
    "content-type",
];

/// What Edgeward sends to servers by itself, and what it does with the connection.
const BY_ITSELF: &[&str] = &[
    "via",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-real-ip",
    "connection",
];

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/nginx")
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What the case is about.
    about: String,
    /// Differences of every request, with reasons.
    #[serde(default)]
    differs: BTreeMap<String, String>,
    requests: Vec<Asked>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    path: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default = "main")]
    port: String,
    #[serde(default = "example")]
    host: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    tls: bool,
    /// What differs, with the reason.
    #[serde(default)]
    differs: BTreeMap<String, String>,
}

fn get() -> String {
    "GET".to_owned()
}
fn main() -> String {
    "MAIN".to_owned()
}
fn example() -> String {
    "example.com".to_owned()
}

/// One side's ports by name.
struct Ports(BTreeMap<String, DeadPort>);

impl Ports {
    fn of(text: &str) -> Self {
        let names = Regex::new(r"\bPORT_([A-Z0-9]+)\b").unwrap();
        Self(names.captures_iter(text).map(|found| (found[1].to_owned(), DeadPort::new())).collect())
    }

    fn put_into(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, port)| {
            Regex::new(&format!(r"\bPORT_{name}\b"))
                .unwrap()
                .replace_all(&text, port.address().port().to_string())
                .into_owned()
        })
    }

    fn address(&self, name: &str) -> SocketAddr {
        self.0.get(name).unwrap_or_else(|| panic!("the configuration has no PORT_{name}")).address()
    }

    fn numbers(&self) -> Vec<String> {
        self.0.values().map(|port| port.address().port().to_string()).collect()
    }
}

/// nginx in the foreground. Killed when dropped.
struct Nginx {
    child: Child,
    log: PathBuf,
}

impl Nginx {
    /// Starts it with `nginx.conf` of the directory and waits until it listens at `port`.
    async fn start(directory: &Path, port: SocketAddr) -> Self {
        let config = std::fs::read_to_string(directory.join("nginx.conf")).unwrap();
        // What the package leaves to directories of the system.
        let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {}/{name};", directory.display()))
            .join(" ");
        let log = if config.contains("access_log") { "" } else { "access_log off;" };
        let config = config.replacen("http {", &format!("http {{ {places} {log} "), 1);
        let file = directory.join("real.conf");
        std::fs::write(&file, config).unwrap();
        let log = directory.join("nginx.err");
        let mut command = Command::new("nginx");
        command
            .args(["-p", directory.to_str().unwrap(), "-c", file.to_str().unwrap()])
            .args(["-e", log.to_str().unwrap()])
            .args(["-g", &format!("daemon off; master_process off; pid {}/nginx.pid;", directory.display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.join("nginx.out")).unwrap())
            .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()));
        let mut child = command.spawn().expect("nginx starts: ./test installs it");
        eventually("nginx to listen", async || {
            if let Some(status) = child.try_wait().unwrap() {
                let said = std::fs::read_to_string(directory.join("nginx.out")).unwrap();
                panic!("nginx ended: {status}\n{said}");
            }
            tokio::net::TcpStream::connect(port).await.ok().map(drop)
        })
        .await;
        Self { child, log }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- nginx\n{}---", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// All that is compared of an answer, by name.
type Facts = BTreeMap<String, String>;

fn facts(asked: &Asked, response: &Response, ports: &Ports, seen: Option<&serde_json::Value>) -> Facts {
    let mut facts = Facts::new();
    facts.insert("status".to_owned(), response.status.to_string());
    // Errors and redirects are worded by each in its own way, and no error is to be kept.
    let own_words = seen.is_none() && response.status >= 300;
    let from_server = response.headers.contains_key("x-server");
    for name in response.headers.keys() {
        let unkept_error = own_words && response.status >= 400 && name == "cache-control";
        if IGNORED.contains(&name.as_str()) || unkept_error {
            continue;
        }
        let values: Vec<_> = response
            .headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        facts.insert(format!("header {name}"), values.join(" | "));
    }
    if let Some(location) = response.header("location") {
        facts.insert("location".to_owned(), resolved(asked, location, ports));
    }
    if !own_words {
        let content_type = response.header("content-type").unwrap_or_default();
        facts.insert("content-type".to_owned(), content_type.trim_end_matches("; charset=utf-8").to_owned());
        if seen.is_none() {
            facts.insert("body".to_owned(), response.text());
        }
        // To HEAD a server says how long its own words would be.
        if seen.is_none() && !from_server {
            facts.insert(
                "content-length".to_owned(),
                response.header("content-length").unwrap_or("none").to_owned(),
            );
        }
    }
    let Some(seen) = seen else { return facts };
    for key in ["server", "method", "target", "body"] {
        facts.insert(format!("backend {key}"), seen[key].as_str().unwrap().to_owned());
    }
    for header in seen["headers"].as_array().unwrap() {
        let name = header[0].as_str().unwrap();
        let value = header[1].as_str().unwrap();
        facts
            .entry(format!("backend header {name}"))
            .and_modify(|all| *all += &format!(" | {value}"))
            .or_insert_with(|| value.to_owned());
    }
    facts
}

/// The whole address a client would go to, without the ports that only this test has.
fn resolved(asked: &Asked, location: &str, ports: &Ports) -> String {
    let scheme = if asked.tls { "https" } else { "http" };
    let mut whole = if location.starts_with('/') {
        format!("{scheme}://{}{location}", asked.host)
    } else {
        location.to_owned()
    };
    for port in ports.numbers() {
        whole = whole.replace(&format!(":{port}"), "");
    }
    whole
}

async fn ask(asked: &Asked, ports: &Ports, trust: Option<&Authority>) -> Response {
    let mut client = Client::new(ports.address(&asked.port));
    if asked.tls {
        client = client.tls(&trust.unwrap().client_config(&[b"http/1.1"], None), "example.com");
    }
    let mut request = client.request(&asked.method, &asked.path).host(&asked.host);
    for (name, value) in &asked.headers {
        request = request.header(name, value);
    }
    if !asked.body.is_empty() {
        request = request.body(asked.body.clone());
    }
    request.await
}

/// The time that files of a case have: both sides name it.
const MODIFIED: Duration = Duration::from_secs(1_700_000_000);

fn copy_tree(from: &Path, to: &Path, fill: &dyn Fn(&str) -> String) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target, fill);
        } else {
            std::fs::write(&target, fill(&std::fs::read_to_string(entry.path()).unwrap())).unwrap();
            let file = std::fs::File::options().write(true).open(&target).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + MODIFIED).unwrap();
        }
    }
}

/// The contents of all files below a directory.
fn texts_below(directory: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        all += &if path.is_dir() { texts_below(&path) } else { std::fs::read_to_string(path).unwrap() };
    }
    all
}

async fn run_case(name: &str) {
    compare(name, None).await;
}

/// Runs a case against what is made of its configuration, or against `example` with its addresses replaced.
async fn compare(name: &str, example: Option<&str>) {
    let place = cases().join(name);
    let config = std::fs::read_to_string(place.join("nginx.conf")).unwrap();
    let case: Case = toml::from_str(&std::fs::read_to_string(place.join("requests.toml")).unwrap()).unwrap();
    assert!(!case.about.is_empty());
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let identity = authority.server(&["example.com", "www.example.com", "localhost"]);
    // All that may hold placeholders.
    let mut all = config.clone();
    if place.join("files").exists() {
        all += &texts_below(&place.join("files"));
    }
    let mut backends = Vec::new();
    let wanted = Regex::new(r"\b(BACKEND|TLS)_([A-Z0-9]+)\b").unwrap();
    let names: BTreeSet<_> =
        wanted.captures_iter(&all).map(|found| (found[1].to_owned(), found[2].to_owned())).collect();
    for (kind, name) in names {
        let mut server = upstream().named(&name.to_lowercase());
        if kind == "TLS" {
            server = server.tls(&identity);
        }
        backends.push((kind, name, server.start().await));
    }
    let (theirs, ours) = (Ports::of(&all), Ports::of(&all));
    // Each side has a directory of its own, as ports stand in included files, too.
    let side = |name: &str, ports: &Ports| {
        let at = directory.path().join(name);
        let fill = |text: &str| {
            let text = backends.iter().fold(
                text.replace("DIR", at.to_str().unwrap()),
                |text, (kind, name, server)| {
                    let pattern = Regex::new(&format!(r"\b{kind}_{name}\b")).unwrap();
                    pattern.replace_all(&text, server.address().to_string()).into_owned()
                },
            );
            ports.put_into(&text)
        };
        std::fs::create_dir_all(&at).unwrap();
        if place.join("files").exists() {
            copy_tree(&place.join("files"), &at, &fill);
        }
        std::fs::write(at.join("cert.pem"), &identity.cert_pem).unwrap();
        std::fs::write(at.join("key.pem"), &identity.key_pem).unwrap();
        std::fs::write(at.join("ca.pem"), &authority.pem).unwrap();
        std::fs::write(at.join("nginx.conf"), fill(&config)).unwrap();
        at
    };
    let (nginx_at, at) = (side("theirs", &theirs), side("ours", &ours));
    let first = theirs.0.values().next().expect("a port").address();
    let nginx = Nginx::start(&nginx_at, first).await;
    let at = at.as_path();
    let (made, table) = match example {
        None => {
            let source = at.join("nginx.conf");
            let ran = run(command(at, &["import", "nginx", source.to_str().unwrap()])).await;
            assert_eq!(ran.status, 0, "{}\n{}", ran.stdout, ran.stderr);
            // Where the process is reached: not where others' is.
            (ran.stdout.replace("/run/edgeward", at.to_str().unwrap()), ran.stderr)
        }
        Some(example) => {
            let backend = |name: &str| {
                let (.., server) = backends.iter().find(|(_, known, _)| known == name).unwrap();
                server.address().to_string()
            };
            let made = [
                ("0.0.0.0:80", ours.address("MAIN").to_string()),
                ("0.0.0.0:443", ours.address("TLS").to_string()),
                ("../../certs/localhost.pem", at.join("cert.pem").display().to_string()),
                ("../../certs/localhost-key.pem", at.join("key.pem").display().to_string()),
                ("/var/log/edgeward", at.display().to_string()),
                ("/var/www", at.display().to_string()),
                ("10.0.0.1:3000", backend("APP")),
                ("10.0.0.2:3000", backend("SPARE")),
            ]
            .iter()
            .fold(example.to_owned(), |text, (from, to)| {
                text.replace(&format!("\"{from}"), &format!("\"{to}"))
            });
            (made, String::new())
        }
    };
    let edgeward = gateway(&made).start().await;

    let mut faults = String::new();
    for asked in &case.requests {
        let expected = ask(asked, &theirs, Some(&authority)).await;
        let got = ask(asked, &ours, Some(&authority)).await;
        let echoed = |response: &Response| {
            serde_json::from_slice::<serde_json::Value>(&response.body)
                .ok()
                .filter(|value| value["server"].is_string())
        };
        let expected = facts(asked, &expected, &theirs, echoed(&expected).as_ref());
        let got = facts(asked, &got, &ours, echoed(&got).as_ref());
        let mut differ = BTreeSet::new();
        let all: BTreeSet<_> = expected.keys().chain(got.keys()).collect();
        for fact in all {
            let (one, two) = (expected.get(fact), got.get(fact));
            let by_itself = fact.strip_prefix("backend header ").is_some_and(|name| {
                BY_ITSELF.contains(&name)
                    && (one.is_none() || name == "connection" || name == "x-forwarded-port")
            });
            if one == two || by_itself {
                continue;
            }
            let excused = asked.differs.contains_key(fact) || case.differs.contains_key(fact);
            differ.insert(fact.clone());
            if !excused {
                faults += &format!(
                    "{} {} (host {}): {fact}\n  nginx    {}\n  edgeward {}\n",
                    asked.method,
                    asked.path,
                    asked.host,
                    one.map_or("-", String::as_str),
                    two.map_or("-", String::as_str)
                );
            }
        }
        for (fact, why) in &asked.differs {
            assert!(!why.is_empty(), "why does {fact} differ?");
            if !differ.contains(fact) {
                faults +=
                    &format!("{} {}: {fact} does not differ any more: {why}\n", asked.method, asked.path);
            }
        }
    }
    drop(nginx);
    assert!(faults.is_empty(), "{}\n{faults}\n--- made of it\n{made}\n{table}", case.about);
    drop(edgeward);
}

macro_rules! cases {
    ($($name:ident)*) => {
        /// The name of each case, to be held against the directories.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        mod case {
            $(
                #[tokio::test]
                async fn $name() {
                    super::run_case(stringify!($name)).await;
                }
            )*
        }
    };
}

cases! {
    access_lists
    add_headers
    balancing
    body_limits
    conditions
    everyday
    exact_and_prefix
    https
    https_upstream
    include_and_map
    limit_except
    mapped_backends
    named_locations
    nested_locations
    prefix_stops
    proxy_headers
    proxy_pass_paths
    regex_captures
    returns
    rewrites
    server_names
    server_rewrites
    static_files
    alias_files
    spa_fallback
    variables
    websocket_map
    wildcard_hosts
    nested_regex_siblings
    nested_regexes
    rewrites_into_locations
    regexes_that_cannot_be_said
    encoded_slashes
    fallbacks_elsewhere
}

/// The example for people who come from nginx stands for the everyday configuration.
#[tokio::test]
async fn the_example_answers_as_its_nginx_does() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/examples/nginx.toml");
    compare("everyday", Some(&std::fs::read_to_string(example).unwrap())).await;
}

#[test]
fn every_case_is_run() {
    let known: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    let found: BTreeSet<String> = std::fs::read_dir(cases())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "report")
        .collect();
    assert_eq!(known, found);
}

/// The table, letter by letter: `UPDATE_GOLDEN=1` writes it anew.
#[tokio::test]
async fn the_table_says_what_became_of_each_line() {
    let place = cases().join("report");
    let ran = run(command(&place, &["import", "nginx", "nginx.conf", "--prefix", "/etc/nginx"])).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let golden = |name: &str, got: &str| {
        let got = got.replace(place.to_str().unwrap(), "CONF");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(place.join(name), &got).unwrap();
        }
        assert_eq!(got, std::fs::read_to_string(place.join(name)).unwrap(), "{name}");
    };
    golden("expected.txt", &ran.stderr);
    golden("expected.toml", &ran.stdout);
    let strict =
        run(command(&place, &["import", "nginx", "nginx.conf", "--prefix", "/etc/nginx", "--strict"])).await;
    assert_eq!(strict.status, 1, "something is dropped");
}

#[tokio::test]
async fn what_nginx_prints_is_read_too() {
    let directory = tempfile::tempdir().unwrap();
    let dump = "# configuration file /etc/nginx/nginx.conf:\nhttp { include sites/*; }\n\
                # configuration file /etc/nginx/sites/a:\nserver { listen 8080; return 204; }\n";
    std::fs::write(directory.path().join("dump"), dump).unwrap();
    let ran = run(command(directory.path(), &["import", "nginx", "dump", "-o", "out.toml"])).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains(" sites/a:1 "), "{}", ran.stderr);
    let made = std::fs::read_to_string(directory.path().join("out.toml")).unwrap();
    assert!(made.contains("respond = { status = 204 }"), "{made}");
    let checked = run(command(directory.path(), &["check", "-c", "out.toml"])).await;
    assert_eq!(checked.status, 0, "{}", checked.stderr);
    let again = run(command(directory.path(), &["import", "nginx", "dump", "-o", "out.toml"])).await;
    assert_eq!(again.status, 1);
    assert!(again.stderr.contains("out.toml exists already"), "{}", again.stderr);
    assert!(!again.stderr.contains("translated"), "no table of what was not written: {}", again.stderr);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("nginx.conf"), "http {\n  server {\n").unwrap();
    let ran = run(command(directory.path(), &["import", "nginx", "nginx.conf"])).await;
    assert_eq!(ran.status, 1);
    assert_eq!(
        ran.stderr,
        "edgeward: nginx.conf:2: the block that begins here is not closed: \"}\" is missing\n"
    );
    let ran = run(command(directory.path(), &["import", "nginx", "none.conf"])).await;
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.starts_with("edgeward: none.conf: No such file"), "{}", ran.stderr);
}
