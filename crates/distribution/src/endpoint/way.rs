//! How one endpoint is reached: its scheme, its trust, its connections.

use towline_cause::{Failure, Step};

use super::Endpoint;
use crate::connect::ConnectFault;
use crate::fault;
use crate::session::{Asking, Session};
use crate::tls::{TlsFault, Trust};
use crate::transport::{SendFault, Transport, Via};
use crate::url::{Origin, Scheme, Url};

/// How connections are made for one endpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ways {
    /// To the endpoint itself.
    own: Via,
    /// To other ports of its host: without its client certificate.
    host: Via,
    /// To wherever it points: its authorities are trusted, unproven certificates are not.
    other: Via,
}

impl Ways {
    pub(crate) fn new(transport: &Transport, endpoint: &Endpoint) -> Result<Self, String> {
        let trust = &endpoint.trust;
        let way = |client, skip_verify| {
            let trust = Trust {
                ca: trust.ca.clone(),
                client: if client { trust.client.clone() } else { None },
                skip_verify,
            };
            transport.via(&trust, endpoint.connect)
        };
        Ok(Self {
            own: way(true, trust.skip_verify)?,
            host: way(false, trust.skip_verify)?,
            other: way(false, false)?,
        })
    }

    /// Answers have to begin within this time.
    pub(crate) fn answer_within(&mut self, limit: std::time::Duration) {
        for way in [&mut self.own, &mut self.host, &mut self.other] {
            way.headers = Some(limit);
        }
    }

    /// The other side may be silent for so long, and is not asked again then.
    pub(crate) fn bound_silence(&mut self, limit: std::time::Duration) {
        for way in [&mut self.own, &mut self.host, &mut self.other] {
            way.silence = Some(limit);
        }
    }

    /// Whether who was silent too long is asked again.
    pub(crate) fn is_patient(&self) -> bool {
        self.own.silence.is_none()
    }
}

impl Session {
    /// The base of the API.
    pub(crate) fn base(&self, origin: Origin) -> Url {
        let mut url = Url::new(origin, format!("{}/", self.endpoint.base));
        url.query.clone_from(&self.namespace());
        url
    }

    /// Where something is asked for.
    pub(crate) fn place(&self, origin: &Origin, asking: &Asking) -> Url {
        let below = asking.path.strip_prefix("/v2").unwrap_or(&asking.path);
        let mut url = Url::new(origin.clone(), format!("{}{below}", self.endpoint.base));
        let parts = [asking.query.clone(), self.namespace()];
        let query = parts.into_iter().flatten().collect::<Vec<_>>().join("&");
        url.query = (!query.is_empty()).then_some(query);
        url
    }

    fn namespace(&self) -> Option<String> {
        let ns = self.endpoint.ns.as_ref()?;
        Some(format!("ns={}", crate::url::encode(ns)))
    }

    /// How a connection to `origin` is made.
    pub(crate) fn way(&self, origin: &Origin) -> Via {
        let own = self.origin().ok();
        match own {
            Some(own) if own == *origin => self.ways.own.clone(),
            Some(own) if own.host == origin.host => self.ways.host.clone(),
            _ => self.ways.other.clone(),
        }
    }

    /// Opens a connection, or finds one open.
    pub(crate) async fn reach(&self) -> Result<Origin, Failure> {
        let mut origin = self.origin()?;
        loop {
            let transport = &self.shared.transport;
            let reached = transport.reach(&origin, &self.ways.own, &self.watch).await;
            match reached {
                Ok(()) => return Ok(origin),
                Err(fault) if self.turn(&fault) => origin = self.origin()?,
                Err(fault) => {
                    let failure =
                        fault::of_send(&fault, &origin, "opening a connection", Step::Connect);
                    return Err(failure.because(fault));
                }
            }
        }
    }

    /// The proxy on the way, for people.
    pub(crate) fn proxy(&self) -> Option<String> {
        let origin = self.origin().ok()?;
        match self.shared.transport.proxies.of(&origin)? {
            Ok(proxy) => Some(proxy.to_string()),
            Err(why) => Some(format!("that is no proxy: {why}")),
        }
    }

    /// Whether a connection is open already.
    pub(crate) fn is_connected(&self) -> bool {
        self.room() > 0
    }

    /// Requests that the connections which are open and wait can take at once.
    pub(crate) fn room(&self) -> usize {
        let room = |origin| self.shared.transport.room(&origin, &self.ways.own);
        self.origin().map_or(0, room)
    }

    /// A registry does not speak what was assumed. True if it is spoken to otherwise from now on.
    pub(crate) fn turn(&self, fault: &SendFault) -> bool {
        if self.endpoint.origin.is_some() {
            return false;
        }
        let (schemes, reference) = (&self.shared.schemes, &self.target.reference);
        let is_tls = self
            .origin()
            .is_ok_and(|origin| origin.scheme == Scheme::Https);
        match fault {
            SendFault::TlsOnPlain => schemes.turn_to_tls(reference, &self.watch),
            SendFault::Tls(TlsFault::PlainHttp | TlsFault::NotTls)
                if self.endpoint.insecure && is_tls =>
            {
                schemes.turn_to_plain(reference, &self.watch);
                true
            }
            SendFault::Connect(error)
                if self.endpoint.insecure
                    && is_tls
                    && error.fault == ConnectFault::Refused
                    && reference.port().is_none() =>
            {
                schemes.turn_to_plain(reference, &self.watch);
                true
            }
            _ => false,
        }
    }

    /// Whether whoever configured this endpoint said that it is spoken to without TLS.
    pub(crate) fn is_plain_by_configuration(&self, realm: &Origin) -> bool {
        let plain = self.endpoint.insecure
            || self
                .endpoint
                .origin
                .as_ref()
                .is_some_and(|origin| origin.scheme == Scheme::Http);
        plain && self.origin().is_ok_and(|own| own.host == realm.host)
    }
}
