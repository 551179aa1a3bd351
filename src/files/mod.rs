//! `files` of a route: files below a directory. Pure where it decides ([`path`], [`range`], [`condition`], [`coding`],
//! [`answer`]), and two places that touch the disk: [`open`] and [`listing`]. Knows nothing of Pingora.
//!
//! Everything that can block runs on threads of its own, a bounded number of requests at a time; a body is read in
//! pieces as the client takes them, so that a file of any size and any number of slow readers cost one piece each.

mod answer;
mod body;
mod coding;
mod condition;
mod config;
mod listing;
mod open;
pub(crate) mod path;
pub(crate) mod range;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode};
use tokio::sync::Semaphore;

use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::base::task;

pub use answer::Answer;
pub use body::{Body, PIECE_BYTES};
pub use config::FilesRaw;

use open::{Found, Refused, Root};
use path::FilePath;

/// Requests that read the disk at the same moment, whole process. A disk that hangs holds up files, and nothing else.
const READING_MAX: usize = 64;

static READING: Semaphore = Semaphore::const_new(READING_MAX);

/// Files that stay open while slow readers take them, whole process: small ones are read at once and closed. Beyond it is
/// 503, not a process that has no descriptor left for its connections.
const OPEN_MAX: usize = 16 * 1024;

static OPEN: Semaphore = Semaphore::const_new(OPEN_MAX);

/// Headers of a request that decide how a file is sent.
const ASKED: [HeaderName; 8] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

/// Methods that files have, as a 405 lists them.
pub const METHODS: &str = "GET, HEAD";

/// Whether files have `method`: one of [`METHODS`].
pub fn has_method(method: &Method) -> bool {
    [Method::GET, Method::HEAD].contains(method)
}

/// `files` of a route, compiled.
#[derive(Debug)]
pub struct Site {
    /// Opened anew for each request, so that a link in its place may be turned to another directory.
    root: PathBuf,
    /// Names tried in a directory, in this order.
    index: Vec<Box<[u8]>>,
    /// What is sent for a path that names no file.
    fallback: Option<Box<[u8]>>,
    /// Whether a directory without index is listed.
    listing: bool,
    /// Whether a directory may be asked for with a slash at its end: the route takes such paths.
    redirects: bool,
}

/// What a request asks of a [`Site`].
#[derive(Debug)]
pub struct Request {
    /// `None`: names no file, whatever is on the disk.
    path: Option<FilePath>,
    /// The path as the client sent it, for the redirect to a directory; with its query.
    client: (String, Option<String>),
    head: bool,
    headers: HeaderMap,
    now: SystemTime,
}

/// No answer: why, and the inside story for the log.
#[derive(Debug)]
pub struct Refusal {
    /// What the client is told.
    pub problem: Problem,
    /// What the log is told.
    pub detail: Option<String>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, detail: None }
    }
}

impl Request {
    /// What `method` with `headers` asks for at `path`, the path after the route's rewrite, when the client asked for
    /// `client` and `query`. Both paths are in their one form ([`crate::routing::path`]).
    ///
    /// # Errors
    /// If files do not have the method.
    pub fn new(
        method: &Method,
        path: &str,
        (client, query): (&str, Option<&str>),
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<Self, Problem> {
        let head = method == Method::HEAD;
        if !has_method(method) {
            let mut problem = Problem::new(Reason::MethodNotAllowed);
            problem.allow = Some(METHODS.into());
            return Err(problem);
        }
        let mut asked = HeaderMap::new();
        for name in &ASKED {
            for value in headers.get_all(name) {
                asked.append(name, value.clone());
            }
        }
        let client = (client.to_owned(), query.map(str::to_owned));
        Ok(Self { path: FilePath::below_root(path), client, head, headers: asked, now })
    }
}

impl Site {
    /// Where its files are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that `path` names, for `explain`; `None` if it can name none.
    pub fn file(&self, path: &str) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        let path = FilePath::below_root(path)?;
        Some(self.root.join(std::ffi::OsStr::from_bytes(&path.relative)))
    }

    /// The file that is sent where there is none of that name, for `explain`.
    pub fn fallback(&self) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        self.fallback.as_ref().map(|name| self.root.join(std::ffi::OsStr::from_bytes(name)))
    }

    /// Finds the file and the way to send it. The content of a small one is read already.
    ///
    /// # Errors
    /// What the client gets instead.
    pub async fn answer(self: std::sync::Arc<Self>, request: Request) -> Result<Answer, Refusal> {
        let permit = READING.acquire().await;
        let found = task::blocking(move || {
            // Held by the work itself: whoever stops waiting does not stop the disk.
            let _permit = permit;
            let mut answer = self.find(&request)?;
            answer.body.read_ahead().map_err(|error| failed(&error))?;
            answer.body.stay_open(&OPEN)?;
            Ok(answer)
        });
        found.await.unwrap_or_else(|_| Err(Problem::new(Reason::Internal).into()))
    }

    fn find(&self, request: &Request) -> Result<Answer, Refusal> {
        let root = Root::open(&self.root).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                missing(Some(format!("there is no directory {}", self.root.display())))
            }
            _ => failed(&error),
        })?;
        let found = match &request.path {
            Some(path) => self.named(&root, path, request),
            None => Err(Refused::Missing),
        };
        match (found, &self.fallback) {
            (Ok(answer), _) => Ok(answer),
            (Err(Refused::Missing), Some(fallback)) => match root.open_below(fallback) {
                Ok(Found::File(file)) => Ok(answer::of_file(&root, fallback, file, request)?),
                Ok(Found::Directory(_)) | Err(Refused::Missing) => {
                    Err(missing(Some("nor is there the fallback".to_owned())))
                }
                Err(refused) => Err(refused.into()),
            },
            (Err(refused), _) => Err(refused.into()),
        }
    }

    /// What stands at `path`.
    fn named(&self, root: &Root, path: &FilePath, request: &Request) -> Result<Answer, Refused> {
        match root.open_below(&path.relative)? {
            // `/a.txt/` names something in a directory `a.txt`.
            Found::File(_) if path.directory => Err(Refused::Missing),
            Found::File(file) => answer::of_file(root, &path.relative, file, request).map_err(Refused::Told),
            // By the client's own path: links on the page start there, and a rewrite may add or take off a slash.
            Found::Directory(_) if self.redirects && !request.client.0.ends_with('/') => {
                Ok(answer::to_directory(&request.client))
            }
            Found::Directory(directory) => self.directory(root, path, &directory, request),
        }
    }

    fn directory(
        &self,
        root: &Root,
        path: &FilePath,
        directory: &std::os::fd::OwnedFd,
        request: &Request,
    ) -> Result<Answer, Refused> {
        for index in &self.index {
            let name = path.join(index);
            match root.open_below(&name) {
                Ok(Found::File(file)) => {
                    return answer::of_file(root, &name, file, request).map_err(Refused::Told);
                }
                Ok(Found::Directory(_)) | Err(Refused::Missing) => {}
                Err(refused) => return Err(refused),
            }
        }
        if self.listing {
            let listing = listing::read(root, path, directory)?;
            return Ok(answer::of_listing(&listing, &request.client.0, request));
        }
        if self.fallback.is_some() {
            return Err(Refused::Missing);
        }
        Err(Refused::Forbidden("it is a directory without an index".to_owned()))
    }
}

fn missing(detail: Option<String>) -> Refusal {
    Refusal { problem: Problem::new(Reason::FileNotFound), detail }
}

fn failed(error: &std::io::Error) -> Refusal {
    Refusal { problem: Problem::new(Reason::FileFailed), detail: Some(error.to_string()) }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Missing => missing(None),
            Refused::Forbidden(why) => {
                Self { problem: Problem::new(Reason::FileForbidden), detail: Some(why) }
            }
            Refused::Failed(error) => failed(&error),
            Refused::Told(refusal) => refusal,
        }
    }
}

/// The status of a whole file, or of a fallback.
const WHOLE: StatusCode = StatusCode::OK;
