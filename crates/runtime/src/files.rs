//! The text of the files that a sandbox lends to its containers: `resolv.conf`, `hosts`, `hostname`.

use std::fmt::Write as _;
use std::net::IpAddr;

/// DNS settings of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Dns {
    pub(crate) servers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

/// A value that would break out of its line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} holds a blank or a line break")]
pub(crate) struct BadValue {
    what: &'static str,
    value: String,
}

/// `resolv.conf`; an empty config gives `host`, the node's own.
pub(crate) fn resolv_conf(dns: &Dns, host: &str) -> Result<String, BadValue> {
    if *dns == Dns::default() {
        return Ok(host.to_owned());
    }
    let plain = |what, values: &[String]| match values
        .iter()
        .find(|v| v.is_empty() || v.chars().any(|c| c.is_whitespace() || c.is_control()))
    {
        Some(value) => Err(BadValue {
            what,
            value: value.chars().take(64).collect(),
        }),
        None => Ok(()),
    };
    plain("name server", &dns.servers)?;
    plain("search domain", &dns.searches)?;
    plain("resolver option", &dns.options)?;
    let mut text = String::new();
    if !dns.searches.is_empty() {
        put(
            &mut text,
            format_args!("search {}\n", dns.searches.join(" ")),
        );
    }
    for server in &dns.servers {
        put(&mut text, format_args!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        put(
            &mut text,
            format_args!("options {}\n", dns.options.join(" ")),
        );
    }
    Ok(text)
}

/// `hosts` of a pod that the kubelet gives none.
pub(crate) fn hosts(hostname: &str, address: Option<IpAddr>) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                    fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
        .to_owned();
    if let Some(address) = address {
        put(&mut text, format_args!("{address}\t{hostname}\n"));
    }
    text
}

/// Writing to a string cannot fail.
fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(line);
}

/// Whether this can be a host name: at most 64 characters of letters, digits, `-` and `.`.
pub(crate) fn is_hostname(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_of_the_pod_or_of_the_node() {
        let dns = Dns {
            servers: vec!["10.96.0.10".to_owned()],
            searches: vec!["a.svc".to_owned(), "svc".to_owned()],
            options: vec!["ndots:5".to_owned()],
        };
        assert_eq!(
            resolv_conf(&dns, "x").unwrap(),
            "search a.svc svc\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
        assert_eq!(resolv_conf(&Dns::default(), "node\n").unwrap(), "node\n");
        let bad = Dns {
            servers: vec!["1.1.1.1\nsearch evil".to_owned()],
            ..Dns::default()
        };
        assert!(resolv_conf(&bad, "").is_err());
    }

    #[test]
    fn host_names() {
        for good in ["web-0", "a.b", "X1"] {
            assert!(is_hostname(good), "{good}");
        }
        for bad in ["", "a b", "a/b", "a\n", &"a".repeat(65)] {
            assert!(!is_hostname(bad), "{bad}");
        }
    }
}
