//! Answers that are written in the configuration: `respond` of a route, `fallback` of an upstream.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Response, StatusCode};
use indexmap::IndexMap;

use super::decode::{ConfigPath, quote};
use super::diagnostic::Diagnostics;
use super::origin::{At, Origin};
use crate::keys;

/// Largest file sent as an answer: it is held in memory.
const FILE_BYTES_MAX: u64 = 4 << 20;

keys! {
    /// An answer of the gateway itself: with `text`, `json`, `file`, or no body at all.
    pub struct RespondRaw {
        /// The status.
        status: StatusCode = StatusCode::OK,
        /// A text as the body.
        text: optional String,
        /// A value sent as JSON.
        json: optional serde_json::Value,
        /// A file whose content is the body, read when the configuration is.
        file: optional ConfigPath,
        /// Headers of the answer.
        headers: IndexMap<HeaderName, At<HeaderValue>> = IndexMap::new(),
    }
}

impl RespondRaw {
    /// The answer, without framing headers. `path` is the configuration path of the table, `origin` where it stands.
    pub fn compile(&self, path: &str, origin: &Origin, out: &mut Diagnostics) -> Option<Response<Bytes>> {
        let bodies = [
            self.text.as_ref().map(|at| ("text", &at.origin)),
            self.json.as_ref().map(|at| ("json", &at.origin)),
            self.file.as_ref().map(|at| ("file", &at.origin)),
        ];
        let mut bodies = bodies.into_iter().flatten();
        let first = bodies.next();
        if let (Some((first, first_origin)), Some((second, second_origin))) = (first, bodies.next()) {
            out.error(
                "conflicting-keys",
                second_origin,
                format!("{path}.{second}"),
                format!("an answer has one body: \"{first}\" and \"{second}\" exclude each other"),
            )
            .related(first_origin, "the other body");
            return None;
        }
        if let Some((key, body_origin)) = first
            && matches!(
                *self.status,
                StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
            )
        {
            let message = format!("an answer with status {} has no body", self.status.as_u16());
            let origin = if self.status.origin == Origin::Default { origin } else { &self.status.origin };
            out.error("invalid-value", body_origin, format!("{path}.{key}"), message)
                .related(origin, "the status");
            return None;
        }
        let (body, content_type) = self.body(path, out)?;
        let mut response = Response::new(body);
        *response.status_mut() = *self.status;
        if let Some(content_type) = content_type {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        for (name, value) in &self.headers.value {
            if is_framing(name) {
                let message = format!("{} is set by the gateway itself", quote(name.as_str()));
                let path = format!("{path}.headers.{name}");
                out.error("invalid-value", &value.origin, path, message).hint("leave it out");
                continue;
            }
            response.headers_mut().insert(name.clone(), value.value.clone());
        }
        Some(response)
    }

    fn body(&self, path: &str, out: &mut Diagnostics) -> Option<(Bytes, Option<&'static str>)> {
        if let Some(text) = &self.text {
            return Some((text.value.clone().into(), Some("text/plain; charset=utf-8")));
        }
        if let Some(json) = &self.json {
            return Some((json.value.to_string().into(), Some("application/json")));
        }
        let Some(file) = &self.file else { return Some((Bytes::new(), None)) };
        let problem = match read(file) {
            Ok(body) if body.len() as u64 <= FILE_BYTES_MAX => {
                return Some((body.into(), Some(content_type(file))));
            }
            Ok(_) => format!("{} is larger than {} MiB", file.display(), FILE_BYTES_MAX >> 20),
            Err(error) => format!("cannot read {}: {error}", file.display()),
        };
        out.error("unreadable-file", &file.origin, format!("{path}.file"), problem);
        None
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut body)?;
    Ok(body)
}

/// Headers that say how a message is framed: whoever sends it knows better.
fn is_framing(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
    match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "txt" | "md" => "text/plain; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::decode::decode_str;

    fn compile(text: &str) -> Result<Response<Bytes>, String> {
        let (raw, mut out) = decode_str::<RespondRaw>(text);
        let response = raw.and_then(|raw| raw.compile("respond", &Origin::Default, &mut out));
        match out.iter().next() {
            Some(item) => Err(format!("{}: {}", item.path, item.message)),
            None => Ok(response.unwrap()),
        }
    }

    #[test]
    fn bodies_bring_their_type_unless_told_otherwise() {
        let text = compile("status = 418\ntext = \"short and stout\"").unwrap();
        assert_eq!((text.status().as_u16(), text.body().as_ref()), (418, b"short and stout".as_slice()));
        assert_eq!(text.headers()["content-type"], "text/plain; charset=utf-8");
        let json =
            compile("json = { b = [1, true], a = {} }\nheaders = { Content-Type = \"application/x+json\" }")
                .unwrap();
        assert_eq!(json.body(), "{\"b\":[1,true],\"a\":{}}", "in the order written");
        assert_eq!(json.headers()["content-type"], "application/x+json");
        let empty = compile("status = 204").unwrap();
        assert!(empty.body().is_empty() && empty.headers().is_empty());
    }

    #[test]
    fn files_are_read_when_the_configuration_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.HTML");
        std::fs::write(&path, "<p>").unwrap();
        let page = compile(&format!("file = \"{}\"", path.display())).unwrap();
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
        assert!(compile("file = \"/none\"").unwrap_err().starts_with("respond.file: cannot read /none"));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        assert!(compile("text = \"a\"\njson = 1").unwrap_err().contains("exclude each other"));
        assert!(compile("status = 204\ntext = \"a\"").unwrap_err().contains("has no body"));
        assert!(compile("headers = { content-length = \"3\" }").unwrap_err().contains("set by the gateway"));
        assert!(compile("headers = { a = \"x\\ny\" }").unwrap_err().contains("no header value"));
    }
}
