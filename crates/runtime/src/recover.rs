//! After a restart: what is still there is taken up again, what is not is remembered as ended, the rest is cleaned away.

use std::path::Path;
use std::sync::Arc;

use tonic::Status;
use towline_shim_api::{Request, Status as Stage};
use towline_sys::fs;
use towline_sys::task;

use crate::container::create::remove_files;
use crate::container::life;
use crate::core::{Container, Core, Sandbox};
use crate::fault::Doing as _;
use crate::record::{self, ContainerRecord, Phase, SandboxRecord};
use crate::sandbox;
use crate::shim::Connection;

/// Most sandboxes, and most containers, that are looked at.
const MAX_RECORDS: usize = 100_000;

/// Reads all records and puts them right.
pub(crate) async fn recover(core: &Arc<Core>) -> Result<(), Status> {
    for id in names(&core.layout.sandboxes())? {
        let dir = core.layout.sandbox(&id);
        let read = record::read::<SandboxRecord>(&dir.record());
        let record = read.doing(|| format!("read sandbox {id:?}"))?;
        match record.filter(|r| r.id == id) {
            // A sandbox has its shim as soon as it is one.
            Some(record) if record.shim_pid != 0 => {
                core.insert_sandbox(Arc::new(Sandbox::new(record, dir)));
            }
            Some(record) => {
                sandbox::tear_down(core, &record, &dir).await?;
                remove(&dir.0).await?;
            }
            None => remove(&dir.0).await?,
        }
    }
    for id in names(&core.layout.containers())? {
        let dir = core.layout.container(&id);
        let read = record::read::<ContainerRecord>(&dir.record());
        let record = read.doing(|| format!("read container {id:?}"))?;
        let bundle = dir.bundle().join("config.json").exists();
        match record.filter(|r| r.id == id && bundle && core.find_sandbox(&r.sandbox).is_some()) {
            Some(record) => core.insert_container(Arc::new(Container::new(record, dir))),
            None => remove_files(&dir).await?,
        }
    }
    clean_away(core).await?;
    for sandbox in core.sandboxes() {
        attach(core, &sandbox).await?;
    }
    Ok(())
}

/// Removes writable layers and holds of containers that are not known.
async fn clean_away(core: &Core) -> Result<(), Status> {
    for id in names(&core.layout.writable())? {
        if core.find_container(&id).is_none() {
            remove_files(&core.layout.container(&id)).await?;
        }
    }
    for owner in core.images.owners() {
        let container = owner.split('-').next().unwrap_or(&owner);
        if core.find_container(container).is_none() {
            core.images.release(&owner).await?;
        }
    }
    Ok(())
}

/// Takes up a sandbox whose shim lives, or remembers that it is over.
async fn attach(core: &Arc<Core>, sandbox: &Arc<Sandbox>) -> Result<(), Status> {
    let record = sandbox.get();
    let containers = core.containers_of(&record.id);
    let lives = match Connection::open(&sandbox.dir.socket()).await {
        Ok(mut connection) if record.ready => {
            let known = connection.list().await.ok();
            known.map(|known| (connection, known))
        }
        _ => None,
    };
    let Some((mut connection, known)) = lives else {
        if record.ready {
            tracing::warn!(sandbox = %record.id, "the shim of a sandbox is gone");
        }
        return sandbox::over(core, sandbox).await;
    };
    for container in containers {
        let record = container.get();
        let state = known.iter().find(|s| s.id == record.id);
        match (record.phase, state) {
            (Phase::Running, None) => life::lost(&container).await?,
            (Phase::Running, Some(state)) if state.status == Stage::Exited => {
                life::finish(&container, state).await?;
            }
            (Phase::Running, Some(_)) => life::watch(core, &container),
            // The runtime ended in the middle of its start: what was made is dropped, so that it can be started again.
            (Phase::Created, Some(state)) if state.status == Stage::Created => {
                let delete = Request::Delete {
                    id: record.id.clone(),
                    force: true,
                };
                connection
                    .done(&delete)
                    .await
                    .doing(|| format!("drop the half-started container {:?}", record.id))?;
            }
            // It was started, and the runtime ended before it wrote that down.
            (Phase::Created, Some(state)) => {
                let started = state.started_at.unwrap_or_else(record::now);
                container
                    .change(|r| {
                        r.phase = Phase::Running;
                        r.started_at = started;
                    })
                    .await?;
                life::watch(core, &container);
            }
            (Phase::Created, None) | (Phase::Exited, _) => {}
        }
    }
    sandbox::watch(core, sandbox);
    tracing::info!(sandbox = %record.id, "sandbox taken up again");
    Ok(())
}

fn names(path: &Path) -> Result<Vec<String>, Status> {
    if !path.exists() {
        return Ok(vec![]);
    }
    let names = fs::read_dir_names(path, MAX_RECORDS).doing(|| "read the records".to_owned())?;
    Ok(names
        .into_iter()
        .filter_map(|n| n.into_string().ok())
        .collect())
}

async fn remove(path: &Path) -> Result<(), Status> {
    let path = path.to_owned();
    task::blocking("remove", move || sandbox::remove_tree(&path))
        .await
        .doing(|| "remove what an unfinished sandbox left".to_owned())
}
