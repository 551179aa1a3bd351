//! What `/readyz` is made of.

use std::sync::atomic::{AtomicBool, Ordering};

/// One thing readiness depends on or reports: whether it is well, its name, and a line about it.
pub type Check = Box<dyn Fn() -> (bool, String, String) + Send + Sync>;

/// The readiness of the process.
///
/// Ready means: the configuration is loaded and the listeners are bound, and the process is not draining. One dead
/// upstream is shown and does not make the whole gateway unready.
pub struct Health {
    checks: Vec<Check>,
    /// Lines shown below the checks: upstreams and their servers.
    details: Vec<Box<dyn Fn() -> String + Send + Sync>>,
    draining: AtomicBool,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("draining", &self.draining).finish_non_exhaustive()
    }
}

impl Health {
    /// Ready when every one of `checks` is.
    pub fn new(checks: Vec<Check>) -> Self {
        Self { checks, details: Vec::new(), draining: AtomicBool::new(false) }
    }

    /// Adds a text to the verbose report.
    pub fn detail(mut self, detail: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.details.push(Box::new(detail));
        self
    }

    /// Not ready from now on: load balancers in front stop sending.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the process is ready, and the verbose report in Kubernetes' style.
    pub fn report(&self) -> (bool, String) {
        let draining = self.draining.load(Ordering::Relaxed);
        let mut ready = !draining;
        let mut report = String::new();
        for check in &self.checks {
            let (well, name, line) = check();
            ready &= well;
            report.push_str(&format!("[{}] {name}: {line}\n", if well { '+' } else { '-' }));
        }
        if draining {
            report.push_str("[-] draining: no longer accepting\n");
        }
        for detail in &self.details {
            report.push_str(&detail());
        }
        report.push_str(if ready { "ready\n" } else { "not ready\n" });
        (ready, report)
    }
}
