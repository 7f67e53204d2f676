//! The edges between rooms that ARCHITECTURE.md allows, checked against `cargo metadata`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde::Deserialize;

/// A room and the rooms it may use, `+room` standing for "and what that room may use".
const ALLOWED: &[(&str, &str)] = &[
    ("oci", ""),
    ("cause", ""),
    ("dialect", "oci cause"),
    ("keyring", "oci cause"),
    ("pod", "oci cause"),
    ("sys", ""),
    ("shim-api", ""),
    ("distribution", "oci cause keyring"),
    ("store", "oci cause sys"),
    ("images", "+distribution +store"),
    ("probe", "+distribution"),
    ("cri", "cause"),
    ("registry", "oci cause keyring sys +distribution +store"),
    ("shim", "sys shim-api"),
    ("runtime", "cri shim-api +images"),
    ("kubelet", "cri pod dialect keyring sys oci cause"),
    ("scheduler", "pod sys"),
    ("controllers", "pod sys"),
    ("apiserver", "pod sys"),
    ("explain", "+pod +dialect +probe"),
    ("check", "+pod +probe"),
    ("lab", "oci cause sys"),
    (
        "node",
        "+registry +runtime +kubelet +scheduler +controllers +apiserver +explain +check +lab +images",
    ),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// Edges that are not allowed, one line each.
pub(crate) fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("read cargo metadata")?;
    let mut problems = Vec::new();
    for package in &metadata.packages {
        let Some(room) = package.name.strip_prefix("towline-") else {
            continue;
        };
        let Some(allowed) = allowed(room) else {
            problems.push(format!("room {room} is not in the table of allowed edges"));
            continue;
        };
        for dependency in &package.dependencies {
            let used = dependency.name.strip_prefix("towline-");
            if let Some(used) =
                used.filter(|used| dependency.kind.is_none() && !allowed.contains(*used))
            {
                problems.push(format!(
                    "room {room} uses {used}, which the architecture does not allow"
                ));
            }
        }
    }
    Ok(problems)
}

fn allowed(room: &str) -> Option<BTreeSet<&'static str>> {
    let (_, uses) = ALLOWED.iter().find(|(name, _)| *name == room)?;
    let mut set = BTreeSet::new();
    for word in uses.split_whitespace() {
        let name = word.strip_prefix('+').unwrap_or(word);
        set.insert(name);
        if word.starts_with('+') {
            set.extend(allowed(name)?);
        }
    }
    Some(set)
}
