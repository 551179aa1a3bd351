//! Microseconds that the JSON of an aggregate takes by itself: answers like the one in a file are read, put under a group
//! each, and written. For `load-tests/aggregate-cost`, which says what share of all work that is.
//!
//! `json_cost FILE LEGS`
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a tool for measurements"
)]

use std::hint::black_box;
use std::time::Instant;

use edgeward::subrequest::json::{Json, Object, parse};

const ROUNDS: u32 = 50_000;

fn main() {
    let mut args = std::env::args().skip(1);
    let answer = std::fs::read(args.next().unwrap()).unwrap();
    let legs: usize = args.next().unwrap().parse().unwrap();
    let once = || {
        let mut members = Object::default();
        for leg in 0..legs {
            members.insert(format!("leg{leg}").into(), parse(black_box(&answer), 64).unwrap());
        }
        black_box(Json::Object(members).to_vec());
    };
    (0..ROUNDS).for_each(|_| once());
    let began = Instant::now();
    (0..ROUNDS).for_each(|_| once());
    println!("{:.2}", began.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
}
