//! A minimal HTTP client for other processes. Blocks.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A server that is silent for this long will not answer any more.
const SILENCE: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// Its body, which is text.
    pub body: String,
}

impl Answer {
    /// Reads a header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Gets a path.
pub fn get(addr: &str, path: &str) -> Answer {
    try_get(addr, path).unwrap()
}

/// Gets a path from a server that may be gone.
pub fn try_get(addr: &str, path: &str) -> std::io::Result<Answer> {
    call(addr, &format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n"))
}

/// Posts a JSON body.
pub fn post(addr: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    try_post(addr, path, headers, body).unwrap()
}

/// Posts a JSON body to a server that may be gone.
pub fn try_post(addr: &str, path: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<Answer> {
    let lines: String = headers.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
    let length = body.len();
    call(
        addr,
        &format!(
            "POST {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{lines}\r\n{body}"
        ),
    )
}

fn call(addr: &str, request: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).collect();
    let whole = headers.iter().find(|(n, _)| n == "content-length").is_none_or(|(_, length)| length.parse() == Ok(body.len()));
    match status {
        Some(status) if whole => Ok(Answer { status, headers, body: body.to_owned() }),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}
