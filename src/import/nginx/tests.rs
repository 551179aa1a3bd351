use std::path::Path;

use super::*;

fn provider() {
    // A second one is refused, which is as good.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

fn imported(text: &str) -> Imported {
    provider();
    match import(Source::Text(text.to_owned(), Path::new("/nonexistent")), Some(Path::new("/etc/nginx"))) {
        Ok(imported) => imported,
        Err(error) => {
            panic!("{error}\n{}", if let ImportError::Defect { toml, .. } = &error { toml } else { "" })
        }
    }
}

fn http(inner: &str) -> Imported {
    imported(&format!("events {{}}\nhttp {{\n{inner}\n}}\n"))
}

/// Each route as `path [priority] target`, in the order written.
fn routes(imported: &Imported) -> Vec<String> {
    let table: toml::Table = imported.toml.parse().unwrap();
    let empty = Vec::new();
    let routes = table.get("routes").and_then(|routes| routes.as_array()).unwrap_or(&empty);
    routes
        .iter()
        .map(|route| {
            let text =
                |key: &str| route.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
            let priority = route
                .get("priority")
                .and_then(|value| value.as_integer())
                .map(|priority| format!(" {priority}"))
                .unwrap_or_default();
            let target = if let Some(respond) = route.get("respond") {
                respond["status"].as_integer().unwrap().to_string()
            } else if let Some(redirect) = route.get("redirect") {
                format!("-> {}", redirect["to"].as_str().unwrap())
            } else {
                text("upstream")
            };
            format!("{}{priority} {target}", text("path"))
        })
        .collect()
}

fn server(inner: &str) -> Vec<String> {
    routes(&http(&format!("server {{ listen 8080; {inner} }}")))
}

#[test]
fn precedence_is_nginx_own() {
    // Exact; then `^~`; then regexes as written; then prefixes, longest first.
    let got = server(
        "location / { return 201; } location /api/v1/ { return 202; } location ~ \\.png$ { return 203; }
         location ^~ /static/ { return 204; } location = /exact { return 205; } location ~* ^/API { return 206; }",
    );
    assert_eq!(
        got,
        ["/exact 205", "~^/static/ 204", r"~\.png$ 203", "~(?i)^/API 206", "~^/api/v1/ 202", "/* 201"]
    );
    // Written as a prefix, it needs a priority before it.
    let got = server(
        "location /api/ { proxy_pass http://127.0.0.1:1; } location ~ \\.png$ { return 203; } location / { return 201; }",
    );
    assert_eq!(got, ["/api 1 -> /api/", r"~\.png$ 1 203", "/api/* 127-0-0-1-1", "/* 201"]);
}

#[test]
fn a_prefix_that_stops_regexes_leaves_longer_ones_out() {
    let got = server(
        "location ^~ /a/ { return 201; } location /a/b/ { return 202; } location ~ x$ { return 203; }",
    );
    assert_eq!(got, ["~^/a/(?:$|[^b]|b(?:$|[^/])) 201", "~x$ 203", "~^/a/b/ 202", "/* 404"]);
}

#[test]
fn a_prefix_without_a_slash_is_one_of_letters() {
    assert_eq!(server("location /api { return 201; } location / { return 202; }"), ["~^/api 201", "/* 202"]);
    assert_eq!(
        server("location /a { return 201; } location /a/b { return 202; }"),
        ["~^/a/b 202", "~^/a 201", "/* 404"]
    );
}

#[test]
fn nested_regexes_go_first_and_stay_inside() {
    let got = server(
        "location ~ \\.php$ { return 201; } location /app/ { location ~ \\.php$ { return 202; } return 203; }",
    );
    assert_eq!(got, [r"~^/app/.*(?:\.php$) 202", r"~\.php$ 201", "~^/app/ 203", "/* 404"]);
}

#[test]
fn what_keeps_people_out_is_closed_rather_than_opened() {
    for inner in [
        "location / { auth_basic x; auth_basic_user_file y; proxy_pass http://127.0.0.1:1; }",
        "auth_basic x; location / { proxy_pass http://127.0.0.1:1; }",
        "location / { auth_request /auth; proxy_pass http://127.0.0.1:1; }",
        "location / { access_by_lua_block { x } proxy_pass http://127.0.0.1:1; }",
        "if ($invalid_referer) { return 403; } location / { proxy_pass http://127.0.0.1:1; }",
        "location / { if ($geo) { return 403; } proxy_pass http://127.0.0.1:1; }",
        "location ~ ^/(?P>x) { deny all; } location / { proxy_pass http://127.0.0.1:1; }",
        "location / { auth_ldap x; proxy_pass http://127.0.0.1:1; }",
        "location / { modsecurity on; proxy_pass http://127.0.0.1:1; }",
    ] {
        let got = server(inner);
        assert_eq!(got, ["/* 403"], "{inner}");
    }
    let off = server("auth_basic x; location / { auth_basic off; proxy_pass http://127.0.0.1:1; }");
    assert_eq!(off, ["/* 127-0-0-1-1"]);
}

#[test]
fn addresses_are_those_that_nginx_lets_in() {
    let got = http(
        "server { listen 8080; location / { deny 10.0.0.1; allow 10.0.0.0/30; deny all; proxy_pass http://127.0.0.1:1; } }",
    );
    assert!(got.toml.contains("ip = { allow = [\"10.0.0.0\", \"10.0.0.2/31\"] }"), "{}", got.toml);
    let got = http("server { listen 8080; location / { deny all; proxy_pass http://127.0.0.1:1; } }");
    assert!(got.toml.contains("ip = { deny = [\"0.0.0.0/0\", \"::/0\"] }"), "{}", got.toml);
}

#[test]
fn clients_cannot_say_what_nginx_would_have_said() {
    let got = http(
        "server { listen 8080; location / { proxy_set_header X-Client-Cert $ssl_client_escaped_cert; proxy_pass http://127.0.0.1:1; } }",
    );
    let row = got.report.rows.iter().find(|row| row.text.starts_with("proxy_set_header")).unwrap();
    assert_eq!(row.verdict, crate::import::report::Verdict::Dropped);
}

#[test]
fn listeners_without_a_certificate_are_not_opened_without_tls() {
    let got = http("server { listen 8443 ssl; location / { return 200; } }");
    assert!(!got.toml.contains("[[listeners]]"), "{}", got.toml);
    assert!(got.report.table().contains("not listened there"));
}

#[test]
fn what_is_for_one_address_is_not_served_on_all() {
    let got = http("server { listen 80; return 201; } server { listen 127.0.0.1:80; return 202; }");
    assert_eq!(routes(&got), ["/* 201"], "{}", got.toml);
}

/// Whoever one authority vouches for must not come in where another is asked.
#[test]
fn a_listener_has_one_authority() {
    let server = |name: &str, ca: &str| {
        format!(
            "server {{ listen 8443 ssl; server_name {name}; ssl_certificate a.pem; ssl_certificate_key a.key;
             ssl_client_certificate {ca}; ssl_verify_client on; location / {{ proxy_pass http://127.0.0.1:1; }} }}"
        )
    };
    let got = http(&format!("{}{}", server("a.example.com", "one.pem"), server("b.example.com", "two.pem")));
    let open = routes(&got).iter().filter(|route| !route.ends_with(" 403")).count();
    assert!(!got.toml.contains("[[listeners]]") || open == 1, "{}", got.toml);
}

/// nginx takes such a location, and never gets to it: every path begins with a slash.
#[test]
fn a_location_without_a_slash_at_its_start_gets_nothing() {
    let inner = "proxy_pass http://127.0.0.1:1; location ~ x { deny all; }";
    assert_eq!(
        server(&format!(
            "location api/ {{ {inner} }} location ^~ b/ {{ {inner} }} location = c {{ return 201; }} location / {{ return 202; }}"
        )),
        ["/* 202"]
    );
    assert_eq!(
        server("location = '' { return 201; } location '' { return 202; }"),
        server("location '' { return 202; }")
    );
}

/// A certificate that some locations want is asked for by the listener and wanted by routes.
#[test]
fn certificates_of_clients_are_wanted_by_routes() {
    let got = http(
        "server { listen 8443 ssl; ssl_certificate a.pem; ssl_certificate_key a.key; ssl_client_certificate ca.pem;
         ssl_verify_client optional; location / { proxy_set_header X-Dn $ssl_client_s_dn; proxy_pass http://127.0.0.1:1; }
         location /in/ { if ($ssl_client_verify != SUCCESS) { return 403; } proxy_pass http://127.0.0.1:1; } }",
    );
    let table: toml::Table = got.toml.parse().unwrap();
    let routes = table["routes"].as_array().unwrap();
    let wants = |path: &str| {
        routes.iter().find(|route| route["path"].as_str() == Some(path)).unwrap().get("auth").is_some()
    };
    assert!(wants("/in/*") && !wants("/*"), "{}", got.toml);
    assert_eq!(table["listeners"][0]["client_auth"]["mode"].as_str(), Some("optional"));
    assert!(got.toml.contains("X-Dn = \"{client.cert.subject}\""), "{}", got.toml);
}

/// An alias may be a file; that a root is none is told of this machine, and is no defect.
#[test]
fn an_alias_of_one_file_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().display();
    for name in ["favicon.ico", "LICENSE"] {
        std::fs::write(directory.path().join(name), "x").unwrap();
    }
    let got = http(&format!(
        "server {{ listen 8080; location /favicon.ico {{ alias {place}/favicon.ico; }}
         location /license {{ alias {place}/LICENSE; }} }}"
    ));
    assert!(got.toml.contains(&format!("root = \"{place}\"")), "{}", got.toml);
    assert!(got.toml.contains("path = \"/favicon.ico\""), "{}", got.toml);
    assert!(got.warnings.contains("is not a directory"), "{}", got.warnings);
}

/// What a rewritten path may come to is asked of all locations, wherever they stand in the order.
#[test]
fn a_rewrite_gets_past_no_location() {
    let got = server(
        "rewrite ^/x/(.*)$ /a/$1 last; location ^~ /a/ { proxy_pass http://127.0.0.1:1; }
         location /a/b/ { deny all; } location ~ \\.php$ { return 201; }",
    );
    assert!(got.iter().any(|route| route.starts_with("~^/x/(.*)$") && route.ends_with(" 403")), "{got:?}");
    let got = server(
        "rewrite ^/x/(.*)$ /a/$1 last; location /a/ { proxy_pass http://127.0.0.1:1; }
         location ~ \\.inc$ { deny all; }",
    );
    assert!(got.iter().any(|route| route.starts_with("~^/x/(.*)$") && route.ends_with(" 403")), "{got:?}");
}

fn says(imported: &Imported, directive: &str, note: &str) -> bool {
    imported.report.rows.iter().any(|row| row.text.starts_with(directive) && row.note.contains(note))
}

/// The certificate of a client is asked for by whichever authority is named, and without one nobody comes in.
#[test]
fn an_authority_of_clients_is_looked_for_in_both_places() {
    let server = |ca: &str| {
        http(&format!(
            "server {{ listen 8443 ssl; ssl_certificate a.pem; ssl_certificate_key a.key; {ca}
             ssl_verify_client on; location / {{ proxy_pass http://127.0.0.1:1; }} }}"
        ))
    };
    let got = server("ssl_trusted_certificate ca.pem;");
    assert!(got.toml.contains("mode = \"required\"") && got.toml.contains("/ca.pem"), "{}", got.toml);
    let got = server("");
    assert_eq!(routes(&got), ["/* 403"], "{}", got.toml);
    assert!(says(&got, "ssl_verify_client", "CLOSED"), "{}", got.report.table());
}

#[test]
fn what_nobody_knows_closes_and_what_answers_by_code_answers_501() {
    for (inner, expected) in [
        ("location / { rewrite_by_lua_block { x } proxy_pass http://127.0.0.1:1; }", "/* 403"),
        ("frobnicate on; location / { proxy_pass http://127.0.0.1:1; }", "/* 403"),
        ("location / { frobnicate on; proxy_pass http://127.0.0.1:1; }", "/* 403"),
        ("location / { more_set_headers x; proxy_pass http://127.0.0.1:1; }", "/* 127-0-0-1-1"),
        ("root /srv; location / { content_by_lua_block { x } }", "/* 501"),
        ("root /srv; location / { js_content x.y; }", "/* 501"),
        ("root /srv; location / { perl x; }", "/* 501"),
        ("root /srv; location / { try_files $uri =404; uwsgi_pass 127.0.0.1:9; }", "/* 501"),
    ] {
        assert_eq!(server(inner), [expected], "{inner}");
    }
    let got = server("location / { if ($http_x) { root /srv; } fastcgi_pass 127.0.0.1:9; }");
    assert_eq!(got, ["/* 501", "/* 501"], "a condition takes the handler along");
}

#[test]
fn conditions_are_not_taken_for_false() {
    // Hosts without a dot are written out like others.
    let got = http(
        "server { listen 8080; if ($host = intranet) { return 403; } location / { proxy_pass http://127.0.0.1:1; } }",
    );
    assert_eq!(routes(&got), ["/* 403", "/* 127-0-0-1-1"], "{}", got.toml);
    assert!(got.toml.contains("hosts = [\"intranet\"]"), "{}", got.toml);
    for inner in [
        "if ($request_uri ~ \"secret=1\") { return 403; } location / { proxy_pass http://127.0.0.1:1; }",
        "if ($request_uri ~* \"\\.bak$\") { return 403; } location / { proxy_pass http://127.0.0.1:1; }",
        "if ($request_uri = /a?b) { return 403; } location / { proxy_pass http://127.0.0.1:1; }",
    ] {
        assert_eq!(server(inner), ["/* 403"], "{inner}");
    }
    let got = http(
        "map $host $kind { default open; ~^(?=x) shut; } server { listen 8080; server_name x.com;
         if ($kind = shut) { return 403; } location / { proxy_pass http://127.0.0.1:1; } }",
    );
    assert!(routes(&got).iter().all(|route| route == "/* 403"), "{}", got.toml);
    let got = http(
        "map $host $kind { ~x 1; x.com 0; } server { listen 8080; server_name x.com;
         if ($kind) { return 201; } return 202; }",
    );
    assert!(routes(&got).contains(&"/* 202".to_owned()), "exact entries go first: {}", got.toml);
}

#[test]
fn a_named_location_keeps_its_own_addresses() {
    let got = server(
        "location / { allow all; try_files /none @app; } location @app { deny 10.0.0.1; proxy_pass http://127.0.0.1:1; }
         location /x/ { deny 10.0.0.2; try_files /none @app; }",
    );
    assert!(got.contains(&"~^/x/ 403".to_owned()) && got.contains(&"/* 127-0-0-1-1".to_owned()), "{got:?}");
    let again = server("location / { try_files /none @a; } location @a { try_files /none @a; }");
    assert_eq!(again, ["/* 501"], "without end");
}

#[test]
fn addresses_are_believed_only_as_nginx_believes_them() {
    let rules = "allow 10.0.0.0/8; deny all; proxy_pass http://127.0.0.1:1;";
    let one = |inner: &str| http(&format!("{inner} server {{ listen 8080; location / {{ {rules} }} }}"));
    let got = one("set_real_ip_from 10.0.0.1; real_ip_header X-Forwarded-For;");
    assert!(got.toml.contains("trusted_proxies = [\"10.0.0.1\"]"), "{}", got.toml);
    let got = one("set_real_ip_from 10.0.0.1;");
    assert!(!got.toml.contains("trusted_proxies"), "{}", got.toml);
    assert!(says(&got, "set_real_ip_from", "x-real-ip is not read"), "{}", got.report.table());
    assert!(
        routes(&got).contains(&"/* 403".to_owned()),
        "its own address would be the proxy's: {}",
        got.toml
    );
    let got = http(&format!(
        "real_ip_header X-Forwarded-For;
         server {{ listen 8080; server_name a.com; set_real_ip_from 10.0.0.1; location / {{ {rules} }} }}
         server {{ listen 8080; server_name b.com; location / {{ {rules} }} }}"
    ));
    assert!(!got.toml.contains("trusted_proxies"), "what one server says is not for all: {}", got.toml);
    assert!(routes(&got).contains(&"/* 403".to_owned()), "{}", got.toml);
}

#[test]
fn paths_of_servers_stay_as_they_are_written() {
    let got = http("server { listen 8080; location /a/ { proxy_pass http://127.0.0.1:1/x%20y/; } }");
    assert!(got.toml.contains("to = \"/x%20y/\""), "{}", got.toml);
    let got = http("server { listen 8080; location / { proxy_pass http://127.0.0.1:1$uri.json; } }");
    assert!(got.toml.contains("{request.path}.json") || routes(&got) == ["/* 501"], "{}", got.toml);
}

#[test]
fn the_process_can_be_reached() {
    let got =
        imported("pid /run/nginx.pid; user www; events {} http { server { listen 8080; return 200; } }");
    assert!(got.toml.contains("control_socket = \"/run/nginx-control.sock\""), "{}", got.toml);
    assert!(says(&got, "user", "must be usable by www"), "{}", got.report.table());
    let got = http("server { listen 8080; return 200; }");
    assert!(got.toml.contains("control_socket = \"/run/edgeward/control.sock\""), "{}", got.toml);
}

#[test]
fn values_do_not_grow_without_end() {
    let doubling = "set $a \"$a$a\"; ".repeat(64);
    let got = server(&format!("set $a xxxxxxxx; {doubling} location / {{ return 200 $a; }}"));
    assert_eq!(got.len(), 1, "{got:?}");
}

/// A file of `sites-available` holds servers alone.
#[test]
fn a_file_with_servers_alone_is_read() {
    let got = imported(
        "upstream app { server 10.0.0.1:80; }\nserver { listen 8080; location / { proxy_pass http://app; } }",
    );
    assert_eq!(routes(&got), ["/* app"]);
}

#[test]
fn what_stands_in_a_dropped_block_is_dropped() {
    let got = http("server { listen 8080; location ~ (.)\\1 { proxy_pass http://127.0.0.1:1; } }");
    let row = got.report.rows.iter().find(|row| row.text.starts_with("proxy_pass")).unwrap();
    assert_eq!(row.verdict, crate::import::report::Verdict::Dropped, "{}", got.report.table());
}

#[test]
fn everything_is_in_the_table() {
    let got = http("frobnicate on; server { listen 8080; gzip on; location / { return 200; } }");
    for text in
        ["frobnicate on", "listen 8080", "gzip on", "location /", "return 200", "server", "http", "events"]
    {
        assert!(got.report.rows.iter().any(|row| row.text == text), "{text}\n{}", got.report.table());
    }
    let unknown = got.report.rows.iter().find(|row| row.text == "frobnicate on").unwrap();
    assert_eq!((unknown.line, unknown.note.as_str()), (3, "this importer does not know it"));
    assert!(
        got.toml.contains("-:3: frobnicate on is dropped: this importer does not know it"),
        "{}",
        got.toml
    );
}

mod whatever_is_written {
    use proptest::prelude::*;

    use super::*;

    fn directive() -> impl Strategy<Value = String> {
        let word = "(\\$host|\\$uri|/a/?|/b|\\^~|~|=|http://127.0.0.1:1/?|http://x|200|301|403|on|off|x|\\$1|\\$is_args\\$args|https://\\$host\\$request_uri|\\^/a/\\(\\.\\*\\)\\$|last|break|permanent|all|10.0.0.0/8|10m|5s|\\$http_x|POST|=|!=|\\(\\$request_method|GET\\)|@n|\\$uri/|/index\\.html)";
        let name = prop::sample::select(vec![
            "return",
            "rewrite",
            "proxy_pass",
            "root",
            "alias",
            "try_files",
            "set",
            "allow",
            "deny",
            "add_header",
            "proxy_set_header",
            "access_log",
            "client_max_body_size",
            "proxy_read_timeout",
            "server_name",
            "index",
            "error_page",
            "auth_basic",
            "satisfy",
            "internal",
            "expires",
            "keepalive_timeout",
            "proxy_next_upstream",
            "limit_req",
            "limit_conn",
            "ssl_certificate",
            "log_format",
            "map",
            "grpc_pass",
        ]);
        (name, prop::collection::vec(word, 0..4))
            .prop_map(|(name, words)| format!("{name} {};", words.join(" ")))
    }

    fn block() -> impl Strategy<Value = String> {
        let leaf = prop::collection::vec(directive(), 0..4).prop_map(|all| all.join("\n"));
        leaf.prop_recursive(3, 24, 4, |inner| {
            let head = prop::sample::select(vec![
                "location /",
                "location /a/",
                "location = /a",
                "location ^~ /a/",
                "location ~ ^/a/(.*)$",
                "location @n",
                "if ($host = a.com)",
                "if ($request_method !~ ^(GET|POST)$)",
                "if ($http_x)",
                "limit_except GET",
                "server",
                "upstream x",
                "map $http_x $y",
            ]);
            prop::collection::vec((head, inner, directive()), 1..4).prop_map(|all| {
                all.into_iter().map(|(head, inner, more)| format!("{head} {{ {inner} }} {more}\n")).collect()
            })
        })
    }

    proptest! {
        /// Whatever is written is translated into something that passes the check.
        #[test]
        fn passes_the_check(block in block()) {
            provider();
            let text = format!("http {{ server {{ listen 8080; {block} }} {block} }}");
            match import(Source::Text(text.clone(), Path::new("/nonexistent")), None) {
                Ok(_) | Err(ImportError::Parse(_)) => {}
                Err(ImportError::Defect { problems, toml }) => prop_assert!(false, "{problems}\n{text}\n{toml}"),
            }
        }
    }
}
