//! The pages as HTML. Everything goes through the template, which escapes it.

use maud::{DOCTYPE, Markup, html};
use serde_json::Value;
use towline_cause::Cause;
use towline_oci::{Descriptor, Digest};

use super::data::{Child, Image, Part, SHOWN, Slice, TagLine};
use super::path;
use super::text::{count, plain, size};
use crate::names::Repository;
use crate::refusals::Refused;
use crate::route::{ManifestName, encoded};

/// Characters of hostile text that a page shows.
const WORDS: usize = 300;

/// What every page says.
pub(super) struct Frame<'a> {
    pub(super) title: String,
    /// Which of the pages in the bar it is.
    pub(super) current: &'a str,
    pub(super) host: Option<&'a str>,
    pub(super) user: Option<&'a str>,
    /// Whether there is a way to log in.
    pub(super) has_login: bool,
    /// Whether this registry is a cache of others.
    pub(super) has_upstreams: bool,
}

/// A whole page.
pub(super) fn frame(frame: &Frame<'_>, body: &Markup) -> Markup {
    let link = |to: &str, words: &str| {
        let current = (frame.current == to).then_some("page");
        html! { a href=(to) aria-current=[current] { (words) } }
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (frame.title) " · Registry" }
                link rel="stylesheet" href={ "/ui/" (super::style_name()) };
                link rel="icon" href="/ui/icon.svg" type="image/svg+xml";
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                div.bar {
                    header {
                        a.brand href="/ui/" { "Registry" }
                        @if let Some(host) = frame.host { span.host { (host) } }
                        nav aria-label="Pages" {
                            (link("/ui/", "Repositories"))
                            (link("/ui/refusals", "Refusals"))
                            @if frame.has_upstreams { (link("/ui/upstreams", "Upstreams")) }
                        }
                        @if let Some(user) = frame.user {
                            span.who { "Logged in as " bdi { (plain(user, 60)) } }
                        } @else if frame.has_login {
                            span.who { a href="/ui/login" { "Log in" } }
                        }
                    }
                }
                main #main { (body) }
                footer { "Towline " (env!("CARGO_PKG_VERSION")) " · this page changes nothing" }
            }
        }
    }
}

/// A refusal as a page.
pub(super) fn refusal(status: u16, message: &str, cause: Option<Cause>, has_login: bool) -> Markup {
    html! {
        h1 { (heading(status)) }
        p { (plain(message, WORDS)) "." }
        @if let Some(cause) = cause { p.soft { "Cause: " (cause.name()) } }
        p {
            a href="/ui/" { "Repositories" }
            @if status == 401 && has_login { " · " a href="/ui/login" { "Log in" } }
        }
    }
}

/// What a status means to people.
pub(super) fn heading(status: u16) -> &'static str {
    match status {
        401 => "Login needed",
        403 => "Not allowed",
        404 => "Not found",
        405 => "Only for reading",
        _ => "This did not work",
    }
}

fn filter(action: &str, label: &str, value: &str) -> Markup {
    html! {
        form action=(action) method="get" role="search" {
            input type="search" name="q" value=(value) maxlength="255" aria-label=(label) placeholder=(label);
            button type="submit" { "Filter" }
            @if !value.is_empty() { a href=(action) { "Show all" } }
        }
    }
}

fn pages<T>(slice: &Slice<T>, action: &str, filter: &str) -> Markup {
    let address = |after: Option<&str>| {
        let mut fields = Vec::new();
        if !filter.is_empty() {
            fields.push(format!("q={}", encoded(filter)));
        }
        fields.extend(after.map(|after| format!("after={}", encoded(after))));
        if fields.is_empty() {
            action.to_owned()
        } else {
            format!("{action}?{}", fields.join("&"))
        }
    };
    html! {
        @if slice.has_before || slice.next.is_some() {
            nav.pages aria-label="Parts of the list" {
                @if slice.has_before { a href=(address(None)) rel="first" { "First page" } }
                @if let Some(next) = &slice.next { a href=(address(Some(next))) rel="next" { "Next page" } }
            }
        }
    }
}

fn short(digest: &Digest) -> String {
    let hex = digest.hex();
    format!(
        "{}:{}",
        digest.algorithm().name(),
        &hex[..hex.len().min(12)]
    )
}

fn linked(name: &Repository, digest: &Digest) -> Markup {
    html! {
        a.digest href=(path::digest(name, digest)) title=(digest) { (short(digest)) }
    }
}

fn sized(bytes: Option<u64>) -> Markup {
    html! {
        @if let Some(bytes) = bytes { span title={ (bytes) " bytes" } { (size(bytes)) } }
        @else { span.soft { "not known" } }
    }
}

/// The repositories, each with its number of tags.
pub(super) fn repositories(slice: &Slice<(String, usize)>, asked: &str, hidden: bool) -> Markup {
    html! {
        h1 { "Repositories" }
        (filter("/ui/", "Part of a name", asked))
        @if slice.lines.is_empty() {
            @if asked.is_empty() {
                p { "There is no repository that you may see." }
                @if hidden { p { a href="/ui/login" { "Log in" } " to see what is yours." } }
            } @else {
                p { "No repository that you may see has " bdi { (plain(asked, 100)) } " in its name." }
            }
        } @else {
            p.soft { (count(slice.total, "repository", "repositories")) }
            table.small {
                thead { tr { th scope="col" { "Repository" } th.n scope="col" { "Tags" } } }
                tbody {
                    @for (name, tags) in &slice.lines {
                        tr {
                            td data-label="Repository" { a href=(path::repository(name)) { (name) } }
                            td.n data-label="Tags" { (tags) }
                        }
                    }
                }
            }
            (pages(slice, "/ui/", asked))
        }
    }
}

fn trail(name: Option<&Repository>) -> Markup {
    html! {
        nav.trail aria-label="Where this is" {
            a href="/ui/" { "Repositories" }
            @if let Some(name) = name { " / " a href=(path::repository(name.as_str())) { (name) } }
        }
    }
}

/// The tags of a repository.
pub(super) fn repository(
    name: &Repository,
    slice: &Slice<TagLine>,
    manifests: usize,
    asked: &str,
) -> Markup {
    let address = path::repository(name.as_str());
    html! {
        (trail(None))
        h1 { (name) }
        (filter(&address, "Part of a tag", asked))
        @if slice.lines.is_empty() {
            p { @if asked.is_empty() { "No tags." } @else { "No tag has this in its name." } }
        }
        p.soft { (count(slice.total, "tag", "tags")) ", " (count(manifests, "manifest", "manifests")) }
        @if !slice.lines.is_empty() {
            table {
                thead {
                    tr {
                        th scope="col" { "Tag" }
                        th scope="col" { "Digest" }
                        th scope="col" { "Kind" }
                        th scope="col" { "Platforms" }
                        th.n scope="col" { "Size" }
                    }
                }
                tbody {
                    @for line in &slice.lines {
                        tr {
                            td data-label="Tag" { a href=(path::tag(name, &line.tag)) { (plain(&line.tag, 128)) } }
                            td data-label="Digest" {
                                @if let Some(digest) = &line.digest { (linked(name, digest)) }
                            }
                            td.k data-label="Kind" { (line.kind) }
                            td data-label="Platforms" { bdi { (plain(&line.platforms.join(", "), WORDS)) } }
                            td.n data-label="Size" { (sized(line.size)) }
                        }
                    }
                }
            }
        }
        (pages(slice, &address, asked))
    }
}

/// A manifest and all that is known of it.
pub(super) fn image(
    name: &Repository,
    which: &ManifestName,
    image: &Image,
    host: Option<&str>,
) -> Markup {
    let title = title(name, which);
    let pull = host.map(|host| match which {
        ManifestName::Tag(tag) => format!("{host}/{name}:{tag}"),
        _ => format!("{host}/{name}@{}", image.digest),
    });
    html! {
        (trail(Some(name)))
        h1 { (title) }
        @if let Some(pull) = pull { pre { "towline pull " (pull) } }
        (summary(name, image))
        @if !image.children.is_empty() { (children(name, &image.children)) }
        @if !image.layers.is_empty() { (layers(&image.layers, image.kind)) }
        @if !image.config.is_empty() {
            h2 { "Configuration" }
            dl {
                @for (what, value) in &image.config {
                    dt { (what) } dd { bdi { (plain(value, WORDS)) } }
                }
            }
        }
        (referrers(name, &image.referrers))
        @if !image.annotations.is_empty() {
            h2 { "Annotations" }
            dl {
                @for (key, value) in &image.annotations {
                    dt { bdi { (plain(key, 100)) } } dd { bdi { (plain(value, 1000)) } }
                }
            }
        }
    }
}

/// How a manifest is called in headings.
pub(super) fn title(name: &Repository, which: &ManifestName) -> String {
    match which {
        ManifestName::Tag(tag) => format!("{name}:{tag}"),
        ManifestName::Digest(digest) => format!("{name}@{}", short(digest)),
        ManifestName::Impossible(_) => name.to_string(),
    }
}

fn summary(name: &Repository, image: &Image) -> Markup {
    html! {
        dl {
            dt { "Digest" } dd { code { (image.digest) } }
            dt { "Kind" } dd { (image.kind) ", " code { (plain(&image.media_type, 100)) } }
            @if let Some(kind) = &image.artifact_type {
                dt { "Artifact type" } dd { code { (plain(kind, 200)) } }
            }
            dt { "Size" } dd { (sized(image.size)) ", and " (size(image.bytes)) " of the manifest itself" }
            @if !image.tags.is_empty() {
                dt { "Tags" }
                dd {
                    @for (at, tag) in image.tags.iter().take(SHOWN).enumerate() {
                        @if at > 0 { ", " }
                        a href=(path::tag(name, tag)) { (plain(tag, 128)) }
                    }
                }
            }
            @if let Some(subject) = &image.subject {
                dt { "Refers to" } dd { (linked(name, &subject.digest)) }
            }
            @if !image.indexes.is_empty() {
                dt { "Part of" }
                dd {
                    @for (at, digest) in image.indexes.iter().enumerate() {
                        @if at > 0 { ", " }
                        (linked(name, digest))
                    }
                }
            }
        }
        @if image.is_cut { p.soft { "There is more in this repository than one page looks at: tags and indexes may be missing here." } }
    }
}

fn children(name: &Repository, children: &[Child]) -> Markup {
    html! {
        h2 { "Platforms" }
        table {
            thead {
                tr {
                    th scope="col" { "Platform" }
                    th scope="col" { "Digest" }
                    th scope="col" { "Type" }
                    th.n scope="col" { "Size" }
                }
            }
            tbody {
                @for child in children {
                    @let one = &child.descriptor;
                    tr {
                        td data-label="Platform" { bdi { (plain(&platform(one), 100)) } }
                        td data-label="Digest" { (linked(name, &one.digest)) }
                        td data-label="Type" { bdi { (plain(one.artifact_type.as_ref().unwrap_or(&one.media_type), 100)) } }
                        td.n data-label="Size" { (sized(child.size)) }
                    }
                }
            }
        }
    }
}

fn platform(descriptor: &Descriptor) -> String {
    match &descriptor.platform {
        Some(platform) if platform.is_unknown() => "none (attestation)".to_owned(),
        Some(platform) => platform.to_string(),
        None => "not said".to_owned(),
    }
}

fn layers(layers: &[Part], kind: &str) -> Markup {
    let has_steps = layers.iter().any(|layer| layer.by.is_some());
    html! {
        h2 { @if kind == "image" { "Layers" } @else { "Contents" } }
        table {
            thead {
                tr {
                    th.n scope="col" { "#" }
                    th scope="col" { "Digest" }
                    th scope="col" { @if has_steps { "Made by" } @else { "Type" } }
                    th.n scope="col" { "Size" }
                }
            }
            tbody {
                @for (at, layer) in layers.iter().enumerate() {
                    @let one = &layer.descriptor;
                    tr {
                        td.n data-label="#" { (at + 1) }
                        td data-label="Digest" { span.digest title=(one.digest) { (short(&one.digest)) } }
                        @if has_steps {
                            td data-label="Made by" { code { bdi { (plain(layer.by.as_deref().unwrap_or_default(), WORDS)) } } }
                        } @else {
                            td data-label="Type" { bdi { (plain(&one.media_type, 100)) } }
                        }
                        td.n data-label="Size" { (sized(Some(one.size))) }
                    }
                }
            }
        }
    }
}

fn referrers(name: &Repository, referrers: &[Value]) -> Markup {
    html! {
        h2 { "What refers to it" }
        @if referrers.is_empty() { p.soft { "Nothing: no signature, attestation or other artifact names this digest." } }
        @else {
            table {
                thead {
                    tr { th scope="col" { "Artifact type" } th scope="col" { "Digest" } th.n scope="col" { "Manifest" } }
                }
                tbody {
                    @for one in referrers {
                        tr {
                            td data-label="Artifact type" {
                                bdi { (plain(one["artifactType"].as_str().unwrap_or("not said"), 200)) }
                            }
                            td data-label="Digest" {
                                @if let Some(digest) = one["digest"].as_str().and_then(|text| Digest::parse(text).ok()) {
                                    (linked(name, &digest))
                                }
                            }
                            td.n data-label="Manifest" { (sized(one["size"].as_u64())) }
                        }
                    }
                }
            }
        }
    }
}

/// What was refused lately.
pub(super) fn refusals(all: &[Refused], shows_users: bool) -> Markup {
    html! {
        h1 { "Recent refusals" }
        p.soft { "What clients asked for and did not get, newest first, of the repositories that you may pull from. Forgotten when the registry restarts." }
        @if all.is_empty() { p { "None." } }
        @else {
            table {
                thead {
                    tr {
                        th scope="col" { "Last" }
                        th.n scope="col" { "Times" }
                        th scope="col" { "Request" }
                        th.n scope="col" { "Status" }
                        th scope="col" { "Cause" }
                        @if shows_users { th scope="col" { "User" } }
                    }
                }
                tbody {
                    @for one in all {
                        tr {
                            td.k data-label="Last" { time datetime=(one.time) { (one.time.strftime("%m-%d %H:%M:%S")) " UTC" } }
                            td.n data-label="Times" { (one.times) }
                            td data-label="Request" { code { bdi { (plain(&one.method, 20)) " " (plain(&one.path, WORDS)) } } }
                            td.n data-label="Status" { (one.status) }
                            td data-label="Cause" {
                                div {
                                    (one.cause)
                                    @if let Some(beneath) = one.beneath { ": " (beneath) }
                                    @if let Some(cause) = Cause::from_name(one.cause) { div.soft { (cause.summary()) } }
                                }
                            }
                            @if shows_users {
                                td data-label="User" { bdi { (plain(one.user.as_deref().unwrap_or_default(), 60)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
