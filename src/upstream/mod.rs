//! Pools of servers: selection, health, breaker, retry, discovery.
