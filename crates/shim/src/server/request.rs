//! Requests and their answers.

use std::time::{Duration, Instant};

use towline_shim_api::{
    Create, Exec, Failure, FailureCode, Hello, OLDEST_VERSION, Request, Response, Status, VERSION,
    negotiate,
};

use super::Shim;
use crate::connection::Pending;
use crate::container::Container;
use crate::exec::Running;
use crate::paths::{MAX_CONTAINERS, is_id};
use crate::{fail, internal, oci};

/// Most commands that run at a time.
const MAX_EXECS: usize = 64;

/// The answer for a container that is not there.
pub(super) fn not_found(id: &str) -> Response {
    Response::Failure(missing(id))
}

fn missing(id: &str) -> Failure {
    fail(FailureCode::NotFound, format!("no container {id:?}"))
}

impl Shim {
    /// Answers a request, `None` when the answer comes later.
    pub(super) fn request(&mut self, connection: u64, request: Request) -> Option<Response> {
        self.try_request(connection, request)
            .unwrap_or_else(|failure| Some(Response::Failure(failure)))
    }

    fn try_request(
        &mut self,
        connection: u64,
        request: Request,
    ) -> Result<Option<Response>, Failure> {
        if let Request::Hello { oldest, newest } = request {
            return self.hello(connection, oldest, newest).map(Some);
        }
        let greeted = self.connections.get(&connection).is_some_and(|c| c.greeted);
        if !greeted {
            return Err(fail(FailureCode::BadRequest, "the greeting is missing"));
        }
        match request {
            Request::Create(create) => self.create(&create).map(Some),
            Request::Start { id } => self.start(&id).map(Some),
            Request::Kill { id, signal, all } => {
                self.find(&id)?.kill(signal, all)?;
                Ok(Some(Response::Done))
            }
            Request::Delete { id, force } => self.delete(connection, id, force),
            Request::State { id } => Ok(Some(Response::State(self.find(&id)?.state.clone()))),
            Request::List => Ok(Some(self.list())),
            Request::Wait { id, timeout_ms } => {
                self.find(&id)?;
                let deadline = timeout_ms
                    .and_then(|time| Instant::now().checked_add(Duration::from_millis(time)));
                self.wait_for(connection, Pending::Wait { id, deadline });
                Ok(None)
            }
            Request::Exec(exec) => self.exec(connection, &exec),
            Request::ReopenLog { id } => {
                let container = self.find_mut(&id)?;
                container.reopen_log().map_err(|error| internal(&error))?;
                Ok(Some(Response::Done))
            }
            Request::Stats { id } => Ok(Some(Response::Stats(self.find(&id)?.stats()))),
            Request::Update { id, resources } => {
                let container = self.find(&id)?;
                if !container.is_alive() {
                    return Err(fail(FailureCode::WrongState, "the container has ended"));
                }
                oci::update(&container.state.cgroup, &id, resources)?;
                Ok(Some(Response::Done))
            }
            Request::Shutdown { grace_ms } => {
                self.begin_shutdown(Duration::from_millis(grace_ms));
                self.wait_for(connection, Pending::Shutdown);
                Ok(None)
            }
            _ => Err(fail(
                FailureCode::BadRequest,
                "not a request of this version",
            )),
        }
    }

    fn find(&self, id: &str) -> Result<&Container, Failure> {
        self.containers.get(id).ok_or_else(|| missing(id))
    }

    fn find_mut(&mut self, id: &str) -> Result<&mut Container, Failure> {
        self.containers.get_mut(id).ok_or_else(|| missing(id))
    }

    fn wait_for(&mut self, connection: u64, pending: Pending) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.pending = Some(pending);
        }
    }

    fn hello(&mut self, connection: u64, oldest: u32, newest: u32) -> Result<Response, Failure> {
        let version = negotiate(oldest, newest).ok_or_else(|| {
            let text = format!(
                "the client speaks versions {oldest} to {newest}, this shim {OLDEST_VERSION} to {VERSION}"
            );
            fail(FailureCode::Version, text)
        })?;
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.greeted = true;
        }
        Ok(Response::Hello(Hello {
            version,
            sandbox: self.sandbox.config.id.clone(),
            pid: std::process::id().cast_signed(),
            namespaces: self.sandbox.namespaces.clone(),
        }))
    }

    fn create(&mut self, create: &Create) -> Result<Response, Failure> {
        let id = &create.id;
        if !is_id(id) {
            let text = format!("{id:?} cannot be the id of a container");
            return Err(fail(FailureCode::BadRequest, text));
        }
        if self.containers.contains_key(id) {
            let text = format!("there is a container {id:?} already");
            return Err(fail(FailureCode::AlreadyExists, text));
        }
        if self.shutdown.is_some() || self.containers.len() >= MAX_CONTAINERS {
            let text = "the pod takes no more containers";
            return Err(fail(FailureCode::WrongState, text));
        }
        let container = Container::create(&self.sandbox.library, create)?;
        let state = container.state.clone();
        self.containers.insert(id.clone(), container);
        Ok(Response::State(state))
    }

    fn start(&mut self, id: &str) -> Result<Response, Failure> {
        let container = self.containers.get_mut(id).ok_or_else(|| missing(id))?;
        if container.state.status != Status::Created || !container.is_alive() {
            let text = format!("the container {id:?} is not waiting to be started");
            return Err(fail(FailureCode::WrongState, text));
        }
        container.start(&self.sandbox.library)?;
        Ok(Response::State(container.state.clone()))
    }

    fn list(&self) -> Response {
        let mut containers: Vec<_> = self
            .containers
            .values()
            .map(|container| container.state.clone())
            .collect();
        containers.sort_by_key(|state| state.created_at);
        Response::List { containers }
    }

    fn delete(
        &mut self,
        connection: u64,
        id: String,
        force: bool,
    ) -> Result<Option<Response>, Failure> {
        let Some(container) = self.containers.get(&id) else {
            return Ok(Some(Response::Done));
        };
        if container.is_alive() {
            if container.state.status == Status::Running && !force {
                let text = format!("the container {id:?} is running");
                return Err(fail(FailureCode::WrongState, text));
            }
            container.kill_all();
        }
        self.wait_for(connection, Pending::Delete { id });
        Ok(None)
    }

    fn exec(&mut self, connection: u64, exec: &Exec) -> Result<Option<Response>, Failure> {
        let container = self.find(&exec.id)?;
        if container.state.status != Status::Running || !container.is_alive() {
            let text = format!("the container {:?} is not running", exec.id);
            return Err(fail(FailureCode::WrongState, text));
        }
        if exec.args.is_empty() {
            return Err(fail(FailureCode::BadRequest, "no command given"));
        }
        if exec.cwd.as_ref().is_some_and(|cwd| cwd.is_relative()) {
            let text = "the working directory is not absolute";
            return Err(fail(FailureCode::BadRequest, text));
        }
        if self.execs.len() >= MAX_EXECS {
            let text = format!("{MAX_EXECS} commands are running already");
            return Err(fail(FailureCode::WrongState, text));
        }
        let (pid, outputs) = self.sandbox.library.exec(&container.spec, exec)?;
        self.execs
            .push(Running::new(connection, exec, pid, outputs));
        self.wait_for(connection, Pending::Exec);
        Ok(None)
    }
}
