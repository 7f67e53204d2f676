//! Files that become objects, large ones in parts.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::{Method, StatusCode, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use rusty_s3::S3Action as _;
use rusty_s3::actions::CreateMultipartUpload;

use super::checksum::{Checksum, checksummed};
use super::client::{ATTEMPTS, Client, SIGNED, etag, failed, said, small};
use crate::body::{self, Body};
use crate::storage::StorageError;

/// How long a part of an upload may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// The largest object that is put in one request, and the size of the parts of larger ones, in bytes.
const PART: u64 = 64 << 20;
/// Bytes that are read from a file at a time.
const PIECE: u64 = 128 << 10;

/// So many bytes of a file. They are read where they are needed, not on the threads for what blocks: those may all be waiting for
/// uploads, and what was just written comes from memory.
fn pieces(file: File, size: u64) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold((file, size), |(mut file, left)| async move {
        let mut piece = vec![0; usize::try_from(left.min(PIECE)).unwrap_or_default()];
        if piece.is_empty() {
            return None;
        }
        let read = file.read_exact(&mut piece);
        let left = left - piece.len() as u64;
        Some((read.map(|()| piece.into()), (file, left)))
    })
}

/// The checksum of a part of a file.
fn checksum(file: &Path, from: u64, size: u64) -> io::Result<String> {
    let mut file = File::open(file)?;
    file.seek(io::SeekFrom::Start(from))?;
    let mut checksum = Checksum::default();
    let mut buffer = vec![0; usize::try_from(PIECE).unwrap_or_default()];
    let mut file = file.take(size);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(checksum.finish()),
            length => checksum.update(&buffer[..length]),
        }
    }
}

impl Client {
    /// Writes a file as an object, a large one in parts.
    pub(super) async fn put_file(
        &self,
        name: &str,
        file: &Path,
        length: u64,
    ) -> Result<(), StorageError> {
        let key = self.key(name);
        if length <= PART {
            let action = self.0.bucket.put_object(Some(&self.0.credentials), &key);
            let url = || action.sign(SIGNED).to_string();
            return self.put_part(name, file, 0, length, &url).await.map(drop);
        }
        let id = self.create_multipart(name, &key).await?;
        let put = self.put_parts(name, &key, file, length, &id).await;
        if put.is_err() {
            let make = || {
                let credentials = Some(&self.0.credentials);
                let action = self.0.bucket.abort_multipart_upload(credentials, &key, &id);
                Self::request(Method::DELETE, action.sign(SIGNED).as_str(), body::full(""))
            };
            // What stays then is swept by the bucket's own rule for parts that were given up.
            self.send("give up", name, make).await.ok();
        }
        put
    }

    async fn create_multipart(&self, name: &str, key: &str) -> Result<String, StorageError> {
        let make = || {
            let credentials = Some(&self.0.credentials);
            let action = self.0.bucket.create_multipart_upload(credentials, key);
            Self::request(Method::POST, action.sign(SIGNED).as_str(), body::full(""))
        };
        let answer = self.send("begin", name, make).await?;
        let status = answer.status();
        let body = small(answer).await?;
        if status != StatusCode::OK {
            return Err(failed("begin", name, said(status, &body)));
        }
        let text = String::from_utf8_lossy(&body);
        let parsed = CreateMultipartUpload::parse_response(&text);
        let parsed = parsed.map_err(|error| failed("begin", name, error))?;
        Ok(parsed.upload_id().to_owned())
    }

    async fn put_parts(
        &self,
        name: &str,
        key: &str,
        file: &Path,
        length: u64,
        id: &str,
    ) -> Result<(), StorageError> {
        let credentials = Some(&self.0.credentials);
        let mut tags = Vec::new();
        let mut at = 0;
        while at < length {
            let size = PART.min(length - at);
            let number = u16::try_from(tags.len() + 1)
                .map_err(|_| failed("write", name, "too many parts"))?;
            let action = self.0.bucket.upload_part(credentials, key, number, id);
            let url = || action.sign(SIGNED).to_string();
            tags.push(self.put_part(name, file, at, size, &url).await?);
            at += size;
        }
        let tags = tags.iter().map(String::as_str);
        let bucket = &self.0.bucket;
        let action = bucket.complete_multipart_upload(credentials, key, id, tags.clone());
        let url = action.sign(SIGNED);
        let text = bucket
            .complete_multipart_upload(credentials, key, id, tags)
            .body();
        let make = || Self::request(Method::POST, url.as_str(), body::full(text.clone()));
        let answer = self.send("finish", name, make).await?;
        let status = answer.status();
        let body = small(answer).await?;
        // It may be 200 and say in its body that it failed.
        if status != StatusCode::OK || !body.windows(4).any(|part| part == b"ETag") {
            return Err(failed("finish", name, said(status, &body)));
        }
        Ok(())
    }

    /// Writes a part of a file; its tag.
    async fn put_part(
        &self,
        name: &str,
        file: &Path,
        from: u64,
        size: u64,
        url: &(dyn Fn() -> String + Sync),
    ) -> Result<String, StorageError> {
        let broken = |error: io::Error| failed("read what becomes", name, error);
        let checksum = checksum(file, from, size).map_err(broken)?;
        let mut why = StatusCode::OK.to_string();
        for _ in 0..ATTEMPTS {
            let mut file = File::open(file).map_err(broken)?;
            file.seek(io::SeekFrom::Start(from)).map_err(broken)?;
            let body = StreamBody::new(pieces(file, size).map(|piece| piece.map(Frame::data)));
            let body = Body::stream(body);
            let mut request = Self::request(Method::PUT, &url(), body);
            request
                .headers_mut()
                .insert(header::CONTENT_LENGTH, size.into());
            checksummed(&mut request, &checksum);
            let sent = tokio::time::timeout(PATIENCE, self.0.http.request(request)).await;
            match sent {
                Ok(Ok(answer)) if answer.status() == StatusCode::OK => {
                    return Ok(etag(answer.headers()));
                }
                Ok(Ok(answer)) => {
                    let status = answer.status();
                    why = said(status, &small(answer).await.unwrap_or_default());
                    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
                        break;
                    }
                }
                Ok(Err(_)) => "the connection broke".clone_into(&mut why),
                Err(_) => "no answer in time".clone_into(&mut why),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Err(failed("write", name, why))
    }
}
