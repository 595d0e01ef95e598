#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use super::*;

/// A site of three files in a folder of its own, and the address that serves it.
fn site(name: &str) -> std::net::SocketAddr {
    let folder = crate::target_dir().join("tmp/xtask-serve").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("site/sub")).unwrap();
    fs::create_dir_all(folder.join("other")).unwrap();
    fs::write(folder.join("site/index.html"), "<!doctype html>").unwrap();
    fs::write(folder.join("site/sub/a.wasm"), "0123456789").unwrap();
    fs::write(folder.join("other/big file.gguf"), vec![7; 3 * BLOCK + 1]).unwrap();
    fs::write(folder.join("secret.txt"), "secret").unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let site = Site { root: folder.join("site"), folders: vec![folder.join("site/sub"), folder.join("other")] };
    thread::spawn(move || serve(&listener, site));
    address
}

/// What is answered to requests on one connection, until the server ends it.
fn ask(address: std::net::SocketAddr, requests: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(requests.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn get(address: std::net::SocketAddr, path: &str, headers: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n"))
}

#[test]
fn files_and_their_parts_are_sent() {
    let address = site("parts");
    let whole = get(address, "/sub/a.wasm", "");
    assert!(whole.starts_with("HTTP/1.1 200 OK\r\n") && whole.ends_with("\r\n\r\n0123456789"), "{whole}");
    for header in ["Content-Type: application/wasm", "Content-Length: 10", "Accept-Ranges: bytes"] {
        assert!(whole.contains(&format!("\r\n{header}\r\n")), "{whole}");
    }
    let tag = whole.split("ETag: ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned();

    let part = get(address, "/sub/a.wasm", &format!("Range: bytes=2-4\r\nIf-Range: {tag}\r\n"));
    assert!(part.starts_with("HTTP/1.1 206 ") && part.ends_with("\r\n\r\n234"), "{part}");
    assert!(part.contains("\r\nContent-Range: bytes 2-4/10\r\n") && part.contains("\r\nContent-Length: 3\r\n"), "{part}");
    assert!(get(address, "/sub/a.wasm", "Range: bytes=2-4\r\nIf-Range: \"older\"\r\n").ends_with("\r\n\r\n0123456789"));

    let outside = get(address, "/sub/a.wasm", "Range: bytes=10-\r\n");
    assert!(outside.starts_with("HTTP/1.1 416 ") && outside.contains("\r\nContent-Range: bytes */10\r\n"), "{outside}");
    let known = get(address, "/sub/a.wasm", &format!("If-None-Match: {tag}\r\n"));
    assert!(known.starts_with("HTTP/1.1 304 ") && known.ends_with("\r\n\r\n"), "{known}");
}

#[test]
fn one_connection_serves_several_requests() {
    let address = site("several");
    let said = ask(
        address,
        "HEAD / HTTP/1.1\r\nHost: x\r\n\r\nGET /missing HTTP/1.1\r\n\r\n\
         GET /?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(said.matches("<!doctype html>").count(), 1, "{said}");
    assert_eq!(
        said.matches("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 15\r\n").count(),
        2,
        "{said}"
    );
    assert_eq!(said.matches("HTTP/1.1 404 Not Found\r\n").count(), 1, "{said}");
}

#[test]
fn other_folders_are_under_files() {
    let address = site("others");
    assert!(get(address, "/files/a.wasm", "").ends_with("0123456789"));
    let big = get(address, "/files/big%20file.gguf", "");
    assert!(big.contains(&format!("\r\nContent-Length: {}\r\n", 3 * BLOCK + 1)), "{big:.300}");
    assert_eq!(big.bytes().filter(|&b| b == 7).count(), 3 * BLOCK + 1);
    assert!(get(address, "/big%20file.gguf", "").starts_with("HTTP/1.1 404 "));
}

#[test]
fn nothing_else_is_served() {
    let address = site("else");
    for path in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/sub/../../secret.txt",
        "/files/../secret.txt",
        "/files//etc/hostname",
        "/sub",
        "/sub/",
    ] {
        let said = get(address, path, "");
        assert!(said.starts_with("HTTP/1.1 404 ") && !said.contains("secret"), "{path}: {said}");
    }
    assert!(ask(address, "DELETE / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(ask(address, "hello\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert_eq!(ask(address, &"x".repeat(HEAD)), "", "a header without end ends the connection");
}

#[test]
fn options_are_read() {
    let serve = |port, build, folders: &[&str]| Serve { port, build, folders: folders.iter().map(PathBuf::from).collect() };
    assert_eq!(Serve::parse(&["--serve"]), Ok(serve(PORT, true, &[])));
    assert_eq!(Serve::parse(&["--serve", "0", "--dir", "a", "--no-build", "--dir", "b"]), Ok(serve(0, false, &["a", "b"])));
    assert_eq!(Serve::parse(&["--serve", "--dir", "a"]), Ok(serve(PORT, true, &["a"])));
    for wrong in [&["--serve", "x"][..], &["--serve", "65536"], &["--dir", "a"], &["--serve", "--dir"], &["--else"]] {
        assert!(Serve::parse(wrong).is_err(), "{wrong:?}");
    }
}
