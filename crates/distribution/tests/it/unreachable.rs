//! Networks without a way out, in namespaces of their own.

use towline_cause::{Cause, Failure, Step};
use towline_distribution::{Options, PlainHttp};
use towline_keyring::Credential;
use towline_sys::testing::{in_network_namespace, need_root};

use crate::stub::{client, options, repository, words};

/// What a pull of this image says in a network namespace that has no route at all.
fn without_a_network(image: &str) -> Failure {
    in_network_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let client = client(Options {
                plain_http: PlainHttp::All,
                ..options()
            });
            repository(&client, image, Credential::Anonymous)
                .resolve()
                .await
                .unwrap_err()
        })
    })
}

#[test]
fn no_route() {
    if !need_root() {
        return;
    }
    let failure = without_a_network("10.9.8.7:5000/a:1");
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::HostUnreachable, Step::Connect),
        "{}",
        words(&failure)
    );
    assert!(
        failure
            .to_string()
            .contains("10.9.8.7:5000: no route to host"),
        "{failure}"
    );
}

#[test]
fn no_ipv6() {
    if !need_root() {
        return;
    }
    let failure = without_a_network("[fd00::7]:5000/a:1");
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::Ipv6Unreachable, Step::Connect),
        "{}",
        words(&failure)
    );
    // There is no way out by IPv6 at all, so it is not this one host.
    assert_eq!(failure.alternatives(), []);
}

#[test]
fn no_way_to_a_name_server() {
    if !need_root() {
        return;
    }
    // Whatever /etc/resolv.conf names, or if it names nothing: there is no way there.
    let failure = without_a_network("registry.test:5000/a:1");
    assert_eq!(
        (failure.cause(), failure.step()),
        (Cause::DnsFailed, Step::Dns),
        "{}",
        words(&failure)
    );
}
