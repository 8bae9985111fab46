//! Orders over REST.

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use minishop_contracts::headers::http::IDEMPOTENCY_KEY;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::connection::Answer;

/// One HTTP/1.1 connection.
#[derive(Debug)]
pub struct Rest {
    send: SendRequest<Full<Bytes>>,
    host: String,
    /// Moves the connection's bytes; ends with it.
    _driver: JoinSet<()>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    order_id: Uuid,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

impl Rest {
    /// Connects to a host:port.
    pub async fn open(address: &str) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("cannot reach {address}; check that it is running"))?;
        stream.set_nodelay(true)?;
        let (send, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        // A failed connection fails the request that uses it.
        driver.spawn(async { drop(connection.await) });
        Ok(Self { send, host: address.to_owned(), _driver: driver })
    }

    /// Sends one order.
    pub async fn order(&mut self, customer: &str, key: &str) -> anyhow::Result<Answer> {
        let body = format!(r#"{{"customerId":"{customer}","items":[{{"productId":"p1","qty":2,"price":10.5}}]}}"#);
        let request = Request::post("/orders")
            .header("host", &self.host)
            .header("content-type", "application/json")
            .header(IDEMPOTENCY_KEY, key)
            .body(Full::new(Bytes::from(body)))?;
        let (status, body) = self.exchange(request).await?;
        read(status, &body)
    }

    /// Reads a resource as text.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<String> {
        let request = Request::get(path).header("host", &self.host).body(Full::new(Bytes::new()))?;
        let (status, body) = self.exchange(request).await?;
        anyhow::ensure!(status.is_success(), "{}{path} answered {status}", self.host);
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
        let answer = self.send.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }
}

fn read(status: StatusCode, body: &[u8]) -> anyhow::Result<Answer> {
    if status == StatusCode::CREATED {
        return Ok(Answer::Accepted(serde_json::from_slice::<Created>(body)?.order_id));
    }
    let code = serde_json::from_slice::<Problem>(body).map(|problem| format!(" {}", problem.code)).unwrap_or_default();
    Ok(Answer::Refused(format!("{}{code}", status.as_u16())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_an_order_or_a_refusal_with_its_code() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let accepted = read(StatusCode::CREATED, format!(r#"{{"orderId":"{id}"}}"#).as_bytes()).unwrap();
        assert_eq!(accepted, Answer::Accepted(id.parse().unwrap()));
        let refused = |status, body: &[u8]| match read(status, body).unwrap() {
            Answer::Refused(code) => code,
            Answer::Accepted(id) => panic!("accepted {id}"),
        };
        assert_eq!(refused(StatusCode::SERVICE_UNAVAILABLE, br#"{"code":"OVERLOADED"}"#), "503 OVERLOADED");
        assert_eq!(refused(StatusCode::BAD_GATEWAY, b"<html>"), "502");
        assert!(read(StatusCode::CREATED, b"{}").is_err(), "an order without its id");
    }
}
