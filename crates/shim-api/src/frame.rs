//! Frames: four bytes of length, big endian, then that many bytes of JSON.
//!
//! [`write()`] and [`read()`] are for blocking streams; [`encode`] and [`Decoder`]
//! are for those who move the bytes themselves.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::MAX_FRAME;

/// Bytes of the length in front.
const HEADER: usize = 4;

/// Why a message could not be sent or understood.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length in front is beyond the limit: not our protocol, or broken.
    #[error("a frame of {0} bytes, more than the allowed {MAX_FRAME}")]
    TooLarge(usize),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// The JSON is not the message that was expected.
    #[error("a frame does not hold the expected message")]
    Json(#[source] serde_json::Error),
    /// The stream failed.
    #[error("the stream failed")]
    Io(#[from] io::Error),
}

/// A message as a frame.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message).map_err(FrameError::Json)?;
    let length = frame.len() - HEADER;
    let header = u32::try_from(length)
        .ok()
        .filter(|_| length <= MAX_FRAME)
        .ok_or(FrameError::TooLarge(length))?;
    frame[..HEADER].copy_from_slice(&header.to_be_bytes());
    Ok(frame)
}

/// Writes a message to a blocking stream.
pub fn write(mut stream: impl Write, message: &impl Serialize) -> Result<(), FrameError> {
    stream.write_all(&encode(message)?)?;
    Ok(stream.flush()?)
}

/// Reads a message from a blocking stream; `None` when it ended between
/// frames.
pub fn read<T: DeserializeOwned>(mut stream: impl Read) -> Result<Option<T>, FrameError> {
    let mut header = [0; HEADER];
    let mut got = 0;
    while got < HEADER {
        match stream.read(&mut header[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(FrameError::Truncated),
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let length = length(header)?;
    // Not allocated at once: the length is only a claim.
    let mut body = Vec::new();
    stream
        .take(u64::try_from(length).unwrap_or(u64::MAX))
        .read_to_end(&mut body)?;
    if body.len() < length {
        return Err(FrameError::Truncated);
    }
    serde_json::from_slice(&body)
        .map_err(FrameError::Json)
        .map(Some)
}

fn length(header: [u8; HEADER]) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(FrameError::TooLarge(length));
    }
    Ok(length)
}

/// Takes bytes as they come and gives messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes bytes. At most one frame and one piece are ever held, when the
    /// caller takes the messages out after each piece.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, `None` when more bytes are needed. After
    /// [`FrameError::Json`] the frame is consumed and the stream goes on with
    /// the next; after another error it is of no more use.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = length(*header)?;
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(body).map_err(FrameError::Json);
        self.buffer.drain(..HEADER + length);
        message.map(Some)
    }

    /// Whether bytes of a frame that is not whole yet are held.
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, Response, Stream};

    #[test]
    fn messages_come_out_as_they_went_in() {
        let message = Response::Output {
            stream: Stream::Stderr,
            data: vec![0, 255, 10],
        };
        let frame = encode(&message).unwrap();
        assert_eq!(read::<Response>(&frame[..]).unwrap(), Some(message.clone()));
        assert_eq!(read::<Response>(&[][..]).unwrap(), None);
        let mut decoder = Decoder::default();
        for byte in &frame[..frame.len() - 1] {
            decoder.push(&[*byte]);
            assert!(decoder.next_message::<Response>().unwrap().is_none());
        }
        decoder.push(&frame[frame.len() - 1..]);
        assert_eq!(decoder.next_message::<Response>().unwrap(), Some(message));
        assert!(!decoder.is_partial());
    }

    #[test]
    fn what_is_cut_too_large_or_no_message_is_refused() {
        let frame = encode(&Request::List).unwrap();
        for cut in 1..frame.len() {
            let error = read::<Request>(&frame[..cut]).unwrap_err();
            assert!(matches!(error, FrameError::Truncated), "{cut}");
        }
        let error = read::<Request>(&[0xff; 8][..]).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge(_)));
        let error = read::<Request>(&[0, 0, 0, 2, b'[', b']'][..]).unwrap_err();
        assert!(matches!(error, FrameError::Json(_)));
        let large = "x".repeat(MAX_FRAME);
        assert!(matches!(encode(&large), Err(FrameError::TooLarge(_))));
    }
}
