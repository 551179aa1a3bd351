//! What a route asks of a request before it is dispatched: one folder a policy.

pub mod networks;
pub mod trusted;
