//! How long `towline why` takes: one broken pod, and a thousand that name twenty images, on loopback.

use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::process::{self, Cost, Daemon};
use super::registry::free_address;
use super::{say, scratch};

/// The tag that is there; the pods name one that is not.
const TAG: &str = "v1.0";
const TYPO: &str = "v1.O";
/// The name of a pod that is asked about alone.
const ONE: &str = "pod/pod-0";

/// One broken pod and many, against an API server and a registry on loopback
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Pods that are made
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    /// Images that they share
    #[arg(long, default_value_t = 20)]
    images: usize,
    /// Times each question is asked
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Folder for the cluster, the registry and logs
    #[arg(long, value_name = "DIR", default_value = "target/bench-why")]
    scratch: PathBuf,
    /// The program to measure
    #[arg(long, value_name = "FILE", default_value = "target/release/towline")]
    towline: PathBuf,
}

pub(crate) fn run(args: &Args, root: &Path) -> anyhow::Result<()> {
    if args.pods == 0 || args.images == 0 || args.rounds == 0 {
        bail!("there is nothing to measure: pods, images and rounds begin at 1");
    }
    let towline = root.join(&args.towline);
    if !towline.is_file() {
        bail!("{} is not there: cargo build --release", towline.display());
    }
    let work = root.join(&args.scratch);
    // What an earlier run left is another cluster's.
    if work.exists() {
        std::fs::remove_dir_all(&work).with_context(|| format!("empty {}", work.display()))?;
    }
    std::fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
    let bench = Bench {
        towline,
        work: work.canonicalize()?,
    };
    let (_registry, host) = bench.registry(args.images)?;
    let _api = bench.api()?;
    say(&format!("{} pods are made", args.pods));
    bench.pods(args, &host)?;
    let mut rows = Vec::new();
    for (name, question) in [("one pod", vec![ONE]), ("all pods", vec!["-n", "default"])] {
        let mut runs = Vec::new();
        for round in 1..=args.rounds {
            let run = bench.ask(&question)?;
            say(&format!("{round}/{} {name}: {}", args.rounds, run.line()));
            runs.push(run);
        }
        rows.push((name, runs));
    }
    let many = rows.iter().find(|(name, _)| *name == "all pods");
    for run in many.iter().flat_map(|(_, runs)| runs) {
        if run.broken != args.pods {
            bail!("{} of {} pods were found broken", run.broken, args.pods);
        }
    }
    super::result(&markdown(&rows));
    Ok(())
}

/// Where everything is.
struct Bench {
    towline: PathBuf,
    work: PathBuf,
}

/// One question asked.
struct Run {
    cost: Cost,
    /// Pods that do not pull, as the answer says.
    broken: usize,
    /// Requests to the registry, as the answer says; `None` where it does not (one pod).
    requests: Option<u64>,
}

impl Run {
    fn line(&self) -> String {
        let requests = requests(self.requests);
        format!(
            "{:.0} ms, CPU {:.0} ms, {} MiB at most, {requests} requests to the registry",
            self.cost.wall * 1e3,
            self.cost.cpu * 1e3,
            self.cost.peak >> 20
        )
    }
}

fn requests(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

impl Bench {
    fn towline(&self) -> Command {
        let mut command = Command::new(&self.towline);
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    fn kubeconfig(&self) -> PathBuf {
        self.work.join("api/kubeconfigs/admin")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.work.join(format!("{name}.log"))
    }

    /// A registry that holds each image with one tag.
    fn registry(&self, images: usize) -> anyhow::Result<(Daemon, String)> {
        let address = free_address()?;
        let mut command = self.towline();
        command.args(["registry", "--listen", &address.to_string(), "--root"]);
        command.arg(self.work.join("registry"));
        let mut daemon = Daemon::start(&mut command, &self.log("registry"))?;
        daemon.until(|| TcpStream::connect(address).is_ok())?;
        let layout = self.layout()?;
        for number in 0..images {
            let image = format!("{address}/team/app-{number}:{TAG}");
            scratch::run(
                self.towline()
                    .args(["registry", "import"])
                    .arg(&layout)
                    .arg(image),
            )?;
        }
        Ok((daemon, address.to_string()))
    }

    /// An OCI layout of an image without layers.
    fn layout(&self) -> anyhow::Result<PathBuf> {
        let dir = self.work.join("layout");
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs)?;
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
        let config = blob(&blobs, &config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [],
        });
        let manifest = blob(&blobs, &manifest)?;
        let index = json!({
            "schemaVersion": 2,
            "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json", &manifest)],
        });
        std::fs::write(dir.join("index.json"), index.to_string())?;
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
        Ok(dir)
    }

    fn api(&self) -> anyhow::Result<Daemon> {
        let mut command = self.towline();
        command.args(["apiserver", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(self.work.join("api"));
        let mut daemon = Daemon::start(&mut command, &self.log("api"))?;
        let ready = || {
            let asked = self.kubectl(&["get", "--raw", "/readyz"]).output();
            asked.is_ok_and(|output| output.status.success())
        };
        daemon.until(ready)?;
        Ok(daemon)
    }

    fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .env("HOME", &self.work)
            .args(args);
        command
    }

    /// Pods that a node said could not be pulled, as a node without our annotation says it.
    fn pods(&self, args: &Args, host: &str) -> anyhow::Result<()> {
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let image = |number: usize| format!("{host}/team/app-{}:{TYPO}", number % args.images);
        let pod = |number: usize, status: Option<Value>| {
            let mut pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("pod-{number}"), "namespace": "default"},
                "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": image(number)}]},
            });
            if let Some(status) = status {
                pod["status"] = status;
            }
            pod
        };
        let status = |number: usize| {
            let image = image(number);
            let message = format!(
                "Back-off pulling image \"{image}\": ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {image}: not found"
            );
            json!({"phase": "Pending", "containerStatuses": [{
                "name": "app", "image": image, "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": message}},
            }]})
        };
        let list = |items: Vec<Value>| {
            json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
        };
        let made = (0..args.pods).map(|number| pod(number, None));
        let made = std::iter::once(account).chain(made).collect();
        let told = (0..args.pods).map(|number| pod(number, Some(status(number))));
        let (pods, statuses) = (self.work.join("pods.json"), self.work.join("statuses.json"));
        std::fs::write(&pods, list(made))?;
        std::fs::write(&statuses, list(told.collect()))?;
        scratch::run(
            self.kubectl(&["create", "--validate=false", "-f"])
                .arg(&pods),
        )?;
        scratch::run(
            self.kubectl(&["replace", "--validate=false", "--subresource=status", "-f"])
                .arg(&statuses),
        )
    }

    /// Asks once; the answer must be the proven cause.
    fn ask(&self, question: &[&str]) -> anyhow::Result<Run> {
        let log = self.log("why");
        let mut command = self.towline();
        command.arg("why").args(question).args(["-o", "json"]);
        // 1 says that something does not pull.
        let cost = process::measured_until(&mut command, &log, 1)?;
        let answer = std::fs::read(&log)?;
        let answer: Value = serde_json::from_slice(&answer).context("read the answer")?;
        let first = answer["items"].get(0).unwrap_or(&answer);
        let said = (first["cause"].as_str(), first["confidence"].as_str());
        if said != (Some("TagNotFound"), Some("proven")) {
            bail!("the answer is {said:?} and not the cause that was made");
        }
        let asked = answer["asked"].as_array();
        let count = |asked: &Vec<Value>| {
            let counts = asked.iter().filter_map(|one| one["requests"].as_u64());
            counts.sum()
        };
        let broken = answer["broken"].as_u64().unwrap_or(1);
        Ok(Run {
            cost,
            broken: usize::try_from(broken)?,
            requests: asked.map(count),
        })
    }
}

/// Writes a blob under its digest, and says digest and size.
fn blob(blobs: &Path, document: &Value) -> anyhow::Result<(String, usize)> {
    let text = document.to_string();
    let new = blobs.join("new");
    std::fs::write(&new, &text)?;
    let output = Command::new("sha256sum").arg(&new).output();
    let output = output.context("run sha256sum")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let digest = said.split(' ').next().unwrap_or_default().to_owned();
    std::fs::rename(&new, blobs.join(&digest))?;
    Ok((digest, text.len()))
}

fn descriptor(media_type: &str, (digest, size): &(String, usize)) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size})
}

/// Medians, with the range of the times.
fn markdown(rows: &[(&str, Vec<Run>)]) -> String {
    let mut text =
        "| question | wall ms (min to max) | CPU ms | peak MiB | requests to the registry |\n\
                    | --- | --- | --- | --- | --- |\n"
            .to_owned();
    for (name, runs) in rows {
        let of = |value: fn(&Run) -> f64| sorted(runs.iter().map(value).collect());
        let wall = of(|run| run.cost.wall * 1e3);
        let (low, high) = (wall.first(), wall.last());
        // Writing to a String does not fail.
        writeln!(
            text,
            "| {name} | {:.0} ({:.0} to {:.0}) | {:.0} | {:.0} | {} |",
            median(&wall),
            low.copied().unwrap_or_default(),
            high.copied().unwrap_or_default(),
            median(&of(|run| run.cost.cpu * 1e3)),
            median(&of(|run| mebibytes(run.cost.peak))),
            requests(runs.iter().filter_map(|run| run.requests).max()),
        )
        .ok();
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "mebibytes for a table")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The middle value of sorted ones; of two the lower.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len().saturating_sub(1) / 2;
    sorted.get(middle).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_medians_and_the_range() {
        let run = |wall: f64, peak: u64| Run {
            cost: Cost {
                wall,
                cpu: 0.1,
                peak,
            },
            broken: 3,
            requests: Some(8),
        };
        let runs = vec![run(0.3, 40 << 20), run(0.1, 20 << 20), run(0.2, 30 << 20)];
        let table = markdown(&[("all pods", runs)]);
        assert!(
            table.ends_with("| all pods | 200 (100 to 300) | 100 | 30 | 8 |\n"),
            "{table}"
        );
    }
}
