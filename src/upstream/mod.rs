//! Pools of servers: selection, health, breaker, retry, discovery.

pub mod breaker;
pub mod budget;
pub mod ejection;
pub mod health;
pub mod retry;
pub mod select;
