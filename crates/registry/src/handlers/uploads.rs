//! Uploads: in one request, in chunks, as a stream, or by mounting what another repository holds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use towline_oci::Digest;
use towline_sys::task;
use uuid::Uuid;

use super::{Answer, Registry, empty, text_header};
use crate::access::{Caller, Decision};
use crate::names::Repository;
use crate::options::Mount;
use crate::range;
use crate::refusal::{Refusal, bad};
use crate::route::{Action, digest, query};
use crate::uploads::{Session, in_order, received, wrong_size};

/// Pieces that wait between the network and the disk.
const QUEUE: usize = 8;

/// Bytes of an upload after which it is looked again whether there is room.
const LOOK: u64 = 16 << 20;

/// A piece of a body on its way to the disk. Without `End` the body was cut.
enum Piece {
    Bytes(Bytes),
    End,
}

/// What one request does to an upload.
struct Work {
    name: Repository,
    /// The upload to go on with; a new one otherwise.
    id: Option<Uuid>,
    /// Where the chunk begins and how long it is, if the client said so.
    chunk: Option<(u64, u64)>,
    /// The digest that ends the upload.
    digest: Option<Digest>,
}

impl Registry {
    pub(super) async fn new_upload(
        self: &Arc<Self>,
        request: Request<Incoming>,
        name: Repository,
        caller: &Arc<Caller>,
    ) -> Answer {
        if let Some(wanted) = query(request.uri(), "mount").first() {
            let wanted = digest(wanted)?;
            let from = query(request.uri(), "from").into_iter().next();
            let (target, mounted) = (name.clone(), wanted.clone());
            let caller = Arc::clone(caller);
            let done = self.blocking("mount a blob", move |this| {
                this.mount(&target, &mounted, from.as_deref(), &caller)
            });
            if done.await? {
                return Ok(created(&name, &wanted));
            }
        }
        if let Some(stated) = query(request.uri(), "digest").first() {
            let stated = digest(stated)?;
            let work = Work {
                name: name.clone(),
                id: None,
                chunk: None,
                digest: Some(stated.clone()),
            };
            self.receive(request, work).await?;
            return Ok(created(&name, &stated));
        }
        let target = name.clone();
        let id = self
            .blocking("begin an upload", move |this| {
                this.room(&target, 0)?;
                this.state.has_room(this.settings.get().limits.reserve)?;
                Ok(this.uploads.begin(&target)?.id())
            })
            .await?;
        Ok(progress(StatusCode::ACCEPTED, &name, id, 0))
    }

    pub(super) async fn patch_upload(
        self: &Arc<Self>,
        request: Request<Incoming>,
        name: Repository,
        id: Uuid,
    ) -> Answer {
        let chunk = chunk(&request)?;
        let work = Work {
            name: name.clone(),
            id: Some(id),
            chunk,
            digest: None,
        };
        let (id, length) = self.receive(request, work).await?;
        Ok(progress(StatusCode::ACCEPTED, &name, id, length))
    }

    pub(super) async fn put_upload(
        self: &Arc<Self>,
        request: Request<Incoming>,
        name: Repository,
        id: Uuid,
    ) -> Answer {
        let stated = query(request.uri(), "digest").into_iter().next();
        let stated =
            digest(&stated.ok_or_else(|| bad("DIGEST_INVALID", "the query lacks `digest`"))?)?;
        let chunk = chunk(&request)?;
        let work = Work {
            name: name.clone(),
            id: Some(id),
            chunk,
            digest: Some(stated.clone()),
        };
        self.receive(request, work).await?;
        Ok(created(&name, &stated))
    }

    pub(super) async fn get_upload(self: &Arc<Self>, name: Repository, id: Uuid) -> Answer {
        let target = name.clone();
        let length = self
            .blocking("look at an upload", move |this| {
                Ok(this.uploads.resume(&target, id)?.length())
            })
            .await?;
        Ok(progress(StatusCode::NO_CONTENT, &name, id, length))
    }

    pub(super) async fn delete_upload(self: &Arc<Self>, name: Repository, id: Uuid) -> Answer {
        self.blocking("cancel an upload", move |this| {
            this.uploads.resume(&name, id)?.cancel();
            Ok(())
        })
        .await?;
        Ok(empty(StatusCode::NO_CONTENT, &[]))
    }

    /// Links a blob that another repository holds, which the user may read. Without a source any such repository will do.
    fn mount(
        &self,
        target: &Repository,
        digest: &Digest,
        from: Option<&str>,
        caller: &Caller,
    ) -> Result<bool, Refusal> {
        match self.settings.get().mount {
            Mount::Any => {}
            Mount::Named if from.is_some() => {}
            Mount::Named | Mount::Never => return Ok(false),
        }
        let adding = self.gate.adding();
        adding.note(target, [digest]);
        let Some(size) = self.blobs.size(digest)? else {
            return Ok(false);
        };
        let sources = match from {
            Some(name) => Repository::parse(name).into_iter().collect(),
            None => self.metadata.repositories()?,
        };
        for source in sources {
            let readable = caller.decide(&source, Action::Pull) == Decision::Allow;
            if readable && self.metadata.has_blob(&source, digest)? {
                let room = self.charge(target, digest, size)?;
                self.metadata.link_blob(target, digest)?;
                room.kept();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Brings the request's body to the disk; the upload and its length afterwards.
    async fn receive(
        self: &Arc<Self>,
        request: Request<Incoming>,
        work: Work,
    ) -> Result<(Uuid, u64), Refusal> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let this = Arc::clone(self);
        let writing = task::blocking("receive a blob", move || this.write(&work, receiver));
        let feeding = feed(
            request.into_body(),
            sender,
            self.settings.get().limits.body_patience,
        );
        tokio::pin!(writing, feeding);
        let (written, fed) = tokio::select! {
            // A refusal ends the reading; the client learns of it as soon as it looks.
            written = &mut writing => (written, Ok(())),
            fed = &mut feeding => (writing.await, fed),
        };
        fed?;
        written
    }

    fn write(
        &self,
        work: &Work,
        mut pieces: mpsc::Receiver<Piece>,
    ) -> Result<(Uuid, u64), Refusal> {
        let reserve = self.settings.get().limits.reserve;
        self.state.has_room(reserve)?;
        let mut session = match work.id {
            Some(id) => self.uploads.resume(&work.name, id)?,
            None => self.uploads.begin(&work.name)?,
        };
        if let Some((first, _)) = work.chunk {
            in_order(&session, first)?;
        }
        if let Err(refusal) = self.take(&mut session, work, &mut pieces) {
            // An upload that began with this request has no name that its client knows.
            if work.id.is_none() {
                session.cancel();
            }
            return Err(refusal);
        }
        let (id, length) = (session.id(), session.length());
        if let Some(digest) = &work.digest {
            session.finish(digest, |staged| {
                self.blobs.prepare(staged, digest)?;
                let adding = self.gate.adding();
                adding.note(&work.name, [digest]);
                let room = self.charge(&work.name, digest, length)?;
                self.blobs.adopt(staged, digest)?;
                self.metadata.link_blob(&work.name, digest)?;
                room.kept();
                Ok(())
            })?;
        }
        Ok((id, length))
    }

    /// Brings the pieces of a body to an upload.
    fn take(
        &self,
        session: &mut Session<'_>,
        work: &Work,
        pieces: &mut mpsc::Receiver<Piece>,
    ) -> Result<(), Refusal> {
        // What the repository has already needs no room.
        let is_new = match &work.digest {
            Some(digest) => !self.metadata.has_blob(&work.name, digest)?,
            None => true,
        };
        let before = session.length();
        let mut looked = before;
        let mut whole = false;
        while let Some(piece) = pieces.blocking_recv() {
            match piece {
                Piece::Bytes(bytes) => {
                    let length = session.length();
                    if is_new && (length == before || length - looked >= LOOK) {
                        looked = length;
                        self.room(&work.name, length + bytes.len() as u64)?;
                    }
                    session.append(&bytes)?;
                }
                Piece::End => {
                    whole = true;
                    break;
                }
            }
        }
        let added = session.length() - before;
        self.metrics.received(added);
        if !whole {
            return Err(cut());
        }
        match work.chunk {
            // A last chunk without bytes may come with the range of the one before.
            Some((_, stated)) if stated != added && !(work.digest.is_some() && added == 0) => {
                Err(wrong_size(stated, added))
            }
            _ => Ok(()),
        }
    }
}

async fn feed(
    mut body: Incoming,
    sender: mpsc::Sender<Piece>,
    patience: Duration,
) -> Result<(), Refusal> {
    loop {
        let frame = tokio::time::timeout(patience, body.frame()).await;
        let frame = frame.map_err(|_| {
            Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "BLOB_UPLOAD_INVALID",
                "the body stopped coming",
            )
        })?;
        let piece = match frame {
            None => Piece::End,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => Piece::Bytes(bytes),
                Err(_trailers) => continue,
            },
            Some(Err(_)) => return Err(cut()),
        };
        let last = matches!(piece, Piece::End);
        // The other side is gone when it refused: its answer says why.
        if sender.send(piece).await.is_err() || last {
            return Ok(());
        }
    }
}

fn cut() -> Refusal {
    bad("BLOB_UPLOAD_INVALID", "the body ended early")
}

fn chunk<B>(request: &Request<B>) -> Result<Option<(u64, u64)>, Refusal> {
    let Some(value) = text_header(request, &header::CONTENT_RANGE) else {
        return Ok(None);
    };
    range::chunk(value)
        .map(Some)
        .ok_or_else(|| bad("BLOB_UPLOAD_INVALID", "Content-Range is not `first-last`"))
}

fn created(name: &Repository, digest: &Digest) -> http::Response<crate::body::Body> {
    let headers = [
        ("location", format!("/v2/{name}/blobs/{digest}")),
        ("docker-content-digest", digest.to_string()),
    ];
    empty(StatusCode::CREATED, &headers)
}

fn progress(
    status: StatusCode,
    name: &Repository,
    id: Uuid,
    length: u64,
) -> http::Response<crate::body::Body> {
    let headers = [
        ("location", format!("/v2/{name}/blobs/uploads/{id}")),
        ("range", received(length)),
        ("docker-upload-uuid", id.to_string()),
    ];
    empty(status, &headers)
}
