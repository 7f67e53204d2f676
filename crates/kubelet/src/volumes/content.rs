//! Files of volumes that show objects of the API.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume, VolumeProjection,
};

use super::atomic::{File, Files};
use super::token::Tokens;
use crate::env::field::{self, NodeFacts};
use crate::sources::Sources;
use crate::view;

const DEFAULT_MODE: u32 = 0o644;

/// What the files are made from.
pub(super) struct Context<'a> {
    pub(super) pod: &'a Pod,
    pub(super) facts: &'a NodeFacts,
    pub(super) sources: &'a Sources,
    pub(super) tokens: &'a Tokens,
    pub(super) now: Timestamp,
    pub(super) gid: Option<u32>,
}

impl Context<'_> {
    /// The mode of a file. A group that owns the volume can read.
    fn mode(&self, own: Option<i32>, default: Option<i32>) -> u32 {
        let mode = own.or(default).and_then(|mode| u32::try_from(mode).ok());
        let mode = mode.unwrap_or(DEFAULT_MODE) & 0o777;
        if self.gid.is_some() {
            mode | 0o040
        } else {
            mode
        }
    }
}

/// The files of a secret, config map, downward API or projected volume.
pub(super) async fn files(context: &Context<'_>, volume: &Volume) -> Result<Files, String> {
    let namespace = view::namespace(context.pod);
    let mut files = Files::new();
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let optional = source.optional == Some(true);
        let secret = context.sources.secret(namespace, name, optional).await?;
        let pick = Pick {
            items: source.items.as_deref(),
            default: source.default_mode,
            optional,
            missing: "secret",
        };
        add(context, &mut files, &secret_data(secret.as_deref()), &pick)?;
    } else if let Some(source) = &volume.config_map {
        let optional = source.optional == Some(true);
        let map = context
            .sources
            .config_map(namespace, &source.name, optional)
            .await?;
        let pick = Pick {
            items: source.items.as_deref(),
            default: source.default_mode,
            optional,
            missing: "config",
        };
        add(context, &mut files, &map_data(map.as_deref()), &pick)?;
    } else if let Some(source) = &volume.downward_api {
        downward(
            context,
            &mut files,
            source.items.as_deref().unwrap_or_default(),
            source.default_mode,
        )?;
    } else if let Some(source) = &volume.projected {
        for projection in source.sources.iter().flatten() {
            project(context, &mut files, projection, source.default_mode).await?;
        }
    }
    Ok(files)
}

async fn project(
    context: &Context<'_>,
    files: &mut Files,
    projection: &VolumeProjection,
    default: Option<i32>,
) -> Result<(), String> {
    let namespace = view::namespace(context.pod);
    if let Some(source) = &projection.secret {
        let optional = source.optional == Some(true);
        let secret = context
            .sources
            .secret(namespace, &source.name, optional)
            .await?;
        let pick = Pick {
            items: source.items.as_deref(),
            default,
            optional,
            missing: "secret",
        };
        add(context, files, &secret_data(secret.as_deref()), &pick)?;
    }
    if let Some(source) = &projection.config_map {
        let optional = source.optional == Some(true);
        let map = context
            .sources
            .config_map(namespace, &source.name, optional)
            .await?;
        let pick = Pick {
            items: source.items.as_deref(),
            default,
            optional,
            missing: "config",
        };
        add(context, files, &map_data(map.as_deref()), &pick)?;
    }
    if let Some(source) = &projection.downward_api {
        downward(
            context,
            files,
            source.items.as_deref().unwrap_or_default(),
            default,
        )?;
    }
    if let Some(source) = &projection.service_account_token {
        let token = context.tokens.get(context.pod, source, context.now).await?;
        let file = File {
            content: token.expose().as_bytes().to_vec(),
            mode: context.mode(None, default),
        };
        files.insert(source.path.clone(), file);
    }
    if projection.cluster_trust_bundle.is_some() || projection.pod_certificate.is_some() {
        return Err("the projection's type is not supported by this node".to_owned());
    }
    Ok(())
}

type Data = Vec<(String, Vec<u8>)>;

fn secret_data(secret: Option<&Secret>) -> Data {
    let data = secret.into_iter().flat_map(|s| s.data.iter().flatten());
    data.map(|(key, value)| (key.clone(), value.0.clone()))
        .collect()
}

fn map_data(map: Option<&ConfigMap>) -> Data {
    let text = map.into_iter().flat_map(|m| m.data.iter().flatten());
    let binary = map.into_iter().flat_map(|m| m.binary_data.iter().flatten());
    text.map(|(key, value)| (key.clone(), value.clone().into_bytes()))
        .chain(binary.map(|(key, value)| (key.clone(), value.0.clone())))
        .collect()
}

struct Pick<'a> {
    items: Option<&'a [KeyToPath]>,
    default: Option<i32>,
    optional: bool,
    missing: &'a str,
}

fn add(
    context: &Context<'_>,
    files: &mut Files,
    data: &Data,
    pick: &Pick<'_>,
) -> Result<(), String> {
    let Some(items) = pick.items.filter(|items| !items.is_empty()) else {
        for (key, content) in data {
            let file = File {
                content: content.clone(),
                mode: context.mode(None, pick.default),
            };
            files.insert(key.clone(), file);
        }
        return Ok(());
    };
    for item in items {
        match data.iter().find(|(key, _)| *key == item.key) {
            Some((_, content)) => {
                let file = File {
                    content: content.clone(),
                    mode: context.mode(item.mode, pick.default),
                };
                files.insert(item.path.clone(), file);
            }
            None if pick.optional => {}
            None => {
                return Err(format!(
                    "references non-existent {} key: {}",
                    pick.missing, item.key
                ));
            }
        }
    }
    Ok(())
}

fn downward(
    context: &Context<'_>,
    files: &mut Files,
    items: &[DownwardAPIVolumeFile],
    default: Option<i32>,
) -> Result<(), String> {
    for item in items {
        let value = if let Some(selector) = &item.field_ref {
            field::field(context.pod, context.facts, selector)?
        } else if let Some(selector) = &item.resource_field_ref {
            let name = selector.container_name.as_deref().unwrap_or_default();
            let (_, container) = view::container(context.pod, name)
                .ok_or_else(|| format!("container {name} not found"))?;
            field::resource(&container, context.facts, selector)?
        } else {
            continue;
        };
        let file = File {
            content: value.into_bytes(),
            mode: context.mode(item.mode, default),
        };
        files.insert(item.path.clone(), file);
    }
    Ok(())
}
