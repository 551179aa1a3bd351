//! What the gateway depends on: keys fetched, logins, the cluster, brokers and the log bus.

use std::fmt;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::gauge::ConstGauge;

use super::super::{BrokerMetrics, Metrics, SessionStep};
use super::{Out, counter, histogram, plain_gauge};

/// A series of each broker: its name, its help, and how it is read.
type BrokerSeries<T> = (&'static str, &'static str, fn(&BrokerMetrics) -> T);

impl Metrics {
    pub(super) fn encode_key_sets(&self, out: &mut Out<'_>) -> fmt::Result {
        let key_sets = self.key_sets.all();
        let mut family = out
            .counter("edgeward_jwks_refresh", "Key sets of identity providers fetched, by what came of it")?;
        for set in &key_sets {
            counter(&mut family, &[("issuer", &set.name), ("result", "success")], set.succeeded.get())?;
            set.failed.each(|reason, count| {
                counter(&mut family, &[("issuer", &set.name), ("result", reason)], count)
            })?;
        }
        let name = "edgeward_jwks_last_success_timestamp_seconds";
        let mut family =
            out.gauge(name, "When the key set of an identity provider was fetched last; 0 = never")?;
        for set in &key_sets {
            let last = ConstGauge::new(set.last_success());
            last.encode(family.encode_family(&[("issuer", &*set.name)])?)?;
        }
        Ok(())
    }

    pub(super) fn encode_logins(&self, out: &mut Out<'_>) -> fmt::Result {
        let logins = &self.logins;
        let mut family = out
            .counter("edgeward_logins", "Requests for sessions, by what was asked for and what came of it")?;
        for (step, outcomes) in SessionStep::ALL.iter().zip(&logins.outcomes) {
            outcomes.each(|outcome, count| {
                counter(&mut family, &[("step", step.label()), ("outcome", outcome)], count)
            })?;
        }
        let mut family =
            out.histogram("edgeward_password_check_duration_seconds", "Time that checking a password took")?;
        histogram(&mut family, &[], &logins.password)?;
        plain_gauge(
            out,
            "edgeward_passwords_waiting",
            "Passwords that wait for a thread now",
            logins.waiting.get(),
        )
    }

    pub(super) fn encode_cluster(&self, out: &mut Out<'_>) -> fmt::Result {
        let Some(cluster) = self.cluster.get() else { return Ok(()) };
        let up = i64::from(cluster.is_up());
        plain_gauge(out, "edgeward_cluster_up", "Whether Redis answers: 1 or 0", up)?;
        let mut family = out.histogram(
            "edgeward_cluster_call_duration_seconds",
            "Time that calls to Redis took which were answered",
        )?;
        histogram(&mut family, &[], &cluster.calls)?;
        let mut family = out.counter("edgeward_cluster_call_failures", "Calls to Redis without an answer")?;
        cluster.failures.each(|reason, count| counter(&mut family, &[("reason", reason)], count))?;
        let mut family = out.counter(
            "edgeward_cluster_permits",
            "Permits of limits that are counted in batches, by what became of them",
        )?;
        cluster.permits.each(|event, count| counter(&mut family, &[("event", event)], count))?;
        let mut family = out
            .counter("edgeward_cluster_revocations", "Revocations told to and heard from other instances")?;
        for (event, cell) in [
            ("sent", &cluster.sent),
            ("heard", &cluster.heard),
            ("unreadable", &cluster.unreadable),
            ("lost", &cluster.lost),
        ] {
            counter(&mut family, &[("event", event)], cell.get())?;
        }
        Ok(())
    }

    pub(super) fn encode_brokers(&self, out: &mut Out<'_>) -> fmt::Result {
        let brokers = self.brokers.all();
        let gauges: [BrokerSeries<i64>; 2] = [
            ("edgeward_broker_up", "Whether the broker is connected: 1 or 0", |of| of.is_up().into()),
            ("edgeward_broker_pending", "Calls that wait for the broker now", |of| of.pending.get()),
        ];
        for (name, help, read) in gauges {
            let mut family = out.gauge(name, help)?;
            for broker in &brokers {
                let now = ConstGauge::new(read(broker));
                now.encode(family.encode_family(&[("broker", &*broker.name)])?)?;
            }
        }
        let counters: [BrokerSeries<u64>; 3] = [
            ("edgeward_broker_published", "Messages given to the broker", |of| of.published.get()),
            ("edgeward_broker_confirmed", "Messages that the broker has taken", |of| of.confirmed.get()),
            ("edgeward_broker_returned", "Messages that no queue takes", |of| of.returned.get()),
        ];
        for (name, help, read) in counters {
            let mut family = out.counter(name, help)?;
            for broker in &brokers {
                counter(&mut family, &[("broker", &broker.name)], read(broker))?;
            }
        }
        let mut family = out.counter(
            "edgeward_broker_failures",
            "Calls without an answer and messages not taken, by reason",
        )?;
        for broker in &brokers {
            broker.failures.each(|reason, count| {
                counter(&mut family, &[("broker", &broker.name), ("reason", reason)], count)
            })?;
        }
        let mut family = out.counter("edgeward_broker_replies", "Replies, by what became of them")?;
        for broker in &brokers {
            broker.replies.each(|event, count| {
                counter(&mut family, &[("broker", &broker.name), ("event", event)], count)
            })?;
        }
        Ok(())
    }

    pub(super) fn encode_bus(&self, out: &mut Out<'_>) -> fmt::Result {
        let Some(bus) = self.bus.get() else { return Ok(()) };
        for (name, help, words) in [
            ("edgeward_log_bus_messages", "Messages that the broker has confirmed", &bus.published),
            ("edgeward_log_bus_dropped", "Messages dropped because the buffer was full", &bus.dropped),
            (
                "edgeward_log_bus_lost",
                "Messages given up because the process ended or the bus was taken away",
                &bus.lost,
            ),
        ] {
            let mut family = out.counter(name, help)?;
            words.each(|kind, count| counter(&mut family, &[("kind", kind)], count))?;
        }
        let waiting = i64::try_from(bus.bytes_waiting()).unwrap_or(i64::MAX);
        plain_gauge(out, "edgeward_log_bus_waiting_bytes", "Bytes of messages not confirmed yet", waiting)
    }
}
