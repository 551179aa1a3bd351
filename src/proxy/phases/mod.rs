//! One file a phase, in the order a request passes them; see [`super`] for the chart.

pub(super) mod accept;
pub(super) mod aggregate;
pub(super) mod amqp;
pub(super) mod belong;
pub(super) mod connect;
pub(super) mod dispatch;
pub(super) mod envelope;
pub(super) mod fail;
pub(super) mod finish;
pub(super) mod forward;
pub(super) mod guard;
pub(super) mod login;
pub(super) mod respond;
pub(super) mod route;
