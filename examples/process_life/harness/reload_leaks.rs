//! Reloads leave nothing behind: no memory, no descriptor, no thread, no task, and nobody who still asks a server that
//! is named no more.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::gateway::{Gateway, Held};
use super::http1::Http1;
use super::setting::Places;
use super::wire::PATIENCE;

/// Health checks of the servers that come and go.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// How long idle upstream connections are kept: they are to be gone before descriptors are counted.
const IDLE: Duration = Duration::from_millis(500);
/// Looks at the resident memory of which the least counts: pages are given back some time after their last use.
const LOOKS: usize = 20;
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Upstreams, routes and names that come and go; each configuration has one set of them.
const SETS: u32 = 7;

/// What is done, and how much may be left.
#[derive(Debug, Clone, Copy)]
pub struct ReloadLeaks {
    /// Reloads before the first look: caches are filled and pools grown by then.
    pub warm_up: u32,
    pub reloads: u32,
    /// Resident memory may have grown by this share, in percent.
    pub growth_percent: u64,
}

/// Does it, and returns what was there before and after.
///
/// # Errors
/// More than that was left, or a reload failed.
pub async fn reload_leaks(binary: &Path, plan: ReloadLeaks) -> Result<String, String> {
    let places = Places::new().await.map_err(|error| error.to_string())?;
    let files = places.certificates.files();
    let mut gateway = Gateway::new(binary, &files).map_err(|error| error.to_string())?;
    configure(&gateway, &places, 0)?;
    gateway.start().await?;
    let mut number = 0;
    reload(&gateway, &places, &mut number, plan.warm_up).await?;
    let before = settled(&gateway, &places, None).await?;
    let began = Instant::now();
    reload(&gateway, &places, &mut number, plan.reloads).await?;
    let took = began.elapsed();
    let after = settled(&gateway, &places, Some(before)).await?;

    let mut text = String::new();
    let growth = (after.resident_bytes as f64 / before.resident_bytes as f64 - 1.0) * 100.0;
    let each = took.as_secs_f64() * 1000.0 / f64::from(plan.reloads);
    writeln!(text, "{} reloads after {} to warm up, {each:.1} ms each", plan.reloads, plan.warm_up).unwrap();
    writeln!(text, "{:<16} {:>10} {:>10}", "", "before", "after").unwrap();
    let kib = |held: Held| held.resident_bytes / 1024;
    writeln!(text, "{:<16} {:>10} {:>10}   {growth:+.2} %", "resident KiB", kib(before), kib(after)).unwrap();
    writeln!(text, "{:<16} {:>10} {:>10}", "descriptors", before.descriptors, after.descriptors).unwrap();
    writeln!(text, "{:<16} {:>10} {:>10}", "threads", before.threads, after.threads).unwrap();
    let mut faults = Vec::new();
    if after.resident_bytes * 100 > before.resident_bytes * (100 + plan.growth_percent) {
        faults.push(format!("memory grew by more than {} %", plan.growth_percent));
    }
    if after.descriptors > before.descriptors {
        faults.push("descriptors were left behind".to_owned());
    }
    if after.threads > before.threads {
        faults.push("threads were left behind".to_owned());
    }
    faults.extend(asks_nobody(&gateway, &places).await?);
    if gateway.panicked() {
        faults.push(format!("something panicked in the gateway:\n{}", gateway.log()));
    }
    faults.extend(gateway.quit().await?);
    for fault in &faults {
        writeln!(text, "FAILED {fault}").unwrap();
    }
    if faults.is_empty() { Ok(text) } else { Err(text) }
}

fn configure(gateway: &Gateway, places: &Places, number: u32) -> Result<(), String> {
    gateway.configure(&text(places, number, true)).map_err(|error| error.to_string())
}

async fn reload(gateway: &Gateway, places: &Places, number: &mut u32, count: u32) -> Result<(), String> {
    for _ in 0..count {
        *number += 1;
        configure(gateway, places, *number)?;
        let ran = gateway.order("reload").await?;
        if ran.status != 0 {
            return Err(format!("reload {number} ended with {}: {}", ran.status, ran.output));
        }
        // What a reload swaps in is used, so that there is something to let go of.
        use_it(places, *number).await.map_err(|error| format!("after reload {number}: {error}"))?;
    }
    Ok(())
}

/// A request to each kind of upstream, over both listeners.
async fn use_it(places: &Places, number: u32) -> Result<(), String> {
    let set = number % SETS;
    for (tls, path) in [(false, format!("/checked-{set}/a")), (true, format!("/named-{set}/b"))] {
        let stream = places.target().connect(tls, b"http/1.1").await.map_err(|error| error.to_string())?;
        let answer = Http1::new(stream).request("GET", &path, b"").await?;
        // A name that is new may not have been looked up yet.
        if answer.status != 200 && !(answer.status == 503 && path.starts_with("/named")) {
            return Err(format!("{path}: {}, {}", answer.status, String::from_utf8_lossy(&answer.body)));
        }
    }
    Ok(())
}

/// What is held once nothing is under way; no more descriptors than `base`, if they ever get that few.
async fn settled(gateway: &Gateway, places: &Places, base: Option<Held>) -> Result<Held, String> {
    let began = Instant::now();
    // Idle upstream connections end first, and with them the last use of what was swapped out.
    while places.first.open() > 0 && began.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let mut least = gateway.held().map_err(|error| error.to_string())?;
    for look in 0.. {
        let held = gateway.held().map_err(|error| error.to_string())?;
        least.resident_bytes = least.resident_bytes.min(held.resident_bytes);
        least.descriptors = least.descriptors.min(held.descriptors);
        least.threads = least.threads.min(held.threads);
        let down =
            base.is_none_or(|base| least.descriptors <= base.descriptors && least.threads <= base.threads);
        if look >= LOOKS && (down || began.elapsed() > PATIENCE) {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(least)
}

/// Takes away all that is checked, and counts who is asked all the same.
async fn asks_nobody(gateway: &Gateway, places: &Places) -> Result<Option<String>, String> {
    let asked = places.second.connections();
    if asked == 0 {
        return Ok(Some("no server was ever checked".to_owned()));
    }
    gateway.configure(&text(places, 0, false)).map_err(|error| error.to_string())?;
    let ran = gateway.order("reload").await?;
    if ran.status != 0 {
        return Err(format!("the last reload ended with {}: {}", ran.status, ran.output));
    }
    let gone = async |_: &Gateway| places.second.open() == 0;
    gateway.until("the last connection to a server that is named no more to be closed", gone).await?;
    let asked = places.second.connections();
    tokio::time::sleep(CHECK_EVERY * 20).await;
    let more = places.second.connections() - asked;
    Ok((more > 0).then(|| format!("a server that is named no more was asked {more} times")))
}

/// A configuration with one of the sets of what comes and goes.
fn text(places: &Places, number: u32, with_set: bool) -> String {
    let (plain, secure, admin) = (places.plain.address, places.secure.address, places.admin.address);
    let (first, second) = (places.first.address, places.second.address);
    let (set, pair) = (number % SETS, if number.is_multiple_of(2) { "even" } else { "odd" });
    let (check, idle) = (CHECK_EVERY.as_millis(), IDLE.as_millis());
    let mut text = format!(
        "[server]\ncontrol_socket = \"run/control.sock\"\n\
         [admin]\naddress = \"{admin}\"\n\
         [log.access]\noutput = \"access-{}.log\"\n\
         [[listeners]]\nname = \"plain\"\naddress = \"{plain}\"\n\
         [[listeners]]\nname = \"secure\"\naddress = \"{secure}\"\n\
         [[listeners.certificates]]\ncert = \"{pair}.pem\"\nkey = \"{pair}-key.pem\"\n\
         [upstream_defaults]\ntimeouts = {{ idle = \"{idle}ms\" }}\n\
         [upstreams.kept]\nservers = [\"{first}\"]\n\
         [[routes]]\npath = \"/kept/*\"\nupstream = \"kept\"\n",
        number % 3,
    );
    if with_set {
        write!(
            text,
            "[upstreams.checked-{set}]\nservers = [\"{second}\", \"{first}\"]\nbalance = {{ hash = \"ip\" }}\n\
             [upstreams.checked-{set}.health_check]\npath = \"/get/health\"\ninterval = \"{check}ms\"\n\
             [upstreams.checked-{set}.circuit_breaker]\nfailures = 3\n\
             [upstreams.named-{set}]\nservers = [\"localhost:{}\"]\n\
             [upstreams.named-{set}.health_check]\ninterval = \"{check}ms\"\n\
             [[routes]]\npath = \"/checked-{set}/*\"\nupstream = \"checked-{set}\"\n\
             [[routes]]\npath = \"/named-{set}/*\"\nupstream = \"named-{set}\"\n",
            second.port(),
        )
        .unwrap();
        for index in 0..20 {
            writeln!(text, "[[routes]]\npath = \"/set-{set}/{index}/{{id}}\"\nupstream = \"kept\"").unwrap();
        }
    }
    text
}
