//! Every kind of client at once, through reloads and upgrades: nothing may be lost.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::clients::{self, Crowd, Run, Times, longest};
use super::gateway::{Gateway, Ran};
use super::http1::Http1;
use super::nginx::Nginx;
use super::setting::{Places, Setting};

/// What is done to the gateway.
#[derive(Debug, Clone, Copy)]
pub struct NothingDropped {
    pub reloads: u32,
    pub upgrades: u32,
    /// Time between two of them.
    pub every: Duration,
    /// How long everything goes on before the first and after the last one.
    pub around: Duration,
    pub times: Times,
    pub crowd: Crowd,
}

impl NothingDropped {
    /// What the issue asks for.
    pub fn whole() -> Self {
        Self {
            reloads: 100,
            upgrades: 20,
            every: Duration::from_millis(800),
            around: Duration::from_secs(5),
            times: Times {
                grace_period: Duration::from_secs(25),
                slow: Duration::from_secs(10),
                post_idle: Duration::from_secs(3),
            },
            crowd: Crowd {
                get: 8,
                idle_post: 200,
                fresh: 4,
                http2: 6,
                events: 10,
                uploads: 8,
                websockets: 24,
                http2_in_cleartext: true,
            },
        }
    }

    /// The same for a test: a debug build on a busy machine, and a quarter of a minute.
    pub fn short() -> Self {
        Self {
            reloads: 10,
            upgrades: 3,
            every: Duration::from_millis(300),
            around: Duration::from_millis(500),
            times: Times {
                grace_period: Duration::from_secs(7),
                slow: Duration::from_millis(2500),
                post_idle: Duration::from_secs(2),
            },
            crowd: Crowd {
                get: 4,
                idle_post: 40,
                fresh: 2,
                http2: 2,
                events: 4,
                uploads: 4,
                websockets: 8,
                http2_in_cleartext: true,
            },
        }
    }
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Reload,
    Upgrade,
}

/// Who is changed under load.
pub(super) trait Peer: Sized {
    /// Runs with `setting`, ready to be asked.
    async fn start(binary: &Path, places: &Places, setting: Setting) -> Result<Self, String>;

    /// One change, made as operators make it, until a new request meets it.
    async fn change(
        &mut self,
        run: &Run,
        places: &Places,
        setting: Setting,
        change: Change,
    ) -> Result<(), String>;

    /// What is wrong with it that no client has seen, and how many processes wait for their last clients.
    fn look(&self) -> (Vec<String>, usize);

    /// Ends it; what did not end well is returned.
    async fn quit(self) -> Result<Vec<String>, String>;
}

/// Does it to Edgeward, and returns what was counted.
///
/// # Errors
/// Something was lost, or the gateway did not do as it was told; with the counts so far.
pub async fn nothing_dropped(binary: &Path, plan: NothingDropped) -> Result<String, String> {
    under_load::<Gateway>(binary, plan).await
}

/// Does the same to nginx: reloads only, and HTTP/2 over TLS only.
///
/// # Errors
/// As [`nothing_dropped`].
pub async fn nginx_drops(binary: &Path, plan: NothingDropped) -> Result<String, String> {
    let crowd = Crowd { http2_in_cleartext: false, ..plan.crowd };
    under_load::<Nginx>(binary, NothingDropped { upgrades: 0, crowd, ..plan }).await
}

async fn under_load<P: Peer>(binary: &Path, plan: NothingDropped) -> Result<String, String> {
    let places = Places::new().await.map_err(|error| error.to_string())?;
    let mut setting = Setting { number: 0, extra: false, grace_period: plan.times.grace_period };
    let mut peer = P::start(binary, &places, setting).await?;
    let run = Arc::new(Run::new(places.target(), plan.times));
    let mut crowd = clients::start(&run, plan.crowd);
    tokio::time::sleep(plan.around).await;
    let mut times = [Vec::new(), Vec::new()];
    let mut done = Ok(());
    for (nth, change) in changes(plan.reloads, plan.upgrades).into_iter().enumerate() {
        run.tally.doing(format!("during change {} ({change:?})", nth + 1));
        setting.number += 1;
        setting.extra ^= change == Change::Upgrade;
        let began = Instant::now();
        done = peer.change(&run, &places, setting, change).await;
        if done.is_err() {
            break;
        }
        times[change as usize].push(began.elapsed());
        run.tally.doing(format!("after change {} ({change:?})", nth + 1));
        tokio::time::sleep(plan.every).await;
    }
    if done.is_ok() {
        tokio::time::sleep(plan.around).await;
    }

    run.stop();
    let ending = async { while crowd.join_next().await.is_some() {} };
    let all_ended = tokio::time::timeout(longest(&run) * 2, ending).await;
    let mut faults: Vec<String> = done.err().into_iter().collect();
    if all_ended.is_err() {
        faults.push("clients do not come to their end".to_owned());
    }
    faults.extend(run.tally.gaps());
    let (wrong, leaving) = peer.look();
    faults.extend(wrong);
    let took = run.tally.elapsed();
    match peer.quit().await {
        Ok(ended_badly) => faults.extend(ended_badly),
        Err(error) => faults.push(error),
    }
    report(&run, &times, took, leaving, &faults)
}

/// The upgrades, evenly among the reloads.
fn changes(reloads: u32, upgrades: u32) -> Vec<Change> {
    let all = reloads + upgrades;
    (0..all)
        .map(|nth| {
            let upgrade = (nth + 1) * upgrades / all > nth * upgrades / all;
            if upgrade { Change::Upgrade } else { Change::Reload }
        })
        .collect()
}

impl Peer for Gateway {
    async fn start(binary: &Path, places: &Places, setting: Setting) -> Result<Self, String> {
        let files = places.certificates.files();
        let mut gateway =
            Self::new(binary, &files).map_err(|error| format!("{}: {error}", binary.display()))?;
        gateway.configure(&setting.text(places)).map_err(|error| error.to_string())?;
        Self::start(&mut gateway).await?;
        Ok(gateway)
    }

    async fn change(
        &mut self,
        run: &Run,
        places: &Places,
        setting: Setting,
        change: Change,
    ) -> Result<(), String> {
        self.configure(&setting.text(places)).map_err(|error| error.to_string())?;
        // Both ways to tell it, by turns: by command two times out of three.
        let by_signal = setting.number.is_multiple_of(3);
        let before = self.pid();
        match change {
            Change::Reload if by_signal => self.signal(Signal::HUP)?,
            Change::Reload => succeeded("reload", &self.order("reload").await?)?,
            Change::Upgrade => {
                self.install().map_err(|error| error.to_string())?;
                run.tally.leaves();
                match by_signal {
                    true => self.signal(Signal::USR2)?,
                    false => succeeded("upgrade", &self.order("upgrade").await?)?,
                }
                self.succeeded().await?;
            }
        }
        let expected = setting.number.to_string();
        // A command has said that it is done: then it must be so at once.
        if change == Change::Reload && !by_signal {
            let found = generation(run).await?;
            if found != expected {
                return Err(format!("after `edgeward reload` the configuration is {found}, not {expected}"));
            }
        }
        let met = async |_: &Self| generation(run).await.as_deref() == Ok(&expected);
        self.until(&format!("configuration {expected} after {change:?}"), met).await?;
        if change == Change::Reload && self.status().await?["pid"] != before {
            return Err("a reload started another process".to_owned());
        }
        if setting.extra && tokio::net::TcpStream::connect(places.extra.address).await.is_err() {
            return Err("the listener that an upgrade was to open refuses connections".to_owned());
        }
        Ok(())
    }

    fn look(&self) -> (Vec<String>, usize) {
        let panicked = self.panicked().then(|| format!("something panicked in the gateway:\n{}", self.log()));
        (panicked.into_iter().collect(), self.leaving())
    }

    async fn quit(self) -> Result<Vec<String>, String> {
        Self::quit(self).await
    }
}

fn succeeded(word: &str, ran: &Ran) -> Result<(), String> {
    match ran.status {
        0 => Ok(()),
        status => Err(format!("`edgeward {word}` ended with {status}: {}", ran.output)),
    }
}

/// Which configuration a new request meets.
pub(super) async fn generation(run: &Run) -> Result<String, String> {
    let stream = run.target.connect(false, b"http/1.1").await.map_err(|error| format!("connect: {error}"))?;
    let answer = Http1::new(stream).request("GET", "/generation", b"").await?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

fn report(
    run: &Run,
    times: &[Vec<Duration>; 2],
    took: Duration,
    leaving: usize,
    faults: &[String],
) -> Result<String, String> {
    let [reloads, upgrades] = times;
    let mut text = format!(
        "{} reloads (median {}), {} upgrades (median {}), {:.0} s; {leaving} old processes at its end\n",
        reloads.len(),
        median(reloads),
        upgrades.len(),
        median(upgrades),
        took.as_secs_f64(),
    );
    text.push_str(&run.tally.report());
    for fault in faults {
        text.push_str(&format!("FAILED {fault}\n"));
    }
    let failures = run.tally.failures();
    if failures == 0 && faults.is_empty() {
        text.push_str("nothing was dropped\n");
        return Ok(text);
    }
    text.push_str(&format!("{failures} requests failed, {} other faults\n", faults.len()));
    Err(text)
}

fn median(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() / 2).map_or("-".to_owned(), |time| format!("{} ms", time.as_millis()))
}
