//! A small HTTP client for one server.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use minishop_platform::boot::refuse;
use serde_json::Value;

use crate::cli::{EXIT_NO, EXIT_UNREACHABLE};
use crate::output::Output;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a command asks, and how it prints the answer.
#[derive(Debug, clap::Args)]
pub struct Server {
    /// REST address of the server, as http://host:port.
    #[arg(long, global = true, env = "MINISHOP_SERVER", default_value = "http://127.0.0.1:3000")]
    server: String,
    /// Output format.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

impl Server {
    /// Runs a command with a client. An invalid address ends it like a wrong command line.
    pub async fn ask(&self, command: impl AsyncFnOnce(&Client) -> Result<ExitCode, Failure>) -> ExitCode {
        match Client::new(&self.server) {
            Ok(client) => command(&client).await.unwrap_or_else(Failure::print),
            Err(problem) => refuse(&[problem]),
        }
    }
}

/// A client of one server.
pub struct Client {
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    server: String,
}

/// Why there is no answer to print.
#[derive(Debug)]
pub enum Failure {
    /// The server refused: its status and problem document; null if the body is not JSON.
    Refused(StatusCode, Value),
    /// The server cannot be reached or is silent.
    Unreachable(String),
}

impl Failure {
    /// Prints the failure; exit 1 for a refusal, 69 if there is no answer.
    pub fn print(self) -> ExitCode {
        eprintln!("{self}");
        ExitCode::from(if matches!(self, Self::Refused(..)) { EXIT_NO } else { EXIT_UNREACHABLE })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "error[UNREACHABLE] {why}"),
            Self::Refused(status, problem) => {
                let code = problem["code"].as_str().unwrap_or(status.as_str());
                write!(f, "error[{code}] {}", problem["detail"].as_str().unwrap_or("the server refused the request"))?;
                for error in problem["errors"].as_array().into_iter().flatten() {
                    let part = |name| error[name].as_str().unwrap_or_default();
                    write!(f, "\n  {} {}: {}", part("field"), part("code"), part("message"))?;
                }
                Ok(())
            }
        }
    }
}

impl Client {
    /// Creates a client of an address such as `http://127.0.0.1:3000`; the error is worded for the command line.
    fn new(server: &str) -> Result<Self, String> {
        let sound = server.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
        if !sound {
            return Err("error[CONFIG_VALUE] --server: is not a valid address; give one such as http://127.0.0.1:3000".to_owned());
        }
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { http, server: server.trim_end_matches('/').to_owned() })
    }

    /// Reads a resource.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(self.request(Method::GET, path), Bytes::new()).await
    }

    /// Sends a command, under an idempotency key if there is one.
    pub async fn post(&self, path: &str, body: &Value, key: Option<&str>) -> Result<Value, Failure> {
        let mut request = self.request(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header(minishop_contracts::headers::http::IDEMPOTENCY_KEY, key);
        }
        self.send(request, Bytes::from(body.to_string())).await
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("{}{path}", self.server))
    }

    /// Opens a stream of server-sent events after the event `last`; `None` when nothing can follow it.
    pub async fn events(&self, path: &str, last: Option<&str>) -> Result<Option<Incoming>, Failure> {
        let mut request = self.request(Method::GET, path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = self.patiently(self.ask(request, Bytes::new())).await?;
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(None),
            StatusCode::OK => Ok(Some(answer.into_body())),
            status => Err(Failure::Refused(status, self.patiently(self.read(answer.into_body())).await?)),
        }
    }

    /// Reads up to `limit` entries of a list, page by page. `query` is empty or begins with `&`; `member` names the entries.
    pub async fn pages(&self, path: &str, query: &str, member: &str, limit: usize) -> Result<Value, Failure> {
        let (mut rows, mut token) = (Vec::new(), String::new());
        while rows.len() < limit {
            let size = (limit - rows.len()).min(500);
            let mut page = self.get(&format!("{path}?pageSize={size}{query}&pageToken={}", encoded(&token))).await?;
            rows.extend(page[member].as_array_mut().map(std::mem::take).unwrap_or_default());
            page["nextPageToken"].as_str().unwrap_or_default().clone_into(&mut token);
            if token.is_empty() {
                break;
            }
        }
        Ok(Value::Array(rows))
    }

    async fn send(&self, request: http::request::Builder, body: Bytes) -> Result<Value, Failure> {
        let exchange = async {
            let answer = self.ask(request, body).await?;
            Ok((answer.status(), self.read(answer.into_body()).await?))
        };
        let (status, value) = self.patiently(exchange).await?;
        if status.is_success() { Ok(value) } else { Err(Failure::Refused(status, value)) }
    }

    async fn ask(&self, request: http::request::Builder, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let request = request.body(Full::new(body)).map_err(|error| self.unreachable(&error))?;
        self.http.request(request).await.map_err(|error| self.unreachable(&error))
    }

    async fn read(&self, body: Incoming) -> Result<Value, Failure> {
        let body = body.collect().await.map_err(|error| self.unreachable(&error))?.to_bytes();
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn patiently<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::time::timeout(PATIENCE, work).await.map_err(|_| self.unreachable(&"no answer within 10 s"))?
    }

    fn unreachable(&self, why: &dyn fmt::Display) -> Failure {
        Failure::Unreachable(format!("{}: {why}", self.server))
    }
}

/// Escapes a value for a path segment or a query.
pub fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
