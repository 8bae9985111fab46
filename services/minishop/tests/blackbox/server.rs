//! One running `minishop up`, and the smallest HTTP client that can talk to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A process of the real binary; ended with the test.
pub struct Server {
    child: Child,
    ready: String,
}

fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minishop"));
    command.arg("up").arg("--data-dir").arg(data_dir.join("data")).args(["--drain-wait", "0ms"]);
    for listener in ["--http-addr", "--grpc-addr", "--admin-addr", "--kafka-addr"] {
        command.args([listener, "127.0.0.1:0"]);
    }
    // Settings of whoever runs the tests must not reach the server.
    command.env_clear();
    // The group's members are forgotten by a restart of the log; a short session keeps a killed one from being waited for.
    command.env("MINISHOP_KAFKA_SESSION_TIMEOUT", "6s");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Server {
    /// Starts all roles and waits for the ready line.
    pub fn up(data_dir: &Path) -> Self {
        let mut command = command(data_dir);
        command.stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("ready "), "the first line is {ready:?}");
        Self { child, ready }
    }

    /// Starts a process that is expected to refuse, and waits for its end.
    pub fn refused(data_dir: &Path) -> Output {
        command(data_dir).output().unwrap()
    }

    /// Reads an address of the ready line.
    pub fn addr(&self, name: &str) -> &str {
        let wanted = format!("{name}=");
        self.ready.split_whitespace().find_map(|part| part.strip_prefix(&wanted)).unwrap()
    }

    /// Tells the process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the process to end and returns its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        assert!(Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer.
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
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
    call(addr, &format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n")).unwrap()
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
