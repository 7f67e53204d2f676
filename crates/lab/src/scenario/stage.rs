//! Hosts of scenarios as they stand: each on a loopback address and a name of its own, so that all stand side by side.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustls::ServerConfig;

use super::host::{self, Access, Dns, Host, Listens, Tls, TokenService, Told};
use crate::blackhole::{Filtered, Silent};
use crate::faults::{self, Proxy};
use crate::gate::{Gate, Manner};
use crate::narrow::Narrow;
use crate::tls::{Ca, Flaw, refusing};
use crate::{dns, token};

/// Where registries by name listen.
const HTTPS: u16 = 443;
/// Where registries by address listen.
const HTTP: u16 = 5000;
/// Where their token services do.
const TOKENS: u16 = 5001;
/// The last byte of the name server's address, which no host gets.
const RESOLVER: u8 = 255;
/// Where their proxies do.
const PROXY: u16 = 3128;
/// Where what stands at the end of a narrow path does.
const BEHIND: u16 = 3130;
/// Where a proxy that intercepts has the registry's place taken.
const IMPOSTOR: u16 = 3129;
/// How long an address may stay taken by who had it before.
const PATIENCE: Duration = Duration::from_secs(5);

/// What all hosts stand on: the name server, the authorities, the registry behind them.
#[derive(Debug)]
pub struct Ground {
    dns: dns::Server,
    ca: Ca,
    stranger: Ca,
    /// The first three bytes of the hosts' addresses.
    net: [u8; 3],
    next: AtomicU8,
}

/// The registry behind the hosts.
#[derive(Clone, Debug)]
struct Behind {
    registry: SocketAddr,
    login: (String, String),
}

/// A host that stands. It falls when dropped.
#[derive(Debug)]
pub struct Standing {
    host: Host,
    name: String,
    address: SocketAddr,
    behind: Behind,
    parts: Vec<Part>,
    mirror: Option<Box<Self>>,
}

#[expect(
    dead_code,
    reason = "a part is held so that it goes on, and dropped to end it"
)]
#[derive(Debug)]
enum Part {
    Proxy(Proxy),
    Token(token::Server),
    Silent(Silent),
    Filtered(Filtered),
    Gate(Gate),
    Narrow(Narrow),
}

impl Ground {
    /// Starts the name server and makes the authorities. `salt` keeps the addresses of two labs on one machine apart. A program that
    /// asks where `resolv.conf` says needs the name server on the usual port.
    pub async fn new(salt: u16, usual_port: bool) -> io::Result<Self> {
        let [high, low] = salt.to_be_bytes();
        let own = Ipv4Addr::new(127, 64 | (high & 0x3f), low, RESOLVER);
        let options = dns::Options {
            listen: usual_port.then(|| (own, 53).into()),
            ..dns::Options::default()
        };
        Ok(Self {
            dns: dns::Server::start(options).await?,
            ca: Ca::new("Lab Authority"),
            stranger: Ca::new("Some Corporate Authority"),
            // Not 127.0.0.x, where people's own programs listen.
            net: [127, 64 | (high & 0x3f), low],
            next: AtomicU8::new(1),
        })
    }

    /// The name server.
    pub fn resolver(&self) -> SocketAddr {
        self.dns.local_addr()
    }

    /// The name server's address, where it listens on the usual port.
    pub fn system_resolver(&self) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, RESOLVER)
    }

    /// The authority that the node is to trust, PEM.
    pub fn authority_pem(&self) -> String {
        self.ca.pem()
    }

    /// Puts up the host of a scenario in front of `registry`, whose user `login` may do everything.
    pub async fn stand(
        &self,
        scenario: &str,
        host: &Host,
        registry: SocketAddr,
        login: (&str, &str),
    ) -> io::Result<Standing> {
        let behind = Behind {
            registry,
            login: (login.0.to_owned(), login.1.to_owned()),
        };
        let named = host.name.clone();
        let name = named.unwrap_or_else(|| format!("{scenario}.lab.test"));
        let mirror = match &host.mirror {
            Some(mirror) => {
                let mut mirror = self.plot(format!("mirror.{name}"), mirror, behind.clone());
                mirror.start(self).await?;
                Some(Box::new(mirror))
            }
            None => None,
        };
        let mut standing = Standing {
            mirror,
            ..self.plot(name, host, behind)
        };
        standing.start(self).await?;
        Ok(standing)
    }

    /// A place where a host may be put up.
    fn plot(&self, name: String, host: &Host, behind: Behind) -> Standing {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let [a, b, c] = self.net;
        let port = if host.by_address { HTTP } else { HTTPS };
        Standing {
            name,
            host: host.clone(),
            address: (Ipv4Addr::new(a, b, c, number), port).into(),
            behind,
            parts: Vec::new(),
            mirror: None,
        }
    }
}

impl Standing {
    /// How images name it: `host`, or `address:port`.
    pub fn authority(&self) -> String {
        if self.host.by_address {
            self.address.to_string()
        } else {
            self.name.clone()
        }
    }

    /// The file that the node is to have for it: the registry as it is named there, and the text.
    pub fn told(&self) -> Option<(String, Told)> {
        let mirror = self.mirror.as_ref().map(|mirror| mirror.authority());
        let filled = |text: &str| {
            text.replace("{name}", &self.authority())
                .replace("{mirror}", mirror.as_deref().unwrap_or_default())
        };
        let told = match self.host.told.as_ref()? {
            Told::Hosts(text) => Told::Hosts(filled(text)),
            Told::Registries(text) => Told::Registries(filled(text)),
        };
        Some((self.authority(), told))
    }

    /// Takes away everything that is wrong with it; its name and address stay.
    pub async fn repair(&mut self, ground: &Ground) -> io::Result<()> {
        let healthy = self.host.healthy();
        self.turn_into(ground, &healthy).await
    }

    /// Becomes another host of the same name and address.
    pub async fn turn_into(&mut self, ground: &Ground, host: &Host) -> io::Result<()> {
        self.host = host.clone();
        self.parts.clear();
        if let (Some(standing), Some(mirror)) = (&mut self.mirror, &host.mirror) {
            standing.host = mirror.as_ref().clone();
            standing.parts.clear();
            standing.start(ground).await?;
        }
        self.start(ground).await
    }

    async fn start(&mut self, ground: &Ground) -> io::Result<()> {
        ground.dns.set(&self.name, self.answer());
        match self.host.listens {
            Listens::Nobody => {}
            Listens::Silent => {
                let silent = bound(async || Silent::at(self.address).await).await?;
                self.parts.push(Part::Silent(silent));
            }
            Listens::Filtered => {
                let filtered = bound(async || Filtered::at(self.address).await).await?;
                self.parts.push(Part::Filtered(filtered));
            }
            Listens::Serves => self.serve(ground, self.address).await?,
            Listens::Narrow => {
                let behind = (self.address.ip(), BEHIND).into();
                self.serve(ground, behind).await?;
                let narrow = bound(async || Narrow::start(self.address, behind).await).await?;
                self.parts.push(Part::Narrow(narrow));
            }
        }
        match self.host.proxy {
            Some(proxy) => self.gate(ground, proxy).await,
            None => Ok(()),
        }
    }

    async fn gate(&mut self, ground: &Ground, proxy: host::Proxy) -> io::Result<()> {
        let name = proxy_of(&self.name);
        let answer = match proxy {
            host::Proxy::NoName => dns::Answer::NxDomain,
            _ => dns::Answer::Addresses(vec![self.address.ip()]),
        };
        ground.dns.set(&name, answer);
        let mut to = self.address;
        let manner = match proxy {
            host::Proxy::Nobody | host::Proxy::NoName => return Ok(()),
            host::Proxy::Runs(manner) => manner,
            host::Proxy::Intercepts => {
                to.set_port(IMPOSTOR);
                let options = faults::Options {
                    upstream: Some(self.behind.registry),
                    upstream_login: Some(self.behind.login.clone()),
                    tls: self.tls(ground, Tls::Stranger),
                    listen: Some(to),
                    ..faults::Options::default()
                };
                let impostor = bound(async || Proxy::start(options.clone()).await).await?;
                self.parts.push(Part::Proxy(impostor));
                Manner::LetsThrough
            }
        };
        let listen = (self.address.ip(), PROXY).into();
        let gate = bound(async || Gate::start(listen, manner, to).await).await?;
        self.parts.push(Part::Gate(gate));
        Ok(())
    }

    fn answer(&self) -> dns::Answer {
        let here = || dns::Answer::Addresses(vec![self.address.ip()]);
        match &self.host.dns {
            Dns::Right => here(),
            Dns::NxDomain => dns::Answer::NxDomain,
            Dns::ServFail => dns::Answer::ServFail,
            Dns::Refused => dns::Answer::Refused,
            Dns::Timeout => dns::Answer::Timeout,
            Dns::Garbage => dns::Answer::Garbage,
            Dns::Empty => dns::Answer::Empty,
            Dns::Elsewhere(addresses) => dns::Answer::Addresses(addresses.clone()),
        }
    }

    async fn serve(&mut self, ground: &Ground, listen: SocketAddr) -> io::Result<()> {
        let tls = (!self.host.by_address || self.host.https)
            .then(|| self.tls(ground, self.host.tls))
            .flatten();
        let mut options = faults::Options {
            upstream: Some(self.behind.registry),
            tls: tls.clone(),
            rules: self.host.rules.clone(),
            listen: Some(listen),
            ..faults::Options::default()
        };
        match &self.host.access {
            Access::Open => options.upstream_login = Some(self.behind.login.clone()),
            Access::Login => {}
            Access::Token(service) => {
                options.upstream_login = Some(self.behind.login.clone());
                let good = self.tls(ground, Tls::default());
                let server = self.token_service(service, good).await?;
                options.bearer = Some(server.issuer());
                self.parts.push(Part::Token(server));
            }
        }
        let proxy = bound(async || Proxy::start(options.clone()).await).await?;
        self.parts.push(Part::Proxy(proxy));
        Ok(())
    }

    async fn token_service(
        &self,
        service: &TokenService,
        tls: Option<Arc<ServerConfig>>,
    ) -> io::Result<token::Server> {
        let (user, password) = self.behind.login.clone();
        let realm = match &service.realm {
            Some(realm) => realm.replace("{name}", &self.name),
            None => format!("https://{}:{TOKENS}/token", self.name),
        };
        let options = token::Options {
            users: BTreeMap::from([(user, password)]),
            public: if service.open {
                vec!["*".to_owned()]
            } else {
                Vec::new()
            },
            service: self.name.clone(),
            behaviour: service.behaviour.clone(),
            tls,
            listen: Some((self.address.ip(), TOKENS).into()),
            realm: Some(realm),
        };
        bound(async || token::Server::start(options.clone()).await).await
    }

    fn tls(&self, ground: &Ground, tls: Tls) -> Option<Arc<ServerConfig>> {
        let address = self.address.ip().to_string();
        let names = [self.name.as_str(), address.as_str()];
        Some(match tls {
            Tls::Certificate(flaw) => ground.ca.leaf(&names, flaw).server_config(),
            Tls::Stranger => ground.stranger.leaf(&names, Flaw::None).server_config(),
            Tls::ClientCertificate => ground
                .ca
                .leaf(&names, Flaw::None)
                .server_config_for_clients_of(&ground.ca),
            Tls::Refuses => refusing(),
            Tls::Plain => return None,
        })
    }
}

fn proxy_of(name: &str) -> String {
    format!("proxy.{name}")
}

/// The proxies that a node is to be told of for these scenarios: the registry, and the proxy's URL.
pub fn proxies(scenarios: &[super::Scenario]) -> Vec<(String, String)> {
    let behind = scenarios
        .iter()
        .filter(|scenario| scenario.host.proxy.is_some());
    behind
        .map(|scenario| {
            let own = format!("{}.lab.test", scenario.name);
            let name = scenario.host.name.clone().unwrap_or(own);
            let proxy = format!("http://{}:{PROXY}", proxy_of(&name));
            (name, proxy)
        })
        .collect()
}

/// Starts what listens on an address that may still be taken by who had it before.
async fn bound<T>(start: impl AsyncFn() -> io::Result<T>) -> io::Result<T> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        match start().await {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && tokio::time::Instant::now() < end =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            ended => return ended,
        }
    }
}
