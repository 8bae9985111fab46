//! The endpoint that the webhook handler calls. It has a thread for each connection of the worker.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use uuid::Uuid;

/// The secret with which workers sign in these tests.
pub const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A call that was answered with success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fulfilled {
    pub event: Uuid,
    pub order: Uuid,
    pub customer: String,
}

/// An endpoint that runs until the test's process ends.
#[derive(Debug, Clone)]
pub struct Endpoint {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    refused: HashSet<String>,
    fulfilled: Vec<Fulfilled>,
}

impl Endpoint {
    /// Listens on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Self { address: listener.local_addr().unwrap().to_string(), state: Arc::default() };
        let serving = endpoint.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let endpoint = serving.clone();
                std::thread::spawn(move || endpoint.serve(&stream));
            }
        });
        endpoint
    }

    /// Returns the settings of a worker that calls this endpoint.
    pub fn settings(&self) -> [(&'static str, String); 3] {
        [
            ("MINISHOP_HANDLER", "webhook".to_owned()),
            ("MINISHOP_WEBHOOK_URL", format!("http://{}/orders", self.address)),
            ("MINISHOP_WEBHOOK_SECRET", SECRET.to_owned()),
        ]
    }

    /// Refuses a customer's orders from now on.
    pub fn refuse(&self, customer: &str) {
        self.state.lock().unwrap().refused.insert(customer.to_owned());
    }

    /// Fulfils all customers' orders from now on.
    pub fn fix(&self) {
        self.state.lock().unwrap().refused.clear();
    }

    /// Returns the calls that were answered with success, in their order.
    pub fn fulfilled(&self) -> Vec<Fulfilled> {
        self.state.lock().unwrap().fulfilled.clone()
    }

    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(body) = request(&mut reader) {
            let envelope: Value = serde_json::from_slice(&body).unwrap();
            let id = |value: &Value| value.as_str().unwrap().parse().unwrap();
            let (event, data) = (id(&envelope["eventId"]), &envelope["data"]);
            let customer = data["customerId"].as_str().unwrap().to_owned();
            let mut state = self.state.lock().unwrap();
            let status = if state.refused.contains(&customer) { "422 Unprocessable Content" } else { "204 No Content" };
            if status.starts_with("204") {
                state.fulfilled.push(Fulfilled { event, order: id(&data["orderId"]), customer });
            }
            drop(state);
            let mut stream = stream;
            if write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    }
}

/// Reads the body of the next request; `None` if the connection has ended.
fn request(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
            None if line == "\r\n" => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}
