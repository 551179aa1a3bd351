//! Other proxies in the gateway's place: what floods cost whoever asks beside them there, for comparison. None of them promises
//! to end a flood. They speak both protocols on one port in cleartext, which nginx does from 1.25.1 on: Debian's is older.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Those that can be asked for by name.
pub const NAMES: [&str; 2] = ["haproxy", "envoy"];

/// Writes the configuration of the peer of this name into the directory: all that comes to `address` goes on to `service`. What
/// to start is returned; `program` is where it is, if not where commands are looked for.
pub fn command(
    name: &str,
    program: &str,
    directory: &Path,
    address: SocketAddr,
    service: SocketAddr,
) -> Command {
    let (text, arguments) = match name {
        "haproxy" => (
            format!(
                "global\n nbthread 2\n no strict-limits\n maxconn 4096\ndefaults\n mode http\n http-reuse always\n \
                 timeout connect 5s\n timeout client 30s\n timeout server 30s\nfrontend all\n bind {address}\n \
                 default_backend service\nbackend service\n server service {service}\n"
            ),
            vec!["-db", "-f"],
        ),
        "envoy" => (
            format!(
                "static_resources:\n  listeners:\n  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }}\n    \
                 filter_chains:\n    - filters:\n      - name: envoy.filters.network.http_connection_manager\n        \
                 typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.filters.network.\
                 http_connection_manager.v3.HttpConnectionManager\n          stat_prefix: all\n          codec_type: AUTO\n          \
                 route_config: {{ virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, \
                 route: {{ cluster: service }} }}] }}] }}\n          http_filters:\n          - name: envoy.filters.http.router\n            \
                 typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}\n  \
                 clusters:\n  - name: service\n    load_assignment: {{ cluster_name: service, endpoints: [{{ lb_endpoints: \
                 [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }} }}] }}] }}\n",
                address.port(),
                service.port()
            ),
            vec!["--concurrency", "2", "-l", "off", "--use-dynamic-base-id", "-c"],
        ),
        _ => panic!("there is no peer {name:?}: {NAMES:?}"),
    };
    let file = directory.join(if name == "envoy" { "peer.yaml" } else { "peer.conf" });
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).arg(file);
    command
}
