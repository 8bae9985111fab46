//! One process of the real binary.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// The process. Dropping it kills it.
pub struct Process {
    child: Child,
    /// Its first line of output, with the addresses.
    pub ready: String,
}

fn command(env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minishop-api"));
    // Settings in the environment of the tests must not reach it.
    command.env_clear().env("MINISHOP_DRAIN_WAIT", "0ms").envs(env.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Process {
    /// Starts it on free ports and waits until it is ready.
    pub fn start(env: &[(&str, &str)]) -> Self {
        let mut command = command(env);
        for listener in ["--http-addr", "--grpc-addr", "--admin-addr"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        Self { child, ready }
    }

    /// Starts it with settings that it must refuse; returns its exit code and standard error.
    pub fn refused(env: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String) {
        let output = command(env).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn addr(&self, name: &str) -> &str {
        let wanted = format!("{name}=");
        self.ready.split_whitespace().find_map(|part| part.strip_prefix(&wanted)).unwrap()
    }

    /// Posts JSON; returns status and body.
    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        let head = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        ask(self.addr("http"), &format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{head}\r\n{body}"))
    }

    /// Reads from the admin listener.
    pub fn admin(&self, path: &str) -> (u16, String) {
        ask(self.addr("admin"), &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    }

    /// Sends SIGTERM; returns the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

fn ask(addr: &str, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
