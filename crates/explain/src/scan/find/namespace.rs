//! Whether a namespace without pods is there at all: of one whose name was mistyped the API lists no pods either.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client};

use crate::pod::ExplainError;
use crate::world::reason;

/// The most names that are given as near.
const MOST_NEAR: usize = 3;
/// The most namespaces that are looked through for near names.
const MOST: u32 = 500;
/// How like a name has to be, from 0 (nothing in common) to 1.
const LIKE: f64 = 0.6;

/// Fails where the namespace is not there, or where the API does not answer. Gives a note where that may not be read.
pub(super) async fn is_there(client: &Client, name: &str) -> Result<Option<String>, ExplainError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let unread = match namespaces.get_opt(name).await {
        Ok(Some(_)) => return Ok(None),
        Ok(None) => None,
        Err(kube::Error::Api(status)) if status.code == 403 => {
            return Ok(Some(format!(
                "whether it exists may not be read: {} {}",
                status.code, status.reason
            )));
        }
        Err(error) => Some(reason(&error)),
    };
    let params = ListParams::default().limit(MOST);
    // What may not be listed has no near names.
    let all = namespaces.list(&params).await.map(|list| list.items);
    let all: Vec<String> = all
        .unwrap_or_default()
        .iter()
        .map(kube::ResourceExt::name_any)
        .collect();
    Err(ExplainError::NoNamespace {
        near: near(name, &all),
        name: name.to_owned(),
        unread,
    })
}

/// Names that are like this one, nearest first.
fn near(name: &str, all: &[String]) -> Vec<String> {
    let mut like: Vec<(f64, &String)> = all
        .iter()
        .map(|one| (strsim::normalized_damerau_levenshtein(name, one), one))
        .filter(|(like, _)| *like >= LIKE)
        .collect();
    like.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    like.into_iter()
        .take(MOST_NEAR)
        .map(|(_, one)| one.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_those_of_a_slip() {
        let all = ["shop", "shop-test", "kube-system", "default"].map(str::to_owned);
        assert_eq!(near("shpo", &all), ["shop"]);
        assert_eq!(near("kubesystem", &all), ["kube-system"]);
        assert!(near("payments", &all).is_empty());
    }
}
