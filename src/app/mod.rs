//! Composition root and process life: server, signals, drain, background tasks.
