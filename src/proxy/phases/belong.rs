//! Whether a request belongs on the connection it came on: the host to its TLS, cleartext to where it is answered.

use std::time::UNIX_EPOCH;

use http::StatusCode;

use super::dispatch::Answer;
use super::route::View;
use crate::base::client_cert::ClientCert;
use crate::base::clock;
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::proxy::Context;

/// Refuses what was asked of the wrong connection (421, RFC 9110 section 15.5.20).
///
/// A client may use one connection for several hosts (RFC 9113 section 9.1.1). It may not where another connection
/// would have got another certificate, or been asked for another one: then nothing that holds for that host was checked
/// here. Nearly every request asks for the host that the connection was made for, and that is all that is looked at.
pub(in crate::proxy) fn check(view: &View<'_>, ctx: &Context) -> Result<(), Problem> {
    let Some(connection) = ctx.exchange.as_ref().map(|exchange| &exchange.connection) else { return Ok(()) };
    let Some(made) = &connection.tls else { return Ok(()) };
    let Some(tls) = ctx.listener_tls() else { return Ok(()) };
    if made.client_policy != tls.client_policy() {
        // A reload changed who gets in by which certificate. What comes next on a new connection is asked anew.
        connection.retire();
        return Err(Problem::new(Reason::Misdirected));
    }
    if made.client_cert.as_ref().is_some_and(|cert| is_expired(cert)) {
        // It was good when the connection was made. A new one is to show a new certificate.
        connection.retire();
        return Err(Problem::new(Reason::Misdirected));
    }
    let asked = made.server_name.as_deref();
    let host = Some(&*view.host).filter(|host| !host.is_empty());
    if host == asked || host.is_none() || tls.shares_certificate(asked, host) {
        return Ok(());
    }
    Err(Problem::new(Reason::Misdirected))
}

fn is_expired(cert: &ClientCert) -> bool {
    let now = clock::wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    cert.not_after < i64::try_from(now).unwrap_or(i64::MAX)
}

/// Where the listener sends requests to instead (`redirect_https`), unless the route names the listener, or the client
/// came to a trusted proxy by HTTPS already.
pub(in crate::proxy) fn elsewhere(view: &View<'_>, ctx: &Context) -> Result<Option<Answer>, Problem> {
    let listener = ctx.snapshot.listeners.get(usize::from(ctx.listener));
    let Some(listener) = listener.filter(|listener| listener.redirect_https.is_some()) else {
        return Ok(None);
    };
    if ctx.route.names_listeners || ctx.client.https {
        return Ok(None);
    }
    let location = listener.https_location(&view.request()).ok_or(Problem::new(Reason::BadHost))?;
    Ok(Some(Answer::Redirect { status: StatusCode::PERMANENT_REDIRECT, location }))
}
