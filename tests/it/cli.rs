//! The command line: what each command prints, and the statuses scripts go by.

use crate::support::*;

const GOOD: &str = r#"
    [upstreams.users]
    servers = ["127.0.0.1:3001"]

    [[routes]]
    name = "users"
    path = "/users/*"
    methods = ["GET"]
    upstream = "users"
    rewrite = { prefix = "/users", to = "/v1/users" }
    ip = { allow = ["10.0.0.0/8"] }

    [[routes]]
    name = "beta"
    path = "/users/*"
    methods = ["GET"]
    headers = { x-beta = "yes" }
    upstream = "users"

    [[routes]]
    name = "old"
    path = "/old/{id}"
    redirect = { to = "/users/{path.id}", status = 301 }
"#;

async fn edgeward(arguments: &[&str]) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    run(command(directory.path(), arguments)).await
}

#[tokio::test]
async fn a_good_configuration_is_ok() {
    let ran = gateway(GOOD).command(&["check"]).await;
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    assert_eq!(ran.stdout, "edgeward.toml: ok, 3 routes, 1 upstream\n");
    let ran = gateway(GOOD).command(&["check", "--format", "json"]).await;
    assert_eq!((ran.status, ran.stdout.trim()), (0, "[]"));
}

/// All of them at once, each at its place, and nothing starts.
#[tokio::test]
async fn every_mistake_is_reported() {
    let config = r#"
[upstreams.users]
servers = ["127.0.0.1:3001"]
ballance = "round_robin"
timeouts = { connect = 5 }

[[routes]]
path = "/a"
upstream = "usres"
"#;
    let ran = gateway(config).command(&["check"]).await;
    assert_eq!(ran.status, 1);
    for part in [
        "edgeward.toml:4:1",
        "did you mean \"balance\"?",
        "edgeward.toml:5:24",
        "edgeward.toml:9:12",
        "did you mean \"users\"?",
        "3 errors",
    ] {
        assert!(ran.stderr.contains(part), "{part} is not in\n{}", ran.stderr);
    }
    let ran = gateway(config).command(&["check", "--format", "json"]).await;
    assert_eq!(ran.status, 1);
    let problems: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(problems.as_array().unwrap().len(), 3);
    let first = &problems[0];
    assert_eq!((first["severity"].as_str(), first["line"].as_u64()), (Some("error"), Some(4)));
    for member in ["severity", "code", "file", "line", "column", "end_column", "path", "message", "hint"] {
        assert!(first.get(member).is_some(), "{member} is missing: {first}");
    }
    let refused = gateway(config).refused().await;
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.contains("3 errors") && refused.stdout.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn warnings_do_not_keep_it_from_starting() {
    let shadowed = r#"
        [[routes]]
        name = "first"
        path = "/a"
        respond = { status = 200 }
        [[routes]]
        name = "never"
        path = "/a"
        respond = { status = 200 }
    "#;
    let ran = gateway(shadowed).command(&["check"]).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("warning") && ran.stderr.contains("no request can take this route"),
        "{}",
        ran.stderr
    );
    gateway(shadowed).start().await.stop().await;
}

/// Variables and secrets: `check` needs them as a start does.
#[tokio::test]
async fn variables_come_from_the_environment() {
    let config = "[[routes]]\npath = \"${WHERE}\"\nrespond = { status = 200, text = \"${WHAT:-default}\" }\n";
    let ran = gateway(config).command(&["check"]).await;
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("WHERE") && ran.stderr.contains("edgeward.toml:2:"), "{}", ran.stderr);
    let gw = gateway(config).env("WHERE", "/here").start().await;
    assert_eq!(gw.get("/here").await.expect_status(200).text(), "default");
}

#[tokio::test]
async fn included_files_keep_their_own_positions() {
    let main = "include = [\"routes.d/*.toml\"]\n[upstreams.users]\nservers = [\"127.0.0.1:3001\"]\n";
    let good =
        "[[routes]]\nname = \"included\"\npath = \"/x\"\nrespond = { status = 200, text = \"included\" }\n";
    let gw = gateway(main).file("routes.d/a.toml", good).start().await;
    assert_eq!(gw.get("/x").await.text(), "included");
    let bad = gateway(main)
        .file("routes.d/a.toml", good)
        .file("routes.d/b.toml", "\n\n[[routes]]\npath = \"/y\"\nupstrem = \"users\"\n")
        .command(&["check"])
        .await;
    assert_eq!(bad.status, 1);
    assert!(bad.stderr.contains("routes.d/b.toml:5:1"), "{}", bad.stderr);
}

#[tokio::test]
async fn explain_says_who_wins_and_why_the_others_lost() {
    let ran = gateway(GOOD).command(&["explain", "GET", "http://api.example.com/users/7?x=1"]).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    for part in
        ["users  (edgeward.toml:5)", "/v1/users/7?x=1", "ip.allow", "edgeward.toml:11", "beta", "x-beta"]
    {
        assert!(ran.stdout.contains(part), "{part} is not in\n{}", ran.stdout);
    }
    let ran = gateway(GOOD).command(&["explain", "-H", "X-Beta: yes", "GET", "/users/7"]).await;
    assert!(ran.stdout.contains("beta  (edgeward.toml:13)"), "{}", ran.stdout);
    assert!(ran.stdout.contains("/users/7\n"), "{}", ran.stdout);
    let ran = gateway(GOOD).command(&["explain", "GET", "/old/a%2Fb"]).await;
    assert!(ran.stdout.contains("301 to /users/a%2Fb"), "{}", ran.stdout);
}

#[tokio::test]
async fn explain_tells_a_script_by_its_status() {
    for (method, url, part) in [
        ("GET", "/nowhere", "404 route.not_found"),
        ("POST", "/users/1", "405 route.method_not_allowed"),
        ("GET", "/../x", "400 request.bad_path"),
    ] {
        let ran = gateway(GOOD).command(&["explain", method, url]).await;
        assert_eq!(ran.status, 1, "{method} {url}");
        assert!((ran.stdout + &ran.stderr).contains(part), "{method} {url}");
    }
    let ran = gateway(GOOD).command(&["explain", "-H", "nonsense", "GET", "/"]).await;
    assert_eq!(ran.status, 2, "{}", ran.stderr);
}

/// Files have two methods, and some routes send one file for all that is not there.
#[tokio::test]
async fn explain_knows_what_files_do() {
    let config = "[[routes]]\npath = \"/*\"\nfiles = { root = \"www\", fallback = \"index.html\" }\n";
    let site = || gateway(config).file("www/index.html", "home");
    let found = site().command(&["explain", "GET", "/x"]).await;
    assert!(found.status == 0 && found.stdout.contains("www/x, else www/index.html\n"), "{}", found.stdout);
    let refused = site().command(&["explain", "POST", "/x"]).await;
    assert_eq!(refused.status, 1);
    let answer = "405 route.method_not_allowed, Allow: GET, HEAD\n";
    assert!(refused.stdout.contains(answer), "{}", refused.stdout);
    let gw = site().start().await;
    let same = gw.request("POST", "/x").await.expect_problem(405, "route.method_not_allowed");
    assert_eq!(same.header("allow"), Some("GET, HEAD"));
}

#[tokio::test]
async fn explain_names_the_route_that_was_probably_meant() {
    for (path, hint) in [
        ("/olt/17", "the nearest path of a route is /old/{id}"),
        ("/nothing/like/it", "no path of the 3 routes fits"),
    ] {
        let ran = gateway(GOOD).command(&["explain", "GET", path]).await;
        assert!(ran.status == 1 && ran.stdout.contains(hint), "{path}: {}", ran.stdout);
    }
}

/// Whoever looks at a configuration need not have its keys.
#[tokio::test]
async fn explain_does_without_certificates() {
    let config = format!(
        "[[listeners]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
         [[listeners]]\nname = \"secure\"\naddress = \"127.0.0.1:0\"\n\
         certificates = [{{ cert = \"no.pem\", key = \"no-key.pem\" }}]\n{GOOD}"
    );
    let ran = gateway(&config).command(&["explain", "GET", "https://a.example/users/7"]).await;
    assert!(ran.status == 0 && ran.stdout.contains("listener    secure\n"), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("warning[tls-unreadable]"), "{}", ran.stderr);
    assert!(ran.stderr.contains("a relative path starts at the directory"), "{}", ran.stderr);
    let absolute = config.replace("no.pem", "/nowhere/no.pem").replace("no-key.pem", "/nowhere/key.pem");
    let checked = gateway(&absolute).command(&["check"]).await;
    assert!(checked.status == 1 && checked.stderr.contains("error[tls-unreadable]"), "{}", checked.stderr);
    assert!(!checked.stderr.contains("a relative path"), "{}", checked.stderr);
}

#[tokio::test]
async fn init_takes_a_directory_and_check_a_file() {
    for (wrong, right) in [
        (&["init", "-c", "conf/x.toml"][..], "edgeward init conf\n"),
        (&["init", "-p", "/srv/gate"], "edgeward init /srv/gate\n"),
        (&["-c", "x.toml", "init"], "edgeward init .\n"),
    ] {
        let ran = edgeward(wrong).await;
        assert!(ran.status == 2 && ran.stderr.contains(right), "{wrong:?}: {}", ran.stderr);
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("other.toml"), GOOD).unwrap();
    let ran = run(command(directory.path(), &["check", "other.toml"])).await;
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "other.toml: ok, 3 routes, 1 upstream\n"));
    let twice = run(command(directory.path(), &["check", "other.toml", "-c", "other.toml"])).await;
    assert_eq!(twice.status, 2, "{}", twice.stderr);
}

/// What `explain` says is what happens.
#[tokio::test]
async fn explain_agrees_with_the_running_gateway() {
    let app = upstream().start().await;
    let config = r#"
        [upstreams.app]
        servers = ["{app}"]
        [[routes]]
        path = "/a/{id}"
        upstream = "app"
        rewrite = { path = "/one/{path.id}" }
        [[routes]]
        path = "/a/*"
        upstream = "app"
        rewrite = { prefix = "/a", to = "/two" }
        [[routes]]
        path = '~^/r/([0-9]+)$'
        upstream = "app"
        rewrite = { path = "/three/{path.1}" }
    "#;
    let gw = gateway(config).with("app", &app).start().await;
    for path in ["/a/1", "/a/1/2", "/a", "/r/12?q", "/a//x%20y"] {
        let told = gateway(config).with("app", &app).command(&["explain", "GET", path]).await.stdout;
        let target = gw.get(path).await.echo().target().to_owned();
        assert!(told.contains(&format!("{target}\n")), "{path} became {target}, but explain said\n{told}");
    }
}

#[tokio::test]
async fn the_schema_is_json_and_knows_the_keys() {
    let ran = edgeward(&["schema"]).await;
    let schema: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(ran.status, 0);
    for table in ["server", "limits", "listeners", "admin", "log", "upstreams", "routes", "defaults"] {
        assert!(schema["properties"].get(table).is_some(), "{table} is missing");
    }
}

#[tokio::test]
async fn init_writes_what_runs() {
    let directory = tempfile::tempdir().unwrap();
    let ran = run(command(directory.path(), &["init", "new/place"])).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let checked = run(command(directory.path(), &["check", "-c", "new/place/edgeward.toml"])).await;
    assert_eq!((checked.status, checked.complaints()), (0, ""));
    let again = run(command(directory.path(), &["init", "new/place"])).await;
    assert_eq!(again.status, 1);
    assert!(again.stderr.contains("exists"), "{}", again.stderr);
}

#[tokio::test]
async fn help_versions_and_wrong_usage() {
    let help = edgeward(&["--help"]).await;
    assert_eq!((help.status, help.stderr.as_str()), (0, ""));
    let commands = [
        "run",
        "demo",
        "init",
        "check",
        "explain",
        "reload",
        "upgrade",
        "quit",
        "schema",
        "completions",
        "man",
    ];
    for command in commands {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{command} is not in the help");
        let own = edgeward(&[command, "--help"]).await;
        assert!(own.stdout.contains("Examples:"), "{command} has no examples");
    }
    let version = edgeward(&["--version"]).await;
    assert_eq!(version.stdout, format!("edgeward {}\n", env!("CARGO_PKG_VERSION")));
    for wrong in [&["fly"][..], &["check", "--format", "xml"], &["explain", "GET"], &[]] {
        let ran = edgeward(wrong).await;
        assert_eq!(ran.status, 2, "{wrong:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty());
    }
    let missing = edgeward(&["check", "-c", "none.toml"]).await;
    assert_eq!(missing.status, 1);
    assert!(missing.stderr.contains("none.toml"), "{}", missing.stderr);
}

/// What scripts written for nginx call and grep for: words, streams and exit statuses as nginx has them.
#[tokio::test]
async fn nginxs_options_answer_in_its_words() {
    let version = edgeward(&["-v"]).await;
    let first = format!("edgeward version: edgeward/{}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((version.status, version.stdout.as_str(), &version.stderr), (0, "", &first));
    let long = edgeward(&["-V"]).await;
    assert!(
        long.status == 0 && long.stderr.starts_with(&first) && long.stderr.lines().count() > 3,
        "{}",
        long.stderr
    );

    let config = "[[listeners]]\nname = \"x\"\naddress = \"127.0.0.1:0\"\n[[routes]]\npath = \"/x\"\nrespond = { status = 200 }\n";
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("conf")).unwrap();
    let file = directory.path().join("conf/edgeward.toml");
    std::fs::write(&file, config).unwrap();
    let path = file.to_str().unwrap();
    let tell = async |arguments: &[&str]| run(command(directory.path(), arguments)).await;

    let good = tell(&["-t"]).await;
    assert_eq!((good.status, good.stdout.as_str()), (0, ""));
    for words in [
        format!("the configuration file {path} syntax is ok"),
        format!("configuration file {path} test is successful"),
    ] {
        assert!(good.stderr.contains(&words), "{words} in {}", good.stderr);
    }
    assert_eq!(tell(&["-t", "-q"]).await.stderr, "");
    let elsewhere = run(command(
        std::path::Path::new("/"),
        &["-t", "-p", directory.path().to_str().unwrap(), "-c", "conf/edgeward.toml"],
    ))
    .await;
    assert_eq!(elsewhere.stderr, good.stderr);
    let dumped = tell(&["-T", "-c", path]).await;
    assert_eq!(dumped.stdout, format!("# configuration file {path}:\n{config}\n"));
    assert!(dumped.stderr.contains("test is successful"));

    std::fs::write(&file, config.replace("respond", "respnd")).unwrap();
    let bad = tell(&["-t"]).await;
    assert_eq!(bad.status, 1);
    assert!(
        bad.stderr.contains("did you mean \"respond\"")
            && bad.stderr.contains(&format!("configuration file {path} test failed")),
        "{}",
        bad.stderr
    );

    let daemon = tell(&["-g", "daemon off; worker_processes 2;"]).await;
    assert_eq!(daemon.status, 2);
    assert!(
        daemon.stderr.contains("runs in the foreground")
            && daemon.stderr.contains("`threads` under [server]"),
        "{}",
        daemon.stderr
    );
    for signal in ["stop", "quit", "reload", "reopen"] {
        let nobody = tell(&["-s", signal, "-c", path]).await;
        assert_eq!(nobody.status, 1);
        assert!(nobody.stderr.contains("there is nobody to tell"), "{}", nobody.stderr);
    }
    assert_eq!(tell(&["-s", "dance"]).await.status, 2);
}

/// `edgeward … | head -1` ends quietly.
#[tokio::test]
async fn a_reader_that_leaves_is_no_error() {
    let mut shell = std::process::Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_edgeward");
    // The subshell's status outlives the pipe in a file descriptor of its own.
    shell.arg("-c").arg(format!("{{ {binary} schema; echo status $? >&2; }} | head -c 1 >/dev/null"));
    let ran = run(shell).await;
    assert_eq!(ran.stderr, "status 0\n");
}

#[tokio::test]
async fn the_manual_is_valid_roff_and_completions_are_scripts() {
    let man = edgeward(&["man"]).await;
    assert!(man.stdout.contains(".TH edgeward 1"), "{}", man.stdout);
    let script = edgeward(&["completions", "bash"]).await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("edgeward.bash"), script.stdout).unwrap();
    let mut bash = std::process::Command::new("bash");
    bash.arg("-n").arg(directory.path().join("edgeward.bash"));
    assert_eq!(run(bash).await.status, 0);
}

/// Every configuration we ship can be started.
#[tokio::test]
async fn what_we_ship_is_ok() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for directory in ["conf", "conf/examples"] {
        let Ok(entries) = std::fs::read_dir(root.join(directory)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let mut check = command(root, &["check", "-c", path.to_str().unwrap()]);
                check
                    .env("BROKER_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
                    .env("JWT_SECRET", SECRET)
                    .env("MOBILE_KEY", "mobile-0123456789abcdef")
                    .env("SHOP_KEY", "shop-0123456789abcdef");
                let ran = run(check).await;
                assert_eq!(ran.status, 0, "{}: {}", path.display(), ran.stderr);
                seen += 1;
            }
        }
    }
    assert!(seen >= 2, "only {seen} files");
}

/// Where the system would not let so many files be open, a start could not hold what it promises.
#[tokio::test]
async fn check_warns_of_too_few_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[server]\nthreads = 2\n[[listeners]]\nname = \"main\"\naddress = \"127.0.0.1:0\"\n[limits]\nconnections = 500\nupstream_idle = 10\n";
    std::fs::write(directory.path().join("edgeward.toml"), config).unwrap();
    for (allowed, warned) in [(1101, true), (1102, false)] {
        let mut shell = std::process::Command::new("sh");
        let binary = env!("CARGO_BIN_EXE_edgeward");
        shell.arg("-c").arg(format!("ulimit -n {allowed} && exec {binary} check -c edgeward.toml"));
        shell.current_dir(directory.path()).env("NO_COLOR", "1");
        let ran = run(shell).await;
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        let warning = "warning[descriptor-limit]: 500 connections may need 1102 open files";
        assert_eq!(ran.stderr.contains(warning), warned, "{allowed}: {}", ran.stderr);
    }
}

/// Nobody is warned of a key that nobody wrote: then there are as many connections as the system has room for.
#[tokio::test]
async fn connections_that_nobody_asked_for_are_as_many_as_fit() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[[listeners]]\nname = \"main\"\naddress = \"127.0.0.1:0\"\n";
    std::fs::write(directory.path().join("edgeward.toml"), config).unwrap();
    let mut shell = std::process::Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_edgeward");
    shell.arg("-c").arg(format!("ulimit -n 1074 && exec {binary} check -c edgeward.toml"));
    shell.current_dir(directory.path()).env("NO_COLOR", "1");
    let ran = run(shell).await;
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
}

/// An account that is not there is worth a word before the start fails; it need not be where a file is only checked.
#[tokio::test]
async fn check_warns_of_accounts_that_are_not_there() {
    let config = "[server]\nuser = \"nosuchuser\"\ngroup = \"nosuchgroup\"\n";
    for arguments in [&["check"][..], &["-t"]] {
        let ran = gateway(config).command(arguments).await;
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        for part in [
            "warning[unknown-account]: there is no user \"nosuchuser\" on this system",
            "edgeward.toml:2:8",
            "there is no group \"nosuchgroup\" on this system",
        ] {
            assert!(ran.stderr.contains(part), "{part} is not in\n{}", ran.stderr);
        }
    }
}

/// What root can read and the user of the process cannot is told before, and at the start, with what to do.
#[tokio::test]
async fn files_that_the_user_cannot_read_are_named() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        // Only root can become somebody else: there is nobody to be kept from anything.
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let allow = |name: &str, mode: u32| {
        let path = directory.path().join(name);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let config = "[server]\nuser = \"nobody\"\n[[listeners]]\nname = \"main\"\naddress = \"127.0.0.1:0\"\n";
    std::fs::write(directory.path().join("edgeward.toml"), config).unwrap();
    allow("", 0o755);
    allow("edgeward.toml", 0o600);
    let file = directory.path().join("edgeward.toml").canonicalize().unwrap();
    let hint = format!("hint: chgrp nogroup {0} && chmod 640 {0}", file.display());
    let tell = async |arguments: &[&str]| run(command(directory.path(), arguments)).await;
    let checked = tell(&["check"]).await;
    assert_eq!(checked.status, 0, "{}", checked.stderr);
    let warning = "warning[unreadable-file]: edgeward.toml cannot be read by nobody";
    assert!(checked.stderr.contains(warning) && checked.stderr.contains(&hint), "{}", checked.stderr);
    let started = tell(&["run"]).await;
    assert!(started.status == 1 && started.stderr.contains(&hint), "{}", started.stderr);
    // As it says.
    allow("edgeward.toml", 0o644);
    assert_eq!(tell(&["check"]).await.stderr, "");
}

/// An address in use names who wanted it, and who has it if that is the same configuration.
#[tokio::test]
async fn an_address_in_use_says_whose_it_would_be() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = gateway("").listener("main", &address).refused().await;
    let start = format!("cannot listen on {address} (listener \"main\", edgeward.toml:");
    assert!(refused.status == 1 && refused.stderr.contains(&start), "{}", refused.stderr);
    let admin = gateway(&format!("[admin]\naddress = \"{address}\"\n")).refused().await;
    assert!(
        admin.stderr.contains(&format!("cannot listen on {address} (admin.address)")),
        "{}",
        admin.stderr
    );

    let gw = gateway("[server]\ncontrol_socket = \"run/control.sock\"\n").start().await;
    let pid = gw.status().await["pid"].as_u64().unwrap();
    gw.rewrite("edgeward.toml", |text| text.replacen("127.0.0.1:0", &gw.address().to_string(), 1));
    let again = run(command(&gw.directory(), &["run", "-c", "edgeward.toml"])).await;
    let note = format!("edgeward already runs with this configuration, process {pid}");
    assert!(again.status == 1 && again.stderr.contains(&note), "{}", again.stderr);
    gw.stop().await;
}
