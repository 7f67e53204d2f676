//! Names to addresses, with every way to fail kept apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Answer, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::Instant;

use crate::options::Resolver;

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DnsFault {
    #[error("the name does not exist (NXDOMAIN)")]
    NoName,
    #[error("the name exists but has no address (NODATA)")]
    NoAddress,
    #[error("the name server failed (SERVFAIL)")]
    ServerFailure,
    #[error("the name server refuses to answer (REFUSED)")]
    Refused,
    #[error("no name server answered in time")]
    Timeout,
    #[error("no name server can be reached: {0}")]
    Unreachable(String),
    #[error("the name server answered {0}")]
    Code(String),
    #[error("the name is not one that DNS can hold")]
    BadName,
    #[error("/etc/resolv.conf names no usable name server: {0}")]
    NoServers(String),
}

impl DnsFault {
    /// Whether another server, or the same one a moment later, may know better.
    fn may_pass(&self) -> bool {
        match self {
            Self::ServerFailure
            | Self::Refused
            | Self::Timeout
            | Self::Unreachable(_)
            | Self::Code(_) => true,
            Self::NoName | Self::NoAddress | Self::BadName | Self::NoServers(_) => false,
        }
    }

    /// How much it says: of several faults of one name the weightiest is told.
    fn weight(&self) -> u8 {
        match self {
            Self::NoAddress => 0,
            Self::Timeout => 1,
            _ => 2,
        }
    }
}

/// The addresses of a name, and who gave them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) ipv4: Vec<IpAddr>,
    pub(crate) ipv6: Vec<IpAddr>,
}

impl Addresses {
    fn is_empty(&self) -> bool {
        self.ipv4.is_empty() && self.ipv6.is_empty()
    }

    fn push(&mut self, address: IpAddr) {
        let list = if address.is_ipv4() {
            &mut self.ipv4
        } else {
            &mut self.ipv6
        };
        if list.len() < MOST_ADDRESSES && !list.contains(&address) {
            list.push(address);
        }
    }

    /// IPv6 and IPv4 in turns, so that a family that does not work costs one delay only.
    pub(crate) fn in_order(&self) -> Vec<IpAddr> {
        let mut order = Vec::new();
        for i in 0..self.ipv6.len().max(self.ipv4.len()) {
            order.extend(self.ipv6.get(i));
            order.extend(self.ipv4.get(i));
        }
        order
    }
}

/// A look-up: who was asked, and what came of it.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) asked: Vec<String>,
    pub(crate) result: Result<Addresses, DnsFault>,
}

const MOST_ADDRESSES: usize = 16;
const MOST_SEARCH: usize = 6;
const MOST_HOSTS_FILE: u64 = 4 << 20;
/// How often each server is asked for a name, as the system's own resolvers do.
const ROUNDS: usize = 2;
/// A server that says nothing for so long gets company: the next one is asked too, and its own answer counts still.
const PATIENCE: Duration = Duration::from_secs(1);
/// Before the second round: what failed at once may take a moment to pass.
const BREATH: Duration = Duration::from_millis(200);

/// Looks names up. Nothing is cached: a look-up shows the present.
#[derive(Debug)]
pub(crate) struct Names {
    resolver: Resolver,
    timeout: Duration,
    built: Mutex<Option<(Vec<u8>, Built)>>,
}

#[derive(Clone)]
struct Built {
    servers: Vec<Server>,
    search: Vec<Name>,
    ndots: usize,
}

/// One name server, to be asked apart from the others.
#[derive(Clone)]
struct Server {
    /// Address and port.
    place: String,
    /// One a round: a resolver that is asked what it is asking for sends nothing more.
    rounds: Vec<TokioResolver>,
}

impl std::fmt::Debug for Built {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Built")
            .field("servers", &self.places())
            .field("search", &self.search)
            .finish_non_exhaustive()
    }
}

impl Built {
    fn places(&self) -> Vec<String> {
        let places = self.servers.iter().map(|server| server.place.clone());
        places.collect()
    }
}

impl Names {
    pub(crate) fn new(resolver: Resolver, timeout: Duration) -> Self {
        Self {
            resolver,
            timeout,
            built: Mutex::new(None),
        }
    }

    /// The addresses of a host name or address.
    pub(crate) async fn look_up(&self, host: &str) -> Lookup {
        if let Ok(address) = host.parse::<IpAddr>() {
            let mut addresses = Addresses::default();
            addresses.push(address);
            return found("written in the name", addresses);
        }
        if let Some(addresses) = self.without_servers(host).await {
            return found("hosts file", addresses);
        }
        let built = match self.build().await {
            Ok(built) => built,
            Err(fault) => {
                return Lookup {
                    asked: Vec::new(),
                    result: Err(fault),
                };
            }
        };
        let until = Instant::now() + self.timeout;
        Lookup {
            result: ask(&built, host, until).await,
            asked: built.places(),
        }
    }

    /// `localhost` and the hosts file.
    async fn without_servers(&self, host: &str) -> Option<Addresses> {
        if self.resolver == Resolver::System
            && let Some(addresses) = read_bounded("/etc/hosts")
                .await
                .ok()
                .and_then(|text| in_hosts(&String::from_utf8_lossy(&text), host))
        {
            return Some(addresses);
        }
        (host == "localhost" || host.ends_with(".localhost")).then(|| Addresses {
            ipv4: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            ipv6: vec![IpAddr::V6(Ipv6Addr::LOCALHOST)],
        })
    }

    async fn build(&self) -> Result<Built, DnsFault> {
        let text = match &self.resolver {
            Resolver::Servers(_) => Vec::new(),
            Resolver::System => read_bounded("/etc/resolv.conf")
                .await
                .map_err(|error| DnsFault::NoServers(error.to_string()))?,
        };
        let mut known = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((seen, built)) = known.as_ref()
            && *seen == text
        {
            return Ok(built.clone());
        }
        let built = match &self.resolver {
            Resolver::Servers(servers) => build(named(servers), Vec::new(), 1, self.timeout),
            Resolver::System => {
                let (config, options) = hickory_resolver::system_conf::parse_resolv_conf(&text)
                    .map_err(|error| DnsFault::NoServers(error.to_string()))?;
                let (_, mut names, servers) = config.into_parts();
                names.truncate(MOST_SEARCH);
                build(servers, names, options.ndots, self.timeout)
            }
        }?;
        *known = Some((text, built.clone()));
        Ok(built)
    }
}

fn found(by: &str, addresses: Addresses) -> Lookup {
    Lookup {
        asked: vec![by.to_owned()],
        result: Ok(addresses),
    }
}

async fn read_bounded(path: &str) -> std::io::Result<Vec<u8>> {
    use tokio::io::AsyncReadExt as _;
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(MOST_HOSTS_FILE).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// The addresses that a hosts file gives a name.
fn in_hosts(text: &str, host: &str) -> Option<Addresses> {
    let mut addresses = Addresses::default();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
            continue;
        };
        if words.any(|name| name.eq_ignore_ascii_case(host)) {
            addresses.push(address);
        }
    }
    (!addresses.is_empty()).then_some(addresses)
}

fn named(servers: &[SocketAddr]) -> Vec<NameServerConfig> {
    let on = |mut connection: ConnectionConfig, port| {
        connection.port = port;
        connection
    };
    servers
        .iter()
        .map(|server| {
            let connections = vec![
                on(ConnectionConfig::udp(), server.port()),
                on(ConnectionConfig::tcp(), server.port()),
            ];
            NameServerConfig::new(server.ip(), true, connections)
        })
        .collect()
}

fn build(
    servers: Vec<NameServerConfig>,
    search: Vec<Name>,
    ndots: usize,
    timeout: Duration,
) -> Result<Built, DnsFault> {
    if servers.is_empty() {
        return Err(DnsFault::NoServers("none is listed".to_owned()));
    }
    let mut options = ResolverOpts::default();
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    // Who is asked again, and when, is decided here.
    options.attempts = 0;
    options.timeout = timeout;
    let alone = |server: NameServerConfig| {
        let port = server.connections.first().map_or(53, |c| c.port);
        let place = SocketAddr::new(server.ip, port).to_string();
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let resolver = |_| {
            let provider = TokioRuntimeProvider::default();
            TokioResolver::builder_with_config(config.clone(), provider)
                .with_options(options.clone())
                .build()
                .map_err(|error| DnsFault::NoServers(error.to_string()))
        };
        let rounds = (0..ROUNDS).map(resolver).collect::<Result<_, _>>()?;
        Ok(Server { place, rounds })
    };
    Ok(Built {
        servers: servers.into_iter().map(alone).collect::<Result<_, _>>()?,
        search,
        ndots,
    })
}

/// Asks for the name, and for the name below each search domain, in the order that `ndots` sets. A failure is that of the name as
/// written, since that is the one a person knows.
async fn ask(built: &Built, host: &str, until: Instant) -> Result<Addresses, DnsFault> {
    let mut written = Name::from_utf8(host).map_err(|_| DnsFault::BadName)?;
    written.set_fqdn(true);
    let mut names: Vec<Name> = built
        .search
        .iter()
        .filter_map(|domain| Name::from_utf8(format!("{host}.{domain}")).ok())
        .collect();
    let at = if host.matches('.').count() >= built.ndots {
        0
    } else {
        names.len()
    };
    names.insert(at, written.clone());
    let mut of_written = None;
    for name in names {
        let is_written = name == written;
        match ask_all(&built.servers, &name, until).await {
            Ok(addresses) => return Ok(addresses),
            Err(fault @ (DnsFault::NoName | DnsFault::NoAddress)) => {
                if is_written {
                    of_written = Some(fault);
                }
            }
            Err(fault) => return Err(fault),
        }
    }
    Err(of_written.unwrap_or(DnsFault::NoName))
}

/// Asks one server after the other, and each again, until one knows or says that there is nothing to know.
async fn ask_all(servers: &[Server], name: &Name, until: Instant) -> Result<Addresses, DnsFault> {
    let mut turn = 0;
    let mut asking = FuturesUnordered::new();
    let mut worst: Option<DnsFault> = None;
    loop {
        let (round, at) = (turn / servers.len(), turn % servers.len());
        turn += 1;
        let resolver = servers[at].rounds.get(round);
        let waited_for = resolver.map_or(until, |_| until.min(Instant::now() + PATIENCE));
        if let Some(resolver) = resolver {
            let begins_again = round > 0 && at == 0;
            let pause = if begins_again { BREATH } else { Duration::ZERO };
            asking.push(ask_one(resolver.clone(), name.clone(), pause));
        }
        match tokio::time::timeout_at(waited_for, asking.next()).await {
            Ok(Some(Err(fault))) if fault.may_pass() => {
                let more = worst
                    .as_ref()
                    .is_none_or(|worst| worst.weight() < fault.weight());
                worst = if more { Some(fault) } else { worst };
            }
            Ok(Some(Err(nothing))) if !asking.is_empty() => {
                return doubted(asking, nothing, until).await;
            }
            Ok(Some(answer)) => return answer,
            Err(_) if waited_for < until => {}
            // Everybody was asked, and either all have failed or the time is over.
            Ok(None) | Err(_) => return Err(worst.unwrap_or(DnsFault::Timeout)),
        }
    }
}

/// One server says that there is nothing while those before it are slow: one of them may know a name that the others cannot.
async fn doubted(
    mut asking: FuturesUnordered<impl Future<Output = Result<Addresses, DnsFault>>>,
    nothing: DnsFault,
    until: Instant,
) -> Result<Addresses, DnsFault> {
    let until = until.min(Instant::now() + PATIENCE);
    while let Ok(Some(answer)) = tokio::time::timeout_at(until, asking.next()).await {
        if answer.is_ok() {
            return answer;
        }
    }
    Err(nothing)
}

async fn ask_one(
    resolver: TokioResolver,
    name: Name,
    pause: Duration,
) -> Result<Addresses, DnsFault> {
    tokio::time::sleep(pause).await;
    let (v4, v6) = futures::join!(
        resolver.lookup(name.clone(), RecordType::A),
        resolver.lookup(name, RecordType::AAAA)
    );
    let mut addresses = Addresses::default();
    let mut faults = Vec::new();
    for answer in [v4, v6] {
        match answer {
            Ok(lookup) => {
                for record in lookup.answers() {
                    match &record.data {
                        RData::A(a) => addresses.push(IpAddr::V4(a.0)),
                        RData::AAAA(a) => addresses.push(IpAddr::V6(a.0)),
                        _ => {}
                    }
                }
            }
            Err(error) => faults.push(fault(&error)),
        }
    }
    if !addresses.is_empty() {
        return Ok(addresses);
    }
    // The A answer comes first; one that says more than "no such record" wins over one that does not.
    let worst = faults
        .into_iter()
        .rev()
        .max_by_key(DnsFault::weight)
        .unwrap_or(DnsFault::NoAddress);
    Err(worst)
}

fn fault(error: &NetError) -> DnsFault {
    match error {
        NetError::Dns(Answer::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => DnsFault::NoName,
            ResponseCode::NoError => DnsFault::NoAddress,
            code => of_code(code),
        },
        NetError::Dns(Answer::ResponseCode(code)) => of_code(*code),
        NetError::Timeout => DnsFault::Timeout,
        NetError::Io(error) => DnsFault::Unreachable(error.kind().to_string()),
        NetError::NoConnections => DnsFault::Unreachable("no connection".to_owned()),
        other => DnsFault::Code(other.to_string().chars().take(200).collect()),
    }
}

fn of_code(code: ResponseCode) -> DnsFault {
    match code {
        ResponseCode::NXDomain => DnsFault::NoName,
        ResponseCode::ServFail => DnsFault::ServerFailure,
        ResponseCode::Refused => DnsFault::Refused,
        code => DnsFault::Code(code.to_str().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_files() {
        let text = "127.0.0.1 localhost\n::1 localhost ip6-localhost # x\n10.0.0.9\tRegistry.corp reg # registry.old\nnonsense\n";
        let of = |host| in_hosts(text, host).map(|found| found.in_order());
        assert_eq!(
            of("localhost"),
            Some(vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()])
        );
        assert_eq!(of("registry.corp"), Some(vec!["10.0.0.9".parse().unwrap()]));
        assert_eq!(of("registry.old"), None);
        assert_eq!(of("nonsense"), None);
    }

    #[test]
    fn families_take_turns() {
        let mut addresses = Addresses::default();
        for text in ["10.0.0.1", "10.0.0.2", "fd00::1", "10.0.0.1"] {
            addresses.push(text.parse().unwrap());
        }
        let order: Vec<String> = addresses
            .in_order()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(order, ["fd00::1", "10.0.0.1", "10.0.0.2"]);
    }
}
