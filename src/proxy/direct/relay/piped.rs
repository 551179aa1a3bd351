//! Long bodies that go from socket to socket in the kernel.

use std::task::{Context as Cx, Poll};

use pingora::Result;

use super::{Relay, ended_early, from_server, to_client};
use crate::base::pipe::{self, Pipe};
use crate::proxy::direct::room::{PIECE_BYTES, Room};
use crate::proxy::direct::side::Side;

impl<S: Side> Relay<'_, S> {
    /// What the next bytes of a body are to go through of which so much is `left`; `None` if they are to be copied: where
    /// one of the sockets cannot do otherwise, or the client does not take much at once.
    pub(super) fn pipe_for(&mut self, left: u64) -> Option<Pipe> {
        if self.pipe.is_some() {
            return self.pipe.take();
        }
        // While there are enough a client need not have shown first that it takes much. What is left at the end of a body
        // that went so goes so, too.
        let least = if self.is_piped { S::ROOM_AT_FIRST } else { PIECE_BYTES };
        let is_worth_it = left >= least as u64
            && (self.room.is_wide() || !pipe::are_scarce())
            && self.client.side.takes_pipes();
        Pipe::take_if(is_worth_it && self.link.tcp().is_some())
    }

    /// Has more of a body of which so much is `left` go to the client. What that does not take waits in the pipe. How much
    /// it took.
    pub(super) fn poll_piped(&mut self, mut pipe: Pipe, left: u64, cx: &mut Cx<'_>) -> Poll<Result<usize>> {
        if pipe.held() == 0
            && let Some(socket) = self.link.tcp()
        {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            match pipe.poll_fill(socket, most, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ended_early())),
                // It is copied then.
                Poll::Ready(Err(error)) if pipe::is_unsupported(&error) => return Poll::Ready(Ok(0)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(from_server(error))),
                Poll::Pending => {
                    pipe.give_back();
                    return self.poll_end(cx).map(Err);
                }
            }
        }
        self.is_piped = true;
        let taken = self.client.side.poll_pipe(&mut pipe, cx);
        if pipe.held() > 0 {
            self.pipe = Some(pipe);
        } else {
            pipe.give_back();
        }
        if taken.is_pending() {
            if pipe::are_scarce() {
                // When it has taken this it has to show again that it takes much.
                self.room = Room::of(S::ROOM_AT_FIRST);
            }
            self.wait_for_client();
        }
        taken.map_err(to_client)
    }
}
