//! A server of static files on this machine: what any host does, with ranges.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};

use super::{
    build, dist,
    http::{Part, Refusal, Request, below, media_type},
};
use crate::say;

/// Where it listens if nothing is said.
const PORT: u16 = 8088;
/// The path under which other folders are.
const FILES: &str = "/files/";
/// The longest header of a request, in bytes.
const HEAD: usize = 16 << 10;
/// How long a connection without requests is kept.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes that are read from a file at once.
const BLOCK: usize = 256 << 10;

/// What is served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Serve {
    port: u16,
    build: bool,
    folders: Vec<PathBuf>,
}

impl Serve {
    /// Reads `--serve [PORT]`, `--no-build` and `--dir FOLDER`.
    ///
    /// # Errors
    /// In words, what cannot be understood.
    pub(crate) fn parse(options: &[&str]) -> Result<Self, String> {
        let mut serve = Self { port: PORT, build: true, folders: Vec::new() };
        let (mut options, mut wanted) = (options.iter().peekable(), false);
        while let Some(&option) = options.next() {
            match option {
                "--serve" => {
                    wanted = true;
                    if let Some(port) = options.next_if(|o| !o.starts_with('-')) {
                        serve.port = port.parse().map_err(|_| format!("{port} is no port: 0 to 65535"))?;
                    }
                }
                "--no-build" => serve.build = false,
                "--dir" => serve.folders.push(options.next().ok_or("--dir asks for a folder")?.into()),
                other => return Err(format!("unknown option: {other}")),
            }
        }
        if wanted { Ok(serve) } else { Err("these options are for --serve".into()) }
    }

    /// Builds the site and serves it until it is stopped. The first line on standard output is the address.
    pub(crate) fn run(self) -> Result<()> {
        if self.build {
            build(false)?;
        }
        let site = Site { root: dist(), folders: self.folders };
        if !site.root.join("index.html").exists() {
            bail!("web/dist is empty: run `cargo xtask web`");
        }
        for folder in &site.folders {
            fs::read_dir(folder).with_context(|| format!("{} cannot be served", folder.display()))?;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))
            .with_context(|| format!("port {} cannot be listened on (--serve 0 takes any that is free)", self.port))?;
        say(&format!("http://{}/ serves web/dist. Ctrl+C ends it.", listener.local_addr()?));
        for folder in &site.folders {
            say(&format!("{FILES} holds {}", folder.display()));
        }
        serve(&listener, site);
        Ok(())
    }
}

/// The folders that are served.
struct Site {
    root: PathBuf,
    folders: Vec<PathBuf>,
}

impl Site {
    /// The file that a path names.
    fn find(&self, path: &str) -> Option<PathBuf> {
        let shared = path.strip_prefix(FILES).map(|rest| format!("/{rest}"));
        let in_folder = |path: &str, folder: &PathBuf| below(folder, path).filter(|file| file.is_file());
        match shared {
            Some(path) => self.folders.iter().find_map(|folder| in_folder(&path, folder)),
            None => in_folder(path, &self.root),
        }
    }
}

/// Answers until the listener fails, each connection on a thread of its own.
fn serve(listener: &TcpListener, site: Site) {
    let site = Arc::new(site);
    for stream in listener.incoming().flatten() {
        let site = Arc::clone(&site);
        // Who went away wants no more; nobody else is to know. A thread that cannot be had ends its connection.
        let _ = thread::Builder::new().name("pleiad-http".into()).spawn(move || talk(&stream, &site));
    }
}

/// Answers one request after the other.
fn talk(stream: &TcpStream, site: &Site) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let (mut input, mut output) = (BufReader::new(stream), stream);
    while let Some(head) = read_head(&mut input)? {
        match Request::parse(&head) {
            Ok(request) => {
                answer(&mut output, site, &request)?;
                if request.close {
                    break;
                }
            }
            Err(refusal) => {
                let status = match refusal {
                    Refusal::Malformed => "400 Bad Request",
                    Refusal::Method => "405 Method Not Allowed\r\nAllow: GET, HEAD",
                    Refusal::Version => "505 HTTP Version Not Supported",
                };
                return refuse(&mut output, status, true, false);
            }
        }
    }
    Ok(())
}

/// The next request's header, without the empty line; `None`: there is no more.
fn read_head(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut bytes = input.bytes();
    while head.len() < HEAD {
        match bytes.next().transpose()? {
            Some(byte) => head.push(byte),
            None => return Ok(None),
        }
        // Empty lines before a request are overlooked.
        if head == b"\r\n" {
            head.clear();
        }
        if head.ends_with(b"\r\n\r\n") {
            head.truncate(head.len() - 4);
            return Ok(Some(head));
        }
    }
    Err(io::Error::other("a header without end"))
}

/// Says no, in a line of text.
fn refuse(output: &mut impl Write, status: &str, close: bool, head: bool) -> io::Result<()> {
    let words = status.split("\r\n").next().unwrap_or_default();
    let connection = if close { "close" } else { "keep-alive" };
    write!(
        output,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{}",
        words.len(),
        if head { "" } else { words }
    )?;
    output.flush()
}

/// Sends a file, or a part of it.
fn answer(output: &mut impl Write, site: &Site, request: &Request) -> io::Result<()> {
    let Some((path, mut file)) = site.find(&request.path).and_then(|path| File::open(&path).ok().map(|file| (path, file))) else {
        return refuse(output, "404 Not Found", request.close, request.head);
    };
    let about = file.metadata()?;
    let (length, tag) = (about.len(), tag(&about));
    let (status, first, count, range) = match request.part(length, &tag) {
        _ if request.knows(&tag) => ("304 Not Modified", 0, 0, String::new()),
        Part::Whole => ("200 OK", 0, length, String::new()),
        Part::Range(first, last) => {
            ("206 Partial Content", first, last - first + 1, format!("Content-Range: bytes {first}-{last}/{length}\r\n"))
        }
        Part::Outside => {
            let status = format!("416 Range Not Satisfiable\r\nContent-Range: bytes */{length}");
            return refuse(output, &status, request.close, request.head);
        }
    };
    let size = if status.starts_with("304") { String::new() } else { format!("Content-Length: {count}\r\n") };
    // Browsers ask each time whether a file has changed: one that is built anew is seen at once.
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\n{size}{range}Accept-Ranges: bytes\r\nETag: {tag}\r\nCache-Control: no-cache\r\n\
         Connection: {}\r\n\r\n",
        media_type(&path),
        if request.close { "close" } else { "keep-alive" }
    );
    output.write_all(head.as_bytes())?;
    if !request.head && count > 0 {
        file.seek(SeekFrom::Start(first))?;
        send(output, &mut file, count)?;
    }
    output.flush()
}

fn send(output: &mut impl Write, file: &mut File, mut left: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        let read = file.read(&mut block[..wanted])?;
        if read == 0 {
            // Its length was promised: only an end of the connection can say that there is no more.
            return Err(io::Error::other("the file was cut short"));
        }
        output.write_all(&block[..read])?;
        left -= read as u64;
    }
    Ok(())
}

/// A file's tag: its length and when it was written.
fn tag(about: &fs::Metadata) -> String {
    let written = about.modified().ok().and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    format!("\"{:x}-{:x}\"", about.len(), written.as_nanos())
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
