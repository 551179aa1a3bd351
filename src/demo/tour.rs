//! The tour that `edgeward demo` prints: commands that work as printed, each showing something the gateway did.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where everything of a running demo is.
#[derive(Debug, Clone)]
pub struct Places {
    /// The cleartext listener.
    pub gateway: SocketAddr,
    /// The TLS listener.
    pub secure: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    /// The first users service.
    pub users: SocketAddr,
    /// The orders service.
    pub orders: SocketAddr,
    /// The payments service.
    pub payments: SocketAddr,
    /// The authority of the development certificate.
    pub authority: PathBuf,
}

/// One stop of the tour.
#[derive(Debug, Clone)]
pub struct Stop {
    /// What it shows, in one line.
    pub shows: &'static str,
    /// A shell command.
    pub command: String,
    /// What is in the command's output when the gateway did that. The tests look for it.
    pub outcome: &'static [&'static str],
}

/// The stops, in order: later ones rely on what earlier ones did.
pub fn stops(at: &Places) -> Vec<Stop> {
    let Places { gateway, secure, admin, users, orders, payments, authority } = at;
    let secure_port = secure.port();
    let authority = authority.display();
    let login = |name: &str, more: &str| {
        format!(
            "curl -s {more}-H 'Content-Type: application/json' -d '{{\"username\":\"{name}\",\"password\":\"{}\"}}' http://{gateway}/login",
            password_of(name)
        )
    };
    let stop = |shows, command, outcome: &'static [&'static str]| Stop { shows, command, outcome };
    vec![
        stop(
            "A prefix is rewritten: the users service sees /v1/users/2.",
            format!("curl -s http://{gateway}/api/users/2"),
            &["Jonas"],
        ),
        stop(
            "Two servers by weight: three requests for the first, one for the second.",
            format!("curl -s -o /dev/null -w '%header{{x-served-by}}\\n' 'http://{gateway}/api/users?[1-4]'"),
            &["users-1", "users-2"],
        ),
        stop(
            "A template picks the id out of the path and asks another service with it.",
            format!("curl -s http://{gateway}/api/users/2/orders"),
            &["\"userId\":2"],
        ),
        stop(
            "The version is chosen by a header; without it this path is version 1.",
            format!("curl -s -H 'X-API-Version: 2' http://{gateway}/api/products/1"),
            &["\"currency\":\"EUR\""],
        ),
        stop(
            "An old address is redirected, and curl follows.",
            format!("curl -sL -w '%{{num_redirects}} redirect\\n' http://{gateway}/shop/3"),
            &["Chair", "1 redirect"],
        ),
        stop(
            "A new order goes to the orders service as it is.",
            format!(
                "curl -si -d '{{\"userId\":3,\"items\":[]}}' -H 'Content-Type: application/json' http://{gateway}/api/orders"
            ),
            &["201 Created", "\"userId\":3"],
        ),
        stop(
            "One answer put together from three services: an order, who ordered it, and what.",
            format!("curl -s http://{gateway}/api/order-details/1"),
            &["\"firstName\":\"Ada\"", "\"name\":\"Desk\"", "\"_legs\""],
        ),
        stop(
            "Stop one of the three: nobody listens there any more …",
            format!("curl -s -X POST 'http://{orders}/_demo/stop?service=products-1'"),
            &["\"now\":\"stopped\""],
        ),
        stop(
            "… and the others still answer. What is missing is said in a header, and why under _legs.",
            format!(
                "curl -s -w '\\ncompleted: %header{{x-edgeward-completed}}\\n' http://{gateway}/api/order-details/1"
            ),
            &["\"firstName\":\"Ada\"", "\"product\":null", "upstream.connect_failed", "completed: false"],
        ),
        stop(
            "Start it again …",
            format!("curl -s -X POST 'http://{orders}/_demo/start?service=products-1'"),
            &["\"now\":\"running\""],
        ),
        stop(
            "… and all of it is there.",
            format!(
                "curl -s -w '\\ncompleted: %header{{x-edgeward-completed}}\\n' http://{gateway}/api/order-details/1"
            ),
            &["\"name\":\"Desk\"", "\"name\":\"Chair\"", "completed: true"],
        ),
        stop(
            "A method no route takes here: 405, and what it could have been.",
            format!("curl -si -X DELETE http://{gateway}/api/orders/1"),
            &["405", "GET"],
        ),
        stop(
            "Errors of the gateway are problem documents with a stable code and the request's id.",
            format!("curl -s http://{gateway}/nowhere"),
            &["route.not_found", "request_id"],
        ),
        stop(
            "This route is for 10.0.0.0/8 only, and you are not from there.",
            format!("curl -s http://{gateway}/internal/report"),
            &["access.ip_denied"],
        ),
        stop(
            "This one is for analysts, and asks who you are.",
            format!("curl -si http://{gateway}/api/report"),
            &["401", "auth.credentials_required"],
        ),
        stop(
            "Ada is one: she logs in with her password …",
            login("ada", ""),
            &["\"access_token\"", "\"refresh_token\""],
        ),
        stop(
            "… and her token opens it.",
            format!(
                "curl -s -H \"Authorization: Bearer $({})\" http://{gateway}/api/report",
                login("ada", "-H 'Accept: text/plain' ")
            ),
            &["\"userId\""],
        ),
        stop(
            "Jonas has another role.",
            format!(
                "curl -s -H \"Authorization: Bearer $({})\" http://{gateway}/api/report",
                login("jonas", "-H 'Accept: text/plain' ")
            ),
            &["auth.role_missing"],
        ),
        stop(
            "TLS with the development certificate, and HTTP/2 because curl offers it.",
            format!(
                "curl -s --cacert {authority} -w 'HTTP/%{{http_version}}\\n' https://localhost:{secure_port}/api/users/1"
            ),
            &["Ada", "HTTP/2"],
        ),
        stop(
            "Make the orders service slow …",
            format!("curl -s -X POST 'http://{orders}/_demo/slow?ms=5000'"),
            &["slow by 5000 ms"],
        ),
        stop(
            "… and the route's one second is over before it answers: 504.",
            format!("curl -s http://{gateway}/api/orders/1"),
            &["\"status\":504"],
        ),
        stop("Heal it.", format!("curl -s -X POST http://{orders}/_demo/heal"), &["well"]),
        stop(
            "Make one of the two users services fail …",
            format!("curl -s -X POST 'http://{users}/_demo/fail?status=503'"),
            &["failing with 503"],
        ),
        stop(
            "… and nobody notices: what it fails is tried on the other one.",
            format!(
                "curl -s -o /dev/null -w '%{{http_code}} from %header{{x-served-by}}\\n' 'http://{gateway}/api/users?[1-4]'"
            ),
            &["200 from users-2"],
        ),
        stop("Heal it.", format!("curl -s -X POST http://{users}/_demo/heal"), &["well"]),
        stop(
            "Make the only payments service fail …",
            format!("curl -s -X POST 'http://{payments}/_demo/fail?status=500'"),
            &["failing with 500"],
        ),
        stop(
            "… after three failures its circuit opens, and the fallback answers in its place.",
            format!("curl -s 'http://{gateway}/api/payments?[1-5]'"),
            &["made to fail", "\"degraded\":true"],
        ),
        stop("Heal it.", format!("curl -s -X POST http://{payments}/_demo/heal"), &["well"]),
        stop(
            "What the gateway thinks of its upstreams.",
            format!("curl -s 'http://{admin}/readyz?verbose'"),
            &["users"],
        ),
        stop(
            "What it counted.",
            format!("curl -s http://{admin}/metrics | grep edgeward_http_requests_total"),
            &["edgeward_http_requests_total"],
        ),
    ]
}

/// The password of a user of the demo. Printed with the tour: it protects nothing.
pub fn password_of(name: &str) -> String {
    format!("{name}-demo-password")
}

/// What no process brings along.
const BROKER: &str = "
With a message broker on this machine, such as RabbitMQ: the last lines of conf/demo.toml are a route to a queue. Take
the # off them while the demo runs, and try what they say; docs/amqp.md has more.
";

/// The tour as it is printed: a comment and a command each, to be pasted into a shell.
pub fn text(at: &Places) -> String {
    let mut text = String::from("\nTry these in another terminal; each line works as it is.\n");
    for stop in stops(at) {
        // Writing to a String cannot fail.
        write!(text, "\n# {}\n{}\n", stop.shows, stop.command).unwrap_or_default();
    }
    text.push_str(BROKER);
    text.push_str("\nPress Ctrl-C to end the demo.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Places {
            gateway: at(8080),
            secure: at(8443),
            admin: at(9901),
            users: at(7001),
            orders: at(7004),
            payments: at(7005),
            authority: PathBuf::from("certs/ca.pem"),
        }
    }

    #[test]
    fn every_stop_is_one_line_of_words_and_one_of_curl() {
        let stops = stops(&places());
        assert!(stops.len() > 10);
        for stop in &stops {
            assert!(stop.command.starts_with("curl -s"), "{}", stop.command);
            assert!(!stop.command.contains('\n') && !stop.shows.contains('\n'));
            assert!(!stop.outcome.is_empty());
        }
        let text = text(&places());
        assert!(stops.iter().all(|stop| text.contains(&format!("# {}\n{}\n", stop.shows, stop.command))));
    }
}
