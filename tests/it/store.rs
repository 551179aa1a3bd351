//! The store: users, consumers, keys and revocations, by commands and in processes, in SQLite and PostgreSQL.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;

use crate::support::postgres::Postgres;
use crate::support::*;

const SQLITE: &str = "[store]\nurl = \"sqlite:run/edgeward.db\"\n";
const LOCAL: &str = "[identity.providers.local]\nissuer = \"https://edge.example.com/\"\naudience = [\"shop\"]\n\
    algorithms = [\"HS256\"]\nsecret = \"0123456789abcdef0123456789abcdef\"\n";

/// A directory with a configuration, for commands alone.
fn place(config: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("edgeward.toml"), config).unwrap();
    directory
}

/// Runs the command with what it reads.
async fn told(directory: &Path, arguments: &str, input: &str) -> Ran {
    let arguments: Vec<&str> = arguments.split_whitespace().map(|word| word.trim_matches('\'')).collect();
    let mut command = command(directory, &arguments);
    let (input, shown) = (input.to_owned(), arguments.join(" "));
    let work = tokio::task::spawn_blocking(move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Whoever refuses its arguments reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    let output = within(&shown, work).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = output.status.code().unwrap_or(-1);
    Ran { status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Runs it and expects that it works: what it printed.
async fn done(directory: &Path, arguments: &str) -> String {
    let ran = told(directory, arguments, "correct horse\n").await;
    assert_eq!(ran.status, 0, "{arguments}: {}", ran.stderr);
    assert_eq!(ran.stderr, "", "{arguments}");
    ran.stdout
}

async fn json(directory: &Path, arguments: &str) -> serde_json::Value {
    let printed = done(directory, &format!("{arguments} --json")).await;
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{arguments}: {error}: {printed}"))
}

/// Runs it and expects that it fails: what it complained of.
async fn failed(directory: &Path, arguments: &str, status: i32) -> String {
    let ran = told(directory, arguments, "").await;
    assert_eq!((ran.status, ran.stdout.as_str()), (status, ""), "{arguments}: {}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    ran.stderr
}

#[tokio::test]
async fn users_are_managed_by_commands() {
    let place = place(SQLITE);
    let here = place.path();
    assert_eq!(done(here, "user add alice --roles admin,ops --password-stdin").await, "user alice added\n");
    let alice = serde_json::json!({ "name": "alice", "roles": ["admin", "ops"], "disabled": false });
    assert_eq!(json(here, "user list").await, serde_json::json!([alice]));
    done(here, "user add bob --password-stdin").await;
    assert_eq!(done(here, "user roles alice ops").await, "roles of alice are now ops\n");
    done(here, "user roles bob ''").await;
    done(here, "user passwd alice --password-stdin").await;
    done(here, "user disable bob").await;
    let listed = done(here, "user list").await;
    assert_eq!(listed, "NAME   ROLES\nalice  ops\nbob           disabled\n");
    assert_eq!(json(here, "user enable bob").await["disabled"], false);
    done(here, "user remove bob").await;
    assert_eq!(json(here, "user list").await.as_array().unwrap().len(), 1);

    let again = told(here, "user add alice --password-stdin", "x\n").await;
    assert_eq!((again.status, again.stderr.as_str()), (1, "edgeward: there is a user alice already\n"));
    for gone in ["user roles bob ops", "user disable bob", "user enable bob", "user remove bob"] {
        assert_eq!(failed(here, gone, 1).await, "edgeward: there is no user \"bob\"\n");
    }
    let asked = failed(here, "user add carol", 1).await;
    assert!(asked.contains("give it with --password-stdin"), "{asked}");
    assert!(failed(here, "user add carol --password-stdin", 1).await.contains("the password is empty"));
    for wrong in
        ["user add", "user add carol --password secret", "user add carol --roles a,,b --password-stdin"]
    {
        failed(here, wrong, 2).await;
    }
    // Only its owner may read it, who is the directory's, and it holds no password.
    use std::os::unix::fs::MetadataExt;
    let file = here.join("run/edgeward.db");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    if rustix::process::geteuid().is_root() {
        let shared = self::place(SQLITE);
        std::fs::create_dir(shared.path().join("run")).unwrap();
        std::os::unix::fs::chown(shared.path().join("run"), Some(65_534), Some(65_534)).unwrap();
        done(shared.path(), "user add alice --password-stdin").await;
        let made = std::fs::metadata(shared.path().join("run/edgeward.db")).unwrap();
        assert_eq!((made.uid(), made.gid()), (65_534, 65_534));
    }
    let bytes = std::fs::read(&file).unwrap();
    assert!(!bytes.windows(13).any(|window| window == b"correct horse"));
}

/// On a terminal the password is asked for twice, and not shown.
#[tokio::test]
async fn a_password_is_asked_for_unseen() {
    let place = place(SQLITE);
    let typing = async |first: &str, second: &str| {
        // `script` gives the command a terminal of its own.
        let binary = env!("CARGO_BIN_EXE_edgeward");
        let mut command = std::process::Command::new("script");
        command.args(["-q", "-e", "-c", &format!("{binary} user add alice"), "/dev/null"]);
        command.current_dir(place.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let (first, second) = (format!("{first}\n"), format!("{second}\n"));
        let work = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("script is a part of every Debian");
            let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            let mut seen = String::new();
            for (prompt, line) in [("Password of alice: ", first), ("Once more: ", second)] {
                let mut byte = [0];
                while !seen.ends_with(prompt) {
                    assert_eq!(screen.read(&mut byte).unwrap(), 1, "no {prompt:?} in {seen:?}");
                    seen.push(char::from(byte[0]));
                }
                keyboard.write_all(line.as_bytes()).unwrap();
            }
            screen.read_to_string(&mut seen).unwrap();
            (child.wait().unwrap().code(), seen)
        });
        within("a password to be typed", work).await.unwrap()
    };
    let (status, seen) = typing("one secret", "another secret").await;
    assert!(status == Some(1) && seen.contains("the two are not the same"), "{status:?}: {seen}");
    let (status, seen) = typing("one secret", "one secret").await;
    assert!(status == Some(0) && !seen.contains("secret"), "{status:?}: {seen}");
    assert_eq!(json(place.path(), "user list").await[0]["name"], "alice");
}

#[tokio::test]
async fn consumers_and_their_keys_are_managed_by_commands() {
    let of_file = "[consumers.mobile]\ngroups = [\"paid\"]\nsubjects = [\"local:alice\"]\n";
    let plan = "[plans.standard]\nquota = \"10/day\"\n";
    let place = place(&format!("{SQLITE}{LOCAL}{of_file}{plan}"));
    let here = place.path();
    done(here, "consumer add partner --groups eu,free --plan standard --subject local:bob").await;
    done(here, "consumer groups partner eu").await;
    done(here, "consumer plan partner ''").await;
    done(here, "consumer attach partner local:urn:x:carol").await;
    done(here, "consumer detach partner local:bob").await;
    // Certificates have subjects, too.
    done(here, "consumer attach partner mtls:CN=partner").await;
    done(here, "consumer detach partner mtls:CN=partner").await;
    let shown = json(here, "consumer show partner").await;
    assert_eq!(
        shown,
        serde_json::json!({
            "name": "partner", "groups": ["eu"], "plan": null, "from": "store",
            "subjects": ["local:urn:x:carol"], "keys": [],
        })
    );
    let listed = done(here, "consumer list").await;
    assert_eq!(
        listed,
        "NAME     GROUPS  PLAN  FROM\nmobile   paid          configuration\npartner  eu            store\n"
    );

    // Shown once, known by its beginning from then on; a consumer of the configuration may have keys in the store.
    let key = done(here, "key create --consumer partner --expires 90d").await;
    let whole = key.lines().next().unwrap();
    assert!(whole.len() == 44 && whole.starts_with("ew_"), "{key}");
    let id = &whole[..11];
    let of_mobile = json(here, "key create --consumer mobile").await;
    assert_eq!(of_mobile["expires"], serde_json::Value::Null);
    let keys = done(here, "key list").await;
    assert!(keys.contains(id) && !keys.contains(whole) && keys.contains("mobile"), "{keys}");
    let new = json(here, &format!("key rotate {whole} --overlap 1h")).await;
    assert_eq!((&new["consumer"], &new["replaces"]["id"]), (&"partner".into(), &id.into()));
    let forever = json(here, &format!("key rotate {} --expires never", new["id"].as_str().unwrap())).await;
    assert_eq!(forever["expires"], serde_json::Value::Null);
    assert_eq!(done(here, &format!("key revoke {id}")).await, format!("API key {id} revoked\n"));
    assert_eq!(
        failed(here, &format!("key revoke {id}"), 1).await,
        format!("edgeward: the API key {id} was revoked before\n")
    );
    let states: Vec<_> = json(here, "key list --consumer partner")
        .await
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["state"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(states.len(), 3);
    assert!(states.contains(&"revoked".to_owned()) && states.contains(&"valid".to_owned()), "{states:?}");

    for (wrong, why) in [
        ("consumer add mobile", "the configuration has a consumer \"mobile\" already"),
        ("consumer add partner", "there is a consumer partner already"),
        ("consumer add web --subject locl:x", "did you mean \"local\"?"),
        ("consumer groups mobile eu", "change [consumers.mobile] there and reload"),
        ("consumer groups nobody eu", "there is no consumer \"nobody\""),
        ("consumer show nobody", "there is no consumer \"nobody\""),
        ("consumer detach partner local:bob", "local:bob is not \"partner\"'s"),
        ("key create --consumer nobody", "`edgeward consumer add nobody` makes one"),
        ("key revoke ew_nothing", "there is no API key \"ew_nothing\""),
        ("key rotate ew_nothing", "there is no API key \"ew_nothing\""),
    ] {
        let complaint = failed(here, wrong, 1).await;
        assert!(complaint.contains(why), "{wrong}: {complaint}");
    }
    for wrong in [
        "key create",
        "key rotate x --overlap 5",
        "consumer attach partner bob",
        "consumer groups partner a,,b",
    ] {
        failed(here, wrong, 2).await;
    }
    done(here, "consumer remove partner").await;
    let left = json(here, "key list --consumer partner").await;
    assert!(left.as_array().unwrap().iter().all(|key| key["state"] == "revoked"), "{left}");
}

#[tokio::test]
async fn tokens_are_issued_verified_and_revoked_by_commands() {
    let place = place(&format!("{SQLITE}{LOCAL}"));
    let here = place.path();
    let issued =
        json(here, "token issue --subject alice --roles admin --claim tenant=acme --claim n=3").await;
    let (token, id) = (issued["token"].as_str().unwrap(), issued["claims"]["jti"].as_str().unwrap());
    let verify = async |token: &str| told(here, "token verify --json", token).await;
    let good = verify(token).await;
    let shown: serde_json::Value = serde_json::from_str(&good.stdout).unwrap();
    assert_eq!((good.status, &shown["valid"], &shown["provider"]), (0, &true.into(), &"local".into()));
    assert_eq!(shown["claims"]["tenant"], "acme");
    assert_eq!(
        (&shown["claims"]["n"], &shown["claims"]["roles"]),
        (&3.into(), &serde_json::json!(["admin"]))
    );
    let bad = verify(&format!("{token}x")).await;
    assert_eq!(bad.status, 1, "{}", bad.stdout);

    done(here, &format!("token revoke --jti {id} --provider local --keep 1h")).await;
    let revoked = verify(token).await;
    let shown: serde_json::Value = serde_json::from_str(&revoked.stdout).unwrap();
    assert_eq!((revoked.status, &shown["code"]), (1, &"auth.token_revoked".into()));
    let other = done(here, "token issue --subject alice").await;
    assert_eq!(verify(&other).await.status, 0);
    done(here, "token revoke --subject alice").await;
    assert_eq!(verify(&other).await.status, 1);
    let bob = done(here, "token issue --subject bob").await;
    assert_eq!(verify(&bob).await.status, 0);

    // An id is the issuer's, and may begin as an option does.
    let hyphen = done(here, "token issue --subject bob --claim jti=-UHEztc").await;
    done(here, "token revoke --jti -UHEztc --keep 1h").await;
    assert_eq!((verify(&hyphen).await.status, verify(&bob).await.status), (1, 0));

    let unknown = failed(here, "token revoke --jti x --provider locl", 1).await;
    assert!(unknown.contains("did you mean \"local\"?"), "{unknown}");
    for wrong in [
        "token revoke",
        "token revoke --jti x --subject y",
        "token revoke --jti --json",
        "token revoke --subject --json",
        "token issue",
    ] {
        failed(here, wrong, 2).await;
    }
}

#[tokio::test]
async fn without_a_store_commands_say_what_is_missing() {
    let place = place(LOCAL);
    let junk = self::place("[store]\nurl = \"sqlite:junk.db\"\n");
    std::fs::write(junk.path().join("junk.db"), "no database at all, but long enough to be looked at")
        .unwrap();
    let complaint = failed(junk.path(), "user list", 1).await;
    assert!(complaint.contains("junk.db: ") && complaint.contains("not a database"), "{complaint}");
    let complaint = failed(place.path(), "user list", 1).await;
    assert!(complaint.contains("has no [store]") && complaint.contains("hint: add [store]"), "{complaint}");
    // Errors elsewhere keep nobody from revoking.
    let broken = self::place(&format!("{SQLITE}[limits]\nconnections = \"many\"\n"));
    done(broken.path(), "token revoke --jti x").await;
}

/// `explain` knows what the store knows, and makes nothing there.
#[tokio::test]
async fn explain_asks_the_store() {
    let route = "[[listeners]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
        [[routes]]\npath = \"/\"\nrespond = {}\nauth = { with = [\"api_key\", \"jwt:local\"] }\n";
    let place = place(&format!("{SQLITE}{LOCAL}{route}"));
    let here = place.path();
    let explain = async |header: &str| {
        let ran = told(here, &format!("explain -H {header} GET http://localhost/"), "").await;
        ran.stdout + &ran.stderr
    };
    let early = explain("X-API-Key:ew_x").await;
    assert!(
        early.contains("503 store.unavailable") && early.contains("run/edgeward.db is not there"),
        "{early}"
    );
    assert!(!here.join("run").exists(), "it makes nothing");
    done(here, "consumer add partner --groups eu").await;
    let key = json(here, "key create --consumer partner").await;
    let header = format!("X-API-Key:{}", key["key"].as_str().unwrap());
    let passes = explain(&header).await;
    assert!(passes.contains("passes as partner (api_key:") && passes.contains("roles: eu\n"), "{passes}");
    done(here, &format!("key revoke {}", key["id"].as_str().unwrap())).await;
    let revoked = explain(&header).await;
    assert!(
        revoked.contains("401 auth.api_key_invalid: the API key ") && revoked.contains("was revoked"),
        "{revoked}"
    );
    let token = done(here, "token issue --subject alice").await;
    done(here, "token revoke --subject alice").await;
    // Arguments are split at spaces here.
    let mut asked = command(here, &["explain", "-H"]);
    asked.arg(format!("Authorization: Bearer {}", token.trim())).args(["GET", "http://localhost/"]);
    let revoked = run(asked).await.stdout;
    assert!(
        revoked.contains("401 auth.token_revoked: provider local: the token was revoked with all of alice"),
        "{revoked}"
    );
    // In that second a token is issued for the next.
    let token = done(here, "token issue --subject alice").await;
    let mut asked = command(here, &["token", "verify"]);
    asked.arg(token.trim());
    assert_eq!(run(asked).await.status, 0);
}

/// What `/readyz?verbose` says.
async fn verbose(gw: &Gateway) -> String {
    gw.admin().get("/readyz?verbose").await.expect_status(200).text()
}

async fn comes_to_say(gw: &Gateway, part: &str) {
    eventually(part, async || verbose(gw).await.contains(part).then_some(())).await;
}

#[tokio::test]
async fn what_was_revoked_stays_so_over_a_restart() {
    let control = "[server]\ncontrol_socket = \"run/control.sock\"\n";
    let mut gw = gateway(&format!("{SQLITE}{LOCAL}{control}")).start().await;
    let here = gw.directory();
    // With the control socket a command's change holds when it returns.
    done(&here, "token revoke --jti one").await;
    assert!(
        verbose(&gw).await.contains("[+] store: up\nidentity: 0 consumers, 0 API keys, 1 revoked tokens")
    );
    done(&here, "token revoke --subject alice --provider local").await;
    assert!(verbose(&gw).await.contains("1 revoked tokens and 1 revoked subjects"));
    let ran = gw.order("upgrade").await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(gw.exit().await.success());
    // The next process knows from its first request on.
    assert!(verbose(&gw).await.contains("1 revoked tokens and 1 revoked subjects"));
    let unchanged = gw.order("reload").await;
    assert_eq!(unchanged.status, 0, "{}", unchanged.stderr);
    gw.rewrite("edgeward.toml", |text| text.replace("run/edgeward.db", "run/other.db"));
    let refused = gw.order("reload").await;
    assert!(
        refused.status == 1 && refused.stderr.contains("needs an upgrade: store.url was"),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn a_reload_changes_who_is_configured() {
    let gw = gateway(
        "[server]\ncontrol_socket = \"run/control.sock\"\n[consumers.a]\napi_keys = [\"0123456789abcdef\"]\n",
    );
    let gw = gw.start().await;
    assert!(verbose(&gw).await.contains("identity: 1 consumers, 1 API keys"));
    gw.rewrite("edgeward.toml", |text| text.replace("[\"0123456789abcdef\"]", "[\"0123456789abcdeF\"]"));
    let changed = gw.order("reload").await;
    assert!(changed.stdout.contains("altered consumer a\n"), "{}", changed.stdout);
    gw.rewrite("edgeward.toml", |text| text + "[consumers.b]\n[consumers.c]\n");
    assert_eq!(gw.order("reload").await.status, 0);
    assert!(verbose(&gw).await.contains("identity: 3 consumers, 1 API keys"));
}

#[tokio::test]
async fn instances_that_share_a_database_hear_of_each_other() {
    let server = Postgres::start();
    let config = format!("[store]\nurl = \"{}\"\n{LOCAL}", server.database());
    let (one, two) = tokio::join!(gateway(&config).start(), gateway(&config).start());
    let here = one.directory();
    done(&here, "consumer add partner --groups eu").await;
    done(&here, "key create --consumer partner").await;
    done(&here, "token revoke --jti x").await;
    for gw in [&one, &two] {
        comes_to_say(gw, "identity: 1 consumers, 1 API keys, 1 revoked tokens").await;
    }
    // Where the same name is configured, that is said.
    two.rewrite("edgeward.toml", |text| text + "[consumers.partner]\ngroups = []\n");
    two.signal(rustix::process::Signal::HUP);
    comes_to_say(&two, "  consumer partner: stands in the configuration and in the store").await;
}

#[tokio::test]
async fn a_store_that_is_down_keeps_nothing_from_running() {
    let mut server = Postgres::start();
    let database = server.database();
    let config = format!("[store]\nurl = \"{database}\"\n");
    let commands = place(&config);
    done(commands.path(), "consumer add partner").await;
    server.stop();
    let gw = gateway(&config).start().await;
    assert!(gw.admin().get("/readyz").await.status == 200);
    let said = verbose(&gw).await;
    assert!(said.contains("[-] store: down for ") && !said.contains("s3cret"), "{said}");
    let complaint = failed(commands.path(), "user list", 1).await;
    assert!(complaint.starts_with("edgeward: the store does not answer: "), "{complaint}");
    server.go();
    comes_to_say(&gw, "[+] store: up\nidentity: 1 consumers").await;
    // What it knows it knows, whatever becomes of the store; and it follows again by itself.
    server.stop();
    comes_to_say(&gw, "[-] store: down for ").await;
    assert!(verbose(&gw).await.contains("identity: 1 consumers"));
    server.go();
    comes_to_say(&gw, "[+] store: up\n").await;
    done(commands.path(), "consumer add another").await;
    comes_to_say(&gw, "identity: 2 consumers").await;
    assert!(!gw.stderr().contains("s3cret"), "{}", gw.stderr());
}
