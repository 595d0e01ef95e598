//! Requests and ranges of HTTP/1.1 (RFC 9112, RFC 9110 section 14), as far as static files need them.

use std::path::{Component, Path, PathBuf};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Whether only the header is wanted.
    pub head: bool,
    /// The path, decoded, without the query. It begins with a slash.
    pub path: String,
    /// Whether the connection ends with the answer.
    pub close: bool,
    headers: Vec<(String, String)>,
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 400: it is no request.
    Malformed,
    /// 405: it asks for something else than reading.
    Method,
    /// 505: another major version of HTTP.
    Version,
}

/// Which bytes of a file are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of them.
    Whole,
    /// From the first to the last, which is included.
    Range(u64, u64),
    /// 416: there are none such.
    Outside,
}

impl Request {
    /// Reads a request's header, without the empty line that ends it.
    pub fn parse(head: &[u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(head).map_err(|_| Refusal::Malformed)?;
        let mut lines = text.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
            return Err(Refusal::Malformed);
        };
        if !version.starts_with("HTTP/1.") {
            return Err(if version.starts_with("HTTP/") { Refusal::Version } else { Refusal::Malformed });
        }
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(Refusal::Malformed)?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if method != "GET" && method != "HEAD" {
            return Err(Refusal::Method);
        }
        let path = target.split(['?', '#']).next().unwrap_or_default();
        let path = decode(path).filter(|p| p.starts_with('/')).ok_or(Refusal::Malformed)?;
        let mut request = Self { head: method == "HEAD", path, close: false, headers };
        let wish = request.header("connection").unwrap_or_default().to_ascii_lowercase();
        // What comes with a body is answered, and the body is not looked for.
        let body = request.header("content-length").is_some_and(|n| n != "0") || request.header("transfer-encoding").is_some();
        request.close = body || wish.contains("close") || (version == "HTTP/1.0" && !wish.contains("keep-alive"));
        Ok(request)
    }

    /// A header's value; the name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Which bytes of a file are wanted that has a length and a tag.
    pub fn part(&self, length: u64, tag: &str) -> Part {
        match self.header("range") {
            // A part of another version of the file would be of no use.
            Some(range) if self.header("if-range").is_none_or(|known| known == tag) => part(range, length),
            _ => Part::Whole,
        }
    }

    /// Whether who asks has the file with this tag already.
    pub fn knows(&self, tag: &str) -> bool {
        let known = self.header("if-none-match").unwrap_or_default();
        known.split(',').map(|t| t.trim().trim_start_matches("W/")).any(|t| t == tag || t == "*")
    }
}

/// `bytes=first-last`, `bytes=first-` or `bytes=-count`. What is none of these, or several of them, asks for the whole.
fn part(range: &str, length: u64) -> Part {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|r| r.trim().split_once('-')) else {
        return Part::Whole;
    };
    let end = length.saturating_sub(1);
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if last < first => Part::Whole,
        (Ok(first), Ok(_)) if first >= length => Part::Outside,
        (Ok(first), Ok(last)) => Part::Range(first, last.min(end)),
        (Ok(first), Err(_)) if last.is_empty() => {
            if first < length {
                Part::Range(first, end)
            } else {
                Part::Outside
            }
        }
        (Err(_), Ok(count)) if first.is_empty() => {
            if count > 0 && length > 0 {
                Part::Range(length.saturating_sub(count), end)
            } else {
                Part::Outside
            }
        }
        _ => Part::Whole,
    }
}

/// A path without its percent signs; `None`: it is no text, or a sign is followed by no number.
fn decode(path: &str) -> Option<String> {
    let mut bytes = path.bytes();
    let mut plain = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            plain.push((digit()? * 16 + digit()?) as u8);
        } else {
            plain.push(byte);
        }
    }
    String::from_utf8(plain).ok().filter(|p| !p.contains('\0'))
}

/// The file below a folder that a path names, which begins with a slash; `None`: the path leads elsewhere.
pub(super) fn below(folder: &Path, path: &str) -> Option<PathBuf> {
    let relative = path.strip_prefix('/')?;
    // On Windows these would name other places.
    if relative.contains(['\\', ':']) || !Path::new(relative).components().all(|c| matches!(c, Component::Normal(_))) {
        return None;
    }
    let file = if relative.is_empty() || relative.ends_with('/') { format!("{relative}index.html") } else { relative.to_owned() };
    Some(folder.join(file))
}

/// What a file is, by its name's end.
pub(super) fn media_type(file: &Path) -> &'static str {
    match file.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "wasm" => "application/wasm",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    fn get(rest: &str) -> Request {
        Request::parse(format!("GET /a HTTP/1.1\r\nHost: x{rest}").as_bytes()).unwrap()
    }

    #[test]
    fn requests_are_read() {
        let request = Request::parse(b"HEAD /a%20b/c.js?d=%zz#e HTTP/1.1\r\nHost: x\r\nRANGE:bytes=1-2 ").unwrap();
        assert_eq!((request.head, request.path.as_str(), request.close), (true, "/a b/c.js", false));
        assert_eq!((request.header("range"), request.header("if-range")), (Some("bytes=1-2"), None));
        assert!(get("\r\nConnection: Close").close);
        assert!(get("\r\nContent-Length: 5").close);
        assert!(Request::parse(b"GET / HTTP/1.0").unwrap().close);
        assert!(!Request::parse(b"GET / HTTP/1.0\r\nConnection: keep-alive").unwrap().close);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (text, refusal) in [
            (&b""[..], Refusal::Malformed),
            (b"GET /", Refusal::Malformed),
            (b"GET / HTTP/1.1 x", Refusal::Malformed),
            (b"GET / SPDY", Refusal::Malformed),
            (b"GET /\xff HTTP/1.1", Refusal::Malformed),
            (b"GET /%f HTTP/1.1", Refusal::Malformed),
            (b"GET /%ff HTTP/1.1", Refusal::Malformed),
            (b"GET /%00 HTTP/1.1", Refusal::Malformed),
            (b"GET a HTTP/1.1", Refusal::Malformed),
            (b"GET / HTTP/1.1\r\nno colon", Refusal::Malformed),
            (b"POST / HTTP/1.1", Refusal::Method),
            (b"GET / HTTP/2", Refusal::Version),
        ] {
            assert_eq!(Request::parse(text), Err(refusal), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn ranges_are_of_the_file() {
        for (range, wanted) in [
            ("bytes=0-0", Part::Range(0, 0)),
            ("bytes=2-", Part::Range(2, 9)),
            ("bytes=2-99", Part::Range(2, 9)),
            ("bytes=-3", Part::Range(7, 9)),
            ("bytes=-99", Part::Range(0, 9)),
            ("bytes=10-", Part::Outside),
            ("bytes=10-12", Part::Outside),
            ("bytes=-0", Part::Outside),
            ("bytes=3-2", Part::Whole),
            ("bytes=0-1,4-5", Part::Whole),
            ("bytes=x-", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=99999999999999999999-", Part::Whole),
        ] {
            assert_eq!(part(range, 10), wanted, "{range}");
        }
        assert_eq!([part("bytes=0-", 0), part("bytes=-1", 0)], [Part::Outside; 2]);
    }

    #[test]
    fn a_part_is_of_the_version_that_is_known() {
        assert_eq!(get("").part(10, "\"t\""), Part::Whole);
        assert_eq!(get("\r\nRange: bytes=1-2").part(10, "\"t\""), Part::Range(1, 2));
        assert_eq!(get("\r\nRange: bytes=1-2\r\nIf-Range: \"t\"").part(10, "\"t\""), Part::Range(1, 2));
        assert_eq!(get("\r\nRange: bytes=1-2\r\nIf-Range: \"u\"").part(10, "\"t\""), Part::Whole);
        assert!(get("\r\nIf-None-Match: \"u\", W/\"t\"").knows("\"t\""));
        assert!(!get("\r\nIf-None-Match: \"u\"").knows("\"t\"") && !get("").knows("\"t\""));
    }

    #[test]
    fn paths_stay_below_their_folder() {
        let folder = Path::new("site");
        assert_eq!(below(folder, "/"), Some(folder.join("index.html")));
        assert_eq!(below(folder, "/a/"), Some(folder.join("a/index.html")));
        assert_eq!(below(folder, "/a/b.js"), Some(folder.join("a/b.js")));
        for path in ["/..", "/../a", "/a/../../b", "//etc/passwd", "/a\\..\\b", "/c:/b", "/./a", "a"] {
            assert_eq!(below(folder, path), None, "{path}");
        }
    }
}
