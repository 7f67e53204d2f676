//! What helps a pull at this prompt: by cause, in the terms of the command line. Where nothing here fits, the cause's own advice does.

use towline_cause::Cause;

use crate::registry_client::RegistryArgs;

/// How a pull asked.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) registry: &'a RegistryArgs,
    pub(super) platform: Option<&'a str>,
    /// A node or a runtime pulls in this one's place, as it was told at its start.
    pub(super) by_node: bool,
}

/// What to do about a failed pull of `image`, as one line.
pub(super) fn of(cause: Cause, image: &str, asking: Asking<'_>) -> String {
    let tables: &[&[(Cause, &str)]] = if asking.by_node {
        &[BY_NODE, HERE]
    } else {
        &[HERE]
    };
    let mut known = tables.iter().copied().flatten();
    let known = known.find(|(known, _)| *known == cause);
    let advice = known.map_or_else(|| cause.fix(), |(_, advice)| *advice);
    let advice = advice.trim_end_matches('.');
    if is_local(cause) {
        return advice.to_owned();
    }
    format!("{advice}; `{}` shows each step", why(image, asking))
}

/// The advice where a node pulls: what it was told at its start, this command line does not change.
const BY_NODE: &[(Cause, &str)] = &[
    (
        Cause::RateLimited,
        "wait, log in (--creds, --authfile) for a higher limit, or start the node with a mirror: --hosts-dir or --registries-conf",
    ),
    (
        Cause::PlatformMismatch,
        "name an image that is built for the node, or pull with --platform into another --data-dir, which the node has nothing of",
    ),
    (
        Cause::DnsNameNotFound,
        "correct the name, or start the node with the name server that knows it: --resolver IP:PORT",
    ),
    (
        Cause::DnsFailed,
        "repair the name server of this machine, or start the node with another one: --resolver IP:PORT",
    ),
    (
        Cause::DnsWrongAnswer,
        "repair the name server of this machine, or start the node with another one: --resolver IP:PORT",
    ),
    (
        Cause::TlsUnknownAuthority,
        "start the node with its authority, once you know whose it is: --ca FILE",
    ),
    (
        Cause::TlsIntercepted,
        "start the node with its authority, once you know whose it is: --ca FILE",
    ),
    (
        Cause::TlsClientCertificateRequired,
        "name the client's certificate and key in a hosts.toml and start the node with its folder: --hosts-dir",
    ),
    (
        Cause::PlainHttpRegistry,
        "serve TLS, or name it with http:// in a hosts.toml and start the node with its folder: --hosts-dir",
    ),
    (
        Cause::HttpsRegistryOverHttp,
        "name it with https:// in the hosts.toml that the node reads: it speaks TLS",
    ),
    (
        Cause::ProxyMisconfigured,
        "correct HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the node's environment, and start it again",
    ),
    (
        Cause::ProxyAuthRequired,
        "put USER:PASSWORD@ before the proxy's host in HTTPS_PROXY or HTTP_PROXY of the node's environment, and start it again",
    ),
    (
        Cause::MirrorMisconfigured,
        "correct the hosts.toml or registries.conf that the node was started with",
    ),
    (
        Cause::RuntimeMisconfigured,
        "correct the hosts.toml or registries.conf that the node was started with",
    ),
    (
        Cause::ImageTooLarge,
        "start the node with a higher ceiling of that name, if you trust the image: --ceiling NAME=NUMBER",
    ),
    (Cause::PullStalled, "pull again: what came is kept"),
    (
        Cause::NoSpaceLeft,
        "free some space (`towline prune`, `towline rm`, `towline df`) and pull again: what came is kept",
    ),
    (
        Cause::FilesystemReadOnly,
        "make the node's data directory one that can be written",
    ),
    (
        Cause::TooManyOpenFiles,
        "start the node with a higher limit of open files (`ulimit -n`)",
    ),
];

/// The advice, where it is another one than for a pod.
const HERE: &[(Cause, &str)] = &[
    (
        Cause::InvalidReference,
        "write it as HOST[:PORT]/REPOSITORY[:TAG][@DIGEST], in lower case up to the tag",
    ),
    (
        Cause::ShortNameUnresolved,
        "write the full name, with its registry in front: docker.io/library/NAME is what a bare name means",
    ),
    (
        Cause::RegistryPrefixMissing,
        "write the full name, with its registry in front: docker.io/library/NAME is what a bare name means",
    ),
    (
        Cause::RegistryIsLocalhost,
        "start the registry, or correct the port: nothing listens there",
    ),
    (
        Cause::ConnectionRefused,
        "start the registry, or correct the port: nothing listens there",
    ),
    (
        Cause::TagNotFound,
        "use a tag that exists (`towline registry tags` lists them), or push it",
    ),
    (
        Cause::NoCredentials,
        "log in: --creds USER:PASSWORD, --authfile FILE, or `docker login` (or `podman login`), whose login is found by itself",
    ),
    (
        Cause::WrongCredentials,
        "correct what --creds, --authfile or the last `docker login` says, or log out where the image is public",
    ),
    (
        Cause::ExpiredCredentials,
        "log in again with `docker login`, or give a fresh token with --creds",
    ),
    (
        Cause::InsufficientPermission,
        "log in as somebody who may pull it (--creds, --authfile), or have the right given to this user",
    ),
    (
        Cause::PullSecretMalformed,
        "correct the login file, or name another one with --authfile",
    ),
    (
        Cause::CredentialProviderFailed,
        "repair the credential helper that the login file names, or give the login with --creds",
    ),
    (
        Cause::RateLimited,
        "wait, log in (--creds, --authfile) for a higher limit, or name a mirror with --hosts-dir or --registries-conf",
    ),
    (
        Cause::PlatformMismatch,
        "ask for one that it is built for: --platform OS/ARCH",
    ),
    (
        Cause::DnsNameNotFound,
        "correct the name, or ask the name server that knows it: --resolver IP:PORT",
    ),
    (
        Cause::DnsFailed,
        "repair the name server of this machine, or ask another one: --resolver IP:PORT",
    ),
    (
        Cause::DnsWrongAnswer,
        "repair the name server of this machine, or ask another one: --resolver IP:PORT",
    ),
    (
        Cause::TlsUnknownAuthority,
        "trust its authority with --ca FILE, once you know whose it is",
    ),
    (
        Cause::TlsIntercepted,
        "trust its authority with --ca FILE, once you know whose it is",
    ),
    (
        Cause::TlsClientCertificateRequired,
        "name the client's certificate and key in a hosts.toml and give its folder with --hosts-dir",
    ),
    (
        Cause::PlainHttpRegistry,
        "serve TLS, or speak plain HTTP to it with --plain-http",
    ),
    (
        Cause::HttpsRegistryOverHttp,
        "leave --plain-http away: it speaks TLS",
    ),
    (
        Cause::ProxyMisconfigured,
        "correct HTTPS_PROXY, HTTP_PROXY and NO_PROXY in this shell's environment",
    ),
    (
        Cause::ProxyAuthRequired,
        "put USER:PASSWORD@ before the proxy's host in HTTPS_PROXY or HTTP_PROXY",
    ),
    (
        Cause::MirrorMisconfigured,
        "correct what --hosts-dir or --registries-conf names; `towline endpoints IMAGE` shows how it is read",
    ),
    (
        Cause::RuntimeMisconfigured,
        "correct what --hosts-dir or --registries-conf names; `towline endpoints IMAGE` shows how it is read",
    ),
    (
        Cause::ImageTooLarge,
        "raise the ceiling that is named, with --ceiling NAME=NUMBER, if you trust the image",
    ),
    (
        Cause::NotAnImage,
        "use another reference: this one holds something else than a container image",
    ),
    (Cause::ConnectionReset, "pull again: what came is kept"),
    (Cause::ConnectionTimeout, "pull again: what came is kept"),
    (Cause::RegistryError, "pull again: what came is kept"),
    (Cause::DeadlineExceeded, "pull again: what came is kept"),
    (
        Cause::PullStalled,
        "pull again, what came is kept; --min-rate says how slow a connection may be",
    ),
    (
        Cause::NoSpaceLeft,
        "free some space (`towline prune`, `towline rm`, `towline df`), or use another --data-dir, and pull again: what came is kept",
    ),
    (
        Cause::FilesystemReadOnly,
        "use a --data-dir that can be written",
    ),
    (
        Cause::ContentStoreCorrupt,
        "`towline verify --repair` finds and replaces what is damaged",
    ),
    (
        Cause::UserNamespaceRange,
        "pull as root, or give this user a larger range in /etc/subuid and /etc/subgid",
    ),
    (Cause::TooManyOpenFiles, "raise `ulimit -n` in this shell"),
];

/// Whether asking the registry step by step would show nothing of it.
fn is_local(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::InvalidReference
            | Cause::PullSecretMalformed
            | Cause::CredentialProviderFailed
            | Cause::DeadlineExceeded
            | Cause::NoSpaceLeft
            | Cause::FilesystemReadOnly
            | Cause::ContentStoreCorrupt
            | Cause::UserNamespaceRange
            | Cause::TooManyOpenFiles
    )
}

/// The command that explains it, asking as this pull did. A password is left to the person who has it.
fn why(image: &str, asking: Asking<'_>) -> String {
    let registry = asking.registry;
    let mut words = vec!["towline why".to_owned(), quoted(image)];
    words.extend(
        asking
            .platform
            .map(|name| format!("--platform {}", quoted(name))),
    );
    if registry.plain_http {
        words.push("--plain-http".to_owned());
    }
    if registry.creds.is_some() && std::env::var_os("TOWLINE_CREDS").is_none() {
        words.push("--creds USER:PASSWORD".to_owned());
    }
    let files = registry.ca.iter().map(|file| ("--ca", file));
    let files = files.chain(registry.authfile.iter().map(|file| ("--authfile", file)));
    let mirrors = &registry.mirrors;
    let files = files.chain(mirrors.hosts_dir.iter().map(|dir| ("--hosts-dir", dir)));
    let files = files.chain(
        mirrors
            .registries_conf
            .iter()
            .map(|file| ("--registries-conf", file)),
    );
    words.extend(
        files.map(|(option, file)| format!("{option} {}", quoted(&file.to_string_lossy()))),
    );
    words.extend(
        registry
            .resolver
            .iter()
            .map(|at| format!("--resolver {at}")),
    );
    let way = registry.way.words().into_iter();
    words.extend(way.map(|(option, value)| format!("{option} {}", quoted(&value))));
    words.join(" ")
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=+,%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        registry: RegistryArgs,
    }

    fn registry(args: &[&str]) -> RegistryArgs {
        let args = std::iter::once(&"pull").chain(args);
        Line::try_parse_from(args).unwrap().registry
    }

    fn asking(registry: &RegistryArgs) -> Asking<'_> {
        Asking {
            registry,
            platform: None,
            by_node: false,
        }
    }

    #[test]
    fn advice_is_for_who_types_the_command() {
        let plain = registry(&[]);
        for cause in Cause::ALL {
            let advice = of(cause, "r.io/x", asking(&plain));
            assert!(!advice.contains(".;") && !advice.contains('\n'), "{advice}");
        }
        for (cause, option) in [
            (Cause::NoCredentials, "--authfile"),
            (Cause::NoCredentials, "docker login"),
            (Cause::PlatformMismatch, "--platform"),
            (Cause::TlsUnknownAuthority, "--ca"),
            (Cause::PlainHttpRegistry, "--plain-http"),
            (Cause::RuntimeMisconfigured, "--hosts-dir"),
        ] {
            let advice = of(cause, "r.io/x", asking(&plain));
            assert!(advice.contains(option), "{cause}: {advice}");
            assert!(!advice.contains("imagePullSecret") && !advice.contains("nodeSelector"));
        }
    }

    #[test]
    fn a_pull_by_a_node_is_told_no_option_that_it_refuses() {
        let plain = registry(&[]);
        for cause in Cause::ALL {
            let by_node = Asking {
                by_node: true,
                ..asking(&plain)
            };
            let advice = of(cause, "r.io/x", by_node);
            for option in [
                "--ca ",
                "--resolver",
                "--hosts-dir",
                "--registries-conf",
                "--plain-http",
                "--ceiling",
                "--min-rate",
                "--platform",
            ] {
                let for_node = advice.contains("start the node") || advice.contains("--data-dir");
                assert!(!advice.contains(option) || for_node, "{cause}: {advice}");
            }
        }
    }

    #[test]
    fn the_explanation_asks_as_the_pull_did_and_shows_no_password() {
        let registry = registry(&[
            "--plain-http",
            "--creds",
            "me:secret",
            "--authfile",
            "/a b",
            "--hosts-dir",
            "/c",
            "--registries-conf",
            "/d",
            "--trust-realm",
            "auth.io",
            "--registry-proxy",
            "r.io=http://me:secret@proxy:1",
        ]);
        let asking = Asking {
            platform: Some("linux/arm64"),
            ..asking(&registry)
        };
        assert_eq!(
            why("r.io/x:1", asking),
            "towline why r.io/x:1 --platform linux/arm64 --plain-http --creds USER:PASSWORD --authfile '/a b' --hosts-dir /c \
             --registries-conf /d --trust-realm auth.io --registry-proxy r.io=http://USER:PASSWORD@proxy:1"
        );
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
