//! `explain` says of a route what it depends on, and what becomes of its requests without.

use super::*;

const CONFIG: &str = r#"
[cluster]
redis = "redis://127.0.0.1:1"
[store]
url = "sqlite:none.db"
[brokers.main]
url = "amqp://guest:guest@127.0.0.1:1/%2f"
[log.bus]
broker = "main"
[identity.providers.idp]
issuer = "idp"
audience = ["shop"]
algorithms = ["RS256"]
jwks_url = "http://127.0.0.1:1/jwks"
[rate_limits.local]
key = "ip"
limits = ["5/s"]
[rate_limits.closed]
key = "subject"
limits = ["5/s"]
on_store_failure = "deny"
[plans.open]
rate = "5/s"
quota = "10/day"
on_store_failure = "allow"
[consumers.mobile]
plan = "open"
api_keys = ["mobile-0123456789abcdef"]
[upstreams.app]
servers = ["app.invalid:80"]
[upstreams.spare]
servers = ["127.0.0.1:1"]
fallback = { upstream = "app" }
[upstreams.fixed]
servers = ["127.0.0.1:1"]
fallback = { status = 203, text = "later" }
[[routes]]
path = "/app"
upstream = "app"
rate_limits = ["local", "closed"]
auth = { with = ["jwt:idp", "api_key"] }
[[routes]]
path = "/spare"
upstream = "spare"
[[routes]]
path = "/fixed"
upstream = "fixed"
access_log = false
[[routes]]
path = "/ask"
amqp = { broker = "main", queue = "q", timeout = "2s" }
[[routes]]
path = "/files/*"
files = { root = "." }
[[routes]]
path = "/parts"
[routes.aggregate]
[[routes.aggregate.legs]]
name = "needed"
upstream = "fixed"
path = "/"
required = true
[[routes.aggregate.legs]]
name = "extra"
upstream = "fixed"
path = "/"
[[routes.aggregate.legs]]
name = "filled"
amqp = { broker = "main", queue = "q" }
group = "filled"
fallback = {}
"#;

#[tokio::test]
async fn a_route_says_what_it_depends_on() {
    let told = async |path: &str| {
        let arguments = ["explain", "-H", "x-api-key: mobile-0123456789abcdef", "GET", path];
        let ran = gateway(CONFIG).command(&arguments).await;
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        let section = ran.stdout.split("\ndepends on\n").nth(1).expect(&ran.stdout).to_owned();
        section.split("\n\n").next().unwrap().to_owned()
    };
    let bus = "log bus     open: ";
    let log = "access log  open: ";
    for (path, lines) in [
        (
            "/app",
            &[
                "redis       limit local: local: each instance counts for itself",
                "redis       limit closed: closed: 503 limit.unavailable",
                "provider    idp: local: the keys that were fetched last hold for a day; before the first, closed: 503",
                "store       local: keys, consumers and revocations that are known hold; what was never read, closed: 503",
                "redis       revocations: local: ",
                "redis       plan open: open: everything passes",
                "store       plan open: open: everything passes",
                "upstream    app: closed: 502, 503 or 504, not connected within 1s",
                "dns         app.invalid: local: the addresses found last hold; before the first, closed: 503",
                log,
                bus,
            ][..],
        ),
        ("/spare", &["upstream    spare: open: app in its place", log, bus]),
        ("/fixed", &["upstream    fixed: local: its fallback, 203", bus]),
        (
            "/ask",
            &[
                "broker      main: closed: 503 broker.down at once; 504 broker.timeout, no answer of \"q\" within 2s",
                log,
                bus,
            ],
        ),
        ("/files/x", &["disk        closed: 404 file.not_found, or 500 file.failed", log, bus]),
        (
            "/parts",
            &[
                "leg         needed from fixed: closed: the request fails with it",
                "leg         extra from fixed: open: missing in the answer",
                "leg         filled from queue \"q\" of broker main: local: its fallback",
                log,
                bus,
            ],
        ),
    ] {
        let section = told(path).await;
        let said: Vec<&str> = section.lines().map(str::trim).collect();
        assert_eq!(said.len(), lines.len(), "{path}:\n{section}");
        for (line, part) in said.iter().zip(lines) {
            assert!(line.starts_with(part), "{path}: {line:?} does not begin with {part:?}");
        }
    }
}
