//! What the outer links say: which image, which URL, on whose behalf, how far the pull had come.

use towline_cause::Step;

use crate::chain::Chain;
use crate::peel::quoted;
use crate::public::{host_of, is_storage};

/// A URL that a link names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    /// The request went to a mirror: containerd then names the upstream in the query.
    pub(crate) mirror: bool,
}

/// What is known from the whole chain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    pub(crate) image: Option<String>,
    /// The last URL that was asked.
    pub(crate) url: Option<Url>,
    /// The first URL, where it is another: docker names the registry and then the token server.
    pub(crate) first_url: Option<Url>,
    /// A token was asked for.
    pub(crate) token: bool,
    /// Without a credential.
    pub(crate) anonymous: bool,
    /// A blob was downloaded.
    pub(crate) fetch: bool,
    /// A layer was unpacked.
    pub(crate) unpack: bool,
    /// The image was resolved.
    pub(crate) resolve: bool,
    /// A request was sent.
    pub(crate) request: bool,
    pub(crate) status: Option<u16>,
    pub(crate) server_message: Option<String>,
    /// The first link of what the server said: whatever it says there of disks and connections is of its own.
    pub(crate) server_at: Option<usize>,
    /// It was asked whether there is a registry.
    pub(crate) ping: bool,
    /// A host was reached for that only keeps content.
    storage_host: bool,
    /// A manifest was read by its digest, as podman says.
    digest_read: bool,
    /// Object storage answered, in its XML.
    pub(crate) storage: bool,
}

/// Beginnings of links that say that a blob is downloaded.
const FETCH: &[&str] = &[
    "failed to copy",
    "httpreadseeker",
    "httpreaderseeker",
    "error pulling image configuration",
    "download failed after attempts",
    "reading blob",
    "writing blob",
    "error writing blob",
    "parsing image configuration",
    "copying system image",
    "failed to read expected number of bytes",
    "unexpected status code [blobs ",
    "fetching blob",
    "copying blob",
    "downloading",
    "storing blob to file",
    "error storing blob to file",
];

/// Beginnings of links that say that a layer is unpacked.
const UNPACK: &[&str] = &[
    "failed to extract layer",
    "failed to register layer",
    "applylayer exit status",
    "error processing tar ",
    "processing tar ",
    "adding layer with blob",
    "error adding layer with blob",
    "failed to prepare extraction snapshot",
    "failed to unpack image",
    "untar re-exec error",
    "unpacking failed",
    "unpack",
];

impl Context {
    pub(crate) fn of(chain: &Chain, image: Option<&str>) -> Self {
        let mut context = Self {
            image: image.map(str::to_owned),
            ..Self::default()
        };
        for link in chain.links() {
            let plain = link.plain.as_str();
            let begins = |list: &[&str]| list.iter().any(|beginning| plain.starts_with(beginning));
            context.fetch |= begins(FETCH);
            context.unpack |= begins(UNPACK);
            context.resolve |= plain.starts_with("failed to resolve")
                || plain.starts_with("error reading manifest");
            context.resolve |= plain.starts_with("determining manifest mime type")
                || plain.starts_with("error determining manifest mime type")
                || plain.contains("trying to pull repository _");
            context.resolve |= plain.starts_with("reading manifest")
                || plain.starts_with("unexpected status code [manifests ");
            context.digest_read |= link.text.starts_with("reading manifest sha256:");
            context.ping |= plain.contains("pinging ");
            context.token |= [
                "failed to authorize",
                "failed to fetch oauth token",
                "failed to fetch anonymous token",
            ]
            .iter()
            .any(|beginning| plain.starts_with(beginning));
            context.token |= plain.starts_with("unable to retrieve auth token");
            context.token |= plain.starts_with("requesting bearer token");
            context.anonymous |= plain.starts_with("failed to fetch anonymous token");
            context.request |= plain.starts_with("failed to do request");
            if context.image.is_none() {
                context.image = image_in(&link.text);
            }
            let reaches = ["connecting to ", "dialing ", "lookup "];
            if let Some(rest) = reaches.iter().find_map(|word| link.text.strip_prefix(word)) {
                let host = rest.split(' ').next().unwrap_or_default();
                context.storage_host |= is_storage(host_of(host));
            }
            context.storage |= link.text.contains("<Code>AccessDenied</Code>");
            context.note_url(&link.text);
        }
        context.note_status(chain);
        context.ping |= context.is_ping();
        // docker asks the token server inside the request to the registry.
        if let (Some(first), Some(last)) = (&context.first_url, &context.url) {
            context.token |= first.authority != last.authority && last.path.contains("token")
                || last.path.contains("/auth")
                || last.path.starts_with("/token");
        }
        context
    }

    fn note_url(&mut self, text: &str) {
        let Some(at) = text.find("http://").or_else(|| text.find("https://")) else {
            return;
        };
        let end = text[at..]
            .find(|c: char| c.is_whitespace() || "\"'>,;)".contains(c))
            .map_or(text.len(), |n| at + n);
        let Some((scheme, rest)) = text[at..end].split_once("://") else {
            return;
        };
        let mirror = rest.contains("?ns=") || rest.contains("&ns=");
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest
            .find('/')
            .map_or((rest, ""), |slash| rest.split_at(slash));
        let authority = authority
            .rsplit('@')
            .next()
            .unwrap_or_default()
            .trim_end_matches([':', '.']);
        let is_request = text.starts_with("http")
            || [
                "Get ",
                "Head ",
                "Post ",
                "GET ",
                "HEAD ",
                "unexpected status",
                "(Get ",
                "\"Get ",
                "pulling from host",
            ]
            .iter()
            .any(|word| text.contains(word));
        if authority.is_empty() || !is_request {
            return;
        }
        let url = Url {
            scheme: scheme.to_owned(),
            authority: authority.to_owned(),
            path: path.to_owned(),
            mirror,
        };
        self.request = true;
        self.first_url.get_or_insert_with(|| url.clone());
        self.url = Some(url);
    }

    fn note_status(&mut self, chain: &Chain) {
        for (at, link) in chain.links().iter().enumerate() {
            let status =
                leading_status(&link.plain).filter(|_| says_status(chain.before(at)) || at == 0);
            let status = status.or_else(|| inline_status(&link.plain));
            if let Some(status) = status {
                self.status = Some(status);
                let of_registry = |plain: &str| {
                    plain.contains("unexpected status")
                        || plain.contains("unexpected http status")
                        || plain.contains("failed with status code")
                };
                if of_registry(chain.before(at)) || of_registry(&link.plain) {
                    self.server_at = Some(at + 1);
                }
                let after: Vec<&str> = chain.links()[at + 1..]
                    .iter()
                    .map(|link| link.text.as_str())
                    .collect();
                self.server_message =
                    (!after.is_empty()).then(|| after.join(": ").chars().take(1024).collect());
            }
        }
    }

    /// The image whose manifest was asked for, where no words name one: crane and docker tell the URL alone.
    pub(crate) fn asked_image(&self) -> Option<String> {
        let url = [self.first_url.as_ref(), self.url.as_ref()]
            .into_iter()
            .flatten()
            .find(|url| !url.mirror && url.path.contains("/manifests/"))?;
        let (name, target) = url.path.strip_prefix("/v2/")?.split_once("/manifests/")?;
        let host = match url.authority.as_str() {
            "registry-1.docker.io" | "index.docker.io" => "docker.io",
            other => other,
        };
        let mark = if target.contains(':') { '@' } else { ':' };
        Some(format!("{host}/{name}{mark}{target}")).filter(|image| is_image(image))
    }

    /// Where the pull was, as far as the outer links say.
    pub(crate) fn step(&self) -> Option<Step> {
        if self.unpack {
            Some(Step::Unpack)
        } else if self.fetch {
            Some(Step::Fetch)
        } else if self.token {
            Some(Step::Authenticate)
        } else if self.resolve || self.is_manifest() {
            Some(Step::Resolve)
        } else {
            None
        }
    }

    /// Scheme, host and port of the last request.
    pub(crate) fn endpoint(&self) -> Option<String> {
        self.url
            .as_ref()
            .map(|url| format!("{}://{}", url.scheme, url.authority))
    }

    /// The host that was asked, with its port.
    pub(crate) fn authority(&self) -> &str {
        self.url.as_ref().map_or("", |url| url.authority.as_str())
    }

    pub(crate) fn is_manifest(&self) -> bool {
        self.url
            .as_ref()
            .is_some_and(|url| url.path.contains("/manifests/"))
    }

    /// True for the request by which a client finds out about a registry.
    pub(crate) fn is_ping(&self) -> bool {
        self.url
            .as_ref()
            .is_some_and(|url| url.path == "/v2/" || url.path == "/v1/_ping")
    }

    /// A blob was asked from a host that does not speak the registry's API: a redirect led there.
    pub(crate) fn elsewhere(&self) -> bool {
        if self.storage_host || is_storage(host_of(self.authority())) {
            return true;
        }
        if self.fetch && self.url.as_ref().is_some_and(|url| !url.mirror) && self.leaves_registry()
        {
            return true;
        }
        let api = |url: &Url| url.path.starts_with("/v2/");
        (self.fetch
            || self
                .url
                .as_ref()
                .is_some_and(|url| url.path.contains("/blobs/")))
            && self.url.as_ref().is_some_and(|url| !api(url))
    }

    /// The last request went to another host than that which the image names.
    fn leaves_registry(&self) -> bool {
        let image = self.image.as_deref().unwrap_or_default();
        let Some((registry, _)) = image.split_once('/') else {
            return false;
        };
        let names_host = registry.contains(['.', ':']) || registry == "localhost";
        names_host
            && registry != "docker.io"
            && !self.authority().is_empty()
            && self.authority() != registry
    }

    /// The image names a digest.
    pub(crate) fn by_digest(&self) -> bool {
        if self.digest_read {
            return true;
        }
        let in_url = self
            .url
            .as_ref()
            .is_some_and(|url| url.path.contains("/manifests/sha256:"));
        in_url
            || self
                .image
                .as_ref()
                .is_some_and(|image| image.contains("@sha256:") || image.contains("@sha512:"))
    }
}

/// The image that a link of a runtime names.
fn image_in(text: &str) -> Option<String> {
    quoted_image(text)
        .or_else(|| between(text))
        .or_else(|| read_manifest(text))
        .or_else(|| after_word(text))
}

/// An image in quotes.
fn quoted_image(text: &str) -> Option<String> {
    const NAMING: &[&str] = &[
        "failed to pull and unpack image ",
        "failed to resolve reference ",
        "failed to pull image ",
        "failed to parse image reference ",
        "Failed to apply default image tag ",
        "Container image ",
        "Failed to inspect image ",
        "failed to get sandbox image ",
    ];
    let (image, _) = NAMING
        .iter()
        .find_map(|naming| quoted(&text[text.find(naming)? + naming.len()..]))?;
    Some(image).filter(|image| !image.is_empty())
}

/// docker's sentences around an image.
fn between(text: &str) -> Option<String> {
    for (naming, end) in [
        ("manifest for ", " not found"),
        ("pull access denied for ", ", repository does not exist"),
    ] {
        if let Some(at) = text.find(naming) {
            let after = &text[at + naming.len()..];
            return after
                .find(end)
                .map(|end| after[..end].trim_matches(['"', ',', ':']).to_owned());
        }
    }
    None
}

/// `reading manifest 1.2 in reg.io/app`, as the library of podman says.
fn read_manifest(text: &str) -> Option<String> {
    let at = text.to_ascii_lowercase().find("reading manifest ")?;
    let mut words = text[at + "reading manifest ".len()..].split_whitespace();
    let (target, _, name) = (
        words.next()?,
        words.next().filter(|word| *word == "in")?,
        words.next()?,
    );
    let name = name.trim_end_matches([':', ',']);
    let mark = if target.starts_with("sha256:") {
        '@'
    } else {
        ':'
    };
    Some(format!("{name}{mark}{target}")).filter(|image| is_image(image))
}

/// An image without quotes behind what names it: `BuildKit`, kubeadm, Helm, and commands that people paste with what they said.
fn after_word(text: &str) -> Option<String> {
    const NAMING: &[&str] = &[
        "failed to resolve source metadata for ",
        "load metadata for ",
        "failed to pull image ",
        "Failed to pull image ",
        "Error pulling image ",
        "docker pull ",
        "podman pull ",
        "nerdctl pull ",
        "crictl pull ",
        "crane pull ",
        "images pull ",
    ];
    let word = |naming: &str| {
        let after = &text[text.find(naming)? + naming.len()..];
        let word = after.split_whitespace().next()?;
        Some(word.trim_end_matches([':', '"', '\'', ',', '.', ')']))
    };
    // Behind a scheme any name is an image.
    let schemed = ["docker://", "oci://"].into_iter().find_map(word);
    let named = || {
        let mut words = NAMING.iter().filter_map(|naming| word(naming));
        words.find(|word| is_image(word) && !word.contains("://"))
    };
    schemed
        .filter(|image| !image.is_empty())
        .or_else(named)
        .map(str::to_owned)
}

/// What may be an image: of the characters that one has, with a registry, a name of two parts, a tag or a digest.
fn is_image(text: &str) -> bool {
    let usual = |c: char| c.is_ascii_alphanumeric() || "._-/:@<>[]".contains(c);
    text.len() <= 512
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[' || c == '<')
        && text.contains(['/', ':', '@'])
        && text.chars().all(usual)
}

/// A link after which the status stands.
fn says_status(plain: &str) -> bool {
    plain.starts_with("unexpected status")
        || plain.contains("unexpected status code")
        || plain.contains("unexpected status from")
        || plain.ends_with("received unexpected http status")
        || plain.contains("failed with status code")
        || plain.ends_with("unexpected http code")
        || plain == "http code"
        || plain == "statuscode"
        || plain.starts_with("server error")
        || plain.ends_with("unable to retrieve auth token")
}

fn leading_status(plain: &str) -> Option<u16> {
    let digits = plain.get(..3)?;
    let status: u16 = digits.parse().ok()?;
    let ended = plain
        .as_bytes()
        .get(3)
        .is_none_or(|b| !b.is_ascii_alphanumeric() && *b != b'.');
    ((400..600).contains(&status) && ended).then_some(status)
}

/// A status inside a sentence of a speaker: `error parsing HTTP 403 response body`, `unexpected status code 400 Bad Request`.
fn inline_status(plain: &str) -> Option<u16> {
    let after = [
        "error parsing http ",
        "invalid status code from registry ",
        "unexpected status code ",
        "unsupported status code ",
        "unexpected status ",
    ]
    .iter()
    .find_map(|words| plain.strip_prefix(words));
    after
        .and_then(leading_status)
        .or_else(|| {
            plain
                .rfind("response code ")
                .and_then(|at| leading_status(&plain[at + "response code ".len()..]))
        })
        .or_else(|| {
            plain
                .strip_prefix("status ")
                .or_else(|| plain.strip_prefix("server error - "))
                .and_then(leading_status)
        })
        .or_else(|| {
            leading_status(plain)
                .filter(|status| plain.starts_with(&format!("{status} too many requests")))
        })
}
