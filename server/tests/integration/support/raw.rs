//! HTTP by hand, for what no client sends.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::WAIT_DEADLINE;

/// What came back. The status is None if the connection was closed without one.
#[derive(Debug)]
pub struct Raw {
    pub status: Option<u16>,
    pub body: String,
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(WAIT_DEADLINE)).unwrap();
    stream.set_write_timeout(Some(WAIT_DEADLINE)).unwrap();
    stream
}

/// The head of a request after which the connection ends, with more `headers`, each with its line's end.
pub fn head(method: &str, target: &str, headers: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

/// Sends `bytes`, and reads the answer to its end.
pub fn exchange(port: u16, bytes: &[u8]) -> Raw {
    let mut stream = connect(port);
    // It may be answered, and closed, before all of it is sent.
    let _ = stream.write_all(bytes);
    answer(&mut stream)
}

/// Reads an answer to the end of the connection.
pub fn answer(stream: &mut TcpStream) -> Raw {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => {
                panic!("no answer within {WAIT_DEADLINE:?}: {error}; {:.300}", String::from_utf8_lossy(&bytes))
            }
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let text = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&text);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Raw { status, body: if chunked { unchunked(body) } else { body.into() } }
}

fn unchunked(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size).filter(|chunk| !chunk.is_empty()) else { break };
        body.push_str(chunk);
        text = rest.get(size + 2..).unwrap_or_default();
    }
    body
}
