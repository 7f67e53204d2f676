//! Images that nobody uses go when the disk fills up, by Kubernetes' rules, numbers and texts: from the high mark on, until the low mark
//! again, those first that were not used for longest, none that is used by a container, pinned, or here for less than the minimum age.
//! Where there is a greatest age, those that nobody used for that long go at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio_util::sync::CancellationToken;
use towline_cri::v1;
use towline_pod::pull::EventText;
use tracing::{info, warn};

use crate::ImageGc;
use crate::clock::{Clock, between};
use crate::cri::Cri;
use crate::events::Recorder;
use crate::metrics::Metrics;

const PERIOD: Duration = Duration::from_secs(300);
/// Pods that were here before the agent have their containers by then.
const FIRST: Duration = Duration::from_secs(60);

/// When an image was first seen and last in use; no time for what was here before the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    first: Option<Timestamp>,
    used: Option<Timestamp>,
}

impl Seen {
    /// When it was last of use, or came; `None` for what was here before the agent and not used since.
    fn last(&self) -> Option<Timestamp> {
        self.used.max(self.first)
    }
}

/// Looks after the disk of the images.
pub(crate) struct Collector {
    pub(crate) cri: Cri,
    pub(crate) clock: Clock,
    pub(crate) recorder: Recorder,
    pub(crate) node: String,
    pub(crate) rules: ImageGc,
    pub(crate) metrics: Arc<Metrics>,
}

/// Bytes of a file system as the kubelet counts them: what is not available to it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Disk {
    capacity: u64,
    available: u64,
}

/// What a look at the disk comes to.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// There is room.
    Fine,
    /// So many bytes are to be freed.
    Free { percent: u64, bytes: u64 },
}

impl Collector {
    /// Looks at the disk now and then until told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut seen = HashMap::new();
        let mut wait = FIRST;
        let mut failed_before = false;
        let mut first = true;
        let began = self.clock.now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let result = self.once(&mut seen, first, began).await;
            // Where the first list cannot be had, the next one is the first.
            first &= seen.is_empty() && result.is_err();
            if let Err(why) = &result {
                warn!(error = %why, "the disk of images is not tidied");
                // Once may be a runtime that just starts.
                if failed_before {
                    self.tell("ImageGCFailed", why.clone());
                }
            }
            failed_before = result.is_err();
            wait = PERIOD;
        }
    }

    async fn once(
        &self,
        seen: &mut HashMap<String, Seen>,
        first: bool,
        began: Timestamp,
    ) -> Result<(), String> {
        let asked = |error: crate::cri::CriError| error.to_string();
        let images = self.cri.list_images().await.map_err(asked)?;
        let containers = self.cri.containers().await.map_err(asked)?;
        let used = in_use(&containers);
        let now = self.clock.now();
        observe(seen, &images, &used, now, first);
        let mut unused = candidates(&images, &used, seen, now, self.rules.min_age);
        // What was used before the agent began is not known: every image has as long as the rule says.
        if let Some(age) = self.rules.max_age
            && between(began, now) > age
        {
            let (old, others) = unused.into_iter().partition(|image| {
                let last = seen.get(&image.id).and_then(Seen::last);
                last.is_none_or(|last| between(last, now) > age)
            });
            unused = others;
            self.remove_old(old, seen, age).await?;
        }
        if self.rules.high_percent >= 100 {
            return Ok(());
        }
        let Some(mount) = self.cri.image_mount().await.map_err(asked)? else {
            return Ok(());
        };
        self.make_room(&mount, unused, seen).await
    }

    /// Removes what nobody used for too long.
    async fn remove_old(
        &self,
        old: Vec<&v1::Image>,
        seen: &mut HashMap<String, Seen>,
        age: Duration,
    ) -> Result<(), String> {
        let mut refused = Vec::new();
        for image in old {
            if let Err(why) = self.remove(image, "age", seen).await {
                refused.push(why);
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        Err(format!(
            "wanted to free images older than {}s, encountered errors in image deletion: {}",
            age.as_secs(),
            refused.join("; ")
        ))
    }

    async fn remove(
        &self,
        image: &v1::Image,
        reason: &'static str,
        seen: &mut HashMap<String, Seen>,
    ) -> Result<(), String> {
        info!(
            image = image.id,
            size = image.size,
            reason,
            "an image that nobody uses is removed"
        );
        let removed = self.cri.remove_image(&image.id).await;
        removed.map_err(|error| error.to_string())?;
        seen.remove(&image.id);
        self.metrics.collected(reason);
        Ok(())
    }

    /// Removes unused images, those first that come first, until the disk has room again.
    async fn make_room(
        &self,
        mount: &str,
        unused: Vec<&v1::Image>,
        seen: &mut HashMap<String, Seen>,
    ) -> Result<(), String> {
        let disk = Disk::of(mount)?;
        if disk.capacity == 0 {
            let why = "invalid capacity 0 on image filesystem".to_owned();
            self.tell("InvalidDiskCapacity", why.clone());
            return Err(why);
        }
        let (percent, wanted) = match disk.look(&self.rules) {
            Look::Fine => return Ok(()),
            Look::Free { percent, bytes } => (percent, bytes),
        };
        info!(percent, wanted, "the disk of images is filling up");
        let mut freed = 0_u64;
        let mut refused = Vec::new();
        for image in unused {
            // What a runtime calls an image's size is often that of the download: the disk itself knows better.
            if freed >= wanted || Disk::of(mount)?.look(&self.rules.at_low()) == Look::Fine {
                return Ok(());
            }
            match self.remove(image, "space", seen).await {
                Ok(()) => freed += image.size,
                Err(why) => refused.push(why),
            }
        }
        if !refused.is_empty() {
            return Err(format!(
                "wanted to free {wanted} bytes, but freed {freed} bytes space with errors in image deletion: {}",
                refused.join("; ")
            ));
        }
        if freed >= wanted || Disk::of(mount)?.look(&self.rules.at_low()) == Look::Fine {
            return Ok(());
        }
        let message = format!(
            "Insufficient free disk space on the node's image filesystem ({percent}% of {} used). Failed to free sufficient space by \
             deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used by active images, logs, volumes, \
             or other data.",
            size(disk.capacity)
        );
        self.tell("FreeDiskSpaceFailed", message.clone());
        Err(message)
    }

    fn tell(&self, reason: &'static str, message: String) {
        let node = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node.clone()),
            // The kubelet takes the name for the uid in events of nodes, and kubectl describe looks for that.
            uid: Some(self.node.clone()),
            ..ObjectReference::default()
        };
        self.recorder
            .record(node, EventText::warning(reason, message));
    }
}

impl Disk {
    fn of(mount: &str) -> Result<Self, String> {
        let stat = rustix::fs::statvfs(mount)
            .map_err(|error| format!("measure the file system of {mount}: {error}"))?;
        Ok(Self {
            capacity: stat.f_blocks.saturating_mul(stat.f_frsize),
            available: stat
                .f_bavail
                .min(stat.f_blocks)
                .saturating_mul(stat.f_frsize),
        })
    }

    fn look(self, rules: &ImageGc) -> Look {
        let share = |bytes: u64| u128::from(bytes) * 100 / u128::from(self.capacity.max(1));
        let percent = 100 - u64::try_from(share(self.available)).unwrap_or(100).min(100);
        if percent < u64::from(rules.high_percent) {
            return Look::Fine;
        }
        let free_at_low = u128::from(self.capacity) * u128::from(100 - rules.low_percent.min(100));
        let free_at_low = u64::try_from(free_at_low / 100).unwrap_or(u64::MAX);
        match free_at_low.saturating_sub(self.available) {
            0 => Look::Fine,
            bytes => Look::Free { percent, bytes },
        }
    }
}

impl ImageGc {
    /// The same with its high mark at the low one: whether enough is free after a removal.
    fn at_low(&self) -> Self {
        Self {
            high_percent: self.low_percent,
            ..self.clone()
        }
    }
}

/// Every name that a container gives to its image.
fn in_use(containers: &[v1::Container]) -> HashSet<&str> {
    let names = containers.iter().flat_map(|container| {
        let spec = container.image.as_ref().map(|spec| spec.image.as_str());
        [container.image_id.as_str(), container.image_ref.as_str()]
            .into_iter()
            .chain(spec)
    });
    names.filter(|name| !name.is_empty()).collect()
}

fn is_used(image: &v1::Image, used: &HashSet<&str>) -> bool {
    let names = image.repo_tags.iter().chain(&image.repo_digests);
    names
        .chain([&image.id])
        .any(|name| used.contains(name.as_str()))
}

fn observe(
    seen: &mut HashMap<String, Seen>,
    images: &[v1::Image],
    used: &HashSet<&str>,
    now: Timestamp,
    first: bool,
) {
    let here: HashSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
    seen.retain(|id, _| here.contains(id.as_str()));
    for image in images {
        let entry = seen.entry(image.id.clone()).or_insert_with(|| Seen {
            first: (!first).then_some(now),
            used: None,
        });
        if is_used(image, used) {
            entry.used = Some(now);
        }
    }
}

/// Images that may go, in the order in which they go.
fn candidates<'i>(
    images: &'i [v1::Image],
    used: &HashSet<&str>,
    seen: &HashMap<String, Seen>,
    now: Timestamp,
    min_age: Duration,
) -> Vec<&'i v1::Image> {
    let mut free: Vec<(Seen, &v1::Image)> = images
        .iter()
        .filter(|image| !image.pinned && !is_used(image, used))
        .filter_map(|image| Some((*seen.get(&image.id)?, image)))
        .filter(|(seen, _)| {
            seen.first
                .is_none_or(|first| between(first, now) >= min_age)
        })
        .collect();
    free.sort_by_key(|(seen, image)| (seen.used, seen.first, image.id.as_str()));
    free.into_iter().map(|(_, image)| image).collect()
}

/// Bytes as the kubelet's message has them: `89.9 GiB`.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < units.len() {
        tenths /= 1024;
        unit += 1;
    }
    let unit = units.get(unit).copied().unwrap_or_default();
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tag: &str, pinned: bool) -> v1::Image {
        v1::Image {
            id: id.to_owned(),
            repo_tags: vec![tag.to_owned()],
            pinned,
            ..v1::Image::default()
        }
    }

    #[test]
    fn the_longest_unused_go_first_and_what_is_used_pinned_or_new_stays() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ids = |images: Vec<&v1::Image>| -> Vec<String> {
            images.into_iter().map(|image| image.id.clone()).collect()
        };
        let age = Duration::from_secs(120);
        let mut images = vec![
            image("sha256:a", "r/a:1", false),
            image("sha256:b", "r/b:1", false),
            image("sha256:c", "r/c:1", false),
            image("sha256:pinned", "r/pause:1", true),
        ];
        let by_tag = v1::Container {
            image: Some(v1::ImageSpec {
                image: "r/b:1".to_owned(),
                ..v1::ImageSpec::default()
            }),
            ..v1::Container::default()
        };
        let by_id = v1::Container {
            image_id: "sha256:c".to_owned(),
            ..v1::Container::default()
        };
        let mut seen = HashMap::new();
        let containers = [by_tag, by_id];
        observe(&mut seen, &images, &in_use(&containers), at(0), true);
        // What was here before the agent is old enough at once.
        let both = in_use(&containers);
        assert_eq!(
            ids(candidates(&images, &both, &seen, at(0), age)),
            ["sha256:a"]
        );
        // Later only c is in use; d is new.
        images.push(image("sha256:d", "r/d:1", false));
        let used = in_use(&containers[1..]);
        observe(&mut seen, &images, &used, at(300), false);
        let now = |second| ids(candidates(&images, &used, &seen, at(second), age));
        assert_eq!(now(300), ["sha256:a", "sha256:b"]);
        assert_eq!(now(500), ["sha256:a", "sha256:d", "sha256:b"]);
        observe(&mut seen, &images[..1], &used, at(600), false);
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn from_the_high_mark_down_to_the_low_one() {
        let rules = ImageGc::default();
        for (available, want) in [
            (1000, Look::Fine),
            (160, Look::Fine),
            (
                150,
                Look::Free {
                    percent: 85,
                    bytes: 50,
                },
            ),
            (
                0,
                Look::Free {
                    percent: 100,
                    bytes: 200,
                },
            ),
        ] {
            let disk = Disk {
                capacity: 1000,
                available,
            };
            assert_eq!(disk.look(&rules), want, "{available}");
        }
        let enough = Disk {
            capacity: 1000,
            available: 200,
        };
        assert_eq!(enough.look(&rules.at_low()), Look::Fine);
        let huge = Disk {
            capacity: u64::MAX,
            available: 1,
        };
        assert!(matches!(huge.look(&rules), Look::Free { percent: 100, .. }));
    }

    #[test]
    fn sizes_are_the_kubelets() {
        assert_eq!(size(96_529_000_000), "89.8 GiB");
        assert_eq!(size(1023), "1023.0 B");
        assert_eq!(size(1 << 40), "1.0 TiB");
    }
}
