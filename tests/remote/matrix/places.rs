//! Where a fault is: the address that the provider under test is given, and what is counted there.

use super::{ATTEMPT, CONNECT};
use crate::support::faults::{FaultServer, Reply};
use crate::support::http::Message;
use crate::support::openbao::Bao;
use crate::support::proxy::{Proxy, Way};
use crate::support::sockets::{Refusing, Unreachable};
use std::sync::Arc;
use std::time::Duration;

/// A request to its reply; the number is that of the operation.
pub(super) type Script = Arc<dyn Fn(usize, &Message) -> Reply + Send + Sync>;

/// What goes wrong.
#[derive(Clone)]
pub(super) enum Fault {
    /// Nobody listens.
    Refused,
    /// No connection comes about.
    Unreachable,
    /// The host has no address.
    NoSuchHost,
    /// TLS is spoken to a server that has none.
    NoTls,
    /// A server that hangs up when TLS is spoken to it.
    HangsUp,
    /// The server's certificate is not of an authority that is trusted.
    WrongRoot,
    /// The connection behaves so, before a server that answers by the script.
    Way(Way, Script),
    /// The server answers by the script.
    Says(Script),
    /// The same, and that takes the whole time of an attempt.
    Stalls(Script),
    /// The same, and asks for so long a pause.
    AsksToWait(Duration, Script),
    /// The server sends elsewhere, where nobody may come.
    Redirects(u16),
}

pub(super) fn script(reply: impl Fn(usize, &Message) -> Reply + Send + Sync + 'static) -> Script {
    Arc::new(reply)
}

impl Fault {
    /// How long one request takes at the most.
    pub(super) fn takes(&self) -> Duration {
        match self {
            Self::Unreachable => CONNECT,
            Self::Stalls(_) | Self::Way(Way::BlackHole | Way::Slow(_), _) => ATTEMPT,
            _ => Duration::ZERO,
        }
    }

    /// How long a pause the server asks for.
    pub(super) fn asks_to_wait(&self) -> Duration {
        if let Self::AsksToWait(time, _) = self { *time } else { Duration::ZERO }
    }

    /// Puts it up, for one cell.
    pub(super) fn place(&self, operation: usize) -> Place {
        match self {
            Self::Refused => {
                let refusing = Refusing::new();
                Place::nowhere(format!("http://{}", refusing.address()), Keep::Refusing { _port: refusing })
            }
            Self::Unreachable => {
                let unreachable = Unreachable::new();
                Place::nowhere(format!("http://{}", unreachable.address()), Keep::Unreachable { _port: unreachable })
            }
            Self::NoSuchHost => Place::nowhere("https://kms.envelock.invalid".into(), Keep::Nothing),
            Self::NoTls => {
                let server = FaultServer::new(|_| Reply::Garbage);
                let proxy = Proxy::before(&server.url());
                proxy.set(Way::Garbage);
                let url = format!("https://{}", proxy.address());
                Place { url, server: None, counted: false, stranger: None, _keep: Keep::Proxy { proxy } }
            }
            Self::HangsUp => {
                // A ClientHello is no request, so the server has done with it.
                let server = FaultServer::new(|_| Reply::Garbage);
                let url = format!("https://{}", server.address());
                Place { url, server: Some(server), counted: false, stranger: None, _keep: Keep::Nothing }
            }
            Self::WrongRoot => Place::nowhere(Bao::shared().tls_url, Keep::Nothing),
            Self::Way(way, script) => {
                let script = Arc::clone(script);
                let server = FaultServer::new(move |request| script(operation, request));
                let proxy = Proxy::before(&server.url());
                proxy.set(*way);
                let url = format!("http://{}", proxy.address());
                Place { url, server: Some(server), counted: false, stranger: None, _keep: Keep::Proxy { proxy } }
            }
            Self::Says(script) | Self::Stalls(script) | Self::AsksToWait(_, script) => {
                let script = Arc::clone(script);
                Place::at(FaultServer::new(move |request| script(operation, request)))
            }
            Self::Redirects(status) => {
                let stranger = FaultServer::new(|_| Reply::json(200, "{}"));
                let (status, elsewhere) = (*status, stranger.url());
                let server = FaultServer::new(move |_| Reply::json(status, "").with("Location", &elsewhere));
                Place { stranger: Some(stranger), ..Place::at(server) }
            }
        }
    }
}

/// An address with a fault behind it.
pub(super) struct Place {
    pub(super) url: String,
    server: Option<FaultServer>,
    /// Whether the server sees every request.
    counted: bool,
    stranger: Option<FaultServer>,
    _keep: Keep,
}

/// What must stay for as long as the place is used.
enum Keep {
    Nothing,
    Refusing { _port: Refusing },
    Unreachable { _port: Unreachable },
    Proxy { proxy: Proxy },
}

impl Place {
    fn nowhere(url: String, keep: Keep) -> Self {
        Self { url, server: None, counted: false, stranger: None, _keep: keep }
    }

    fn at(server: FaultServer) -> Self {
        Self { url: server.url(), server: Some(server), counted: true, stranger: None, _keep: Keep::Nothing }
    }

    /// How many requests arrived, or how many connections where no more can be counted.
    pub(super) fn requests(&self) -> Option<usize> {
        match (&self._keep, &self.server) {
            (Keep::Proxy { proxy }, _) => Some(proxy.connections()),
            (_, Some(server)) if self.counted => Some(server.requests()),
            // A handshake that fails is a connection.
            (_, Some(server)) => Some(server.connections()),
            (_, None) => None,
        }
    }

    /// How many came where they were sent and should not have gone.
    pub(super) fn strangers(&self) -> usize {
        self.stranger.as_ref().map_or(0, FaultServer::requests)
    }
}
