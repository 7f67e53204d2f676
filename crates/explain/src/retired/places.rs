//! The table: places that were given up, each with who says so. A row is here only where somebody in charge, or several who are hit,
//! say it in public; a row without `to` helps by its words alone.

use super::Retirement;

const fn gone(
    registry: &'static str,
    repository: &'static str,
    what: &'static str,
    source: &'static str,
) -> Retirement {
    Retirement {
        registry,
        repository,
        to: None,
        what,
        source,
    }
}

const fn moved(
    (registry, repository): (&'static str, &'static str),
    to: (&'static str, &'static str),
    what: &'static str,
    source: &'static str,
) -> Retirement {
    Retirement {
        registry,
        repository,
        to: Some(to),
        what,
        source,
    }
}

const FREEZE: &str = "https://kubernetes.io/blog/2023/02/06/k8s-gcr-io-freeze-announcement/";
const SHUTDOWN: &str = "https://cloud.google.com/artifact-registry/docs/transition/setup-gcr-repo";

/// The known ones; of one registry the most special place first.
pub(super) static RETIRED: &[Retirement] = &[
    // Kubernetes' own.
    moved(
        ("k8s.gcr.io", ""),
        ("registry.k8s.io", ""),
        "k8s.gcr.io was frozen on 2023-04-03 and only leads to registry.k8s.io: nothing newer is there",
        FREEZE,
    ),
    moved(
        ("gcr.io", "google_containers/"),
        ("registry.k8s.io", ""),
        "gcr.io/google_containers is the old name of what became k8s.gcr.io and then registry.k8s.io",
        FREEZE,
    ),
    moved(
        ("gcr.io", "google-containers/"),
        ("registry.k8s.io", ""),
        "gcr.io/google-containers is the old name of what became k8s.gcr.io and then registry.k8s.io",
        FREEZE,
    ),
    moved(
        ("gcr.io", "kubebuilder/"),
        ("registry.k8s.io", "kubebuilder/"),
        "gcr.io/kubebuilder was given up with Google's Container Registry on 2025-03-18; its images were copied to registry.k8s.io/kubebuilder",
        "https://github.com/kubernetes-sigs/kubebuilder/discussions/3907",
    ),
    moved(
        ("quay.io", "coreos/kube-state-metrics"),
        ("registry.k8s.io", "kube-state-metrics/kube-state-metrics"),
        "quay.io/coreos/kube-state-metrics gets no images since version 2 of April 2021: they are at registry.k8s.io/kube-state-metrics/kube-state-metrics",
        "https://github.com/kubernetes/website/pull/39511",
    ),
    moved(
        (
            "quay.io",
            "kubernetes-ingress-controller/nginx-ingress-controller",
        ),
        ("registry.k8s.io", "ingress-nginx/controller"),
        "quay.io/kubernetes-ingress-controller gets no images since 0.34.0 of July 2020: they are at registry.k8s.io/ingress-nginx/controller, with a v before the version",
        "https://github.com/helm/charts/pull/23213",
    ),
    moved(
        ("docker.io", "jettech/kube-webhook-certgen"),
        ("registry.k8s.io", "ingress-nginx/kube-webhook-certgen"),
        "jettech/kube-webhook-certgen is not maintained any more: ingress-nginx carries it on at registry.k8s.io/ingress-nginx/kube-webhook-certgen",
        "https://github.com/kubernetes-sigs/gateway-api/pull/991",
    ),
    // Projects that left Google's Container Registry.
    moved(
        ("gcr.io", "kubernetes-helm/tiller"),
        ("ghcr.io", "helm/tiller"),
        "the project kubernetes-helm was deleted from gcr.io in August 2021; tiller's images are at ghcr.io/helm/tiller, and Helm 2 ended in November 2020",
        "https://github.com/helm/helm/issues/10004",
    ),
    moved(
        ("gcr.io", "tekton-releases/"),
        ("ghcr.io", "tektoncd/"),
        "Tekton closed its repositories at gcr.io in 2025; the same images are at ghcr.io/tektoncd",
        "https://github.com/tektoncd/pipeline/issues/8870",
    ),
    moved(
        ("gcr.io", "ml-pipeline/"),
        ("ghcr.io", "kubeflow/kfp-"),
        "Kubeflow Pipelines' images at gcr.io/ml-pipeline are gone; releases are at ghcr.io/kubeflow, as kfp-NAME",
        "https://github.com/kubeflow/pipelines/issues/12422",
    ),
    moved(
        ("gcr.io", "linkerd-io/"),
        ("ghcr.io", "linkerd/"),
        "Linkerd's images are published at ghcr.io/linkerd since version 2.9 of 2020",
        "https://github.com/linkerd/linkerd2/pull/4953",
    ),
    moved(
        ("gcr.io", "heptio-images/velero"),
        ("docker.io", "velero/velero"),
        "Velero's images are published at docker.io/velero since version 1.2 of 2019",
        "https://github.com/velero-io/velero/pull/1988",
    ),
    gone(
        "gcr.io",
        "spark-operator/",
        "the images of gcr.io/spark-operator were taken away in October 2023 for what was found in them; the operator's releases went on at ghcr.io",
        "https://github.com/kubeflow/spark-operator/issues/1860",
    ),
    gone(
        "gcr.io",
        "kaniko-project/",
        "Google archived kaniko in June 2025: gcr.io/kaniko-project gets no newer images; forks carry it on under other names",
        "https://github.com/chainguard-dev/kaniko",
    ),
    gone("gcr.io", "", GCR, SHUTDOWN),
    gone("us.gcr.io", "", GCR, SHUTDOWN),
    gone("eu.gcr.io", "", GCR, SHUTDOWN),
    gone("asia.gcr.io", "", GCR, SHUTDOWN),
    // Docker Hub.
    moved(
        ("docker.io", "bitnami/"),
        ("docker.io", "bitnamilegacy/"),
        "versioned tags of docker.io/bitnami were taken away from 2025-08-28 on; those of then are in docker.io/bitnamilegacy, without updates",
        "https://github.com/bitnami/charts/issues/35164",
    ),
    moved(
        ("docker.io", "minio/"),
        ("quay.io", "minio/"),
        "MinIO publishes no images since October 2025 and removed its own from Docker Hub in September 2026; the last ones are at quay.io/minio",
        "https://github.com/makeplane/plane/pull/9829",
    ),
    moved(
        ("docker.io", "argoproj/"),
        ("quay.io", "argoproj/"),
        "the Argo projects publish at quay.io/argoproj: Docker Hub gets nothing newer (Argo Workflows since May 2025, the others for years)",
        "https://github.com/argoproj/argo-workflows/pull/14457",
    ),
    moved(
        ("docker.io", "argoprojlabs/"),
        ("quay.io", "argoprojlabs/"),
        "Argo CD Image Updater is published at quay.io/argoprojlabs and no more on Docker Hub",
        "https://github.com/argoproj-labs/argocd-image-updater/issues/445",
    ),
    gone(
        "docker.io",
        "library/openjdk",
        "the official image openjdk is deprecated and has no releases since July 2022; others carry Java on: eclipse-temurin, amazoncorretto, ibm-semeru-runtimes, sapmachine",
        "https://github.com/docker-library/openjdk/issues/505",
    ),
    moved(
        ("docker.io", "library/java"),
        ("docker.io", "library/openjdk"),
        "the official image java was deprecated in favour of openjdk, without updates since 2016-12-31; openjdk is deprecated too",
        "https://github.com/docker-library/docs/pull/660",
    ),
    moved(
        ("docker.io", "library/centos"),
        ("quay.io", "centos/centos"),
        "the official image centos gets no updates since 2020 and all its versions ended by 2024-06-30; CentOS Stream is at quay.io/centos/centos",
        "https://github.com/docker-library/docs/pull/2461",
    ),
    gone(
        "docker.io",
        "microsoft/",
        "Microsoft publishes at mcr.microsoft.com since March 2019, under other names (microsoft/dotnet became mcr.microsoft.com/dotnet/...)",
        "https://devblogs.microsoft.com/dotnet/net-core-container-images-now-published-to-microsoft-container-registry/",
    ),
    // Others.
    moved(
        ("quay.io", "coreos/flannel"),
        ("ghcr.io", "flannel-io/flannel"),
        "flannel left quay.io with version 0.17 of 2022; it is published at ghcr.io/flannel-io/flannel",
        "https://github.com/kubernetes/kops/pull/13552",
    ),
    moved(
        ("registry.centos.org", ""),
        ("quay.io", ""),
        "registry.centos.org was switched off in May 2023, its name included; CentOS's images are at quay.io/centos",
        "https://github.com/CentOS/container-index/issues/424",
    ),
    gone(
        "docker.pkg.github.com",
        "",
        "GitHub's Docker registry docker.pkg.github.com was replaced by ghcr.io; docker.pkg.github.com/OWNER/REPOSITORY/IMAGE became ghcr.io/OWNER/IMAGE or ghcr.io/OWNER/REPOSITORY/IMAGE",
        "https://docs.github.com/packages/working-with-a-github-packages-registry/working-with-the-docker-registry",
    ),
];

const GCR: &str = "Google's Container Registry was shut down on 2025-03-18; images of its hosts (gcr.io and us., eu., asia.) that were not moved to Artifact Registry are gone";
