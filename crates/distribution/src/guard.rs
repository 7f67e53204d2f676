//! Where a server may send this client: rules for realms and redirects.

use std::net::IpAddr;

use crate::url::{Origin, Scheme, Url};

/// Addresses that no other machine may send this one to: itself and its own link (where cloud metadata services live).
pub(crate) fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_forbidden(IpAddr::V4(v4)),
            None => {
                v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_multicast()
                    || v6.is_unicast_link_local()
            }
        },
    }
}

/// Whether a URL that `from` named is refused, and why. A registry on this machine (`local`) may point anywhere: whoever runs it runs
/// this machine.
pub(crate) fn refuse(from: &Origin, local: bool, to: &Url) -> Option<String> {
    if from.scheme == Scheme::Https && to.origin.scheme == Scheme::Http {
        return Some(format!("{} is plain HTTP and {from} is not", to.origin));
    }
    if !is_guarded(from, local, &to.origin) {
        return None;
    }
    let name_of_self = to.origin.is_loopback();
    if name_of_self || to.origin.address().is_some_and(is_forbidden) {
        return Some(format!(
            "{} is this machine or its own link, which another machine must not name",
            to.origin
        ));
    }
    None
}

/// Whether addresses are restricted when `from` names `to`.
pub(crate) fn is_guarded(from: &Origin, local: bool, to: &Origin) -> bool {
    !local && from.host != to.host
}

/// Whether a token service at `realm` may be given the credential of a registry at `registry`.
pub(crate) fn may_have_credential(registry: &Origin, realm: &Origin, trusted: &[String]) -> bool {
    if registry.host == realm.host || (registry.is_loopback() && realm.is_loopback()) {
        return true;
    }
    if is_trusted(realm, trusted) {
        return true;
    }
    match (site(registry), site(realm)) {
        (Some(registry), Some(realm)) => registry == realm,
        _ => false,
    }
}

/// Whether a token service was named as one to trust.
pub(crate) fn is_trusted(realm: &Origin, trusted: &[String]) -> bool {
    trusted
        .iter()
        .any(|host| host.eq_ignore_ascii_case(&realm.host))
}

/// The registrable domain of a host; `None` for addresses, single names, and hosts below a suffix under which anyone can have one.
fn site(origin: &Origin) -> Option<&str> {
    if origin.address().is_some() {
        return None;
    }
    let host = origin.host.as_str();
    let shared = SHARED
        .iter()
        .any(|suffix| host.ends_with(suffix) && host[..host.len() - suffix.len()].ends_with('.'));
    if shared {
        return None;
    }
    let labels: Vec<&str> = host.split('.').collect();
    let last = labels.last()?;
    let second = labels.len().checked_sub(2).map(|at| labels[at])?;
    let keep = if last.len() == 2 && SECOND_LEVEL.contains(&second) {
        3
    } else {
        2
    };
    let from = labels.len().checked_sub(keep)?;
    let start: usize = labels[..from].iter().map(|label| label.len() + 1).sum();
    Some(&host[start..])
}

/// Second-level names below country codes that are no one's own.
const SECOND_LEVEL: [&str; 29] = [
    "ac", "asso", "biz", "co", "com", "edu", "go", "gob", "gouv", "gov", "govt", "gv", "id",
    "info", "ltd", "me", "mil", "my", "ne", "net", "nhs", "nom", "or", "org", "plc", "press",
    "sch", "school", "web",
];

/// Suffixes below which strangers have neighbouring names.
const SHARED: [&str; 36] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "on.aws",
    "azurecr.io",
    "azurewebsites.net",
    "azurecontainerapps.io",
    "azure-api.net",
    "cloudapp.net",
    "cloudapp.azure.com",
    "windows.net",
    "cloudfront.net",
    "elasticbeanstalk.com",
    "github.io",
    "githubusercontent.com",
    "gitlab.io",
    "pkg.dev",
    "run.app",
    "appspot.com",
    "web.app",
    "firebaseapp.com",
    "googleusercontent.com",
    "cloudfunctions.net",
    "herokuapp.com",
    "fly.dev",
    "vercel.app",
    "netlify.app",
    "onrender.com",
    "workers.dev",
    "pages.dev",
    "r2.dev",
    "ngrok.io",
    "ngrok-free.app",
    "trycloudflare.com",
    "nip.io",
    "sslip.io",
    "duckdns.org",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Url::parse(text).unwrap().origin
    }

    #[test]
    fn credentials_stay_in_the_registrys_domain() {
        for (registry, realm, want) in [
            (
                "https://registry-1.docker.io",
                "https://auth.docker.io",
                true,
            ),
            ("https://registry.gitlab.com", "https://gitlab.com", true),
            ("https://ghcr.io", "https://ghcr.io", true),
            ("https://r.example.com", "https://evil.com", false),
            ("https://example.com.evil.com", "https://example.com", false),
            ("https://a.co.uk", "https://b.co.uk", false),
            ("https://r.shop.co.uk", "https://auth.shop.co.uk", true),
            ("https://a.azurecr.io", "https://b.azurecr.io", false),
            ("https://a.azurecr.io", "https://a.azurecr.io", true),
            ("https://10.0.0.1", "https://10.0.0.2", false),
            ("https://10.0.0.1:5000", "https://10.0.0.1:5001", true),
            ("http://localhost:5000", "http://127.0.0.1:5001", true),
            ("https://registry", "https://auth", false),
            (
                "https://r.corp.example",
                "https://sso.trusted.example",
                true,
            ),
        ] {
            let trusted = ["sso.trusted.example".to_owned()];
            assert_eq!(
                may_have_credential(&origin(registry), &origin(realm), &trusted),
                want,
                "{registry} {realm}"
            );
        }
    }

    #[test]
    fn other_machines_do_not_name_this_one() {
        for (from, to, refused) in [
            ("https://r.example", "http://r.example/x", true),
            ("https://r.example", "https://169.254.169.254/latest", true),
            ("https://r.example", "https://[::1]:9/", true),
            ("https://r.example", "https://[::ffff:127.0.0.1]/", true),
            ("https://r.example", "https://localhost/", true),
            ("https://r.example", "https://s3.example/", false),
            ("https://r.example", "https://10.1.2.3/", false),
            ("http://r.example", "http://s3.example/", false),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/", false),
        ] {
            let from_origin = origin(from);
            let found = refuse(
                &from_origin,
                from_origin.is_loopback(),
                &Url::parse(to).unwrap(),
            );
            assert_eq!(found.is_some(), refused, "{from} {to} {found:?}");
        }
    }
}
