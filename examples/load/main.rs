//! What `load-tests/run` needs beside wrk and h2load: services to put behind a proxy, clients that make a connection for
//! each request, shake hands, move large bodies or do nothing, and tokens.
//!
//! ```text
//! load origin ADDRESS...                                    one thread, one service an address; says `ready`
//! load connections ADDRESS CLIENTS SECONDS                  a new connection for each request
//! load handshakes ADDRESS CLIENTS SECONDS full|resumed      likewise, over TLS 1.3
//! load requests ADDRESS CLIENTS COUNT FILE                 so many in all over kept connections: a path, and a token, a line
//! load transfer ADDRESS CLIENTS SECONDS get|post BYTES      bodies of so many bytes over kept connections
//! load hold ADDRESS COUNT [tls]                             opens connections, says `held`; counts them when stdin ends
//! load tokens KEY COUNT ISSUER AUDIENCE                     tokens (RS256), and some that must not pass
//! ```
//! Clients end with one line of JSON: times in microseconds, and whatever was not answered as it has to be as `errors`.

mod client;
mod hold;
mod origin;
mod tally;
mod tls;
mod tokens;

use std::io;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> io::Result<()> {
    // One thread: it shares its core with what else makes the load.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}

async fn run() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = |text: &str| number(text).map(Duration::from_secs);
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["origin", addresses @ ..] if !addresses.is_empty() => origin::run(addresses).await,
        ["connections", address, clients, time] => {
            client::each_its_own(address, number(clients)?, seconds(time)?, None).await
        }
        ["handshakes", address, clients, time, kind @ ("full" | "resumed")] => {
            let kind = if *kind == "full" { tls::Kind::Full } else { tls::Kind::Resumed };
            client::each_its_own(address, number(clients)?, seconds(time)?, Some(kind)).await
        }
        ["requests", address, clients, count, file] => {
            client::so_many(address, number(clients)?, number(count)?, file).await
        }
        ["transfer", address, clients, time, way @ ("get" | "post"), bytes] => {
            client::transfer(address, number(clients)?, seconds(time)?, *way == "post", number(bytes)?).await
        }
        ["hold", address, count] => hold::run(address, number(count)?, false).await,
        ["hold", address, count, "tls"] => hold::run(address, number(count)?, true).await,
        ["tokens", key, count, issuer, audience] => tokens::write(key, number(count)?, issuer, audience),
        _ => Err(io::Error::other("usage: see the head of examples/load/main.rs")),
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_not| io::Error::other(format!("{text:?} is not a number")))
}

/// A line on standard output, at once.
#[expect(clippy::print_stdout, reason = "what it is for")]
fn say(line: &str) {
    println!("{line}");
}
