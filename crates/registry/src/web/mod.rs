//! The registry as pages for people: repositories, tags, images, and what was refused lately.
//!
//! Rendered here, without scripts, and changing nothing. Names, annotations and whatever else came with a push are hostile:
//! the template escapes them, [`text`] takes what deceives the eye, and the policy in the headers lets a browser run and load nothing
//! but the one stylesheet. Everybody sees what the rules let them pull.

mod data;
mod pages;
mod path;
mod text;
mod upstreams;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use maud::Markup;
use towline_cause::Cause;
use towline_oci::Digest;

use crate::access::{Caller, Decision};
use crate::body::{Body, full};
use crate::handlers::{Challenge, Registry, authorize, host};
use crate::log::Entry;
use crate::names::Repository;
use crate::refusal::{Refusal, missing};
use crate::route::{Action, ManifestName, no_such_method, query};

use data::{Reader, cut};
use pages::Frame;
use path::Page;

const STYLE: &str = include_str!("style.css");
const ICON: &str = include_str!("icon.svg");
/// The longest filter, in characters.
const FILTER: usize = 255;
/// Refusals that the page shows.
const REFUSALS: usize = 100;

/// The stylesheet's name, which changes with it.
fn style_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("style-{}.css", &Digest::of(STYLE.as_bytes()).hex()[..16]))
}

/// Whether a path is a page's.
pub(crate) fn is_page(path: &str) -> bool {
    path::read(path).is_some()
}

/// What a request for a page comes to, before it is put into the frame.
struct Shown {
    title: String,
    current: &'static str,
    body: Markup,
}

impl Registry {
    /// Answers a request for a page; refusals are pages too.
    pub(crate) async fn page<B>(
        self: &Arc<Self>,
        request: &Request<B>,
        certificate: Option<String>,
        entry: &mut Entry,
    ) -> Response<Body> {
        let page = path::read(request.uri().path()).unwrap_or(Page::Nowhere);
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let refusal = no_such_method("GET, HEAD");
            return refused(&refusal, &self.framed(request, None, false), entry);
        }
        let answer = match page {
            Page::Root => return moved("/ui/"),
            Page::Style => return asset(STYLE, "text/css; charset=utf-8", true),
            Page::Icon => return asset(ICON, "image/svg+xml", false),
            page => {
                self.caller_and_page(request, certificate, page, entry)
                    .await
            }
        };
        let mut answer = answer;
        if request.method() == Method::HEAD {
            *answer.body_mut() = full("");
        }
        answer
    }

    async fn caller_and_page<B>(
        self: &Arc<Self>,
        request: &Request<B>,
        certificate: Option<String>,
        page: Page,
        entry: &mut Entry,
    ) -> Response<Body> {
        let settings = self.settings.get();
        let has_login = settings.access.wants_login();
        // A browser knows names and passwords, not tokens.
        let challenge = Challenge::Basic;
        let caller = self
            .authenticate(request, certificate, settings, &challenge)
            .await;
        let caller = match caller {
            Ok(caller) => Arc::new(caller),
            Err(refusal) => {
                return refused(&refusal, &self.framed(request, None, has_login), entry);
            }
        };
        entry.user(caller.user().map(ToOwned::to_owned));
        if page == Page::Login {
            if caller.user().is_some() || !has_login {
                return moved("/ui/");
            }
            let refusal = challenge.refuse(Cause::NoCredentials, "authentication required", None);
            return refused(&refusal, &self.framed(request, None, has_login), entry);
        }
        let mut frame = self.framed(request, caller.user(), has_login);
        match self.shown(request, page, &caller).await {
            Ok(shown) => {
                frame.title = shown.title;
                frame.current = shown.current;
                html(StatusCode::OK, &pages::frame(&frame, &shown.body))
            }
            Err(refusal) => refused(&refusal, &frame, entry),
        }
    }

    async fn shown<B>(
        self: &Arc<Self>,
        request: &Request<B>,
        page: Page,
        caller: &Arc<Caller>,
    ) -> Result<Shown, Refusal> {
        let asked = |field: &str| {
            let value = query(request.uri(), field).into_iter().next();
            let value = value.unwrap_or_default().replace('+', " ");
            value.trim().chars().take(FILTER).collect::<String>()
        };
        match page {
            Page::Repositories => {
                self.repositories_page(Arc::clone(caller), asked("q"), asked("after"))
                    .await
            }
            Page::Repository(name) => {
                authorize(caller, &name, Action::Pull, &Challenge::Basic)?;
                self.repository_page(name, asked("q"), asked("after")).await
            }
            Page::Image(name, which) => {
                authorize(caller, &name, Action::Pull, &Challenge::Basic)?;
                let host = host(request);
                self.image_page(name, which, host).await
            }
            Page::Refusals => Ok(self.refusals_page(caller)),
            Page::Upstreams if !self.cache.sources.is_empty() => self.upstreams_page(caller),
            _ => Err(missing("UNSUPPORTED", "There is no such page")),
        }
    }

    async fn repositories_page(
        self: &Arc<Self>,
        caller: Arc<Caller>,
        filter: String,
        after: String,
    ) -> Result<Shown, Refusal> {
        let body = self
            .blocking("show repositories", move |this| {
                let mut all = this.metadata.repositories()?;
                all.retain(|name| may_pull(&caller, name));
                let names = all.iter().map(ToString::to_string).collect();
                let slice = cut(names, &filter, &after).try_map(|name| {
                    let tags = match Repository::parse(&name) {
                        Ok(parsed) => this.metadata.tags(&parsed)?.len(),
                        Err(_) => 0,
                    };
                    Ok::<_, Refusal>((name, tags))
                })?;
                let hidden = caller.user().is_none() && caller.settings.access.wants_login();
                Ok(pages::repositories(&slice, &filter, hidden))
            })
            .await?;
        Ok(Shown {
            title: "Repositories".to_owned(),
            current: "/ui/",
            body,
        })
    }

    async fn repository_page(
        self: &Arc<Self>,
        name: Repository,
        filter: String,
        after: String,
    ) -> Result<Shown, Refusal> {
        let title = name.to_string();
        let body = self
            .blocking("show a repository", move |this| {
                let tags = this.metadata.tags(&name)?;
                if tags.is_empty() && !this.metadata.exists(&name)? {
                    let otherwise = missing("NAME_UNKNOWN", "There is no such repository");
                    return Err(this.absent(&name, otherwise));
                }
                let mut reader = Reader::new(this, &name);
                let slice = cut(tags, &filter, &after).try_map(|tag| reader.tag_line(tag))?;
                let manifests = this.metadata.manifests(&name)?.len();
                Ok(pages::repository(&name, &slice, manifests, &filter))
            })
            .await?;
        Ok(Shown {
            title,
            current: "",
            body,
        })
    }

    async fn image_page(
        self: &Arc<Self>,
        name: Repository,
        which: ManifestName,
        host: Option<String>,
    ) -> Result<Shown, Refusal> {
        let title = pages::title(&name, &which);
        let body = self
            .blocking("show an image", move |this| {
                let image = Reader::new(this, &name).image(&which)?;
                Ok(pages::image(&name, &which, &image, host.as_deref()))
            })
            .await?;
        Ok(Shown {
            title,
            current: "",
            body,
        })
    }

    /// The upstreams are no single repository's: where there are logins, whoever has one sees them.
    fn upstreams_page(&self, caller: &Caller) -> Result<Shown, Refusal> {
        if caller.settings.access.wants_login() && caller.user().is_none() {
            let words = "authentication required";
            return Err(Challenge::Basic.refuse(Cause::NoCredentials, words, None));
        }
        Ok(Shown {
            title: "Upstreams".to_owned(),
            current: "/ui/upstreams",
            body: upstreams::page(&self.cache, Instant::now()),
        })
    }

    fn framed<'a, B>(
        &self,
        request: &'a Request<B>,
        user: Option<&'a str>,
        has_login: bool,
    ) -> Frame<'a> {
        let has_upstreams = !self.cache.sources.is_empty();
        Frame::of(request, user, has_login, has_upstreams)
    }

    fn refusals_page(&self, caller: &Caller) -> Shown {
        let open = !caller.settings.access.wants_login();
        let mut all = self.refusals.seen(|one| match &one.repository {
            Some(name) => may_pull(caller, name),
            None => open || (caller.user().is_some() && one.user.as_deref() == caller.user()),
        });
        all.truncate(REFUSALS);
        Shown {
            title: "Recent refusals".to_owned(),
            current: "/ui/refusals",
            body: pages::refusals(&all, caller.user().is_some()),
        }
    }
}

fn may_pull(caller: &Caller, name: &Repository) -> bool {
    caller.decide(name, Action::Pull) == Decision::Allow
}

impl<'a> Frame<'a> {
    fn of<B>(
        request: &'a Request<B>,
        user: Option<&'a str>,
        has_login: bool,
        has_upstreams: bool,
    ) -> Self {
        let host = request.headers().get(header::HOST);
        Self {
            title: String::new(),
            current: "",
            host: host
                .and_then(|host| host.to_str().ok())
                .filter(|host| host.len() <= 100),
            user,
            has_login,
            has_upstreams,
        }
    }
}

fn refused(refusal: &Refusal, frame: &Frame<'_>, entry: &mut Entry) -> Response<Body> {
    entry.refused(refusal);
    let status = refusal.status.as_u16();
    let frame = Frame {
        title: pages::heading(status).to_owned(),
        ..*frame
    };
    let body = pages::refusal(status, &refusal.message, refusal.cause, frame.has_login);
    let mut answer = html(refusal.status, &pages::frame(&frame, &body));
    for (name, value) in &refusal.headers {
        answer.headers_mut().append(name.clone(), value.clone());
    }
    answer
}

fn moved(to: &'static str) -> Response<Body> {
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::SEE_OTHER;
    let headers = answer.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static(to));
    answer
}

fn html(status: StatusCode, page: &Markup) -> Response<Body> {
    let mut answer = Response::new(full(page.0.clone()));
    *answer.status_mut() = status;
    protect(&mut answer);
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        // What one user sees is not for the next.
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "Authorization"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn asset(text: &'static str, kind: &'static str, is_named_by_hash: bool) -> Response<Body> {
    let mut answer = Response::new(full(text));
    protect(&mut answer);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let kept = if is_named_by_hash {
        "public, max-age=31536000, immutable"
    } else {
        "public, max-age=86400"
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
    answer
}

/// What a browser may do with an answer: nothing but show it with its stylesheet.
fn protect(answer: &mut Response<Body>) {
    let policy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    for (name, value) in [
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-frame-options", "DENY"),
    ] {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
}
