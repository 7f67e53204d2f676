//! Uploads: blobs whole or in chunks, mounts, manifests.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use towline_cause::{Cause, Failure, Step};
use towline_oci::{Descriptor, Digest};

use crate::blob;
use crate::refused;
use crate::session::{Asking, Got, Session};
use crate::transport::Answer;
use crate::url::Url;

/// Size of one chunk; also of the largest blob that is sent whole.
const CHUNK: usize = 8 << 20;

fn asking(session: &Session, method: Method, rest: &str, what: String) -> Asking {
    let path = format!("/v2/{}/{rest}", session.target.repository());
    let mut asking = Asking::new(method, path, what, Step::Resolve);
    asking.push = true;
    asking.follow = false;
    asking
}

/// Whether the repository has a blob.
pub(crate) async fn has(session: &Session, digest: &Digest) -> Result<bool, Failure> {
    match blob::head(session, digest).await {
        Ok(_) => Ok(true),
        Err(failure)
            if matches!(
                failure.cause(),
                Cause::BlobMissing | Cause::RepositoryNotFound
            ) =>
        {
            Ok(false)
        }
        Err(failure) => Err(failure),
    }
}

/// Uploads a blob from a reader of exactly the descriptor's size, unless it is there.
pub(crate) async fn blob(
    session: &Session,
    descriptor: &Descriptor,
    reader: &mut (dyn AsyncRead + Send + Unpin),
) -> Result<(), Failure> {
    if has(session, &descriptor.digest).await? {
        return Ok(());
    }
    let digest = &descriptor.digest;
    let what = format!("upload of blob {digest} to {}", session.target.repository());
    let start = asking(session, Method::POST, "blobs/uploads/", what.clone());
    let got = session.ask(&start).await?;
    let got = expect(session, &start, got, &[StatusCode::ACCEPTED]).await?;
    let mut place = place(&got.answer, &what)?;
    let mut sent: u64 = 0;
    loop {
        let left = descriptor.size - sent;
        let chunk = read_chunk(reader, left, &what).await?;
        let last = chunk.len() as u64 == left;
        if last {
            return finish(session, &what, place, digest, chunk, sent).await;
        }
        let mut send = asking(session, Method::PATCH, "", what.clone())
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(
                header::CONTENT_RANGE,
                &format!("{sent}-{}", sent + chunk.len() as u64 - 1),
            );
        sent += chunk.len() as u64;
        send.url = Some(place);
        send.body = chunk;
        let got = session.ask(&send).await?;
        let got = expect(
            session,
            &send,
            got,
            &[StatusCode::ACCEPTED, StatusCode::NO_CONTENT],
        )
        .await?;
        place = self::place(&got.answer, &what)?;
    }
}

async fn read_chunk(
    reader: &mut (dyn AsyncRead + Send + Unpin),
    left: u64,
    what: &str,
) -> Result<Bytes, Failure> {
    let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
    let mut chunk = vec![0; want];
    reader.read_exact(&mut chunk).await.map_err(|error| {
        Failure::new(
            Cause::Unknown,
            Step::Fetch,
            format!("{what}: the content cannot be read"),
        )
        .because(error)
    })?;
    Ok(chunk.into())
}

async fn finish(
    session: &Session,
    what: &str,
    place: Url,
    digest: &Digest,
    rest: Bytes,
    sent: u64,
) -> Result<(), Failure> {
    let mut end = asking(session, Method::PUT, "", what.to_owned())
        .header(header::CONTENT_TYPE, "application/octet-stream");
    if sent > 0 && !rest.is_empty() {
        end = end.header(
            header::CONTENT_RANGE,
            &format!("{sent}-{}", sent + rest.len() as u64 - 1),
        );
    }
    end.url = Some(place.with_query(&[("digest", &digest.to_string())]));
    end.body = rest;
    let got = session.ask(&end).await?;
    expect(
        session,
        &end,
        got,
        &[StatusCode::CREATED, StatusCode::NO_CONTENT],
    )
    .await
    .map(drop)
}

async fn expect(
    session: &Session,
    asking: &Asking,
    got: Got,
    wanted: &[StatusCode],
) -> Result<Got, Failure> {
    if wanted.contains(&got.answer.status) {
        return Ok(got);
    }
    Err(refused::of_answer(session, asking, got).await)
}

/// Where an upload goes on: the registry's own origin alone, since the login goes there.
fn place(answer: &Answer, what: &str) -> Result<Url, Failure> {
    let from = &answer.url;
    let fail = |words: &str| {
        Failure::new(
            Cause::RegistryMisconfigured,
            Step::Resolve,
            format!("{what}: {} {words}", from.origin),
        )
        .at(from.origin.to_string())
    };
    let location = answer
        .headers
        .get(header::LOCATION)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| fail("does not say where the upload goes on"))?;
    let next = from.join(location).map_err(|why| {
        fail(&format!(
            "says that the upload goes on at a place that is no URL: {why}"
        ))
    })?;
    if next.origin != from.origin {
        return Err(fail(&format!(
            "says that the upload goes on at {}: uploads go to the registry itself only (is its external URL set right?)",
            next.origin
        )));
    }
    Ok(next)
}

/// Takes a blob over from another repository.
pub(crate) async fn mount(session: &Session, digest: &Digest, from: &str) -> Result<bool, Failure> {
    let what = format!(
        "mount of blob {digest} from {from} into {}",
        session.target.repository()
    );
    let mut ask = asking(session, Method::POST, "blobs/uploads/", what.clone());
    ask.query = Some(format!(
        "mount={}&from={}",
        crate::url::encode(&digest.to_string()),
        crate::url::encode(from)
    ));
    let got = session.ask(&ask).await?;
    match got.answer.status {
        StatusCode::CREATED => Ok(true),
        // The registry opened an upload instead: it is given up at once, so that it need not expire.
        StatusCode::ACCEPTED => {
            if let Ok(place) = place(&got.answer, &what) {
                let mut cancel = asking(session, Method::DELETE, "", what);
                cancel.url = Some(place);
                session.ask(&cancel).await.map(drop).ok();
            }
            Ok(false)
        }
        _ => Err(refused::of_answer(session, &ask, got).await),
    }
}

/// Uploads a manifest.
pub(crate) async fn manifest(
    session: &Session,
    target: &str,
    media_type: &str,
    bytes: Bytes,
) -> Result<Digest, Failure> {
    let digest = match Digest::parse(target) {
        Ok(wanted) => {
            let mut verifier = wanted.verifier();
            verifier.update(&bytes);
            verifier.finish()
        }
        Err(_) => Digest::of(&bytes),
    };
    let what = format!(
        "upload of manifest {target} to {}",
        session.target.repository()
    );
    let mut ask = asking(
        session,
        Method::PUT,
        &format!("manifests/{target}"),
        what.clone(),
    )
    .header(header::CONTENT_TYPE, media_type);
    ask.body = bytes;
    let got = session.ask(&ask).await?;
    let got = expect(session, &ask, got, &[StatusCode::CREATED, StatusCode::OK]).await?;
    let claimed = got
        .answer
        .header("docker-content-digest")
        .and_then(|text| Digest::parse(text).ok());
    match claimed {
        Some(claimed) if claimed.algorithm() == digest.algorithm() && claimed != digest => {
            Err(Failure::new(
                Cause::DigestMismatch,
                Step::Verify,
                format!("{what}: {digest} was sent and the registry stored {claimed}"),
            )
            .at(got.answer.url.origin.to_string()))
        }
        _ => Ok(digest),
    }
}
