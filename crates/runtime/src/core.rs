//! What the runtime knows at any moment: its sandboxes and containers, in memory and on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tonic::Status;
use towline_sys::task::{self, Supervisor};

use crate::fault::Doing as _;
use crate::image_store::ImageStore;
use crate::layout::{ContainerDir, Layout, SandboxDir};
use crate::network::PodNetwork;
use crate::record::{self, ContainerRecord, SandboxRecord};

/// Watchers end after the server: until then calls wait for what they see.
pub(crate) const WATCH_STAGE: u8 = 1;

/// A sandbox. The gate is held by whoever changes it.
#[derive(Debug)]
pub(crate) struct Sandbox {
    record: Mutex<SandboxRecord>,
    pub(crate) gate: tokio::sync::Mutex<()>,
    pub(crate) dir: SandboxDir,
}

impl Sandbox {
    pub(crate) fn new(record: SandboxRecord, dir: SandboxDir) -> Self {
        Self {
            record: Mutex::new(record),
            gate: tokio::sync::Mutex::new(()),
            dir,
        }
    }

    /// What is known now.
    pub(crate) fn get(&self) -> SandboxRecord {
        lock(&self.record).clone()
    }

    /// Changes what is known, and writes it.
    pub(crate) async fn change(
        &self,
        how: impl FnOnce(&mut SandboxRecord),
    ) -> Result<SandboxRecord, Status> {
        let changed = {
            let mut record = lock(&self.record);
            how(&mut record);
            record.clone()
        };
        let path = self.dir.record();
        let id = changed.id.clone();
        task::blocking("write-sandbox", move || {
            record::write(&path, &changed).map(|()| changed)
        })
        .await
        .doing(|| format!("remember sandbox {id:?}"))
    }
}

/// A container. The gate is held by whoever changes it.
#[derive(Debug)]
pub(crate) struct Container {
    record: Mutex<ContainerRecord>,
    pub(crate) gate: tokio::sync::Mutex<()>,
    pub(crate) dir: ContainerDir,
    /// Tells those who wait that the record changed.
    pub(crate) changed: watch::Sender<()>,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord, dir: ContainerDir) -> Self {
        Self {
            record: Mutex::new(record),
            gate: tokio::sync::Mutex::new(()),
            dir,
            changed: watch::Sender::new(()),
        }
    }

    /// What is known now.
    pub(crate) fn get(&self) -> ContainerRecord {
        lock(&self.record).clone()
    }

    /// Changes what is known, writes it, and wakes those who wait.
    pub(crate) async fn change(
        &self,
        how: impl FnOnce(&mut ContainerRecord),
    ) -> Result<ContainerRecord, Status> {
        let changed = {
            let mut record = lock(&self.record);
            how(&mut record);
            record.clone()
        };
        self.changed.send_replace(());
        let path = self.dir.record();
        let id = changed.id.clone();
        task::blocking("write-container", move || {
            record::write(&path, &changed).map(|()| changed)
        })
        .await
        .doing(|| format!("remember container {id:?}"))
    }
}

/// The runtime's parts and everything that it runs.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) layout: Layout,
    pub(crate) images: ImageStore,
    pub(crate) network: Option<PodNetwork>,
    pub(crate) shim: Vec<OsString>,
    pub(crate) cgroup_parent: String,
    pub(crate) pids_limit: Option<i64>,
    pub(crate) supervisor: Supervisor,
    /// What goes on when its caller goes away: whoever ends all pods waits for it first.
    pub(crate) works: TaskTracker,
    sandboxes: Mutex<BTreeMap<String, Arc<Sandbox>>>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    /// Addresses given out, also to sandboxes that are still being made.
    addresses: Mutex<BTreeSet<Ipv4Addr>>,
    /// Names that exist or are being made.
    names: Mutex<BTreeSet<String>>,
}

impl Core {
    pub(crate) fn new(
        layout: Layout,
        images: ImageStore,
        network: Option<PodNetwork>,
        options: &crate::Options,
        supervisor: Supervisor,
    ) -> Self {
        Self {
            layout,
            images,
            network,
            shim: options.shim.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            pids_limit: options.pids_limit,
            supervisor,
            works: TaskTracker::new(),
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            addresses: Mutex::default(),
            names: Mutex::default(),
        }
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        lock(&self.sandboxes).values().cloned().collect()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        lock(&self.containers).values().cloned().collect()
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let mut all = self.containers();
        all.retain(|c| lock(&c.record).sandbox == sandbox);
        all
    }

    /// The sandbox with this id, or the only one whose id starts so.
    pub(crate) fn find_sandbox(&self, id: &str) -> Option<Arc<Sandbox>> {
        find(&lock(&self.sandboxes), id)
    }

    /// The container with this id, or the only one whose id starts so.
    pub(crate) fn find_container(&self, id: &str) -> Option<Arc<Container>> {
        find(&lock(&self.containers), id)
    }

    /// As [`find_sandbox`](Self::find_sandbox); `NotFound` where there is none.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Status> {
        self.find_sandbox(id)
            .ok_or_else(|| Status::not_found(format!("sandbox {id:?} not found")))
    }

    /// As [`find_container`](Self::find_container); `NotFound` where there is none.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Status> {
        self.find_container(id)
            .ok_or_else(|| Status::not_found(format!("container {id:?} not found")))
    }

    pub(crate) fn insert_sandbox(&self, sandbox: Arc<Sandbox>) {
        let record = sandbox.get();
        if let Some(address) = record.address {
            lock(&self.addresses).insert(address);
        }
        lock(&self.names).insert(sandbox_name(&record));
        lock(&self.sandboxes).insert(record.id, sandbox);
    }

    pub(crate) fn insert_container(&self, container: Arc<Container>) {
        let record = container.get();
        lock(&self.names).insert(container_name(&record));
        lock(&self.containers).insert(record.id, container);
    }

    pub(crate) fn forget_sandbox(&self, record: &SandboxRecord) {
        lock(&self.sandboxes).remove(&record.id);
        lock(&self.names).remove(&sandbox_name(record));
        self.release_address(record);
    }

    pub(crate) fn forget_container(&self, record: &ContainerRecord) {
        lock(&self.containers).remove(&record.id);
        lock(&self.names).remove(&container_name(record));
    }

    /// Takes a free address of the pod network.
    pub(crate) fn take_address(&self, network: &PodNetwork) -> Result<Ipv4Addr, Status> {
        let mut taken = lock(&self.addresses);
        let address = network
            .free_address(&taken)
            .doing(|| "give the pod an address".to_owned())?;
        taken.insert(address);
        Ok(address)
    }

    /// Gives an address back.
    pub(crate) fn release_address(&self, record: &SandboxRecord) {
        if let Some(address) = record.address {
            lock(&self.addresses).remove(&address);
        }
    }

    /// Takes a name; an attempt of a pod, or of a container of a sandbox, exists once.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<(), Status> {
        if lock(&self.names).insert(name.to_owned()) {
            Ok(())
        } else {
            Err(Status::unknown(format!(
                "failed to reserve the name {name:?} for {id:?}: it is in use"
            )))
        }
    }

    /// Gives a name back.
    pub(crate) fn release(&self, name: &str) {
        lock(&self.names).remove(name);
    }
}

/// What must not exist twice.
pub(crate) fn sandbox_name(record: &SandboxRecord) -> String {
    format!(
        "{}_{}_{}_{}",
        record.name, record.namespace, record.uid, record.attempt
    )
}

/// What must not exist twice.
pub(crate) fn container_name(record: &ContainerRecord) -> String {
    format!("{}_{}_{}", record.name, record.sandbox, record.attempt)
}

/// The entry with this id, or the only one whose id starts so.
fn find<T>(all: &BTreeMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if id.is_empty() {
        return None;
    }
    let mut matching = all
        .range(id.to_owned()..)
        .take_while(|(k, _)| k.starts_with(id));
    let (key, value) = matching.next()?;
    (key == id || matching.next().is_none()).then(|| value.clone())
}

/// A panic elsewhere does not make the data wrong: every change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_by_a_prefix_that_only_it_has() {
        let all: BTreeMap<String, Arc<u8>> = ["ab1", "ab2", "ab", "c1"]
            .into_iter()
            .zip(1..)
            .map(|(k, v)| (k.to_owned(), Arc::new(v)))
            .collect();
        for (id, expected) in [
            ("ab1", Some(1)),
            ("ab", Some(3)),
            ("a", None),
            ("c", Some(4)),
            ("d", None),
            ("", None),
        ] {
            assert_eq!(find(&all, id).map(|v| *v), expected, "{id}");
        }
    }
}
