//! The node: its parts started in order, watched, and stopped in the reverse order with one deadline.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::time::Instant;
use towline_apiserver::Identity;
use towline_sys::fs;

use crate::parts::{Apiserver, Parts};
use crate::{Error, Facts, Options, parts};

/// How long the parts have to become ready, all together.
const READY: Duration = Duration::from_secs(20);

/// The node.
#[derive(Debug)]
pub struct Service;

/// A running node.
pub struct Handle {
    parts: Parts,
    facts: Facts,
    client: Client,
    kubeconfig: PathBuf,
    data_dir: PathBuf,
    registry_client: towline_distribution::Options,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// Starts every part and waits until a pod would be run: the node is ready and the default namespace has its service account.
    pub async fn start(options: Options) -> Result<Handle, Error> {
        prepare(&options.data_dir)?;
        let registry = parts::registry(&options).await?;
        let runtime = match &options.foreign {
            Some(_) => None,
            None => Some(parts::runtime(&options).await?),
        };
        let gateway = runtime.as_ref().and_then(towline_runtime::Handle::gateway);
        let apiserver = parts::apiserver(&options, gateway).await?;
        let admin = config(&apiserver, &Identity::Admin).await?;
        let kubeconfig = write_kubeconfigs(&options, &apiserver)?;
        let client = Client::try_from(admin)
            .map_err(|error| Error::component("API server")(error.into()))?;
        let scheduler = parts::scheduler(config(&apiserver, &Identity::Scheduler).await?)?;
        let controllers = parts::controllers(
            config(&apiserver, &Identity::Controllers).await?,
            apiserver.handle.ca_pem(),
        )?;
        let node = Identity::Node(options.node_name.clone());
        let socket = match (&options.foreign, &runtime) {
            (Some(foreign), _) => foreign.socket.clone(),
            (None, Some(runtime)) => runtime.socket().to_owned(),
            (None, None) => PathBuf::new(),
        };
        let kubelet = parts::kubelet(
            &options,
            &apiserver,
            format!("unix://{}", socket.display()),
            config(&apiserver, &node).await?,
        )
        .await?;
        parts::ready(&client, &options.node_name, READY).await?;
        let addresses = (
            apiserver.handle.local_addr(),
            registry.local_addr(),
            kubelet.address(),
        );
        let mut facts = Facts::new(
            options.node_name.clone(),
            addresses,
            socket,
            options.resolver.clone(),
        )
        .with_mirrors(&options.endpoints);
        facts.authorities = authorities(&options)?;
        facts
            .write(&options.data_dir)
            .map_err(|source| Error::DataDir {
                path: options.data_dir.clone(),
                source,
            })?;
        Ok(Handle {
            parts: Parts {
                registry,
                runtime,
                apiserver,
                scheduler,
                controllers,
                kubelet,
            },
            facts,
            client,
            kubeconfig,
            registry_client: options.client(),
            data_dir: options.data_dir,
        })
    }
}

impl Handle {
    /// Where everything listens.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The admin's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client with the admin's rights.
    pub fn kube(&self) -> Client {
        self.client.clone()
    }

    /// A registry client that behaves as the node's: same name servers, same authorities.
    pub fn registry_client(
        &self,
    ) -> Result<towline_distribution::Client, towline_distribution::OptionsError> {
        towline_distribution::Client::new(self.registry_client.clone())
    }

    /// Waits until a part ends of its own accord, and says which and why.
    pub async fn ended(&self) -> String {
        self.parts.ended().await
    }

    /// Stops the pods, then the parts, in order, with one deadline; gives what did not end in time. What is in the data directory stays.
    pub async fn shutdown(self, deadline: Duration) -> Vec<String> {
        let end = Instant::now() + deadline;
        let left = self.parts.stop(end).await;
        Facts::remove(&self.data_dir);
        left
    }
}

/// Writes the registries' certificate authorities into the data directory, for commands that replay what this node does.
fn authorities(options: &Options) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for (at, pem) in options.extra_ca_pem.iter().enumerate() {
        let path = options
            .data_dir
            .join(format!("registry-authority-{}.pem", at + 1));
        fs::write_atomic(&path, pem).map_err(|source| Error::DataDir {
            path: path.clone(),
            source,
        })?;
        files.push(path);
    }
    Ok(files)
}

fn prepare(data_dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::DataDir {
        path: data_dir.to_owned(),
        source,
    };
    fs::create_dir_all_mode(data_dir, 0o700).map_err(failed)?;
    fs::set_mode(data_dir, 0o700).map_err(failed)
}

/// A client configuration with the rights of this identity.
async fn config(apiserver: &Apiserver, identity: &Identity) -> Result<Config, Error> {
    let failed = Error::component("API server");
    let text = match apiserver.handle.kubeconfig(identity) {
        Ok(text) => text,
        Err(error) => return Err(failed(error.into())),
    };
    let kubeconfig = match Kubeconfig::from_yaml(&text) {
        Ok(kubeconfig) => kubeconfig,
        Err(error) => return Err(failed(error.into())),
    };
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| failed(error.into()))
}

/// Writes the admin's kubeconfig into the data directory, and where else it was asked for.
fn write_kubeconfigs(options: &Options, apiserver: &Apiserver) -> Result<PathBuf, Error> {
    let text = apiserver
        .handle
        .kubeconfig(&Identity::Admin)
        .map_err(|error| Error::component("API server")(error.into()))?;
    let path = options.data_dir.join("kubeconfig");
    for path in std::iter::once(&path).chain(&options.kubeconfig) {
        fs::write_atomic_mode(path, text.as_bytes(), 0o600).map_err(|source| Error::DataDir {
            path: path.clone(),
            source,
        })?;
    }
    Ok(path)
}
