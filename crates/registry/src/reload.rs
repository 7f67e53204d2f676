//! The configuration while the registry runs: read again when told, and when a file changed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use towline_sys::task;

use crate::config::{self, Watched};
use crate::error::Error;
use crate::handlers::Registry;
use crate::options::Options;
use crate::settings::Settings;
use crate::tls::{self, LiveTls};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What it takes to read the configuration again.
#[derive(Debug)]
pub(crate) struct Reloader {
    /// What the registry was told besides the file.
    told: Options,
    registry: Arc<Registry>,
    tls: Option<LiveTls>,
    watched: Mutex<Watched>,
}

/// The options with the file laid over them, and what was read for that.
pub(crate) fn load(told: &Options) -> Result<(Options, Watched), Error> {
    let Some(file) = &told.config else {
        refuse_open(told)?;
        return Ok((told.clone(), Watched::now([])));
    };
    let mut options = told.clone();
    let before = Watched::now([file.as_path()]);
    let read = config::apply(file, &mut options)?;
    refuse_open(&options)?;
    let paths = read.iter().map(PathBuf::as_path);
    let watched = Watched::now(paths.filter(|path: &&Path| *path != file));
    Ok((options, before.and(watched)))
}

/// Refuses to be in the network without a login, or where anyone may change something, unless that is meant.
fn refuse_open(options: &Options) -> Result<(), Error> {
    if options.open_beyond_loopback {
        return Ok(());
    }
    let changes = options.access.anyone_may_change() && !options.read_only;
    let anonymous = !options.access.wants_login() && options.client_auth.is_none();
    let beyond = |address: &&std::net::SocketAddr| !address.ip().is_loopback();
    let fix = if options.access.wants_login() {
        "name in `rules` who may"
    } else {
        "ask for one (`--htpasswd FILE`, or `users` in the configuration file)"
    };
    match options.listen.iter().find(beyond) {
        Some(&address) if changes => Err(Error::OpenToTheNetwork {
            address,
            may: "push or delete",
            fix,
        }),
        Some(&address) if anonymous => Err(Error::OpenToTheNetwork {
            address,
            may: "pull everything",
            fix,
        }),
        _ => Ok(()),
    }
}

impl Reloader {
    pub(crate) fn new(
        told: Options,
        registry: Arc<Registry>,
        tls: Option<LiveTls>,
        watched: Watched,
    ) -> Self {
        Self {
            told,
            registry,
            tls,
            watched: Mutex::new(watched),
        }
    }

    /// Reads the files again. What cannot be used changes nothing.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<(), Error> {
        let this = Arc::clone(self);
        task::blocking("read the configuration", move || this.reload_now()).await
    }

    fn reload_now(&self) -> Result<(), Error> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = load(&self.told).and_then(|(options, now)| {
            let tls = self.tls_of(&options)?;
            Ok((options, tls, now))
        });
        match loaded {
            Ok((options, tls, now)) => {
                if let (Some(live), Some(tls)) = (&self.tls, tls) {
                    live.set(tls);
                }
                *watched = now;
                let limits = &options.limits;
                self.registry
                    .uploads
                    .bound(limits.uploads, limits.blob_bytes);
                self.registry.quotas.forget_all();
                self.registry.settings.set(Settings::of(&options));
                Ok(())
            }
            Err(error) => {
                // It is tried again when something changes, not before.
                watched.look_again();
                Err(error)
            }
        }
    }

    /// The certificate anew. Whether there is TLS at all does not change: clients would not know what to speak.
    fn tls_of(&self, options: &Options) -> Result<Option<Arc<ServerConfig>>, Error> {
        if options.tls.is_some() != self.tls.is_some() {
            return Err(Error::TlsChanged);
        }
        let tls = options.tls.as_ref();
        tls.map(|tls| tls::config(tls, options.client_auth.as_ref()))
            .transpose()
    }

    /// Reads the files again whenever one of them changed; never ends.
    pub(crate) async fn watch(self: Arc<Self>) {
        if self.told.config.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            let this = Arc::clone(&self);
            let changed = task::blocking("look at the configuration", move || {
                this.watched
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .changed()
            });
            if changed.await {
                match self.reload().await {
                    Ok(()) => tracing::info!("the configuration changed and is in use"),
                    Err(error) => {
                        let error = task::chain(&error);
                        tracing::error!(
                            error,
                            "the configuration changed and cannot be used; the old one stays"
                        );
                    }
                }
            }
        }
    }
}
