//! Templates: their hash, and whether a replica set has the one of a Deployment.

use aws_lc_rs::digest::{Context, SHA256};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

/// The label that tells the pods of one template from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";
/// Letters that make no words, as Kubernetes uses them in names.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of a template as it stands in names; another one for each collision.
pub fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut hasher = Context::new(&SHA256);
    hasher.update(plain(template).to_string().as_bytes());
    if collisions > 0 {
        hasher.update(&collisions.to_be_bytes());
    }
    let digest = hasher.finish();
    let digest = digest.as_ref();
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    number
        .to_string()
        .bytes()
        .map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]))
        .collect()
}

/// A template without the label that is added to it.
fn plain(template: &PodTemplateSpec) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template
        .metadata
        .as_mut()
        .and_then(|metadata| metadata.labels.as_mut())
    {
        labels.remove(HASH_LABEL);
    }
    // k8s-openapi's types are structs and sorted maps, so that equal templates are equal text.
    serde_json::to_value(template).unwrap_or_default()
}

/// Whether a replica set runs the template of a Deployment: the same template, or one made from it by us, should the
/// server's defaults differ between the two kinds.
pub(super) fn is_of(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let Some(spec) = &deployment.spec else {
        return false;
    };
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    if template.is_some_and(|template| plain(template) == plain(&spec.template)) {
        return true;
    }
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count)
        .unwrap_or(0);
    let label = set
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(HASH_LABEL));
    label == Some(&hash(&spec.template, collisions))
}
