//! Many pods explained at once: a workload, a namespace, the whole cluster.

mod find;

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::fold::Fold;
use crate::pod::{self, Context, Desk, ExplainError, View};
use crate::prober::Prober;
use crate::world::World;
use crate::{API_VERSION, Diagnosis};

pub use find::Workload;
pub(crate) use find::{NoPods, Template};

/// `kind` of [`Scan`].
pub const KIND: &str = "DiagnosisList";

/// Pods that are explained at the same time.
const AT_ONCE: usize = 32;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// One pod.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The pods of a workload; its template where there are none.
    Workload {
        /// What it is.
        kind: Workload,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The pods of every workload of a kind; the templates of those that have none.
    Workloads {
        /// What they are.
        kind: Workload,
        /// Their namespace; `None` for all.
        namespace: Option<String>,
    },
    /// The pods of a namespace.
    Namespace(String),
    /// Every pod.
    Cluster,
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "pod {namespace}/{name}"),
            Self::Workload {
                kind,
                namespace,
                name,
            } => write!(f, "{} {namespace}/{name}", kind.word()),
            Self::Workloads { kind, namespace } => match namespace {
                Some(namespace) => write!(f, "{}s of namespace {namespace}", kind.word()),
                None => write!(f, "{}s of all namespaces", kind.word()),
            },
            Self::Namespace(namespace) => write!(f, "namespace {namespace}"),
            Self::Cluster => f.write_str("all namespaces"),
        }
    }
}

/// The answers for many pods: pods that fail for one reason are one answer; most harmful first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scan {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// Always [`KIND`].
    pub kind: String,
    /// What was asked about: `namespace shop`; in brackets what could not be found out of it.
    pub scope: String,
    /// Pods seen.
    pub pods: usize,
    /// Pods of which an image is not there, whether it will pull or not.
    pub waiting: usize,
    /// Pods of which an image does not pull.
    pub broken: usize,
    /// Pods for which it could not be told.
    pub undecided: usize,
    /// The answers.
    pub items: Vec<Diagnosis>,
    /// Registries that were asked, with the requests that each got.
    pub asked: Vec<Asked>,
}

impl Scan {
    /// Diagnoses of things that are no pods.
    pub fn of(scope: &str, items: Vec<Diagnosis>) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            scope: scope.to_owned(),
            pods: 0,
            waiting: 0,
            broken: 0,
            undecided: 0,
            items,
            asked: Vec::new(),
        }
    }
}

/// How much a registry was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The registry as the images name it.
    pub registry: String,
    /// Requests that it got.
    pub requests: usize,
}

/// What registries said, kept from one look to the next by whoever follows pods: it counts for half a minute, longer where it stays the
/// same (at most 5 min), and so does the budget for all looks together.
#[derive(Debug)]
pub struct Memory(Arc<Prober>);

impl Memory {
    /// Nothing is known yet.
    pub fn new(context: &Context) -> Self {
        let prober = Prober::new(
            context.registry.clone(),
            context.budget,
            context.deep.clone(),
        );
        Self(Arc::new(prober))
    }

    /// Forgets what is too old to be true at `now`.
    pub(crate) fn forget(&self, now: Instant) {
        self.0.forget(now);
    }
}

/// Explains everything that is asked about.
pub async fn explain(context: &Context, asks: &[Ask]) -> Result<Scan, ExplainError> {
    explain_again(context, asks, &Memory::new(context)).await
}

/// The same, with what is known from the looks before.
pub async fn explain_again(
    context: &Context,
    asks: &[Ask],
    memory: &Memory,
) -> Result<Scan, ExplainError> {
    let many = !asks.iter().all(|ask| matches!(ask, Ask::Pod { .. }));
    memory.forget(Instant::now());
    let desk = Desk::with(context, many, Arc::clone(&memory.0));
    let mut fold = Fold::default();
    let (mut seen, mut waiting) = (0, 0);
    let mut scope = Vec::new();
    for ask in asks {
        let mut found = find::find(context, &desk.world, ask).await?;
        find::refused::add(context, &desk.world, ask, &mut found).await;
        scope.push(match &found.note {
            Some(note) => format!("{ask} ({note})"),
            None => ask.to_string(),
        });
        seen += found.seen;
        waiting += found.waiting;
        // The healthy ones of many are only counted; a pod or workload that was asked for by name gets an answer in any case.
        let named = matches!(ask, Ask::Pod { .. } | Ask::Workload { .. });
        let pods = found.pods.into_iter().map(Piece::Pod);
        let pieces = pods.chain(found.templates.into_iter().map(Piece::Template));
        let views = futures::stream::iter(pieces).map(|piece| async {
            let world = &desk.world;
            let view = match piece {
                Piece::Pod(pod) => Box::pin(View::of_pod(world, pod, found.around.clone())).await,
                Piece::Template(template) => Box::pin(View::of_template(world, template)).await,
            };
            desk.explain(&view).await
        });
        let mut explained = std::pin::pin!(views.buffer_unordered(AT_ONCE));
        while let Some(diagnoses) = explained.next().await {
            diagnoses
                .into_iter()
                .filter(|diagnosis| named || !diagnosis.pulls)
                .for_each(|diagnosis| fold.take(diagnosis));
        }
    }
    let asked = desk.prober.sent().into_iter();
    let (broken, undecided) = fold.pods();
    Ok(Scan {
        pods: seen,
        waiting,
        broken,
        undecided,
        asked: asked
            .map(|(registry, requests)| Asked { registry, requests })
            .collect(),
        ..Scan::of(&scope.join(", "), fold.finish())
    })
}

/// What is explained.
enum Piece {
    Pod(Pod),
    /// What a workload without pods would make.
    Template(Template),
}

/// Pods seen, and those of them of which an image is not there, without asking any registry.
pub async fn waiting(context: &Context, ask: &Ask) -> Result<(usize, usize), ExplainError> {
    let world = World::new(context.kube.clone(), false);
    let found = find::find(context, &world, ask).await?;
    Ok((found.seen, found.waiting))
}

/// Reads a pod by name, whatever state it is in.
async fn one(context: &Context, namespace: &str, name: &str) -> Result<find::Found, ExplainError> {
    let pod = pod::read(&context.kube, namespace, name).await?;
    Ok(find::Found {
        seen: 1,
        waiting: usize::from(pod::wants_a_look(&pod)),
        pods: vec![pod],
        ..find::Found::default()
    })
}
