//! A gateway under load while its configuration is reloaded and its binary upgraded: what `load-tests/nothing-dropped`,
//! `load-tests/reload-cost` and `load-tests/reload-leaks` run, and, with smaller numbers, `tests/it`.
//!
//! ```text
//! clients (http1, http2, websocket) ─► Gateway: the real binary, several processes of it after an upgrade ─► Origin
//!        └─► Tally: what was asked, answered and lost, by kind      ▲
//!                                            Setting: one configuration after the other
//! ```
//! Clients behave as real ones do, and no better: what has been written and gets no answer is lost. There is no retry
//! but for what HTTP/2 says was not looked at.
#![allow(dead_code, reason = "each of the programs uses a part of it")]

mod clients;
mod gateway;
mod http1;
mod http2;
mod nothing_dropped;
mod origin;
mod reload_cost;
mod reload_leaks;
mod setting;
mod tally;
mod websocket;
mod wire;

pub use nothing_dropped::{NothingDropped, nothing_dropped};
pub use reload_cost::{ReloadCost, reload_cost};
pub use reload_leaks::{ReloadLeaks, reload_leaks};
