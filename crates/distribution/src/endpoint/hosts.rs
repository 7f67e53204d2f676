//! containerd's `hosts.toml`: one directory a registry, its mirrors in the order of the file, its server last.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::file::{self, ConfigError, Item, Place, Source};
use crate::tls::Trust;
use crate::url::Url;

/// Endpoints of one file, at most.
const MOST_HOSTS: usize = 64;

const HOST_KEYS: [&str; 7] = [
    "capabilities",
    "ca",
    "client",
    "skip_verify",
    "header",
    "override_path",
    "dial_timeout",
];

/// One host of a file, or its root, which is the server.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// As written, with a scheme; `None` for a server that is the registry itself.
    pub(crate) url: Option<Url>,
    pub(crate) place: Place,
    pub(crate) pull: bool,
    pub(crate) resolve: bool,
    ca: Vec<PathBuf>,
    client: Vec<(PathBuf, Option<PathBuf>)>,
    pub(crate) skip_verify: bool,
    pub(crate) headers: HeaderMap,
    pub(crate) override_path: bool,
    pub(crate) connect: Option<Duration>,
}

/// A directory of one registry, read.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    pub(crate) mirrors: Vec<Host>,
    /// The root of the file: what is asked last.
    pub(crate) server: Host,
    pub(crate) path: PathBuf,
}

/// The directories that may be a registry's, in the order in which they are looked for.
pub(crate) fn names(registry: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some((host, port)) = registry
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
    {
        names.push(format!("{host}_{port}_"));
    }
    names.push(registry.to_owned());
    names.push("_default".to_owned());
    names
}

/// Reads what is configured for a registry: the first of its directories in the first of the trees that has one.
pub(crate) fn find(roots: &[PathBuf], registry: &str) -> Result<Option<Hosts>, ConfigError> {
    for root in roots {
        for name in names(registry) {
            let directory = root.join(name);
            if directory.is_dir() {
                return directory_of(&directory).map(Some);
            }
        }
    }
    Ok(None)
}

fn directory_of(directory: &Path) -> Result<Hosts, ConfigError> {
    let path = directory.join("hosts.toml");
    match file::read(&path)? {
        Some(text) => parse(&path, &text),
        // Docker's way: certificates beside each other and no file that names hosts.
        None => certificates(directory),
    }
}

/// Reads a `hosts.toml`.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Hosts, ConfigError> {
    let source = Source { path, text };
    let document = source.parse()?;
    let mut server = Host::new(source.place(0));
    let mut mirrors = Vec::new();
    for item in source.items(document.get_ref()) {
        match item.key {
            "server" => {
                server.url = Some(url(&item, item.text()?)?);
                server.place = item.place();
            }
            "host" => {
                let hosts = item.table()?;
                if hosts.len() > MOST_HOSTS {
                    return Err(item.wrong_key(format!("more than {MOST_HOSTS} hosts")));
                }
                for named in hosts {
                    let mut host = Host::new(named.place());
                    host.url = Some(url(&named, named.key)?);
                    for field in named.table()? {
                        host.take(&field, &HOST_KEYS)?;
                    }
                    mirrors.push(host);
                }
            }
            _ => {
                let mut known = vec!["server", "host"];
                known.extend(HOST_KEYS);
                server.take(&item, &known)?;
            }
        }
    }
    Ok(Hosts {
        mirrors,
        server,
        path: path.to_owned(),
    })
}

impl Host {
    fn new(place: Place) -> Self {
        Self {
            url: None,
            place,
            pull: true,
            resolve: true,
            ca: Vec::new(),
            client: Vec::new(),
            skip_verify: false,
            headers: HeaderMap::new(),
            override_path: false,
            connect: None,
        }
    }

    fn take(&mut self, item: &Item<'_, '_>, known: &[&str]) -> Result<(), ConfigError> {
        match item.key {
            "capabilities" => self.capabilities(item)?,
            "ca" => self.ca = item.texts()?.into_iter().map(PathBuf::from).collect(),
            "client" => self.client = client(item)?,
            "skip_verify" => self.skip_verify = item.flag()?,
            "header" => {
                for field in item.table()? {
                    let name = HeaderName::from_bytes(field.key.as_bytes())
                        .map_err(|_| field.wrong_key("not the name of a header"))?;
                    for value in field.texts()? {
                        // The value may be a secret: it is not repeated.
                        let mut value = HeaderValue::from_str(value)
                            .map_err(|_| field.wrong("this cannot stand in a header"))?;
                        value.set_sensitive(true);
                        self.headers.append(name.clone(), value);
                    }
                }
            }
            "override_path" => self.override_path = item.flag()?,
            "dial_timeout" => self.connect = Some(duration(item)?),
            _ => return Err(item.unknown(known)),
        }
        Ok(())
    }

    fn capabilities(&mut self, item: &Item<'_, '_>) -> Result<(), ConfigError> {
        (self.pull, self.resolve) = (false, false);
        for capability in item.array()? {
            match capability.text()? {
                "pull" => self.pull = true,
                "resolve" => self.resolve = true,
                "push" | "referrers" => {}
                other => {
                    return Err(capability.wrong(format!(
                        "unknown capability {other:?}; known are pull, resolve, push, referrers"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Reads the certificates that are named; names are relative to the file's directory.
    pub(crate) fn trust(&self, file: &Path) -> Result<Trust, ConfigError> {
        let directory = file.parent().unwrap_or_else(|| Path::new("."));
        let read = |named: &Path| {
            let path = directory.join(named);
            match file::read_bytes(&path)? {
                Some(bytes) => Ok(bytes),
                None => Err(ConfigError::whole(
                    &path,
                    format!("it does not exist, and {} names it", self.place),
                )),
            }
        };
        let ca = self
            .ca
            .iter()
            .map(|path| read(path))
            .collect::<Result<_, _>>()?;
        let client = match self.client.as_slice() {
            [] => None,
            [(certificate, key), ..] => Some((
                read(certificate)?,
                read(key.as_deref().unwrap_or(certificate))?,
            )),
        };
        Ok(Trust {
            ca,
            client,
            skip_verify: self.skip_verify,
        })
    }
}

fn url(item: &Item<'_, '_>, text: &str) -> Result<Url, ConfigError> {
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let wrong = |why: &str| {
        let shown = towline_keyring::redact::url(text);
        item.wrong_key(format!("{shown:?} is not the URL of a registry: {why}"))
    };
    let mut url = Url::parse(&whole).map_err(|why| wrong(&why.to_string()))?;
    if url.query.is_some() {
        return Err(wrong("it has a query"));
    }
    while url.path.ends_with('/') {
        url.path.pop();
    }
    Ok(url)
}

fn client(item: &Item<'_, '_>) -> Result<Vec<(PathBuf, Option<PathBuf>)>, ConfigError> {
    if !item.is_array() {
        return Ok(vec![(PathBuf::from(item.text()?), None)]);
    }
    let mut pairs = Vec::new();
    for element in item.array()? {
        if !element.is_array() {
            pairs.push((PathBuf::from(element.text()?), None));
            continue;
        }
        match element.texts()?.as_slice() {
            [certificate] | [certificate, ""] => pairs.push((PathBuf::from(certificate), None)),
            [certificate, key] => {
                pairs.push((PathBuf::from(certificate), Some(PathBuf::from(key))));
            }
            _ => return Err(element.wrong("a client is [certificate, key]")),
        }
    }
    if pairs.len() > 1 {
        return Err(item.wrong(
            "more than one client certificate: which one a server wants cannot be known; name one",
        ));
    }
    Ok(pairs)
}

/// A duration as Go writes it: `30s`, `1m30s`, `500ms`.
fn duration(item: &Item<'_, '_>) -> Result<Duration, ConfigError> {
    let text = item.text()?;
    go_duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| {
            item.wrong(format!(
                "{text:?} is not a duration such as \"3s\" or \"1m30s\""
            ))
        })
}

fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() || rest.len() > 40 {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        seconds += number
            * match &rest[..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| *duration <= Duration::from_secs(3600))
}

/// Docker's layout: `*.crt` are authorities, `x.cert` with `x.key` is this machine's certificate.
fn certificates(directory: &Path) -> Result<Hosts, ConfigError> {
    let cannot = |error: std::io::Error| {
        ConfigError::whole(directory, format!("it cannot be listed: {error}"))
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(cannot)?.take(1000) {
        names.push(entry.map_err(cannot)?.path());
    }
    names.sort();
    let has = |path: &PathBuf, extension: &str| path.extension().is_some_and(|e| e == extension);
    let path = directory.join("hosts.toml");
    let mut server = Host::new(
        Source {
            path: directory,
            text: "",
        }
        .place(0),
    );
    server.ca = names
        .iter()
        .filter(|path| has(path, "crt"))
        .cloned()
        .collect();
    for certificate in names.iter().filter(|path| has(path, "cert")) {
        let key = certificate.with_extension("key");
        if !names.contains(&key) {
            return Err(ConfigError::whole(
                certificate,
                format!("its key {} is missing", key.display()),
            ));
        }
        server.client = vec![(certificate.clone(), Some(key))];
    }
    Ok(Hosts {
        mirrors: Vec::new(),
        server,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Hosts, ConfigError> {
        parse(Path::new("hosts.toml"), text)
    }

    #[test]
    fn directories_are_looked_for_as_containerd_does() {
        assert_eq!(names("docker.io"), ["docker.io", "_default"]);
        assert_eq!(
            names("r.corp:5000"),
            ["r.corp_5000_", "r.corp:5000", "_default"]
        );
    }

    #[test]
    fn a_file_with_everything() {
        let hosts = read(
            r#"
server = "https://registry-1.docker.io"
ca = "server.pem"

[host."https://b.example/v2/hub"]
  capabilities = ["pull"]
  ca = ["a.pem", "/abs/b.pem"]
  client = [["c.pem", "c.key"]]
  skip_verify = true
  override_path = true
  dial_timeout = "1m30s"
  [host."https://b.example/v2/hub".header]
    x-one = "1"
    x-two = ["2", "3"]

[host."a.example:5000"]
[host."http://10.0.0.1:5000/"]
"#,
        )
        .unwrap();
        let urls: Vec<String> = hosts
            .mirrors
            .iter()
            .map(|host| host.url.as_ref().unwrap().to_string())
            .collect();
        assert_eq!(
            urls,
            [
                "https://b.example/v2/hub",
                "https://a.example:5000",
                "http://10.0.0.1:5000"
            ],
            "in the order of the file"
        );
        let first = &hosts.mirrors[0];
        assert!(first.pull && !first.resolve && first.skip_verify && first.override_path);
        assert_eq!(first.connect, Some(Duration::from_secs(90)));
        assert_eq!(first.headers.len(), 3);
        assert_eq!(first.place.to_string(), "hosts.toml:5");
        assert_eq!(hosts.server.ca, [PathBuf::from("server.pem")]);
    }

    #[test]
    fn whatever_is_wrong_has_a_place() {
        for (text, want) in [
            (
                "server = 5",
                "hosts.toml:1:10: \"server\" wants a string, not integer",
            ),
            (
                "server = \"https://a\"\n\n[host.\"https://b\"]\n  skip-verify = true",
                "hosts.toml:4:3: unknown key \"skip-verify\"; did you mean \"skip_verify\"?",
            ),
            (
                "[host.\"https://b\"]\n capabilities = [\"pull\", \"fetch\"]",
                "hosts.toml:2:26: unknown capability \"fetch\"; known are pull, resolve, push, referrers",
            ),
            (
                "[host.\"ftp://b\"]",
                "hosts.toml:1:7: \"ftp://b\" is not the URL of a registry: it is neither http nor https",
            ),
            (
                "[host.\"https://user:canary@b\"]",
                "is not the URL of a registry: it holds a user name or password",
            ),
            (
                "dial_timeout = \"fast\"",
                "hosts.toml:1:16: \"fast\" is not a duration such as \"3s\" or \"1m30s\"",
            ),
            ("[host", "hosts.toml:1:6: "),
            (
                "server = \"a\"\nserver = \"b\"",
                "hosts.toml:2:1: duplicate key",
            ),
            (
                "client = [\"a\", \"b\"]",
                "hosts.toml:1:10: more than one client certificate",
            ),
            (
                "mirrors = []",
                "hosts.toml:1:1: unknown key \"mirrors\"; known are server, host,",
            ),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}\n{error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn durations_as_go_writes_them() {
        for (text, want) in [
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1500)),
            ("500ms", Some(500)),
            ("5", None),
            ("", None),
            ("-3s", None),
            ("3 s", None),
            ("99999h", None),
        ] {
            assert_eq!(
                go_duration(text).map(|duration| duration.as_millis()),
                want,
                "{text}"
            );
        }
    }
}
