//! What the route asks of the request before anything is done for it, in the fixed order of [`crate::policy::Chain`].

use pingora_proxy::Session;

use crate::base::problem::Problem;
use crate::policy::{RequestFacts, Verdict};
use crate::proxy::Context;

pub(in crate::proxy) fn check(session: &Session, ctx: &Context) -> Result<(), Problem> {
    let facts = RequestFacts { client: ctx.client.address, content_length: content_length(session) };
    match ctx.route.guard.check(&facts) {
        Verdict::Pass => Ok(()),
        Verdict::Refuse(problem) => Err(problem),
    }
}

/// The announced length of the body; what is not announced is counted as it passes.
fn content_length(session: &Session) -> Option<u64> {
    let value = session.req_header().headers.get(http::header::CONTENT_LENGTH)?;
    value.to_str().ok()?.trim().parse().ok()
}
