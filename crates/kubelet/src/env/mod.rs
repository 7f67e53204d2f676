//! The environment of a container.

pub(crate) mod expand;
pub(crate) mod field;

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod};

use self::field::NodeFacts;
use crate::sources::Sources;
use crate::view;

/// Name and value, in order, each name once.
pub(crate) type Env = Vec<(String, String)>;

/// Builds the environment. `services` are the variables of services, which the container's own replace. An error is Kubernetes' text.
pub(crate) async fn build(
    pod: &Pod,
    container: &Container,
    facts: &NodeFacts,
    sources: &Sources,
    services: &[(String, String)],
) -> Result<Env, String> {
    let mut env = Building {
        order: Vec::new(),
        values: HashMap::new(),
        services: services.iter().cloned().collect(),
    };
    add_from(pod, container, sources, &mut env).await?;
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(pod, container, facts, sources, variable, &env).await? {
            env.set(&variable.name, value);
        }
    }
    for (name, value) in services {
        if !env.values.contains_key(name) {
            env.set(name, value.clone());
        }
    }
    Ok(env.finish())
}

struct Building {
    order: Vec<String>,
    values: HashMap<String, String>,
    services: HashMap<String, String>,
}

impl Building {
    fn set(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.values
            .get(name)
            .or_else(|| self.services.get(name))
            .cloned()
    }

    fn finish(mut self) -> Env {
        let take = |name: String| {
            let value = self.values.remove(&name)?;
            Some((name, value))
        };
        self.order.into_iter().filter_map(take).collect()
    }
}

/// A name that can be in an environment.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

async fn add_from(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    env: &mut Building,
) -> Result<(), String> {
    let namespace = view::namespace(pod);
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut pairs: Vec<(String, String)> = Vec::new();
        if let Some(reference) = &from.config_map_ref {
            let optional = reference.optional == Some(true);
            if let Some(map) = sources
                .config_map(namespace, &reference.name, optional)
                .await?
            {
                pairs.extend(
                    map.data
                        .iter()
                        .flatten()
                        .map(|(k, v)| (k.clone(), v.clone())),
                );
            }
        }
        if let Some(reference) = &from.secret_ref {
            let optional = reference.optional == Some(true);
            if let Some(secret) = sources.secret(namespace, &reference.name, optional).await? {
                let data = secret.data.iter().flatten();
                pairs.extend(
                    data.map(|(k, v)| (k.clone(), String::from_utf8_lossy(&v.0).into_owned())),
                );
            }
        }
        for (key, value) in pairs {
            let name = format!("{prefix}{key}");
            if is_name(&name) {
                env.set(&name, value);
            }
        }
    }
    Ok(())
}

/// The value of one variable; nothing where an optional source is absent.
async fn value(
    pod: &Pod,
    container: &Container,
    facts: &NodeFacts,
    sources: &Sources,
    variable: &EnvVar,
    env: &Building,
) -> Result<Option<String>, String> {
    if let Some(text) = variable.value.as_deref().filter(|v| !v.is_empty()) {
        return Ok(Some(expand::expand(text, &|name| env.get(name))));
    }
    let Some(from) = &variable.value_from else {
        return Ok(Some(String::new()));
    };
    if let Some(selector) = &from.field_ref {
        return field::field(pod, facts, selector).map(Some);
    }
    if let Some(selector) = &from.resource_field_ref {
        let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
        let other = named.and_then(|name| view::container(pod, name));
        let of = other.as_ref().map_or(container, |(_, c)| c);
        return field::resource(of, facts, selector).map(Some);
    }
    from_key(view::namespace(pod), from, sources).await
}

async fn from_key(
    namespace: &str,
    from: &EnvVarSource,
    sources: &Sources,
) -> Result<Option<String>, String> {
    if let Some(selector) = &from.config_map_key_ref {
        let optional = selector.optional == Some(true);
        let Some(map) = sources
            .config_map(namespace, &selector.name, optional)
            .await?
        else {
            return Ok(None);
        };
        let value = map
            .data
            .as_ref()
            .and_then(|data| data.get(&selector.key))
            .cloned();
        return found(value, optional, || {
            format!(
                "couldn't find key {} in ConfigMap {namespace}/{}",
                selector.key, selector.name
            )
        });
    }
    if let Some(selector) = &from.secret_key_ref {
        let optional = selector.optional == Some(true);
        let Some(secret) = sources.secret(namespace, &selector.name, optional).await? else {
            return Ok(None);
        };
        let bytes = secret
            .data
            .as_ref()
            .and_then(|data| data.get(&selector.key));
        let value = bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        return found(value, optional, || {
            format!(
                "couldn't find key {} in Secret {namespace}/{}",
                selector.key, selector.name
            )
        });
    }
    Err("unsupported source of an environment variable".to_owned())
}

fn found(
    value: Option<String>,
    optional: bool,
    missing: impl Fn() -> String,
) -> Result<Option<String>, String> {
    match value {
        None if !optional => Err(missing()),
        value => Ok(value),
    }
}
