//! How long a reload of many routes takes, and what requests meanwhile notice of it.

use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::gateway::Gateway;
use super::http1::Http1;
use super::setting::Places;
use super::wire::{PATIENCE, Target};

/// Interval at which it is looked whether the new configuration is there.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What is done, and what is allowed.
#[derive(Debug, Clone, Copy)]
pub struct ReloadCost {
    pub routes: u32,
    pub rounds: u32,
    /// Connections, and the time between two requests of each: the load is the same whatever the gateway does.
    pub connections: u32,
    pub every: Duration,
    /// How long requests are timed before each reload.
    pub before: Duration,
    /// Longest that a reload may take (median), and how much its p99 may be above that before (median of both).
    pub time_max: Duration,
    pub ratio_max: f64,
}

/// A request: when it was due, and how long after that its answer was there.
type Sample = (Instant, Duration);

/// One round, all in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Round {
    reload: f64,
    command: f64,
    before: [f64; 2],
    during: [f64; 2],
    samples: usize,
}

/// Does it, and returns a table of the rounds and their medians.
///
/// # Errors
/// It took too long, or requests did; or something failed.
pub async fn reload_cost(binary: &Path, plan: ReloadCost) -> Result<String, String> {
    let places = Places::new().await.map_err(|error| error.to_string())?;
    let files = places.certificates.files();
    let mut gateway = Gateway::new(binary, &files).map_err(|error| error.to_string())?;
    configure(&gateway, &places, plan.routes, 0)?;
    gateway.start().await?;
    let target = places.target();
    let (stop, samples) = (watch::Sender::new(false), Arc::new(Mutex::new(Vec::<Sample>::new())));
    let faults = Arc::new(Mutex::new(Vec::<String>::new()));
    let mut clients = JoinSet::new();
    for index in 0..plan.connections {
        let (target, stop, samples, faults) =
            (target.clone(), stop.subscribe(), samples.clone(), faults.clone());
        clients.spawn(async move {
            if let Err(error) = client(target, plan, index, stop, &samples).await {
                faults.lock().unwrap().push(error);
            }
        });
    }
    tokio::time::sleep(plan.before).await;
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        samples.lock().unwrap().clear();
        tokio::time::sleep(plan.before).await;
        configure(&gateway, &places, plan.routes, 2 * number)?;
        let began = Instant::now();
        gateway.signal(Signal::HUP)?;
        met(&target, 2 * number).await?;
        let ended = Instant::now();
        // Requests that were due meanwhile may still be on their way.
        tokio::time::sleep(plan.before / 4).await;
        let all = std::mem::take(&mut *samples.lock().unwrap());
        // The same by command, which also says what changed: timed as a whole, its own start included.
        configure(&gateway, &places, plan.routes, 2 * number + 1)?;
        let command_began = Instant::now();
        let ran = gateway.order("reload").await?;
        let command = command_began.elapsed();
        if ran.status != 0 {
            return Err(format!("`edgeward reload` ended with {}: {}", ran.status, ran.output));
        }
        met(&target, 2 * number + 1).await?;
        let (during, before): (Vec<_>, Vec<_>) = all.iter().partition(|(due, took)| *due + *took >= began);
        let during: Vec<_> = during.into_iter().filter(|(due, _)| *due <= ended).collect();
        rounds.push(Round {
            reload: ms(ended - began),
            command: ms(command),
            before: quantiles(&before),
            during: quantiles(&during),
            samples: during.len(),
        });
    }
    stop.send_replace(true);
    while clients.join_next().await.is_some() {}
    let faults = std::mem::take(&mut *faults.lock().unwrap());
    if let Some(fault) = faults.first() {
        return Err(format!("{} of {} clients failed: {fault}", faults.len(), plan.connections));
    }
    if let Some(ended_badly) = gateway.quit().await?.first() {
        return Err(ended_badly.clone());
    }
    report(plan, &rounds)
}

/// Requests at fixed times; one that is late does not move the next, and is timed from when it was due.
async fn client(
    target: Target,
    plan: ReloadCost,
    index: u32,
    stop: watch::Receiver<bool>,
    samples: &Mutex<Vec<Sample>>,
) -> Result<(), String> {
    let stream = target.connect(false, b"http/1.1").await.map_err(|error| error.to_string())?;
    let mut connection = Http1::new(stream);
    let mut due = Instant::now() + plan.every * index / plan.connections;
    while !*stop.borrow() {
        tokio::time::sleep_until(due.into()).await;
        let path = format!("/service/{}/items/7", fastrand::u32(0..plan.routes));
        let answer = connection.request("GET", &path, b"").await?;
        if answer.status != 200 {
            return Err(format!("{path}: {}", answer.status));
        }
        samples.lock().unwrap().push((due, due.elapsed()));
        if answer.last {
            return Err("the gateway closes a connection".to_owned());
        }
        due += plan.every;
    }
    Ok(())
}

/// Waits until a new request meets that configuration.
async fn met(target: &Target, number: u32) -> Result<(), String> {
    let began = Instant::now();
    let stream = target.connect(false, b"http/1.1").await.map_err(|error| error.to_string())?;
    let mut connection = Http1::new(stream);
    loop {
        let answer = connection.request("GET", "/generation", b"").await?;
        if answer.body == number.to_string().as_bytes() {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("configuration {number} is not there after {PATIENCE:?}"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Every configuration alters each hundredth route, and has a few of its own.
fn configure(gateway: &Gateway, places: &Places, routes: u32, number: u32) -> Result<(), String> {
    let mut text = format!(
        "[server]\ncontrol_socket = \"run/control.sock\"\n\
         [log.access]\noutput = \"access.log\"\n\
         [[listeners]]\nname = \"plain\"\naddress = \"{}\"\n\
         [upstreams.main]\nservers = [\"{}\"]\n\
         [[routes]]\npath = \"/generation\"\nrespond = {{ status = 200, text = \"{number}\" }}\n",
        places.plain.address, places.first.address,
    );
    for index in 0..routes {
        let timeout = if index % 100 == number % 100 { 20 } else { 30 };
        writeln!(
            text,
            "[[routes]]\npath = \"/service/{index}/items/{{id}}\"\nupstream = \"main\"\ntimeout = \"{timeout}s\"\n\
             rewrite = {{ path = \"/items/{{path.id}}\" }}"
        )
        .unwrap();
    }
    for index in 0..number % 10 {
        writeln!(text, "[[routes]]\npath = \"/more/{number}/{index}\"\nupstream = \"main\"").unwrap();
    }
    gateway.configure(&text).map_err(|error| error.to_string())
}

fn report(plan: ReloadCost, rounds: &[Round]) -> Result<String, String> {
    let mut text = format!(
        "{} routes, {} connections, {:.0} requests a second; milliseconds\n{:<8} {:>8} {:>9} {:>11} {:>11} {:>11} {:>11} {:>8}\n",
        plan.routes,
        plan.connections,
        f64::from(plan.connections) / plan.every.as_secs_f64(),
        "round",
        "reload",
        "command",
        "p50 before",
        "p50 during",
        "p99 before",
        "p99 during",
        "samples",
    );
    let mut line = |name: &str, round: &Round| {
        let ([b50, b99], [d50, d99]) = (round.before, round.during);
        writeln!(
            text,
            "{name:<8} {:>8.0} {:>9.0} {b50:>11.2} {d50:>11.2} {b99:>11.2} {d99:>11.2} {:>8}",
            round.reload, round.command, round.samples
        )
        .unwrap();
    };
    for (number, round) in rounds.iter().enumerate() {
        line(&(number + 1).to_string(), round);
    }
    let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
    let middle = Round {
        reload: of(|round| round.reload),
        command: of(|round| round.command),
        before: [of(|round| round.before[0]), of(|round| round.before[1])],
        during: [of(|round| round.during[0]), of(|round| round.during[1])],
        samples: of(|round| round.samples as f64) as usize,
    };
    line("median", &middle);
    let ratio = middle.during[1] / middle.before[1];
    writeln!(text, "p99 during a reload is {ratio:.2} times that before").unwrap();
    if middle.reload > ms(plan.time_max) {
        writeln!(text, "FAILED a reload takes longer than {:?}", plan.time_max).unwrap();
        return Err(text);
    }
    if ratio > plan.ratio_max {
        writeln!(text, "FAILED that is more than {} times", plan.ratio_max).unwrap();
        return Err(text);
    }
    Ok(text)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Median and 99th percentile.
fn quantiles(samples: &[Sample]) -> [f64; 2] {
    let mut times: Vec<Duration> = samples.iter().map(|(_, took)| *took).collect();
    times.sort();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share).ceil() as usize).saturating_sub(1);
        times.get(index).map_or(f64::NAN, |time| ms(*time))
    };
    [at(0.5), at(0.99)]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
