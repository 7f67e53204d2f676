//! What the lab's nodes are told of the way to registries: files of mirrors and of blocked registries, and proxies.

use std::path::{Path, PathBuf};

use towline_distribution::{Proxies, ProxyOptions, Sources};
use towline_lab::scenario::{self, Standing, Told};
use towline_sys::fs;

use super::LabError;

fn trees(home: &Path) -> PathBuf {
    home.join("certs.d")
}

fn conf(home: &Path) -> PathBuf {
    home.join("registries.conf")
}

/// Makes the places of the files, which are read again for every image.
pub(super) fn prepare(home: &Path) -> Result<Sources, LabError> {
    fs::create_dir_all(trees(home))?;
    fs::create_dir_all(home.join("registries.conf.d"))?;
    fs::write_atomic(conf(home), b"")?;
    Ok(Sources {
        hosts_dirs: vec![trees(home)],
        registries_conf: Some(conf(home)),
    })
}

/// The proxies of every scenario that has one, each for the scenario's own registry.
pub(super) fn proxies() -> Proxies {
    let registries = scenario::proxies(&scenario::all())
        .into_iter()
        .map(|(registry, proxy)| (registry, Some(proxy.into())))
        .collect();
    Proxies::Given(ProxyOptions {
        registries,
        ..ProxyOptions::default()
    })
}

/// Writes what the node is told of a scenario's host; takes away what it was told before.
pub(super) fn write(home: &Path, host: &Standing) -> Result<(), LabError> {
    let name = host.authority();
    let hosts = trees(home).join(name.replace(':', "_")).join("hosts.toml");
    let registries = home
        .join("registries.conf.d")
        .join(format!("{}.conf", name.replace(':', "_")));
    let told = host.told().map(|(_, told)| told);
    for (path, text) in [
        (
            &hosts,
            told.as_ref().and_then(|told| match told {
                Told::Hosts(text) => Some(text),
                Told::Registries(_) => None,
            }),
        ),
        (
            &registries,
            told.as_ref().and_then(|told| match told {
                Told::Registries(text) => Some(text),
                Told::Hosts(_) => None,
            }),
        ),
    ] {
        match text {
            Some(text) => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::write_atomic(path, text.as_bytes())?;
            }
            None if path.exists() => fs::remove_file(path)?,
            None => {}
        }
    }
    Ok(())
}
