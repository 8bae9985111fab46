//! Stands between a process and PostgreSQL, and cuts a connection between a commit and its answer.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// How the server ends an answer outside a transaction: what was asked for is committed.
const IDLE: &[u8] = b"Z\0\0\0\x05I";

/// Forwards until the test's process ends.
#[derive(Debug, Clone)]
pub struct Proxy {
    address: String,
    /// What the next statement whose answer is lost carries.
    mark: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Proxy {
    /// Listens on a free port and forwards to `server`.
    pub fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { address: listener.local_addr().unwrap().to_string(), mark: Arc::default() };
        let (serving, server) = (proxy.clone(), server.to_owned());
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                // Only then it is refused, as by the server itself.
                if let Ok(far) = TcpStream::connect(&server) {
                    serving.carry(near, far);
                }
            }
        });
        proxy
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Loses the answer to the next commit of a transaction with a statement that carries `mark`.
    pub fn lose_answer(&self, mark: &str) {
        *self.mark.lock().unwrap() = Some(mark.as_bytes().to_vec());
    }

    /// Whether it has lost it.
    pub fn has_lost_it(&self) -> bool {
        self.mark.lock().unwrap().is_none()
    }

    fn carry(&self, mut near: TcpStream, mut far: TcpStream) {
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
        }
        let (mut asks, mut answers) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let marked = Arc::new(AtomicBool::new(false));
        let (proxy, noted) = (self.clone(), marked.clone());
        std::thread::spawn(move || {
            pass_on(&mut asks, &mut far, |asked| {
                let mark = proxy.mark.lock().unwrap();
                if mark.as_deref().is_some_and(|mark| asked.windows(mark.len()).any(|part| part == mark)) {
                    noted.store(true, Ordering::SeqCst);
                }
                true
            });
        });
        let proxy = self.clone();
        std::thread::spawn(move || {
            pass_on(&mut answers, &mut near, |answer| {
                let lost = marked.load(Ordering::SeqCst) && answer.ends_with(IDLE);
                if lost {
                    *proxy.mark.lock().unwrap() = None;
                }
                !lost
            });
        });
    }
}

/// Passes on what `look` lets pass, until one side has ended; then both have.
fn pass_on(from: &mut TcpStream, to: &mut TcpStream, mut look: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !look(&buffer[..length]) || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
