//! A client of server-sent events.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::Api;

/// Longer than a stream may be silent.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An open stream.
pub struct Stream {
    stream: TcpStream,
    text: String,
}

impl Stream {
    /// Sends a request over HTTP/1.0, whose bodies are not chunked, and reads the head.
    pub async fn open(api: &Api, path: &str, headers: &str) -> (String, Self) {
        let mut stream = TcpStream::connect(api.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut events = Self { stream, text: String::new() };
        let head = events.until("\r\n\r\n").await.expect("a head");
        (head, events)
    }

    /// Reads one event, line by line; `None` at the end of the stream.
    pub async fn lines(&mut self) -> Option<Vec<String>> {
        let block = self.until("\n\n").await?;
        Some(block.trim_end().lines().map(str::to_owned).collect())
    }

    async fn until(&mut self, mark: &str) -> Option<String> {
        loop {
            if let Some(at) = self.text.find(mark) {
                let rest = self.text.split_off(at + mark.len());
                return Some(std::mem::replace(&mut self.text, rest));
            }
            let mut bytes = [0; 4096];
            let n = timeout(PATIENCE, self.stream.read(&mut bytes)).await.expect("something comes").unwrap();
            if n == 0 {
                assert_eq!(self.text, "", "the stream ends behind an event");
                return None;
            }
            self.text.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        }
    }
}
