//! `kill -9` at random points of a large layer: what the spool has is not fetched again, and nothing broken is left.
//!
//! `TOWLINE_TEST_KILLS` and `TOWLINE_TEST_KILL_MIB` ask for more kills of a larger layer, `TOWLINE_TEST_KILL_SEED` for the same ones again.

use std::time::Duration;

use towline_lab::faults::{Fault, Rule};
use towline_lab::image::{Builder, Compression, Layer};
use towline_oci::Reference;
use towline_store::Store;

use crate::crash::pull_in_a_child;
use crate::relay::Relay;
use crate::support::{Registry, assert_clean, noise, spooled};

/// What may be on its way between registry and spool when the process dies: in the sockets of four connections. The next attempt asks for all
/// that the spool lacks and nothing else.
const ON_THE_WAY: u64 = 4 * (4 << 20);

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_costs_only_what_was_on_its_way() {
    let kills = number("TOWLINE_TEST_KILLS", 20);
    let mib = number("TOWLINE_TEST_KILL_MIB", 40);
    let seed = number("TOWLINE_TEST_KILL_SEED", u64::from(std::process::id()));
    eprintln!("TOWLINE_TEST_KILL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let registry = Registry::start().await;
    let content = noise(usize::try_from(mib << 20).unwrap(), 5);
    let layer = Layer::new()
        .file("large", content)
        .compression(Compression::None);
    let built = Builder::new().layer(layer).build();
    registry.push(&built, "killed").await;
    // About a second for 40 MiB over one connection.
    let slow = Fault::Trickle {
        bytes: 256 << 10,
        every_millis: 5,
    };
    registry.break_by(vec![Rule::on("*/blobs/*", slow).method("GET")]);
    let relay = Relay::before(registry.proxy.local_addr()).await;
    let reference = Reference::parse(&format!("{}/killed:latest", relay.address)).unwrap();
    let size = built.blobs[0].bytes.len() as u64;
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("store");
    let (mut killed, mut whole, mut worst) = (0, 0, 0);
    let (mut had, mut sent) = (0, relay.sent());
    while killed < kills {
        let mut child = pull_in_a_child(&root, &reference);
        let after = Duration::from_millis(100 + random.u64(..300 + mib * 2));
        let ended = tokio::task::block_in_place(|| child.wait_timeout(after)).unwrap();
        drop(child);
        let store = Store::open(&root).unwrap();
        assert_clean(&root);
        assert_eq!(store.verify().unwrap(), []);
        drop(store);
        // What the dead process had not read is not counted by the relay in full, only what went into its socket.
        let came = relay.sent() - std::mem::replace(&mut sent, relay.sent());
        if let Some(status) = ended {
            assert!(status.success());
            assert!(
                came <= size - had + ON_THE_WAY,
                "{came} bytes came although {had} of {size} were here"
            );
            whole += 1;
            std::fs::remove_dir_all(&root).unwrap();
            had = 0;
            continue;
        }
        killed += 1;
        let has: u64 = spooled(&root).iter().sum();
        // A pull that had everything has no spool any more.
        if has >= had {
            let lost = (had + came).saturating_sub(has);
            worst = worst.max(lost);
            assert!(
                lost <= ON_THE_WAY,
                "{came} bytes came, {had} were here and {has} are now"
            );
        }
        had = has;
    }
    eprintln!("{kills} kills, {whole} whole pulls between, at most {worst} bytes lost by one");
}
