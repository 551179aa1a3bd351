//! Long bodies that go from socket to socket in the kernel.

use std::task::{Context as Cx, Poll};

use pingora::Result;

use super::{Relay, ended_early, from_server, to_client};
use crate::base::pipe::{self, Pipe};
use crate::proxy::direct::room::PIECE_BYTES;
use crate::proxy::direct::side::Side;

impl<S: Side> Relay<'_, S> {
    /// What the next bytes of a body are to go through of which so much is `left`; `None` if they are to be copied: where
    /// one of the sockets cannot do otherwise, or the client does not take much at once.
    pub(super) fn pipe_for(&mut self, left: u64) -> Option<Pipe> {
        let holds = self.pipe.take();
        if holds.is_some() {
            return holds;
        }
        let is_worth_it = left >= PIECE_BYTES as u64
            && self.room.is_wide()
            && self.link.fills_pipes()
            && self.client.side.takes_pipes();
        if is_worth_it { Pipe::take() } else { None }
    }

    /// Has more of a body of which so much is `left` go to the client. What that does not take waits in the pipe. How much
    /// it took.
    pub(super) fn poll_piped(&mut self, mut pipe: Pipe, left: u64, cx: &mut Cx<'_>) -> Poll<Result<usize>> {
        if pipe.held() == 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            match self.link.poll_fill(&mut pipe, most, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ended_early())),
                // From now on there are none.
                Poll::Ready(Err(error)) if pipe::is_unsupported(&error) => return Poll::Ready(Ok(0)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(from_server(error))),
                Poll::Pending => {
                    pipe.give_back();
                    return self.poll_end(cx).map(Err);
                }
            }
        }
        let taken = self.client.side.poll_pipe(&mut pipe, cx);
        if pipe.held() > 0 {
            self.pipe = Some(pipe);
        } else {
            pipe.give_back();
        }
        if taken.is_pending()
            && let Some(exchange) = &self.ctx.exchange
        {
            // The server is not what is waited for.
            exchange.server_spoke();
        }
        taken.map_err(to_client)
    }
}
