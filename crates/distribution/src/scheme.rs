//! Which registries are spoken to over plain HTTP, and what was learnt of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use towline_oci::Reference;

use crate::facts::Fact;
use crate::options::PlainHttp;
use crate::url::{Origin, Scheme, UrlError};
use crate::watch::Watch;

/// The rules, and the loopback registries that turned out to speak TLS.
#[derive(Debug)]
pub(crate) struct Schemes {
    rules: PlainHttp,
    learnt: Mutex<HashMap<String, Scheme>>,
}

const MOST_LEARNT: usize = 1000;

impl Schemes {
    pub(crate) fn new(rules: PlainHttp) -> Self {
        Self {
            rules,
            learnt: Mutex::default(),
        }
    }

    /// The origin of a reference's registry.
    pub(crate) fn origin(&self, reference: &Reference) -> Result<Origin, UrlError> {
        let authority = reference.api_host();
        let known = self
            .learnt
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(authority)
            .copied();
        let scheme = known.unwrap_or_else(|| self.rule(reference));
        Origin::of_authority(scheme, authority)
    }

    fn rule(&self, reference: &Reference) -> Scheme {
        let plain =
            reference.is_loopback() || self.is_configured(reference.registry(), reference.host());
        if plain { Scheme::Http } else { Scheme::Https }
    }

    fn is_configured(&self, registry: &str, host: &str) -> bool {
        match &self.rules {
            PlainHttp::Loopback => false,
            PlainHttp::Hosts(hosts) => hosts.iter().any(|known| {
                known.eq_ignore_ascii_case(registry) || known.eq_ignore_ascii_case(host)
            }),
            PlainHttp::All => true,
        }
    }

    /// Whether this origin may get a credential over plain HTTP.
    pub(crate) fn may_be_plain(&self, origin: &Origin) -> bool {
        origin.is_loopback() || self.is_configured(&origin.authority(), &origin.host)
    }

    /// A registry whose TLS need not be proven is spoken to over plain HTTP from now on.
    pub(crate) fn turn_to_plain(&self, reference: &Reference, watch: &Watch) {
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        if learnt.len() > MOST_LEARNT {
            learnt.clear();
        }
        learnt.insert(reference.api_host().to_owned(), Scheme::Http);
        drop(learnt);
        watch.tell(|| Fact::Scheme {
            host: reference.api_host().to_owned(),
            scheme: Scheme::Http.name().to_owned(),
            why: "it is configured as insecure and has no TLS".to_owned(),
        });
    }

    /// A registry answered plain HTTP with TLS. True if it is now spoken to over TLS: only where plain HTTP was assumed and not
    /// configured.
    pub(crate) fn turn_to_tls(&self, reference: &Reference, watch: &Watch) -> bool {
        if !reference.is_loopback() || self.is_configured(reference.registry(), reference.host()) {
            return false;
        }
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        if learnt.len() > MOST_LEARNT {
            learnt.clear();
        }
        let first = learnt
            .insert(reference.api_host().to_owned(), Scheme::Https)
            .is_none();
        drop(learnt);
        if !first {
            return true;
        }
        watch.tell(|| Fact::Scheme {
            host: reference.api_host().to_owned(),
            scheme: Scheme::Https.name().to_owned(),
            why: "it answers plain HTTP with TLS".to_owned(),
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_where_loopback_or_told() {
        let hosts = PlainHttp::Hosts(vec!["r.corp".to_owned(), "s.corp:5000".to_owned()]);
        for (rules, image, want) in [
            (
                &PlainHttp::Loopback,
                "localhost:5000/a",
                "http://localhost:5000",
            ),
            (
                &PlainHttp::Loopback,
                "127.1.2.3:5000/a",
                "http://127.1.2.3:5000",
            ),
            (&PlainHttp::Loopback, "[::1]:5000/a", "http://[::1]:5000"),
            (&PlainHttp::Loopback, "r.corp/a", "https://r.corp"),
            (
                &PlainHttp::Loopback,
                "nginx",
                "https://registry-1.docker.io",
            ),
            (&hosts, "r.corp:81/a", "http://r.corp:81"),
            (&hosts, "s.corp:5000/a", "http://s.corp:5000"),
            (&hosts, "s.corp/a", "https://s.corp"),
            (&PlainHttp::All, "t.corp/a", "http://t.corp"),
        ] {
            let schemes = Schemes::new(rules.clone());
            let origin = schemes.origin(&Reference::parse(image).unwrap()).unwrap();
            assert_eq!(origin.to_string(), want, "{image}");
        }
    }

    #[test]
    fn only_an_assumption_is_given_up() {
        let loopback = Reference::parse("localhost:5000/a").unwrap();
        let watch = Watch::default();
        let assumed = Schemes::new(PlainHttp::Loopback);
        assert!(assumed.turn_to_tls(&loopback, &watch));
        assert_eq!(
            assumed.origin(&loopback).unwrap().to_string(),
            "https://localhost:5000"
        );
        assert!(!Schemes::new(PlainHttp::All).turn_to_tls(&loopback, &watch));
    }
}
