//! One scenario that was put up, and what is done with it: watched, explained, mended.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use towline_explain::{Action, Diagnosis, Fix, Login, pod};
use towline_lab::scenario::{Place, Published, Remedy, Scenario, Standing, Workload};

use super::cache::{self, Cache};
use super::kubectl::{self, Words, kubectl};
use super::{Lab, LabError, Scene, nodes, objects, publish, way};
use crate::Handle;

/// The name of every scenario's workload.
const OBJECT: &str = "app";
const POLL: Duration = Duration::from_millis(100);

/// A scenario that was put up. Its host falls when this is dropped; its objects stay.
#[derive(Debug)]
pub struct Staged<'a> {
    lab: &'a Lab,
    node: &'a Handle,
    scenario: &'a Scenario,
    scene: Scene,
    host: Standing,
    cache: Option<Cache>,
    workload: Value,
}

impl<'a> Staged<'a> {
    pub(super) async fn new(
        lab: &'a Lab,
        node: &'a Handle,
        scenario: &'a Scenario,
    ) -> Result<Self, LabError> {
        let registry = node.facts().registry;
        let account = lab.account();
        let first = if scenario.pulled_before {
            scenario.host.healthy()
        } else {
            scenario.host.clone()
        };
        let host = lab
            .ground
            .stand(
                &scenario.name,
                &first,
                registry,
                (&account.username, &account.password),
            )
            .await
            .map_err(|source| LabError::Io {
                what: format!("put up the registry of {}", scenario.name),
                source,
            })?;
        let cached = scenario.image.starts_with(cache::NAME);
        let cache = if cached {
            let folder = lab.home(scenario).join("caches").join(&scenario.name);
            Some(Cache::start(&folder, &host.authority()).await?)
        } else {
            None
        };
        let place = cache.as_ref().map(|cache| cache.address().to_string());
        let scene = Scene {
            cache: place.unwrap_or_default(),
            namespace: scenario.name.clone(),
            object: OBJECT.to_owned(),
            registry,
            host: host.authority(),
        };
        publish::publish(scenario, &scene, account).await?;
        way::write(&lab.home(scenario), &host)?;
        let mut objects = objects::manifests(scenario, &scene, account);
        let workload = objects.pop().unwrap_or_default();
        let mut staged = Self {
            lab,
            node,
            scenario,
            scene,
            host,
            cache,
            workload,
        };
        staged.namespace().await?;
        for object in &objects {
            staged.create(object).await?;
        }
        if scenario.pulled_before {
            staged.pull_before().await?;
        }
        staged.create(&staged.workload).await?;
        Ok(staged)
    }

    /// The namespace of its objects, and the name of its workload.
    pub fn place(&self) -> (&str, &str) {
        (&self.scene.namespace, &self.scene.object)
    }

    fn kube(&self) -> Client {
        self.node.kube()
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.kube(), &self.scene.namespace)
    }

    /// Makes the namespace and waits for its service account.
    async fn namespace(&self) -> Result<(), LabError> {
        let name = &self.scene.namespace;
        let namespaces: Api<Namespace> = Api::all(self.kube());
        let object = serde_json::from_value(json!({ "metadata": { "name": name } }));
        namespaces
            .create(&PostParams::default(), &object.unwrap_or_default())
            .await
            .map_err(LabError::kube(format!("create the namespace {name}")))?;
        let accounts: Api<ServiceAccount> = self.api();
        let what = format!("the service account of {name}");
        until(&what, Duration::from_secs(120), async || {
            match accounts.get_opt("default").await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err("none".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        if let Some(secret) = objects::account_secret(self.scenario) {
            let patch = json!({ "imagePullSecrets": [{ "name": secret }] });
            accounts
                .patch("default", &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map_err(LabError::kube("name a secret in the service account"))?;
        }
        Ok(())
    }

    async fn create(&self, object: &Value) -> Result<(), LabError> {
        let text = |pointer: &str| {
            let value = object.pointer(pointer).and_then(Value::as_str);
            value.unwrap_or_default()
        };
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        let (group, version) = text("/apiVersion")
            .split_once('/')
            .unwrap_or_else(|| ("", text("/apiVersion")));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.kube(), &self.scene.namespace, &resource);
        let failed = || format!("create {kind} {}/{name}", self.scene.namespace);
        let object = serde_json::from_value(object.clone())
            .map_err(|error| LabError::kube(failed())(kube::Error::SerdeError(error)))?;
        api.create(&PostParams::default(), &object)
            .await
            .map(drop)
            .map_err(LabError::kube(failed()))
    }

    /// Lets another pod pull the image, and breaks the host then.
    async fn pull_before(&mut self) -> Result<(), LabError> {
        let image = self.scene.image(self.scenario.right_image());
        let decoy = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": "decoy", "namespace": self.scene.namespace },
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{ "name": "app", "image": image }],
            },
        });
        self.create(&decoy).await?;
        let pods: Api<Pod> = self.api();
        let patience = Duration::from_secs(120);
        until("the first pod runs", patience, async || {
            match pods.get("decoy").await {
                Ok(pod) if runs(&pod) => Ok(()),
                Ok(pod) => Err(seen(&pod)),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        // The node lists its images from time to time.
        let nodes: Api<Node> = Api::all(self.kube());
        until("the node lists the image", patience, async || {
            let list = nodes.list(&ListParams::default()).await;
            let nodes = list.map_err(|error| error.to_string())?.items;
            let names = names_of_images(&nodes);
            if names.contains(&image) {
                Ok(())
            } else {
                Err(format!("{} names", names.len()))
            }
        })
        .await?;
        self.host
            .turn_into(&self.lab.ground, &self.scenario.host)
            .await
            .map_err(|source| LabError::Io {
                what: format!("break the registry of {}", self.scenario.name),
                source,
            })
    }

    async fn pods(&self) -> Result<Vec<Pod>, LabError> {
        let pods: Api<Pod> = self.api();
        let params = ListParams::default().labels(&format!("app={}", self.scene.object));
        let list = pods.list(&params).await;
        Ok(list.map_err(LabError::kube("list the pods"))?.items)
    }

    /// Waits until the kubelet says that the image is not there; gives the pod.
    pub async fn fails(&self, patience: Duration) -> Result<Pod, LabError> {
        if self.scenario.place == Place::PauselessNode {
            return self.has_no_sandbox(patience).await;
        }
        self.pod_that("the pod fails to pull", patience, |pod| {
            waiting_reason(pod)
                .is_some_and(|reason| !matches!(reason, "ContainerCreating" | "PodInitializing"))
        })
        .await
    }

    /// Waits until the kubelet says that the pod gets no sandbox, before any container is looked at; gives the pod.
    async fn has_no_sandbox(&self, patience: Duration) -> Result<Pod, LabError> {
        until("the pod gets no sandbox", patience, async || {
            let pods = self.pods().await.map_err(|error| error.to_string())?;
            let pod = pods.into_iter().next().ok_or("no pod")?;
            let events = self.events(&pod).await.map_err(|error| error.to_string())?;
            let failed = |event: &Event| event.reason.as_deref() == Some("FailedCreatePodSandBox");
            if events.iter().any(failed) {
                Ok(pod)
            } else {
                Err(seen(&pod))
            }
        })
        .await
    }

    /// Waits until the workload runs; gives the pod.
    pub async fn runs(&self, patience: Duration) -> Result<Pod, LabError> {
        self.pod_that("the pod runs", patience, runs).await
    }

    async fn pod_that(
        &self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Pod) -> bool,
    ) -> Result<Pod, LabError> {
        until(what, patience, async || {
            let pods = self.pods().await.map_err(|error| error.to_string())?;
            let last = pods.iter().map(seen).collect::<Vec<_>>().join(", ");
            let found = pods
                .into_iter()
                .find(|pod| pod.metadata.deletion_timestamp.is_none() && wanted(pod));
            found.ok_or(last)
        })
        .await
    }

    /// What the kubelet reported of a pod, oldest first.
    pub async fn events(&self, pod: &Pod) -> Result<Vec<Event>, LabError> {
        let events: Api<Event> = self.api();
        let fields = format!("involvedObject.name={}", pod.name_any());
        let list = events
            .list(&ListParams::default().fields(&fields))
            .await
            .map_err(LabError::kube("list the events"))?;
        let mut items = list.items;
        items.sort_by_key(|event| event.first_timestamp.as_ref().map(|time| time.0));
        Ok(items)
    }

    /// Asks why the pod does not pull, as `towline why` does.
    pub async fn explain(&self, found: &Pod) -> Result<Diagnosis, LabError> {
        let context = pod::Context {
            kube: self.kube(),
            registry: self.node.registry_client()?,
            seen_from: "this machine".to_owned(),
            boot_id: crate::boot_id(),
            budget: towline_explain::Budget::default(),
            eye: None,
            deep: None,
        };
        let (namespace, name) = (&self.scene.namespace, found.name_any());
        let answers = Box::pin(pod::explain(&context, namespace, &name)).await?;
        answers.into_iter().next().ok_or(LabError::NoFix)
    }

    /// Mends what is wrong; gives what was done, a line each: commands as printed, or what somebody repaired.
    pub async fn mend(&mut self, diagnosis: &Diagnosis) -> Result<Vec<String>, LabError> {
        let mut done = match &self.scenario.remedy {
            Remedy::Nothing => return Ok(Vec::new()),
            Remedy::Printed => self.as_printed(diagnosis).await?,
            Remedy::Repair { what } => {
                self.repair().await?;
                vec![format!("# {what}")]
            }
        };
        for pod in self.pods().await? {
            if waiting_reason(&pod).is_none() {
                continue;
            }
            let action = Action::RetryNow {
                namespace: self.scene.namespace.clone(),
                name: pod.name_any(),
            };
            // A pod that is replaced by the fix may be gone, and needs no attempt.
            let asked = if kubectl().is_some() {
                let config = self.node.kubeconfig();
                kubectl::typed(&action.command(), &self.words(), config)
                    .await
                    .is_ok()
            } else {
                action.apply(&self.kube(), None).await.is_ok()
            };
            if asked {
                done.push(format!("$ {}", action.command()));
            }
        }
        Ok(done)
    }

    /// Deletes its pods, so that the end of all is not long. The namespace stays: emptying one costs the controllers a walk over all
    /// that the API knows, while other scenarios wait for theirs. That a pod goes on until the end is no error.
    pub async fn clear(mut self) {
        let background = DeleteParams::background();
        if let Some(cache) = self.cache.take() {
            cache.stop().await;
        }
        if self.scenario.workload == Workload::Deployment {
            let deployments: Api<Deployment> = self.api();
            if let Err(error) = deployments.delete(&self.scene.object, &background).await {
                tracing::debug!(%error, "the deployment stays");
            }
            return;
        }
        let pods: Api<Pod> = self.api();
        if let Err(error) = pods.delete(&self.scene.object, &background).await {
            tracing::debug!(%error, "the pod stays");
        }
    }

    async fn repair(&mut self) -> Result<(), LabError> {
        let normal = [
            Published::Public,
            Published::Private,
            Published::Large,
            Published::ManyFiles,
        ];
        if !normal.contains(&self.scenario.published) {
            publish::republish(self.scenario, &self.scene, self.lab.account()).await?;
        }
        match self.scenario.place {
            Place::SmallNode => nodes::enlarge(self.lab.folder.path())?,
            Place::BrokenNode => nodes::make_writable(self.lab.folder.path())?,
            Place::FewFilesNode => nodes::more_files(self.lab.folder.path())?,
            Place::PauselessNode => {
                publish::pause(self.scene.registry, self.lab.account()).await?;
            }
            _ => {}
        }
        let ground = &self.lab.ground;
        let repaired = self.host.repair(ground).await;
        repaired.map_err(|source| LabError::Io {
            what: format!("repair the registry of {}", self.scenario.name),
            source,
        })?;
        way::write(&self.lab.home(self.scenario), &self.host)
    }

    async fn as_printed(&self, diagnosis: &Diagnosis) -> Result<Vec<String>, LabError> {
        let fix = diagnosis.fixes.first().ok_or(LabError::NoFix)?;
        let words = self.words();
        let mut done: Vec<String> = fix.commands.iter().map(|one| words.shown(one)).collect();
        if kubectl().is_some() && fix.commands.iter().all(|one| kubectl::can_run(one)) {
            if fix.commands.is_empty() {
                return Err(LabError::NoFix);
            }
            for command in &fix.commands {
                kubectl::typed(command, &words, self.node.kubeconfig()).await?;
            }
        } else {
            self.through_api(diagnosis, fix).await?;
        }
        let remade = fix.actions.iter().any(
            |action| matches!(action, Action::ReferenceSecret { kind, .. } if kind == "serviceaccount"),
        );
        if remade && self.scenario.workload == Workload::Pod {
            self.remake().await?;
            let (namespace, name) = self.place();
            done.push(format!("$ kubectl -n {namespace} delete pod {name}"));
            done.push(format!("$ kubectl -n {namespace} apply -f {name}.yaml"));
        }
        Ok(done)
    }

    /// What the person knows and no answer can.
    fn words(&self) -> Words<'_> {
        Words {
            account: self.lab.account(),
            image: self.scene.image(self.scenario.right_image()),
        }
    }

    /// The same requests as those of the printed commands.
    async fn through_api(&self, diagnosis: &Diagnosis, fix: &Fix) -> Result<(), LabError> {
        let account = self.lab.account();
        let login = Login {
            username: account.username.clone(),
            password: account.password.clone().into(),
        };
        let actions = if fix.actions.is_empty() {
            vec![self.named_image(diagnosis, &fix.commands)?]
        } else {
            fix.actions.clone()
        };
        for action in &actions {
            action.apply(&self.kube(), Some(&login)).await?;
        }
        Ok(())
    }

    /// The printed command in which the person fills in the image that was meant.
    fn named_image(&self, diagnosis: &Diagnosis, commands: &[String]) -> Result<Action, LabError> {
        let asks = commands.iter().any(|command| command.contains("=IMAGE"));
        let container = diagnosis.target.container.clone();
        let (true, Some(container)) = (asks, container) else {
            return Err(LabError::NoFix);
        };
        let kind = match self.scenario.workload {
            Workload::Pod => "pod",
            Workload::Deployment => "deployment",
        };
        Ok(Action::SetImage {
            namespace: self.scene.namespace.clone(),
            kind: kind.to_owned(),
            name: self.scene.object.clone(),
            container,
            init: diagnosis.target.init,
            image: self.scene.image(self.scenario.right_image()),
        })
    }

    /// Deletes the pod and applies it again.
    async fn remake(&self) -> Result<(), LabError> {
        let pods: Api<Pod> = self.api();
        let name = &self.scene.object;
        pods.delete(name, &DeleteParams::default())
            .await
            .map_err(LabError::kube("delete the pod"))?;
        until(
            "the pod is gone",
            Duration::from_secs(60),
            async || match pods.get_opt(name).await {
                Ok(None) => Ok(()),
                Ok(Some(pod)) => Err(seen(&pod)),
                Err(error) => Err(error.to_string()),
            },
        )
        .await?;
        self.create(&self.workload).await
    }
}

fn waiting_reason(pod: &Pod) -> Option<&str> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let waiting = statuses.first()?.state.as_ref()?.waiting.as_ref()?;
    waiting.reason.as_deref()
}

fn runs(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| &status.container_statuses);
    statuses
        .flatten()
        .any(|status| status.state.iter().any(|state| state.running.is_some()))
}

fn seen(pod: &Pod) -> String {
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    format!(
        "{} {} {} on {}",
        pod.name_any(),
        phase.unwrap_or_else(|| "-".to_owned()),
        waiting_reason(pod).unwrap_or("-"),
        node.unwrap_or_else(|| "no node".to_owned())
    )
}

/// The images that nodes list.
fn names_of_images(nodes: &[Node]) -> Vec<String> {
    nodes
        .iter()
        .filter_map(|node| node.status.as_ref()?.images.as_ref())
        .flatten()
        .flat_map(|image| image.names.iter().flatten().cloned())
        .collect()
}

/// Asks again and again until there is a value.
async fn until<T>(
    what: &str,
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, LabError> {
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() > patience => {
                return Err(LabError::NotYet {
                    what: what.to_owned(),
                    seconds: patience.as_secs(),
                    last,
                });
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
