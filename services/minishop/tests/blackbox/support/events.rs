//! Server-sent events, as a browser reads them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// A server that sends nothing for this long, not even a comment, is gone.
const SILENCE: Duration = Duration::from_secs(30);

/// An open stream.
pub struct Events(BufReader<TcpStream>);

impl Events {
    /// Watches an order from after version `seen`. Over HTTP/1.0 the body is not chunked.
    pub fn open(addr: &str, order: &str, seen: Option<i64>) -> Self {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        let token = seen.map_or_else(String::new, |seen| format!("last-event-id: {seen}\r\n"));
        write!(stream, "GET /orders/{order}/events HTTP/1.0\r\nhost: {addr}\r\n{token}\r\n").unwrap();
        let mut events = Self(BufReader::new(stream));
        let status = events.line().unwrap();
        assert!(status.contains(" 200 "), "{status}");
        while !events.line().unwrap().is_empty() {}
        events
    }

    /// Waits for the next version and status of the order; `None` if the stream has ended or was cut.
    pub fn next(&mut self) -> Option<(i64, String)> {
        loop {
            let line = self.line()?;
            let Some(id) = line.strip_prefix("id: ") else { continue };
            assert_eq!(self.line()?, "event: order");
            let order: Value = serde_json::from_str(self.line()?.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(order["version"].to_string(), id);
            return Some((id.parse().unwrap(), order["status"].as_str().unwrap().to_owned()));
        }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(1..) => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }
}
