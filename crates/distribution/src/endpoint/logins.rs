//! Logins of mirrors: each is for the place it was stored for, and no place gets another one's.

use std::sync::Arc;

use towline_keyring::Credential;
use towline_oci::Reference;

use super::Endpoint;
use crate::url::Scheme;

/// A mirror that wants a login, as a login file would name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorPlace {
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// The image under the mirror's own name, host and port: `mirror.corp:5000/hub/library/nginx`.
    pub image: Reference,
}

type Find = dyn Fn(&MirrorPlace) -> Option<Credential> + Send + Sync;

/// Finds the login of a mirror. The image's own login is never a mirror's.
#[derive(Clone, Default)]
pub struct MirrorLogins(Option<Arc<Find>>);

impl std::fmt::Debug for MirrorLogins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MirrorLogins").finish_non_exhaustive()
    }
}

impl MirrorLogins {
    /// Logins that `find` gives. It is asked once for each image and mirror, and may block for a moment.
    pub fn new(find: impl Fn(&MirrorPlace) -> Option<Credential> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(find)))
    }

    /// The login for an endpoint that may not have the image's own.
    pub(crate) fn of(&self, endpoint: &Endpoint) -> Option<Credential> {
        let find = self.0.as_ref()?;
        find(&place(endpoint)?)
    }
}

fn place(endpoint: &Endpoint) -> Option<MirrorPlace> {
    let Some(origin) = &endpoint.origin else {
        // The image was renamed: its registry is the mirror.
        return Some(MirrorPlace {
            tls: !endpoint.insecure,
            image: endpoint.reference.clone(),
        });
    };
    let authority = origin.authority();
    let below = endpoint.base.strip_prefix("/v2").unwrap_or_default();
    let below = below.trim_matches('/');
    let slash = if below.is_empty() { "" } else { "/" };
    let name = format!(
        "{authority}/{below}{slash}{}",
        endpoint.reference.repository()
    );
    let image = Reference::parse(&name).ok()?;
    // A bare host name reads as a part of a name on Docker Hub, whose login is not for the host.
    (image.registry() == authority.as_str()).then_some(MirrorPlace {
        tls: origin.scheme == Scheme::Https,
        image,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::Origin;

    #[test]
    fn a_place_is_the_mirrors_own_name_or_none() {
        for (scheme, authority, base, want) in [
            (Scheme::Https, "m.corp", "/v2", Some("m.corp/library/nginx")),
            (
                Scheme::Http,
                "m.corp:5000",
                "/v2/hub",
                Some("m.corp:5000/hub/library/nginx"),
            ),
            (
                Scheme::Https,
                "[::1]:5000",
                "/other",
                Some("[::1]:5000/library/nginx"),
            ),
            (Scheme::Https, "mirror", "/v2", None),
        ] {
            let mut endpoint = Endpoint::own(&Reference::parse("nginx").unwrap());
            endpoint.origin = Some(Origin::of_authority(scheme, authority).unwrap());
            base.clone_into(&mut endpoint.base);
            let place = place(&endpoint);
            assert_eq!(
                place
                    .as_ref()
                    .map(|place| place.image.to_string())
                    .as_deref(),
                want
            );
            assert!(place.is_none_or(|place| place.tls == (scheme == Scheme::Https)));
        }
    }
}
