//! The exposition: names, types, help texts, and the two text formats.

mod dependencies;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::Metrics;
use super::cells::Histogram;
use super::process::Process;
use super::route::{AUTH_REASONS, METHODS, RouteMetrics, SCHEMES};
use super::upstream::{ServerMetrics, UpstreamMetrics};
use crate::base::reason::Reason;
use crate::base::{panics, pressure, task};

/// `Content-Type` of `render(true)`.
pub const OPENMETRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// `Content-Type` of `render(false)`.
pub const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The commit this was built from, if the build said so.
const REVISION: &str = match option_env!("EDGEWARD_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

impl Metrics {
    /// Everything counted so far: OpenMetrics 1.0 text, or Prometheus' text format 0.0.4.
    ///
    /// Takes time in proportion to the number of series and reads /proc: for the admin listener, not the request path.
    pub fn render(self: &Arc<Self>, openmetrics: bool) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(self)));
        let mut text = String::new();
        // Writing into a string cannot fail, and no encoder of ours returns an error of its own.
        let encoded = prometheus_client::encoding::text::encode(&mut text, &registry);
        debug_assert!(encoded.is_ok());
        if openmetrics { text } else { to_text_format(&text) }
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.encode_routes(&mut out)?;
        self.encode_upstreams(&mut out)?;
        self.encode_listeners(&mut out)?;
        self.encode_key_sets(&mut out)?;
        self.encode_logins(&mut out)?;
        self.encode_limits(&mut out)?;
        self.encode_plans(&mut out)?;
        self.encode_cluster(&mut out)?;
        self.encode_legs(&mut out)?;
        self.encode_brokers(&mut out)?;
        self.encode_bus(&mut out)?;
        self.encode_process_wide(&mut out)?;
        encode_process(Process::read(), &mut out)
    }
}

impl Metrics {
    fn encode_routes(&self, out: &mut Out<'_>) -> fmt::Result {
        let routes = self.routes.all();

        let mut family =
            out.counter("edgeward_http_requests", "Requests ended, by route, method and status sent")?;
        for route in &routes {
            for (index, method) in METHODS.iter().enumerate() {
                let metrics = route.methods.get(index).and_then(|cell| cell.get());
                let mut shown_ok = false;
                if let Some(metrics) = metrics {
                    metrics.codes.each(|code, count| {
                        shown_ok |= code == "200";
                        counter(
                            &mut family,
                            &[("route", &route.name), ("method", method), ("code", code)],
                            count,
                        )
                    })?;
                }
                if route.expects(index) && !shown_ok {
                    counter(&mut family, &[("route", &route.name), ("method", method), ("code", "200")], 0)?;
                }
            }
        }

        let mut family = out.histogram(
            "edgeward_http_request_duration_seconds",
            "Time from the first byte of a request to the last of its answer",
        )?;
        for route in &routes {
            for (cell, method) in route.methods.iter().zip(METHODS) {
                if let Some(metrics) = cell.get() {
                    histogram(&mut family, &[("route", &route.name), ("method", method)], &metrics.duration)?;
                }
            }
        }

        let mut family = out.gauge("edgeward_http_requests_in_flight", "Requests being served now")?;
        for route in &routes {
            gauge(&mut family, &[("route", &route.name)], route.in_flight.get())?;
        }

        let sized = || routes.iter().filter_map(|route| Some((route.as_ref(), route.sizes.get()?)));
        let mut family = out.histogram("edgeward_http_request_size_bytes", "Size of request bodies")?;
        for (RouteMetrics { name, .. }, sizes) in sized() {
            histogram(&mut family, &[("route", name)], &sizes.request)?;
        }
        let mut family = out.histogram("edgeward_http_response_size_bytes", "Size of response bodies")?;
        for (RouteMetrics { name, .. }, sizes) in sized() {
            histogram(&mut family, &[("route", name)], &sizes.response)?;
        }

        let mut family = out.counter(
            "edgeward_auth_failures",
            "Requests refused for who they are from, by what was shown and the code of the problem",
        )?;
        for route in &routes {
            let Some(failures) = route.auth_failures.get() else { continue };
            for (scheme, row) in SCHEMES.iter().zip(&failures.0) {
                for (reason, count) in AUTH_REASONS.iter().zip(row).filter(|(_, count)| count.get() > 0) {
                    let labels = [("route", &*route.name), ("scheme", scheme), ("reason", reason.code())];
                    counter(&mut family, &labels, count.get())?;
                }
            }
        }

        let mut family = out.counter(
            "edgeward_identity_values_dropped",
            "Values about who a request is from that no header can hold, and that services were not sent",
        )?;
        plain_counter(&mut family, self.identity_values_dropped.get())?;

        let mut family = out.counter(
            "edgeward_http_requests_rejected",
            "Requests that the gateway itself ended, by the code of the problem",
        )?;
        for (reason, count) in Reason::ALL.iter().zip(&self.rejected.0) {
            // Known from the start: what makes a request one that nobody can serve. Others show up when they happen.
            if count.get() > 0 || reason.code().starts_with("request.") {
                counter(&mut family, &[("reason", reason.code())], count.get())?;
            }
        }
        Ok(())
    }

    fn encode_legs(&self, out: &mut Out<'_>) -> fmt::Result {
        let legs = self.legs.all();
        if legs.is_empty() {
            return Ok(());
        }
        let mut family = out.histogram(
            "edgeward_aggregate_leg_duration_seconds",
            "Time of a leg from when its inputs were there",
        )?;
        for leg in &legs {
            histogram(&mut family, &[("route", &leg.route), ("leg", &leg.leg)], &leg.duration)?;
        }
        let mut family = out.counter(
            "edgeward_aggregate_leg_failures",
            "Legs without an answer, or without all of it, by why",
        )?;
        for leg in &legs {
            leg.failures.each(|reason, count| {
                counter(&mut family, &[("route", &leg.route), ("leg", &leg.leg), ("reason", reason)], count)
            })?;
        }
        Ok(())
    }

    fn encode_upstreams(&self, out: &mut Out<'_>) -> fmt::Result {
        let upstreams = self.upstreams.all();
        let servers: Vec<(&UpstreamMetrics, Arc<ServerMetrics>)> = upstreams
            .iter()
            .flat_map(|upstream| upstream.servers.all().into_iter().map(|server| (upstream.as_ref(), server)))
            .collect();

        let mut family =
            out.counter("edgeward_upstream_requests", "Attempts that a server answered, by its status")?;
        for (upstream, server) in &servers {
            server.answers.each(|code, count| {
                let labels = [("upstream", &*upstream.name), ("backend", &server.address), ("code", code)];
                counter(&mut family, &labels, count)
            })?;
        }

        let mut family =
            out.counter("edgeward_upstream_failures", "Attempts that ended without an answer")?;
        for (upstream, server) in &servers {
            server.failures.each(|reason, count| {
                let labels =
                    [("upstream", &*upstream.name), ("backend", &server.address), ("reason", reason)];
                counter(&mut family, &labels, count)
            })?;
        }

        let mut family = out.histogram(
            "edgeward_upstream_request_duration_seconds",
            "Time an attempt took, connecting included",
        )?;
        for upstream in &upstreams {
            histogram(&mut family, &[("upstream", &upstream.name)], &upstream.request)?;
        }
        let mut family = out.histogram(
            "edgeward_upstream_connect_duration_seconds",
            "Time a new connection took, TLS included",
        )?;
        for upstream in &upstreams {
            histogram(&mut family, &[("upstream", &upstream.name)], &upstream.connect)?;
        }

        let mut family =
            out.counter("edgeward_upstream_retries", "Attempts repeated, by what made it necessary")?;
        for upstream in &upstreams {
            upstream.retries.each(|reason, count| {
                counter(&mut family, &[("upstream", &upstream.name), ("reason", reason)], count)
            })?;
        }

        let mut family =
            out.gauge("edgeward_upstream_backend_up", "Whether a server is given requests: 1 or 0")?;
        for (upstream, server) in &servers {
            if let Some(up) = server.is_up() {
                gauge(&mut family, &backend(upstream, server), i64::from(up))?;
            }
        }

        let mut family =
            out.gauge("edgeward_circuit_breaker_state", "Circuit breakers: 0 closed, 1 half-open, 2 open")?;
        for (upstream, server) in &servers {
            if let Some(state) = server.breaker_state() {
                gauge(&mut family, &backend(upstream, server), i64::from(state))?;
            }
        }
        let mut family = out.counter(
            "edgeward_circuit_breaker_transitions",
            "Changes of a circuit breaker, by the new state",
        )?;
        for (upstream, server) in servers.iter().filter(|(_, server)| server.breaker_state().is_some()) {
            server.transitions.each(|to, count| {
                let labels = [("upstream", &*upstream.name), ("backend", &server.address), ("to", to)];
                counter(&mut family, &labels, count)
            })?;
        }
        Ok(())
    }

    fn encode_limits(&self, out: &mut Out<'_>) -> fmt::Result {
        let limits = self.limits.all();
        let mut family = out.counter("edgeward_rate_limited", "Requests refused by a rate limit")?;
        for limit in &limits {
            counter(&mut family, &[("policy", &limit.name)], limit.refused.get())?;
        }
        let mut family = out
            .counter("edgeward_rate_limit_requests", "Requests that met a rate limit, by what came of it")?;
        for limit in &limits {
            let outcomes =
                [("passed", &limit.passed), ("delayed", &limit.delayed), ("limited", &limit.refused)];
            for (outcome, count) in outcomes {
                counter(&mut family, &[("policy", &limit.name), ("outcome", outcome)], count.get())?;
            }
        }
        let mut family = out.counter(
            "edgeward_rate_limit_overflow",
            "Requests that counted together with others, there being no room for another key",
        )?;
        for limit in &limits {
            counter(&mut family, &[("policy", &limit.name)], limit.overflowed.get())?;
        }
        let mut family = out.counter(
            "edgeward_rate_limit_store_failures",
            "Requests about which the counters that instances share could not be asked",
        )?;
        for limit in &limits {
            counter(&mut family, &[("policy", &limit.name)], limit.store_failures.get())?;
        }
        let mut family = out.counter(
            "edgeward_rate_limit_cost_failures",
            "Requests whose cost could not be worked out, and which counted for a whole burst",
        )?;
        for limit in &limits {
            counter(&mut family, &[("policy", &limit.name)], limit.cost_failures.get())?;
        }
        Ok(())
    }

    fn encode_plans(&self, out: &mut Out<'_>) -> fmt::Result {
        let plans = self.plans.all();
        let help = "Requests under a plan: passed and counted, refused by its rate or its quota, or because usage is not known";
        let mut family = out.counter("edgeward_plan_requests", help)?;
        for plan in &plans {
            for (outcome, count) in [
                ("passed", plan.passed.get()),
                ("limited", plan.limited.refused.get()),
                ("quota_exceeded", plan.quota_exceeded.get()),
                ("unavailable", plan.unavailable.get()),
            ] {
                counter(&mut family, &[("plan", &plan.name), ("outcome", outcome)], count)?;
            }
        }
        Ok(())
    }

    fn encode_listeners(&self, out: &mut Out<'_>) -> fmt::Result {
        let listeners = self.listeners.all();

        let mut family = out.gauge("edgeward_connections_open", "Client connections open now")?;
        for listener in &listeners {
            gauge(&mut family, &[("listener", &listener.name)], listener.open.get())?;
        }
        let mut family = out.counter("edgeward_connections_accepted", "Client connections accepted")?;
        for listener in &listeners {
            counter(&mut family, &[("listener", &listener.name)], listener.accepted.get())?;
        }
        let mut family = out.counter("edgeward_connections_rejected", "Client connections closed at once")?;
        for listener in &listeners {
            listener.rejected.each(|reason, count| {
                counter(&mut family, &[("listener", &listener.name), ("reason", reason)], count)
            })?;
        }
        let mut family =
            out.counter("edgeward_tls_handshake_failures", "TLS handshakes with clients that failed")?;
        for listener in &listeners {
            listener.handshake_failures.each(|reason, count| {
                counter(&mut family, &[("listener", &listener.name), ("reason", reason)], count)
            })?;
        }
        let mut family = out.counter(
            "edgeward_http2_connection_errors",
            "HTTP/2 connections ended because of an error of the client, by the code it was told",
        )?;
        for listener in &listeners {
            listener.http2_errors.each(|code, count| {
                counter(&mut family, &[("listener", &listener.name), ("code", code)], count)
            })?;
        }
        Ok(())
    }

    fn encode_process_wide(&self, out: &mut Out<'_>) -> fmt::Result {
        let log = &self.access_log;
        for (name, help, cell) in [
            ("edgeward_access_log_records", "Access records written", &log.written),
            (
                "edgeward_access_log_dropped",
                "Access records dropped because the queue was full",
                &log.dropped,
            ),
            ("edgeward_access_log_failed", "Access records lost because the output failed", &log.failed),
        ] {
            plain_counter(&mut out.counter(name, help)?, cell.get())?;
        }

        let mut family = out.gauge("edgeward_pressure", "Whether the process is short of it: 1 or 0")?;
        for (resource, is_short) in
            [("memory", pressure::is_short_of_memory()), ("descriptors", pressure::is_short_of_descriptors())]
        {
            gauge(&mut family, &[("resource", resource)], i64::from(is_short))?;
        }
        for (name, help, count) in [
            ("edgeward_requests_shed", "Requests refused because something was short", pressure::all_shed()),
            ("edgeward_accept_failures", "Connections that could not be accepted", pressure::unaccepted()),
        ] {
            plain_counter(&mut out.counter(name, help)?, count)?;
        }
        let (panicked, restarted) = (panics::count(), task::restarts());
        plain_counter(&mut out.counter("edgeward_panics", "Panics, each a defect")?, panicked)?;
        let help = "Background tasks that were started again after a panic";
        plain_counter(&mut out.counter("edgeward_task_restarts", help)?, restarted)?;

        let mut family = out.counter("edgeward_config_reloads", "Reloads of the configuration, by result")?;
        counter(&mut family, &[("result", "success")], self.reloads_succeeded.get())?;
        counter(&mut family, &[("result", "failure")], self.reloads_failed.get())?;
        let succeeded = i64::from(!self.last_reload_failed.load(Relaxed));
        plain_gauge(
            out,
            "edgeward_config_last_reload_successful",
            "Whether the last reload succeeded: 1 or 0",
            succeeded,
        )?;
        plain_gauge(
            out,
            "edgeward_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was loaded",
            f64::from_bits(self.last_reload_success.load(Relaxed)),
        )?;

        if let Some(counts) = *self.services.lock() {
            let mut family =
                out.gauge("edgeward_services", "Services of the store, by what becomes of them")?;
            for (state, count) in ["served", "left_out", "disabled"].into_iter().zip(counts) {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                gauge(&mut family, &[("state", state)], count)?;
            }
        }

        let mut family = out.gauge(
            "edgeward_tls_certificate_not_after_timestamp_seconds",
            "End of validity of the certificates in force",
        )?;
        for (name, not_after) in self.certificates.lock().iter() {
            let labels = [("name", name.as_str())];
            ConstGauge::new(*not_after).encode(family.encode_family(&labels)?)?;
        }

        let mut family = out.family("edgeward_build", "What is running", MetricType::Info)?;
        family.encode_info(&[("version", env!("CARGO_PKG_VERSION")), ("revision", REVISION)])
    }
}

fn encode_process(process: Process, out: &mut Out<'_>) -> fmt::Result {
    if let Some(seconds) = process.cpu_seconds {
        let family = out.counter("process_cpu_seconds", "User and system CPU time spent")?;
        ConstCounter::new(seconds).encode(family)?;
    }
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory size", process.resident_bytes),
        ("process_virtual_memory_bytes", "Virtual memory size", process.virtual_bytes),
        ("process_threads", "Threads", process.threads),
        ("process_open_fds", "Open file descriptors", process.open_fds),
        ("process_max_fds", "Limit on open file descriptors", process.max_fds),
    ] {
        if let Some(value) = value {
            plain_gauge(out, name, help, i64::try_from(value).unwrap_or(i64::MAX))?;
        }
    }
    match process.start_time_seconds {
        Some(seconds) => plain_gauge(
            out,
            "process_start_time_seconds",
            "Start of the process since the Unix epoch",
            seconds,
        ),
        None => Ok(()),
    }
}

/// Begins metric families.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    /// The `_total` of the samples is added by the encoder.
    fn counter<'s>(&'s mut self, name: &'s str, help: &str) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.family(name, help, MetricType::Counter)
    }

    fn gauge<'s>(&'s mut self, name: &'s str, help: &str) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.family(name, help, MetricType::Gauge)
    }

    fn histogram<'s>(&'s mut self, name: &'s str, help: &str) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.family(name, help, MetricType::Histogram)
    }

    /// Units are in the names already; the encoder would append them again.
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }
}

fn backend<'a>(upstream: &'a UpstreamMetrics, server: &'a ServerMetrics) -> [(&'static str, &'a str); 2] {
    [("upstream", &upstream.name), ("backend", &server.address)]
}

fn counter<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&'static str, &str); N],
    value: u64,
) -> fmt::Result {
    ConstCounter::new(value).encode(family.encode_family(labels)?)
}

fn plain_counter(family: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    family.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn gauge<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&'static str, &str); N],
    value: i64,
) -> fmt::Result {
    ConstGauge::new(value).encode(family.encode_family(labels)?)
}

fn plain_gauge<T>(out: &mut Out<'_>, name: &str, help: &str, value: T) -> fmt::Result
where
    ConstGauge<T>: EncodeMetric,
{
    ConstGauge::new(value).encode(out.gauge(name, help)?)
}

fn histogram<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&'static str, &str); N],
    cell: &Histogram,
) -> fmt::Result {
    let reading = cell.read();
    let (sum, count, buckets) = (reading.sum, reading.count, &reading.buckets[..]);
    if labels.is_empty() {
        // A family of no labels would be written with empty braces, which no reader takes.
        return family.encode_histogram::<NoLabelSet>(sum, count, buckets, None);
    }
    family.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
}

/// Prometheus' text format 0.0.4 from OpenMetrics text: there a counter's family is called as its samples, an info is
/// a gauge, units and the end mark do not exist.
fn to_text_format(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len() + 1024);
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Written with the TYPE line that follows, which tells how the family is called here.
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, help)) = help.take() {
                text.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            }
            text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
