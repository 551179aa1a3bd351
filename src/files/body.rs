//! The content of an answer: texts and parts of a file, read piece by piece as they are asked for.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::READING;
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::base::task;

/// Largest piece that is in memory at a time, for each request.
pub const PIECE_BYTES: usize = 64 * 1024;

/// What follows the head of an answer.
#[derive(Debug, Default)]
pub struct Body {
    /// As long as there is something to read from it.
    file: Option<Arc<File>>,
    /// Among the files that are open.
    place: Option<SemaphorePermit<'static>>,
    parts: VecDeque<Part>,
    /// Read already, to be sent first.
    ready: Option<Bytes>,
    /// Not yet read or taken.
    left: u64,
}

#[derive(Debug)]
enum Part {
    Text(Bytes),
    OfFile(Range<u64>),
}

impl Body {
    /// A text.
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        let mut body = Self::default();
        body.push_text(text);
        body
    }

    /// Nothing yet, and parts of `file` to come.
    pub(super) fn of(file: File) -> Self {
        Self { file: Some(Arc::new(file)), ..Self::default() }
    }

    pub(super) fn push_text(&mut self, text: impl Into<Bytes>) {
        let text = text.into();
        self.left = self.left.saturating_add(text.len() as u64);
        self.parts.push_back(Part::Text(text));
    }

    pub(super) fn push_range(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.left = self.left.saturating_add(range.end - range.start);
        self.parts.push_back(Part::OfFile(range));
    }

    /// Bytes that have not been taken yet.
    pub fn left(&self) -> u64 {
        self.left + self.ready.as_ref().map_or(0, |ready| ready.len() as u64)
    }

    /// Leaves nothing to send: what is asked about is only the head.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Reads what is one piece in all, on a thread that may block: most files are.
    pub(super) fn read_ahead(&mut self) -> io::Result<()> {
        let (Some(Part::OfFile(range)), Some(file)) = (self.parts.front(), &self.file) else { return Ok(()) };
        if self.left > PIECE_BYTES as u64 {
            return Ok(());
        }
        let piece = read(file, range.clone(), room(range))?;
        self.took(piece.len() as u64);
        self.ready = Some(piece);
        Ok(())
    }

    /// Counts the file among those that stay open for slow readers, if it does.
    ///
    /// # Errors
    /// If there are as many as `places` already.
    pub(super) fn stay_open(&mut self, places: &'static Semaphore) -> Result<(), Problem> {
        if self.file.is_some() {
            let place = places.try_acquire().map_err(|_| Problem::new(Reason::Overloaded))?;
            self.place = Some(place);
        }
        Ok(())
    }

    /// The next piece, at most [`PIECE_BYTES`] of a file; `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read, or has become shorter than was announced.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(ready) = self.ready.take() {
            return Ok(Some(ready));
        }
        let piece = match (self.parts.front(), &self.file) {
            (None, _) => return Ok(None),
            (Some(Part::Text(text)), _) => text.clone(),
            (Some(Part::OfFile(range)), Some(file)) => {
                let (file, range) = (file.clone(), range.clone());
                let permit = READING.acquire().await;
                // Made here and not there: the threads for reading are many, and an allocator keeps room for each.
                let room = room(&range);
                let read = task::blocking(move || {
                    let _permit = permit;
                    read(&file, range, room)
                });
                read.await.map_err(io::Error::other)??
            }
            (Some(Part::OfFile(_)), None) => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        self.took(piece.len() as u64);
        Ok(Some(piece))
    }

    /// The first `count` bytes of the first part are out of it.
    fn took(&mut self, count: u64) {
        self.left = self.left.saturating_sub(count);
        match self.parts.front_mut() {
            Some(Part::OfFile(range)) if range.end - range.start > count => range.start += count,
            _ => drop(self.parts.pop_front()),
        }
        if !self.parts.iter().any(|part| matches!(part, Part::OfFile(_))) {
            (self.file, self.place) = (None, None);
        }
    }
}

fn piece_bytes(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(PIECE_BYTES)
}

fn room(range: &Range<u64>) -> Vec<u8> {
    Vec::with_capacity(piece_bytes(range))
}

/// Reads the beginning of `range` into `piece`, which is empty and has room for it. Nothing is zeroed first.
fn read(file: &File, range: Range<u64>, mut piece: Vec<u8>) -> io::Result<Bytes> {
    let wanted = piece_bytes(&range);
    let mut at = range.start;
    while piece.len() < wanted {
        match pread(file, spare_capacity(&mut piece), at) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter")),
            Ok(count) => at += count as u64,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // More may have fitted in than was asked for.
    piece.truncate(wanted);
    Ok(piece.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: usize) -> Body {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes as u64).unwrap();
        let mut body = Body::of(file);
        body.push_range(0..bytes as u64);
        body.push_text("end");
        body
    }

    /// A file is open for as long as something of it is to be read, not until the last byte is sent.
    #[tokio::test]
    async fn a_file_is_closed_once_it_is_read() {
        static PLACES: Semaphore = Semaphore::const_new(1);
        let mut small = file(10);
        small.read_ahead().unwrap();
        assert!(small.file.is_none() && small.left() == 13);
        small.stay_open(&PLACES).unwrap();
        let mut large = file(PIECE_BYTES + 1);
        large.read_ahead().unwrap();
        large.stay_open(&PLACES).unwrap();
        let mut other = file(PIECE_BYTES + 1);
        assert_eq!(other.stay_open(&PLACES).unwrap_err().reason, Reason::Overloaded);
        assert_eq!(large.next().await.unwrap().unwrap().len(), PIECE_BYTES);
        assert!(large.file.is_some());
        assert_eq!(large.next().await.unwrap().unwrap().len(), 1);
        assert!(large.file.is_none() && large.left() == 3);
        other.stay_open(&PLACES).unwrap();
        assert_eq!(large.next().await.unwrap().unwrap(), "end");
        assert_eq!(large.next().await.unwrap(), None);
    }
}
