//! Other proxies in the gateway's place: what floods cost whoever asks beside them there, for comparison. None of them promises
//! to end a flood.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Those that can be asked for by name.
pub const NAMES: [&str; 3] = ["haproxy", "nginx", "envoy"];

/// Writes the configuration of the peer of this name into the directory: all that comes to `address` goes on to `service`. What
/// to start is returned; `program` is where it is, if not where commands are looked for.
pub fn command(
    name: &str,
    program: &str,
    directory: &Path,
    address: SocketAddr,
    service: SocketAddr,
) -> Command {
    let shown = directory.display();
    let (text, arguments) = match name {
        "haproxy" => (
            format!(
                "global\n nbthread 2\n no strict-limits\n maxconn 4096\ndefaults\n mode http\n http-reuse always\n \
                 timeout connect 5s\n timeout client 30s\n timeout server 30s\nfrontend all\n bind {address}\n \
                 default_backend service\nbackend service\n server service {service}\n"
            ),
            vec!["-db", "-f"],
        ),
        "nginx" => (
            format!(
                "daemon off; master_process on; worker_processes 2; pid {shown}/pid; error_log stderr crit;\n\
                 events {{ worker_connections 4096; }}\nhttp {{ access_log off; http2 on; keepalive_requests 1000000;\n \
                 client_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy; fastcgi_temp_path {shown}/fastcgi;\n \
                 uwsgi_temp_path {shown}/uwsgi; scgi_temp_path {shown}/scgi; proxy_http_version 1.1;\n \
                 proxy_set_header Connection \"\"; proxy_max_temp_file_size 0; proxy_request_buffering off;\n \
                 upstream service {{ server {service}; keepalive 256; }}\n \
                 server {{ listen {address} reuseport; location / {{ proxy_pass http://service; }} }} }}\n"
            ),
            vec!["-e", "stderr", "-c"],
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
