//! API keys: where they are shown, whose they are, and that services do not get them.

use serde_json::json;

use crate::support::*;

const KEY: &str = "mobile-0123456789abcdef";

const CONSUMERS: &str = r#"
    [plans.gold]
    rate = "1000/s"

    [consumers.mobile]
    groups = ["paid", "beta"]
    plan = "gold"
    api_keys = [{ env = "KEY" }]
    subjects = ["local:alice"]

    [identity.providers.local]
    issuer = "local"
    audience = ["shop"]
    algorithms = ["HS256"]
    secret = { env = "SECRET" }

    [identity.api_key]
    query = "k e y"

    [upstreams.app]
    servers = ["{app}"]

    [[routes]]
    name = "keys"
    path = "/keys/*"
    upstream = "app"
    auth = { with = ["api_key"], roles = ["paid"] }
    request = { set = { "X-Plan" = "{consumer.plan}", "X-Groups" = "{consumer.groups}" } }

    [[routes]]
    name = "either"
    path = "/either"
    upstream = "app"
    [routes.auth]
    with = ["jwt:local", "api_key"]
    when = 'consumer.name == "mobile" && "beta" in consumer.groups'

    [[routes]]
    name = "open"
    path = "/open"
    upstream = "app"
"#;

async fn start(app: &Upstream, more: &str) -> Gateway {
    gateway(CONSUMERS).and(more).with("app", app).env("KEY", KEY).env("SECRET", SECRET).start().await
}

#[tokio::test]
async fn a_key_is_shown_in_one_of_its_places_and_ends_there() {
    let app = upstream().start().await;
    let gw = start(&app, "[log.access]\nformat = \"json\"\n").await;
    let by_scheme = format!("apikey {KEY}");
    for (path, headers) in [
        ("/keys/1?a=1".to_owned(), vec![("x-api-key", KEY)]),
        ("/keys/2?a=1".to_owned(), vec![("authorization", by_scheme.as_str())]),
        (format!("/keys/3?a=1&k+e%20y={KEY}"), vec![]),
    ] {
        let request =
            headers.iter().fold(gw.get(&path), |request, (name, value)| request.header(name, value));
        let echo = request.await.expect_status(200).echo();
        assert!(echo.target().ends_with("?a=1"), "{}", echo.target());
        assert_eq!((echo.header("x-api-key"), echo.header("authorization")), (None, None), "{path}");
        let told = ["x-auth-subject", "x-auth-roles", "x-consumer", "x-plan", "x-groups", "x-auth-claims"];
        let told = told.map(|name| echo.header(name).unwrap_or_default());
        assert_eq!(told, ["mobile", "paid,beta", "mobile", "gold", "paid,beta", ""]);
    }
    let line = gw.logged("/keys/3").await;
    assert!(line.contains("k+e%20y=***") && !line.contains(KEY), "{line}");
    assert!(
        line.contains("\"user\":\"mobile\",\"consumer\":\"mobile\",\"plan\":\"gold\",\"auth\":\"api_key:"),
        "{line}"
    );
    // Where no key is taken it is none of ours.
    let echo = gw.get("/open").header("x-api-key", "theirs").await.echo();
    assert_eq!(echo.header("x-api-key").as_deref(), Some("theirs"));
}

#[tokio::test]
async fn a_bad_key_is_refused_and_two_are_no_better() {
    let app = upstream().start().await;
    let gw = start(&app, "").await;
    for wrong in ["", "wrong", "mobile-0123456789abcdeF", "mobile-0123456789abcdef0", "\"; drop table"] {
        let answer =
            gw.get("/keys/1").header("x-api-key", wrong).await.expect_problem(401, "auth.api_key_invalid");
        assert_eq!(answer.header("www-authenticate"), Some("ApiKey realm=\"edgeward\""), "{wrong}");
    }
    gw.get("/keys/1").await.expect_problem(401, "auth.credentials_required");
    let twice = gw.get("/keys/1").header("x-api-key", KEY).header("authorization", &format!("ApiKey {KEY}"));
    twice.await.expect_problem(400, "auth.credentials_ambiguous");
    let twice = gw.get("/keys/1").header("x-api-key", KEY).header("x-api-key", KEY);
    twice.await.expect_problem(400, "auth.credentials_ambiguous");
    let labels = ["route=\"keys\"", "scheme=\"api_key\"", "reason=\"auth.api_key_invalid\""];
    gw.metric_is("edgeward_auth_failures_total", &labels, 5.0).await;
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn a_subject_may_be_a_consumers_too() {
    let app = upstream().start().await;
    let gw = start(&app, "").await;
    let get = |claims| gw.get("/either").header("authorization", &Signer::secret().bearer(claims));
    let claims = |sub: &str| json!({ "iss": "local", "aud": "shop", "sub": sub, "roles": ["staff"] });
    let echo = get(claims("alice")).await.expect_status(200).echo();
    let told =
        ["x-auth-subject", "x-auth-roles", "x-consumer"].map(|name| echo.header(name).unwrap_or_default());
    assert_eq!(told, ["alice", "staff,paid,beta", "mobile"]);
    get(claims("bob")).await.expect_problem(403, "auth.denied");
    gw.get("/either").header("x-api-key", KEY).await.expect_status(200);
    // A key that would do does not help a token that does not.
    let expired = json!({ "iss": "local", "aud": "shop", "sub": "alice", "exp": unix_now() - 300 });
    get(expired).header("x-api-key", KEY).await.expect_problem(401, "auth.token_expired");
}

#[tokio::test]
async fn keys_go_on_where_that_is_wanted() {
    let app = upstream().start().await;
    let config = CONSUMERS.replace("query = \"k e y\"", "query = \"key\"\nkeep = true");
    let gw = gateway(&config).with("app", &app).env("KEY", KEY).env("SECRET", SECRET).start().await;
    let echo = gw.get(&format!("/keys/1?key={KEY}")).await.expect_status(200).echo();
    assert_eq!(echo.target(), format!("/keys/1?key={KEY}"));
    let echo = gw.get("/keys/1").header("x-api-key", KEY).await.expect_status(200).echo();
    assert_eq!(echo.header("x-api-key").as_deref(), Some(KEY));
}
