//! The sockets of the process: bound, or taken over from the process that it replaces.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::control::{self, Control};
use super::handover::{Described, Predecessor, Role, Sockets};
use super::server::StartError;
use super::user::Account;
use crate::config::snapshot::{BindAddress, Snapshot};
use crate::ingress::listen::{BindError, Bound};

/// Every socket that the process listens on.
#[derive(Debug)]
pub(super) struct Bindings {
    /// In the order of the snapshot.
    pub(super) listeners: Vec<Bound>,
    pub(super) admin: Option<Bound>,
    pub(super) control: Option<Control>,
    /// Duplicates of all of them, for the process that replaces this one.
    pub(super) sockets: Arc<Sockets>,
}

impl Bindings {
    /// What `snapshot` names. Of what `predecessor` has, the sockets with the same addresses are used, the rest is closed.
    ///
    /// # Errors
    /// What is in use or not permitted.
    pub(super) fn new(
        snapshot: &Snapshot,
        mut predecessor: Option<&mut Predecessor>,
        account: &Account,
    ) -> Result<Self, StartError> {
        let sockets = Sockets::default();
        let control_socket = snapshot.server.control_socket.as_deref();
        let mut bind = |role: Role,
                        name: &str,
                        address: &BindAddress,
                        key: &str|
         -> Result<Bound, StartError> {
            let described = Described { role, name: name.to_owned(), address: known_as(address) };
            let inherited = predecessor.as_mut().and_then(|from| from.take(role, name, &described.address));
            let bound = match inherited {
                Some(socket) => Bound::inherit(address, socket)?,
                None => Bound::bind(address)
                    .map_err(|error| match predecessor {
                        Some(_) => explain_in_upgrade(error),
                        None => explain(error, address, control_socket),
                    })
                    .map_err(|error| BindError { address: format!("{} ({key})", error.address), ..error })?,
            };
            let failed = |source| BindError { address: address.to_string(), source };
            if let BindAddress::Unix(path) = address {
                account.own(path).map_err(failed)?;
            }
            sockets.hold(described, bound.socket(), bound.handed_over()).map_err(failed)?;
            Ok(bound)
        };
        let listeners = snapshot.listeners.iter().map(|listener| {
            let place = snapshot.sources.describe(&listener.origin);
            let key = format!("listener \"{}\", {place}", listener.name);
            bind(Role::Listener, &listener.name, &listener.address, &key)
        });
        let listeners = listeners.collect::<Result<_, _>>()?;
        let admin = snapshot
            .admin
            .as_ref()
            .map(|admin| bind(Role::Admin, "", &BindAddress::Tcp(admin.address), "admin.address"));
        let admin = admin.transpose()?;
        let path = snapshot.server.control_socket.as_deref();
        let control =
            path.map(|path| bind_control(path, predecessor.as_deref_mut(), account, &sockets)).transpose()?;
        if let Some(predecessor) = predecessor {
            predecessor.let_go();
        }
        Ok(Self { listeners, admin, control, sockets: Arc::new(sockets) })
    }
}

fn bind_control(
    path: &Path,
    predecessor: Option<&mut Predecessor>,
    account: &Account,
    sockets: &Sockets,
) -> Result<Control, StartError> {
    let address = known_as(&BindAddress::Unix(path.to_owned()));
    let described = Described { role: Role::Control, name: String::new(), address };
    let failed = |source| StartError::Control { path: path.display().to_string(), source };
    let inherited = predecessor.and_then(|from| from.take(Role::Control, "", &described.address));
    let control = match inherited {
        Some(socket) => Control::inherit(path, socket, account),
        None => Control::bind(path, account),
    }
    .map_err(failed)?;
    sockets.hold(described.clone(), control.socket(), control.handed_over()).map_err(failed)?;
    Ok(control)
}

/// `address` as two processes with different working directories call it.
fn known_as(address: &BindAddress) -> String {
    match address {
        BindAddress::Tcp(address) => address.to_string(),
        BindAddress::Unix(path) => {
            let whole = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            // The directory is there, where a process listens in it; the socket itself must not be followed.
            let directory = whole.parent().and_then(|directory| directory.canonicalize().ok());
            let whole = directory
                .zip(whole.file_name())
                .map_or(whole.clone(), |(directory, name)| directory.join(name));
            format!("unix:{}", whole.display())
        }
    }
}

/// Says what an address in use means in an upgrade.
fn explain_in_upgrade(error: BindError) -> BindError {
    if error.source.kind() != io::ErrorKind::AddrInUse {
        return error;
    }
    let why =
        "it is in use; if by the process to be replaced, under another address or role, that needs a restart";
    BindError { source: io::Error::new(io::ErrorKind::AddrInUse, why), ..error }
}

/// Says who has the address, if that can be known, or what binding it takes.
fn explain(error: BindError, address: &BindAddress, control_socket: Option<&Path>) -> BindError {
    let kind = error.source.kind();
    let low = matches!(address, BindAddress::Tcp(address) if address.port() < 1024);
    let why = match kind {
        io::ErrorKind::AddrInUse => control_socket.and_then(control::running).map(|process| {
            format!(
                "{}\n  note: edgeward already runs with this configuration, process {process}",
                error.source
            )
        }),
        io::ErrorKind::PermissionDenied if low => {
            Some(format!("{}\n  hint: ports below 1024 need root or CAP_NET_BIND_SERVICE", error.source))
        }
        _ => None,
    };
    match why {
        Some(why) => BindError { source: io::Error::new(kind, why), ..error },
        None => error,
    }
}
