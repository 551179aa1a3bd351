//! What testssl.sh finds in a listener as it is by default: nothing that it calls MEDIUM or worse.
//!
//! `scripts/tls-grade` has it look at everything, and give a grade.

use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::{CrlDistributionPoint, ExtendedKeyUsagePurpose, SanType};
use serde_json::Value;

use crate::support::*;

/// What is said about the machine, about the certificate's authority, or by chance, and not about the gateway: testssl
/// leaves after the handshake with whatever tickets have come by then, and those of TLS 1.3 come after it (RFC 8446,
/// section 4.6.1). Whether sessions resume is asked by [`sessions_resume`].
const NOT_OURS: &[&str] = &["engine_problem", "scanTime", "DNS_CAArecord", "sessionresumption_ticket"];

/// Longest that it may take: it opens some hundreds of connections, each by programs of its own.
const LONGEST: Duration = Duration::from_secs(400);

#[tokio::test]
async fn testssl_finds_nothing_of_medium_or_above() {
    let authority = Authority::new();
    let site = authority.issue_with(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
        params.distinguished_name.push(rcgen::DnType::CommonName, "localhost");
        // For three months, and with a way to hear that it was withdrawn: both are up to who issues it.
        let days = |days: i64| {
            let seconds = u64::try_from(unix_now() + days * 86_400).unwrap();
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
        };
        (params.not_before, params.not_after) = (days(-1), days(89));
        params.crl_distribution_points =
            vec![CrlDistributionPoint { uris: vec!["http://localhost/crl".to_owned()] }];
    });
    let gw = gateway("[[routes]]\npath = \"/*\"\nrespond = { text = \"ok\" }\n")
        .identity("site", &site)
        .listener("plain", "127.0.0.1:0")
        .and("redirect_https = 443\nhsts = \"365d\"")
        .listener("main", "127.0.0.1:0")
        .and("[[listeners.certificates]]\ncert = \"site.pem\"\nkey = \"site-key.pem\"")
        .start()
        .await;
    let report = gw.directory().join("report.json");
    let trusted = authority.write(&gw.directory(), "authority.pem");
    let mut testssl = Command::new("testssl");
    testssl
        .current_dir(gw.directory())
        .args(["--quiet", "--warnings", "off", "--color", "0", "--ip", "127.0.0.1"])
        .arg("--add-ca")
        .arg(&trusted)
        .arg("--jsonfile")
        .arg(&report)
        // Protocols, ciphers, forward secrecy, the certificate, headers, and all vulnerabilities by name.
        .args(["-p", "-s", "-f", "-S", "-h", "-U"])
        .arg(format!("https://localhost:{}/", gw.listener("main").port()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let work = tokio::task::spawn_blocking(move || testssl.output().expect("testssl.sh is installed"));
    let output = tokio::time::timeout(LONGEST, work).await.expect("it ends").unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let findings: Vec<Value> = serde_json::from_slice(&std::fs::read(&report).expect(&shown)).expect(&shown);
    let of = |id: &str| {
        let found = findings.iter().find(|finding| finding["id"] == id);
        found.map(|finding| finding["finding"].as_str().unwrap().to_owned())
    };
    // It has looked at all of it: the first and the last of each part.
    for (id, part) in [
        ("TLS1_3", "offered"),
        ("TLS1_1", "not offered"),
        ("cipherlist_LOW", "not offered"),
        ("cert_chain_of_trust", "passed"),
        ("HSTS_time", "365 days"),
        ("heartbleed", "not vulnerable"),
        ("RC4", "not vulnerable"),
    ] {
        let found = of(id).unwrap_or_else(|| panic!("{id} was not looked at:\n{shown}"));
        assert!(found.contains(part), "{id}: {found}");
    }
    let bad: Vec<&Value> = findings
        .iter()
        .filter(|finding| !NOT_OURS.contains(&finding["id"].as_str().unwrap()))
        .filter(|finding| !matches!(finding["severity"].as_str(), Some("OK" | "INFO" | "LOW")))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}\n{shown}");
    // Later versions than Debian's give a grade, too.
    if let Some(grade) = of("overall_grade") {
        assert_eq!(grade, "A+", "{shown}");
    }
    let cleartext = Client::new(gw.listener("plain")).get("/").host("localhost").await.expect_status(308);
    assert_eq!(cleartext.header("location"), Some("https://localhost/"));
    gw.stop().await;
}

/// With openssl, which is what testssl asks, and an answer to wait for.
#[tokio::test]
async fn sessions_resume() {
    let authority = Authority::new();
    let gw = gateway("[[routes]]\npath = \"/*\"\nrespond = { text = \"ok\" }\n")
        .identity("site", &authority.server(&["localhost"]))
        .listener("main", "127.0.0.1:0")
        .and("[[listeners.certificates]]\ncert = \"site.pem\"\nkey = \"site-key.pem\"")
        .start()
        .await;
    authority.write(&gw.directory(), "authority.pem");
    for version in ["tls1_2", "tls1_3"] {
        let visit = async |session: &str| {
            let mut openssl = Command::new("sh");
            openssl.current_dir(gw.directory()).arg("-c").arg(format!(
                "printf 'GET / HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client \
                 -ign_eof -connect {} -servername localhost -CAfile authority.pem -{version} {session} kept.session",
                gw.address()
            ));
            run(openssl).await.stdout
        };
        let first = visit("-sess_out").await;
        assert!(first.contains("\nNew, TLSv1") && first.contains("HTTP/1.1 200"), "{version}: {first}");
        let second = visit("-sess_in").await;
        assert!(second.contains("\nReused, TLSv1") && second.contains("HTTP/1.1 200"), "{version}: {second}");
    }
    gw.stop().await;
}
