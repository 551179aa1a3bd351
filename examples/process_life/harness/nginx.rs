//! nginx in the gateway's place, with the same routes: what the same clients lose there.

use std::fmt::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::clients::Run;
use super::nothing_dropped::{Change, Peer, generation};
use super::setting::{Places, Setting};
use super::wire::PATIENCE;

/// A running nginx: its master and its workers. Gone when dropped.
pub(super) struct Nginx {
    master: Child,
    directory: TempDir,
}

impl Nginx {
    fn signal(&self, signal: Signal) -> Result<(), String> {
        kill_process(Pid::from_child(&self.master), signal).map_err(|error| error.to_string())
    }
}

impl Peer for Nginx {
    async fn start(binary: &Path, places: &Places, setting: Setting) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text);
        for (name, text) in places.certificates.files() {
            write(name, text).map_err(|error| error.to_string())?;
        }
        write("nginx.conf", &text(places, setting)).map_err(|error| error.to_string())?;
        let mut command = Command::new(binary);
        command.arg("-p").arg(directory.path()).args([
            "-e",
            "stderr.log",
            "-c",
            "nginx.conf",
            "-g",
            "daemon off;",
        ]);
        command.current_dir(directory.path()).stdin(Stdio::null());
        let master = command.spawn().map_err(|error| format!("{}: {error}", binary.display()))?;
        let nginx = Self { master, directory };
        let began = Instant::now();
        while tokio::net::TcpStream::connect(places.plain.address).await.is_err() {
            if began.elapsed() > PATIENCE {
                return Err("nginx does not listen".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(nginx)
    }

    async fn change(
        &mut self,
        run: &Run,
        places: &Places,
        setting: Setting,
        _change: Change,
    ) -> Result<(), String> {
        let file = self.directory.path().join("nginx.conf");
        std::fs::write(file, text(places, setting)).map_err(|error| error.to_string())?;
        // Its workers are exchanged: what they hold ends with `worker_shutdown_timeout`.
        run.tally.leaves();
        self.signal(Signal::HUP)?;
        let began = Instant::now();
        while generation(run).await.as_deref() != Ok(&setting.number.to_string()) {
            if began.elapsed() > PATIENCE {
                return Err(format!("configuration {} is not there after {PATIENCE:?}", setting.number));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn look(&self) -> (Vec<String>, usize) {
        (Vec::new(), 0)
    }

    async fn quit(mut self) -> Result<Vec<String>, String> {
        self.signal(Signal::TERM)?;
        let began = Instant::now();
        while self.master.try_wait().map_err(|error| error.to_string())?.is_none() {
            if began.elapsed() > PATIENCE {
                return Err("nginx does not end".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Vec::new())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // TERM is its fast end; the master takes its workers along.
        let _gone = self.signal(Signal::TERM);
        let _ended = self.master.wait();
    }
}

/// The configuration that says what [`Setting::text`] says.
fn text(places: &Places, setting: Setting) -> String {
    let number = setting.number;
    let pair = if number.is_multiple_of(2) { "even" } else { "odd" };
    let log = if number % 4 == 2 { "off" } else { "access.log" };
    let (first, second) = (places.first.address, places.second.address);
    let servers = match number % 3 {
        0 => format!("server {first};"),
        1 => format!("server {first}; server {second};"),
        _ => format!("server {second} weight=3; server {first};"),
    };
    let mut text = format!(
        "worker_processes auto;\npid nginx.pid;\nworker_shutdown_timeout {}s;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n access_log {log};\n client_max_body_size {}m;\n\
         client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n\
         map $http_upgrade $connection_upgrade {{ default upgrade; \"\" \"\"; }}\n\
         upstream main {{ {servers} keepalive 256; }}\n\
         server {{\n listen {}; listen {} ssl http2;\n\
         ssl_certificate {pair}.pem; ssl_certificate_key {pair}-key.pem;\n\
         location = /generation {{ return 200 \"{number}\"; }}\n\
         location / {{ proxy_pass http://main; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;\n\
         proxy_set_header Connection $connection_upgrade; proxy_buffering off; proxy_request_buffering off; }}\n",
        setting.grace_period.as_secs(),
        10 + number % 5,
        places.plain.address,
        places.secure.address,
    );
    for index in 0..(number * 7) % 40 {
        writeln!(text, "location /extra/{index}/ {{ return 404; }}").unwrap();
    }
    text.push_str("}\n}\n");
    text
}
