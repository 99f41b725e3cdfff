//! As much of HTTP as a request to a node takes.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A node on this machine that takes longer counts as silent.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);

/// An answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Sends `GET path` to an address.
pub(crate) fn get(at: SocketAddrV4, path: &str) -> Result<Response> {
    ask("GET", at, path, "", TIMEOUT)
}

/// Sends a request by any method, with a JSON body unless `body` is empty, and waits `limit` at most.
pub(crate) fn ask(method: &str, at: SocketAddrV4, path: &str, body: &str, limit: Duration) -> Result<Response> {
    let doing = || format!("{method} http://{at}{path}");
    let head = format!("{method} {path} HTTP/1.0\r\nHost: {at}\r\n");
    let length = body.len();
    let request = match length {
        0 => format!("{head}\r\n"),
        _ => format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"),
    };
    let answer = exchange(at, &request, limit).with_context(doing)?;
    // An answer to HEAD names the length of a body that is not sent.
    parse(&answer, method != "HEAD").with_context(doing)
}

/// HTTP/1.0, because its answers are never chunked and end with the connection.
fn exchange(at: SocketAddrV4, request: &str, limit: Duration) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&at.into(), TIMEOUT)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn parse(answer: &[u8], whole: bool) -> Result<Response> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        bail!("the answer ended within its head: {text:?}");
    };
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.parse().ok())
        .with_context(|| format!("the answer does not begin like HTTP: {first:?}"))?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if whole && length.is_some_and(|length| body.len() < length) {
        bail!("the answer ended within its body");
    }
    Ok(Response { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn an_answer_is_asked_for_and_read() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 14];
            stream.read_exact(&mut asked).unwrap();
            stream.write_all(b"HTTP/1.0 530 \r\ncontent-length: 2\r\n\r\n{}").unwrap();
            // Reading on until the client is done: closing with its head unread would reset the connection.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
            asked
        });
        assert_eq!(get(at, "/is-leader").unwrap(), Response { status: 530, body: "{}".into() });
        assert_eq!(&server.join().unwrap(), b"GET /is-leader");
    }

    #[test]
    fn a_port_where_nobody_listens_is_named() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let error = format!("{:#}", get(SocketAddrV4::new(Ipv4Addr::LOCALHOST, free), "/map").unwrap_err());
        assert!(error.starts_with(&format!("GET http://127.0.0.1:{free}/map: Connection refused")), "{error}");
    }

    #[test]
    fn answers_that_are_cut_short_are_refused() {
        for (answer, expected) in [
            ("", "ended within its head"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", "ended within its body"),
            ("SSH-2.0\r\n\r\n", "does not begin like HTTP"),
        ] {
            let error = parse(answer.as_bytes(), true).unwrap_err().to_string();
            assert!(error.contains(expected), "{answer:?}: {error}");
        }
    }
}
