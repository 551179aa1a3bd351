//! The last resort against a request whose time is over: it is dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::connection::Exchange;
use crate::base::clock;

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Ends `work` at the exchange's cut-off, which may be set and moved while it runs: the last resort, for streams of
/// HTTP/2 connections that Pingora serves, whose reads carry no deadline.
pub(super) struct CutOff<F> {
    pub(super) work: F,
    pub(super) exchange: Arc<Exchange>,
    pub(super) timer: Option<(Instant, Sleep)>,
}

impl<F: Future + Unpin> Future for CutOff<F> {
    /// `None`: cut off.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = Pin::new(&mut self.work).poll(cx) {
            return Poll::Ready(Some(output));
        }
        let Some(at) = self.exchange.cut_off().map(|at| at + GRACE) else {
            self.timer = None;
            return Poll::Pending;
        };
        if self.timer.as_ref().is_none_or(|(set, _)| *set != at) {
            let left = at.saturating_duration_since(clock::now());
            self.timer = Some((at, Box::pin(tokio::time::sleep(left))));
        }
        match &mut self.timer {
            Some((_, sleep)) => sleep.as_mut().poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    }
}

/// The time that the gentler ways to end a request (an attempt's time-out, a real 504) have before it is dropped.
const GRACE: Duration = Duration::from_millis(500);
