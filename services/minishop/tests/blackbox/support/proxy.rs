//! A proxy between a process and PostgreSQL that cuts a connection between a commit and its answer.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The end of the server's answer outside a transaction: the request is committed.
const IDLE: &[u8] = b"Z\0\0\0\x05I";

/// Forwards until the test's process ends.
#[derive(Debug, Clone)]
pub struct Proxy {
    address: String,
    /// Identifies the statement whose commit loses its answer next.
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
                // Otherwise `near` is dropped, as by the server itself.
                if let Ok(far) = TcpStream::connect(&server) {
                    serving.carry(near, far);
                }
            }
        });
        proxy
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Loses the answer to the next commit of a transaction that contains a statement with `mark`.
    pub fn lose_answer(&self, mark: &str) {
        *self.mark.lock().unwrap() = Some(mark.as_bytes().to_vec());
    }

    /// Returns whether the answer was lost.
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

/// Forwards what `look` allows until one side ends, then ends both.
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
