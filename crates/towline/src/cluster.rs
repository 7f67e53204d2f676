//! Finding a cluster: flag, `KUBECONFIG`, the running node of this machine (not as a plugin of kubectl, which does not know it),
//! `~/.kube/config`, the cluster whose pod this is.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::exit::hinted;

/// Options of every command that talks to a cluster.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClusterArgs {
    /// Kubeconfig file [default: $KUBECONFIG, the node that runs here, ~/.kube/config]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) context: Option<String>,
    /// Namespace [default: that of the context, else "default"]
    #[arg(short, long, value_name = "NAME", global = true)]
    pub(crate) namespace: Option<String>,
}

/// A cluster to talk to.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// The kubeconfig that was used.
    pub(crate) kubeconfig: PathBuf,
    /// Where the API is: `https://10.0.0.1:6443`.
    server: String,
}

impl Cluster {
    /// Where this cluster is, for whoever could not talk to it.
    pub(crate) fn place(&self) -> Place {
        Place {
            server: self.server.clone(),
            kubeconfig: self.kubeconfig.clone(),
        }
    }
}

/// Where a cluster is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    server: String,
    kubeconfig: PathBuf,
}

impl Place {
    /// An error of the way to the API server as one that says which server that was and who named it; any other error as it is.
    pub(crate) fn reached(&self, error: anyhow::Error) -> anyhow::Error {
        let told = error.chain().find_map(|cause| {
            let boxed = cause.downcast_ref::<Box<kube::Error>>();
            cause.downcast_ref().or_else(|| boxed.map(AsRef::as_ref))
        });
        let Some(failed) =
            told.filter(|failed: &&kube::Error| !matches!(failed, kube::Error::Api(_)))
        else {
            return error;
        };
        let file = match self.kubeconfig.display().to_string() {
            file if file.is_empty() => "the pod's service account".to_owned(),
            file => format!("kubeconfig {file}"),
        };
        let (what, hint) = attempted(failed);
        let words = words(failed);
        hinted(format!("{what} {} ({file}): {words}", self.server), hint)
    }
}

/// What was attempted of a cluster when this went wrong, and what helps.
fn attempted(failed: &kube::Error) -> (&'static str, &'static str) {
    use kube::Error;
    match failed {
        Error::Auth(_) => (
            "cannot get the login for the cluster at",
            "the kubeconfig names a file, a token or a program for its user: does `kubectl auth whoami` work?",
        ),
        Error::SerdeError(_)
        | Error::FromUtf8(_)
        | Error::LinesCodecMaxLineLengthExceeded
        | Error::Discovery(_) => (
            "what answers is no Kubernetes API server at",
            "is this the right address? --kubeconfig FILE and --context NAME name another",
        ),
        Error::ReadEvents(_) => (
            "the answer was cut by the cluster at",
            "try again: a proxy or a restart may have ended the connection",
        ),
        Error::ProxyProtocolUnsupported { .. } | Error::ProxyProtocolDisabled { .. } => (
            "cannot use the proxy to the cluster at",
            "`proxy-url` in the kubeconfig, or HTTPS_PROXY, names a proxy that is not spoken to: only http:// is",
        ),
        Error::RustlsTls(_) | Error::TlsRequired => (
            "cannot set up TLS for the cluster at",
            "look at `certificate-authority`, `client-certificate` and `client-key` in the kubeconfig",
        ),
        Error::BuildRequest(_)
        | Error::HttpError(_)
        | Error::InferConfig(_)
        | Error::InferKubeconfig(_) => (
            "cannot ask the cluster at",
            "look at `server` and the user in the kubeconfig; --kubeconfig FILE and --context NAME name another",
        ),
        _ => (
            "cannot reach the cluster at",
            "is it running, and is this the right one? --kubeconfig FILE and --context NAME name another",
        ),
    }
}

/// What the API server said, or what kept it from saying anything, in a few words.
pub(crate) fn words(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        let said = if status.message.is_empty() {
            &status.reason
        } else {
            &status.message
        };
        return format!("{} {said}", status.code);
    }
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

impl ClusterArgs {
    fn file(&self) -> Option<PathBuf> {
        if let Some(file) = &self.kubeconfig {
            return Some(file.clone());
        }
        if let Some(list) = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) {
            return std::env::split_paths(&list).find(|path| path.exists());
        }
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
        let local = PathBuf::from(crate::cli::DEFAULT_DATA_DIR).join("kubeconfig");
        let local = (!crate::cli::is_kubectl_plugin()).then_some(local);
        [local, home]
            .into_iter()
            .flatten()
            .find(|path| path.exists())
    }

    /// Connects. Nothing is sent yet.
    pub(crate) async fn connect(&self) -> anyhow::Result<Cluster> {
        let (config, kubeconfig) = self.read().await?;
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let place = Place {
            server: server.trim_end_matches('/').to_owned(),
            kubeconfig,
        };
        // It may run the program that gives the login.
        let client = Client::try_from(config);
        let client = client.map_err(|error| place.reached(anyhow::Error::new(error)))?;
        Ok(Cluster {
            server: place.server,
            client,
            namespace,
            kubeconfig: place.kubeconfig,
        })
    }

    /// The configuration alone.
    #[cfg(feature = "node")]
    pub(crate) async fn config(&self) -> anyhow::Result<Config> {
        Ok(self.read().await?.0)
    }

    async fn read(&self) -> anyhow::Result<(Config, PathBuf)> {
        let Some(file) = self.file() else {
            return Config::incluster()
                .map(|config| (config, PathBuf::new()))
                .map_err(|_| no_kubeconfig());
        };
        let several = self
            .kubeconfig
            .is_none()
            .then(in_environment)
            .filter(|files| files.len() > 1);
        let read = match several {
            Some(files) => merged(&files),
            None => Kubeconfig::read_from(&file),
        };
        let kubeconfig = read.map_err(|error| {
            hinted(
                format!("cannot read the kubeconfig {}: {error}", file.display()),
                "give another with --kubeconfig FILE",
            )
        })?;
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| {
                hinted(
                    format!("cannot use the kubeconfig {}: {error}", file.display()),
                    "check its context, cluster and user",
                )
            })?;
        Ok((config, file))
    }
}

fn no_kubeconfig() -> anyhow::Error {
    match std::env::var("KUBECONFIG") {
        Ok(list) if !list.is_empty() => hinted(
            format!("no cluster to talk to: KUBECONFIG names {list}, and there is no such file"),
            "unset KUBECONFIG, or give --kubeconfig FILE",
        ),
        _ => hinted(
            "no cluster to talk to: there is no kubeconfig",
            "start a node with `towline up`, or give --kubeconfig FILE",
        ),
    }
}

/// The files that `KUBECONFIG` names and that are there.
fn in_environment() -> Vec<PathBuf> {
    let list = std::env::var_os("KUBECONFIG").unwrap_or_default();
    std::env::split_paths(&list)
        .filter(|path| path.exists())
        .collect()
}

/// Several files count together, as for kubectl: of two entries of one name the first.
fn merged(files: &[PathBuf]) -> Result<Kubeconfig, KubeconfigError> {
    let mut all = Kubeconfig::default();
    for file in files {
        all = all.merge(Kubeconfig::read_from(file)?)?;
    }
    Ok(all)
}
