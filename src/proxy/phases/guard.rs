//! What the route asks of the request before anything is done for it, in the fixed order of [`crate::policy::Chain`].

use crate::base::problem::Problem;
use crate::policy::{RequestFacts, Verdict};
use crate::proxy::Context;

pub(in crate::proxy) fn check(ctx: &Context) -> Result<(), Problem> {
    let facts = RequestFacts {
        client: ctx.client.address,
        content_length: ctx.head.content_length,
        certificate: ctx.client_cert(),
    };
    match ctx.route.guard.check(&facts) {
        Verdict::Pass => Ok(()),
        Verdict::Refuse(problem) => Err(problem),
    }
}
