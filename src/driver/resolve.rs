//! Names to addresses, away from the reactor and without holding up the driver.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use futures_util::FutureExt;
use futures_util::future::{Either, Shared, select};

use super::mdns;

type Answer = Result<Vec<IpAddr>, String>;
type Lookup = Shared<Pin<Box<dyn Future<Output = Answer>>>>;

/// More addresses than a heater has.
const MOST: usize = 8;

/// One device's name. At most one question is ever open: a silent name server is not asked again
/// before it has answered (rule R6).
#[derive(Clone, Default)]
pub(super) struct Resolver {
    lookup: Option<Lookup>,
}

impl Resolver {
    /// A name server that never answers.
    #[cfg(test)]
    pub(super) fn silent() -> Self {
        let lookup = std::future::pending().boxed_local().shared();
        Self {
            lookup: Some(lookup),
        }
    }

    /// The addresses of `host`. What was asked before is waited for rather than asked again.
    pub(super) fn lookup(&mut self, host: &str) -> Lookup {
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return std::future::ready(Ok(vec![address])).boxed_local().shared();
        }
        match &self.lookup {
            Some(open) if open.peek().is_none() => open.clone(),
            _ => {
                let lookup = resolve(host.to_owned()).boxed_local().shared();
                self.lookup = Some(lookup.clone());
                lookup
            }
        }
    }
}

/// Asks the system, and for a `.local` name the network itself at the same time, because many
/// printers have no mDNS resolver. The first good answer counts.
async fn resolve(host: String) -> Answer {
    if !is_local(&host) {
        return system(host).await;
    }
    let here = mdns::query(host.clone(), mdns::GROUP).boxed_local();
    let system = system(host.clone()).boxed_local();
    match select(here, system).await {
        Either::Left((Ok(addresses), _)) | Either::Right((Ok(addresses), _)) => Ok(addresses),
        Either::Left((Err(_), system)) => system.await,
        Either::Right((Err(_), here)) => here
            .await
            .map_err(|_| format!("nobody on this network answers to the name '{host}'")),
    }
}

fn is_local(host: &str) -> bool {
    host.trim_end_matches('.')
        .to_ascii_lowercase()
        .ends_with(".local")
}

async fn system(host: String) -> Answer {
    // The port is the caller's business; the lookup wants one.
    let found = tokio::net::lookup_host((host.as_str(), 0)).await;
    let addresses: Vec<IpAddr> = found
        .map_err(|error| unknown_name(&host, &error))?
        .map(|address| SocketAddr::ip(&address))
        .take(MOST)
        .collect();
    if addresses.is_empty() {
        Err(format!("the name '{host}' has no address"))
    } else {
        Ok(addresses)
    }
}

fn unknown_name(host: &str, error: &io::Error) -> String {
    // The system's text for this differs from host to host and says less.
    let _ = error;
    format!("the name '{host}' cannot be resolved")
}
