//! What is known of directives that need no code of their own.

/// What becomes of a directive that nothing looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// The translation reads it where it counts; here it has no effect.
    Read,
    /// Edgeward does this by itself, or it is about nginx' own insides.
    Itself(&'static str),
    /// It is missing.
    Dropped(&'static str),
    /// It may keep people out: routes under it are closed.
    Closes(&'static str),
    /// It answers requests, in a way that cannot be said.
    Handler,
}

use Known::{Closes, Dropped, Handler, Itself, Read};

const INSIDES: &str = "about nginx' own insides";
const STREAMS: &str = "Edgeward streams bodies both ways";
const LATER: &str = "not available in this version";

/// Directives by name, with what is known of them.
const TABLE: &[(&str, Known)] = &[
    (
        "http server location upstream include events map set if return rewrite break listen server_name root alias \
         index try_files autoindex proxy_pass proxy_set_header proxy_hide_header proxy_connect_timeout \
         proxy_read_timeout proxy_send_timeout proxy_next_upstream proxy_next_upstream_tries proxy_ssl_verify \
         proxy_ssl_name proxy_ssl_trusted_certificate proxy_ssl_certificate proxy_ssl_certificate_key grpc_pass \
         grpc_set_header grpc_read_timeout grpc_send_timeout grpc_connect_timeout client_max_body_size \
         client_body_timeout client_header_timeout client_header_buffer_size large_client_header_buffers \
         keepalive_timeout add_header expires ssl_certificate ssl_certificate_key ssl_client_certificate \
         ssl_verify_client http2 access_log log_format error_log user pid worker_processes worker_connections \
         worker_shutdown_timeout real_ip_header set_real_ip_from real_ip_recursive allow deny internal stub_status \
         default_type types limit_except keepalive least_conn ip_hash hash random satisfy limit_conn limit_conn_zone \
         limit_req limit_req_zone ssl",
        Read,
    ),
    ("proxy_http_version", Itself("Edgeward speaks HTTP/1.1 or HTTP/2 to servers")),
    ("worker_rlimit_nofile", Itself("the limit is raised at start")),
    (
        "worker_cpu_affinity worker_priority use multi_accept accept_mutex sendfile sendfile_max_chunk tcp_nopush \
         tcp_nodelay aio directio types_hash_max_size types_hash_bucket_size server_names_hash_bucket_size \
         server_names_hash_max_size variables_hash_max_size variables_hash_bucket_size map_hash_max_size \
         map_hash_bucket_size proxy_headers_hash_max_size proxy_headers_hash_bucket_size open_file_cache \
         open_file_cache_valid open_file_cache_min_uses open_file_cache_errors output_buffers postpone_output \
         reset_timedout_connection lingering_close lingering_time lingering_timeout client_body_buffer_size \
         client_body_temp_path client_body_in_file_only client_body_in_single_buffer connection_pool_size \
         request_pool_size pcre_jit zone resolver resolver_timeout proxy_temp_path proxy_max_temp_file_size \
         proxy_temp_file_write_size log_not_found log_subrequest rewrite_log etag max_ranges \
         ssl_session_cache ssl_session_timeout ssl_session_tickets ssl_session_ticket_key ssl_buffer_size ssl_dhparam \
         ssl_ecdh_curve ssl_early_data ssl_password_file proxy_ssl_session_reuse proxy_ssl_server_name \
         proxy_socket_keepalive keepalive_disable keepalive_requests keepalive_time thread_pool timer_resolution \
         debug_connection lock_file worker_aio_requests http2_max_concurrent_streams http2_recv_buffer_size \
         http2_chunk_size http2_body_preread_size http2_idle_timeout http2_max_requests http2_max_field_size \
         http2_max_header_size http2_push http2_push_preload server_tokens msie_padding chunked_transfer_encoding \
         recursive_error_pages proxy_headers_hash_size log_format_escape open_log_file_cache ssl_conf_command \
         ssl_engine uninitialized_variable_warn working_directory",
        Itself(INSIDES),
    ),
    (
        "proxy_buffering proxy_buffers proxy_buffer_size proxy_busy_buffers_size proxy_request_buffering \
         grpc_buffer_size",
        Itself(STREAMS),
    ),
    (
        "ignore_invalid_headers underscores_in_headers",
        Itself("Edgeward reads heads strictly; `_` may stand in names"),
    ),
    (
        "absolute_redirect port_in_redirect server_name_in_redirect",
        Itself("redirects to a path stay paths, as RFC 9110 allows"),
    ),
    ("proxy_pass_header proxy_pass_request_headers", Itself("headers are passed on")),
    ("daemon master_process", Itself("Edgeward runs in the foreground, as one process")),
    (
        "gzip gzip_types gzip_vary gzip_proxied gzip_comp_level gzip_min_length gzip_buffers gzip_http_version \
         gzip_disable gunzip brotli brotli_comp_level brotli_types brotli_min_length zstd",
        Dropped("compression is not available in this version"),
    ),
    ("gzip_static brotli_static", Itself("files beside that were compressed beforehand are chosen")),
    (
        "limit_req_status limit_req_log_level limit_req_dry_run",
        Dropped("rate limits are not available in this version"),
    ),
    (
        "limit_conn_status limit_conn_log_level limit_conn_dry_run",
        Dropped("a connection too many is closed, not answered"),
    ),
    ("limit_rate limit_rate_after proxy_limit_rate", Dropped("bandwidth is not limited")),
    (
        "proxy_cache proxy_cache_path proxy_cache_valid proxy_cache_key proxy_cache_bypass proxy_no_cache \
         proxy_cache_use_stale proxy_cache_lock proxy_cache_min_uses proxy_cache_methods proxy_cache_revalidate \
         proxy_cache_background_update proxy_store proxy_store_access proxy_cache_lock_timeout proxy_cache_lock_age \
         proxy_cache_purge proxy_cache_convert_head proxy_cache_max_range_offset proxy_ignore_headers",
        Dropped("caching is not available in this version"),
    ),
    ("mirror mirror_request_body", Dropped("mirroring is not available in this version")),
    ("send_timeout", Dropped("a client that reads too slowly is ended by Edgeward's own bounds")),
    ("merge_slashes", Dropped("slashes are always merged")),
    ("proxy_redirect", Dropped("Location of answers is passed on as it came")),
    (
        "proxy_cookie_path proxy_cookie_domain proxy_cookie_flags",
        Dropped("cookies are passed on as they came"),
    ),
    ("error_page", Dropped("errors of the gateway are problem documents, or a page for browsers")),
    ("proxy_intercept_errors", Dropped("errors of servers are passed on as they came")),
    ("proxy_next_upstream_timeout", Dropped("all attempts together take no longer than the request may")),
    (
        "proxy_method proxy_set_body proxy_pass_request_body",
        Dropped("method and body are passed on as they came"),
    ),
    ("proxy_bind", Dropped("the system chooses the address that connections come from")),
    ("proxy_ignore_client_abort", Dropped("an attempt ends with its client")),
    ("proxy_force_ranges", Dropped("ranges are the server's business")),
    (
        "proxy_ssl_protocols proxy_ssl_ciphers proxy_ssl_verify_depth proxy_ssl_crl proxy_ssl_conf_command \
         proxy_ssl_password_file",
        Dropped("TLS 1.2 and 1.3 with the library's own choice of ciphers"),
    ),
    ("ssl_protocols ssl_ciphers ssl_prefer_server_ciphers", Itself("TLS 1.2 and 1.3 with safe ciphers only")),
    (
        "ssl_stapling ssl_stapling_verify ssl_stapling_responder ssl_trusted_certificate ssl_stapling_file",
        Dropped("stapling is not available"),
    ),
    ("ssl_verify_depth", Dropped("chains of any usual length are verified")),
    ("ssl_crl ssl_ocsp", Closes("revocation lists are not available in this version")),
    ("ssl_reject_handshake", Read),
    ("keepalive_min_timeout http3 quic_retry quic_gso http3_hq", Dropped(LATER)),
    ("stream", Dropped("TCP and UDP are not proxied")),
    ("mail", Dropped("mail is not proxied")),
    ("load_module", Dropped("there are no modules; each directive of it is listed")),
    ("env", Dropped("the environment is passed on as it is")),
    (
        "geo split_clients geoip_country geoip_city geoip2",
        Dropped("what depends on its variable is dropped or closed"),
    ),
    (
        "sub_filter sub_filter_once sub_filter_types addition_types add_before_body add_after_body add_trailer ssi \
         charset charset_types override_charset source_charset xslt_stylesheet image_filter",
        Dropped("bodies are passed on as they are"),
    ),
    ("autoindex_exact_size autoindex_localtime autoindex_format", Dropped("a listing has one form")),
    ("disable_symlinks", Itself("symbolic links never lead out of `root`")),
    (
        "dav_methods create_full_put_path dav_access dav_ext_methods random_index userid userid_name \
         userid_domain userid_path userid_expires",
        Dropped("not available"),
    ),
    (
        "auth_basic auth_basic_user_file",
        Closes("passwords by `auth_basic` are not available in this version"),
    ),
    ("auth_request auth_request_set", Closes("asking a service who may come in is not available")),
    ("auth_jwt auth_jwt_key_file auth_jwt_require", Closes("tokens are not available in this version")),
    ("secure_link secure_link_md5 secure_link_secret", Closes("signed links are not available")),
    ("valid_referers", Dropped("what depends on $invalid_referer is dropped or closed")),
];

/// What is known of `name`; `None` if nothing is.
pub(super) fn known(name: &str) -> Option<Known> {
    let listed = TABLE.iter().find(|(names, _)| names.split_whitespace().any(|listed| listed == name));
    if let Some((_, known)) = listed {
        return Some(*known);
    }
    let starts = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    Some(match name {
        _ if starts(&["access_by_", "auth_"]) => Closes("code that may keep people out"),
        _ if starts(&["modsecurity", "naxsi", "testcookie"]) => Closes("there is no application firewall"),
        _ if is_handler(name) => Handler,
        _ if starts(&["fastcgi_", "uwsgi_", "scgi_", "memcached_"]) => {
            Dropped("Edgeward speaks HTTP to servers")
        }
        _ if starts(&[
            "header_filter_by_lua",
            "body_filter_by_lua",
            "log_by_lua",
            "init_by_lua",
            "init_worker_by_lua",
            "exit_worker_by_lua",
            "balancer_by_lua",
            "ssl_certificate_by_lua",
            "ssl_session_",
            "set_by_lua",
            "lua_",
            "perl_",
        ]) =>
        {
            Dropped("no code is run")
        }
        _ if name.contains("_by_lua") || starts(&["js_access", "js_preread"]) => {
            Closes("code that may keep people out")
        }
        _ if starts(&["js_"]) => Dropped("no code is run"),
        _ if starts(&["opentracing", "otel_", "opentelemetry"]) => Dropped(LATER),
        // Modules that change answers, count or log.
        _ if starts(&[
            "more_",
            "subs_filter",
            "pagespeed",
            "vhost_traffic_status",
            "fancyindex",
            "brotli_",
            "zstd",
            "gzip_",
            "image_filter_",
            "ssi_",
            "sub_filter_",
            "xslt_",
            "upload_",
            "slice",
            "status_zone",
            "autoindex_",
            "dav_",
            "userid_",
            "geoip",
            "mp4_",
            "gunzip_",
            "charset_",
            "addition_",
        ]) =>
        {
            Dropped("no such module is here")
        }
        // nginx' own about servers, connections and protocols.
        _ if starts(&[
            "proxy_",
            "grpc_",
            "http2_",
            "http3_",
            "quic_",
            "client_",
            "keepalive_",
            "open_",
            "large_",
        ]) =>
        {
            Dropped("this importer does not know it")
        }
        _ => return None,
    })
}

/// Whether a directive of that name answers the requests of its location.
pub(super) fn is_handler(name: &str) -> bool {
    name.ends_with("_pass")
        || name.starts_with("content_by_")
        || name.starts_with("echo")
        || matches!(
            name,
            "js_content"
                | "perl"
                | "empty_gif"
                | "passenger_enabled"
                | "mp4"
                | "flv"
                | "stub_status"
                | "unit"
        )
}

/// Blocks whose entries are no directives.
pub(super) fn holds_entries(name: &str) -> bool {
    matches!(name, "map" | "geo" | "split_clients" | "types" | "charset_map" | "match" | "geoip2")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_directive_is_listed_once() {
        let mut seen = HashSet::new();
        for name in TABLE.iter().flat_map(|(names, _)| names.split_whitespace()) {
            assert!(seen.insert(name), "{name} is listed twice");
        }
        assert!(seen.len() > 200);
    }

    #[test]
    fn what_may_keep_people_out_is_known_by_its_name() {
        for name in ["auth_basic", "auth_ldap", "access_by_lua_block", "modsecurity", "ssl_crl"] {
            assert!(matches!(known(name), Some(Closes(_))), "{name}");
        }
        for name in ["rewrite_by_lua_block", "server_rewrite_by_lua_file", "js_access"] {
            assert!(matches!(known(name), Some(Closes(_))), "{name}");
        }
        for name in ["content_by_lua_block", "js_content", "perl", "fastcgi_pass", "uwsgi_pass", "echo"] {
            assert_eq!(known(name), Some(Handler), "{name}");
        }
        for name in ["log_by_lua_block", "js_set", "more_set_headers", "fastcgi_param", "proxy_frobnicate"] {
            assert!(matches!(known(name), Some(Dropped(_))), "{name}");
        }
        assert_eq!(known("frobnicate"), None);
    }
}
