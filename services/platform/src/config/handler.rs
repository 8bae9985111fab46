//! How orders are handled: confirmed at once, or by calling a webhook.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Arg;
use http::Uri;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use super::entries::{Secret, optional, setting};
use super::setting::{Entry, Given, Settings, settings};
use super::values::{self, whole};
use crate::outbound::Targets;

settings! {
    /// The settings of [`Handling`].
    struct HandlingSettings {
        /// How orders are processed: confirm (no external call) or webhook (your endpoint is called).
        handler: bool = setting("MINISHOP_HANDLER", "NAME", "confirm", is_webhook)
            .shown_as(|is_webhook| if *is_webhook { "webhook" } else { "confirm" }.into());
        /// HTTP or HTTPS URL of the endpoint that fulfils orders; each event is posted to it.
        webhook_url: Option<Uri> = optional("MINISHOP_WEBHOOK_URL", "URL", endpoint).private();
        /// Secret that signs each call (Standard Webhooks): `whsec_` followed by the base64 of 24 to 64 bytes.
        webhook_secret: Option<SecretSlice<u8>> = Secret {
            variable: "MINISHOP_WEBHOOK_SECRET",
            value_name: "SECRET",
            file_help: "File with that secret, instead of the secret itself; must not be readable by others",
            read: |secret| key(&secret),
        };
        /// Timeout of a call, until the whole response is read, 100ms to 5m.
        webhook_timeout: Duration = setting("MINISHOP_WEBHOOK_TIMEOUT", "DURATION", "10s", timeout);
        /// Maximum number of calls in flight, 1 to 256; calls of one record key run one at a time.
        webhook_concurrency: usize = setting("MINISHOP_WEBHOOK_CONCURRENCY", "NUMBER", "32", |text| whole(text, 1..=256));
        /// Addresses that may be called: any, or public (only the public internet).
        webhook_targets: Targets = setting("MINISHOP_WEBHOOK_TARGETS", "WHICH", "any", targets);
    }
}

/// How orders are handled.
#[derive(Debug, Clone)]
pub enum Handling {
    /// Confirmed, without any call.
    Confirm,
    /// An endpoint is called for each order.
    Webhook(Webhook),
}

/// The endpoint that fulfils orders.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub url: Uri,
    /// The signing key, decoded.
    pub key: SecretSlice<u8>,
    /// The timeout of a call, until the whole response is read.
    pub timeout: Duration,
    /// The most concurrent calls.
    pub concurrency: usize,
    /// Which addresses may be called.
    pub targets: Targets,
}

/// The entry of [`Handling`].
pub(super) struct HandlingEntry;

impl Entry for HandlingEntry {
    type Value = Handling;

    fn args(&self, _: &str, _: &str) -> Vec<Arg> {
        HandlingSettings::args()
    }

    /// Without the webhook handler, webhook settings are checked but not used.
    fn read(&self, given: &mut Given) -> Handling {
        let read = HandlingSettings::read(given);
        let found = &mut given.problems;
        if read.handler && read.webhook_url.is_none() && !found.concern("MINISHOP_WEBHOOK_URL") {
            found.add("CONFIG_VALUE", "MINISHOP_WEBHOOK_URL", "is not set; give the URL that the webhook handler calls");
        }
        if read.handler && read.webhook_secret.is_none() && !found.concern("MINISHOP_WEBHOOK_SECRET") {
            found.add("CONFIG_VALUE", "MINISHOP_WEBHOOK_SECRET", "is not set; give the secret that signs each call");
        }
        if let (true, Some(url), Some(key)) = (read.handler, read.webhook_url, read.webhook_secret) {
            let (timeout, concurrency, targets) = (read.webhook_timeout, read.webhook_concurrency, read.webhook_targets);
            return Handling::Webhook(Webhook { url, key, timeout, concurrency, targets });
        }
        given.lines.retain(|(key, _)| !key.starts_with("webhook_"));
        Handling::Confirm
    }
}

impl Handling {
    /// Returns the handler's name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Webhook(_) => "webhook",
        }
    }

    /// Returns the endpoint's settings.
    pub const fn webhook(&self) -> Option<&Webhook> {
        match self {
            Self::Confirm => None,
            Self::Webhook(webhook) => Some(webhook),
        }
    }
}

fn is_webhook(text: &str) -> Result<bool, String> {
    match text {
        "confirm" => Ok(false),
        "webhook" => Ok(true),
        _ => Err("is not a valid handler; give confirm or webhook".to_owned()),
    }
}

fn targets(text: &str) -> Result<Targets, String> {
    match text {
        "any" => Ok(Targets::Any),
        "public" => Ok(Targets::Public),
        _ => Err("is not valid; give any or public".to_owned()),
    }
}

/// Bounded, because the lease of a claimed event is the timeout plus half a minute.
fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = values::duration(text)?;
    let fits = (Duration::from_millis(100)..=Duration::from_mins(5)).contains(&timeout);
    if fits { Ok(timeout) } else { Err("is out of range; give 100ms to 5m".to_owned()) }
}

fn endpoint(text: &str) -> Result<Uri, String> {
    const FORM: &str = "give http://host:port/path or https://host/path";
    let uri: Uri = text.parse().map_err(|_| format!("is not a valid URL; {FORM}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(format!("is neither http nor https; {FORM}"));
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err("has a user or password; remove it, calls are authenticated by their signature".to_owned())
        }
        Some(authority) if !authority.host().is_empty() => Ok(uri),
        _ => Err(format!("has no host; {FORM}")),
    }
}

/// Decodes the secret (Standard Webhooks: 24 to 64 random bytes).
fn key(secret: &SecretString) -> Result<SecretSlice<u8>, String> {
    const FORM: &str =
        "is not whsec_ followed by the base64 of 24 to 64 bytes; create one with: echo whsec_$(openssl rand -base64 32)";
    let coded = secret.expose_secret().strip_prefix("whsec_").ok_or_else(|| FORM.to_owned())?;
    let key = STANDARD.decode(coded).map_err(|_| FORM.to_owned())?;
    if (24..=64).contains(&key.len()) { Ok(key.into()) } else { Err(FORM.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_http_and_holds_no_password() {
        for good in ["http://127.0.0.1:8000/orders", "https://shop.example/hooks?x=1", "http://[::1]:1"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in ["ftp://x", "x", "/orders", "http://", "https://user:hunter2@h/", "http://user@h/", "", "http:///x"] {
            let problem = endpoint(bad).expect_err(bad);
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn a_secret_is_24_to_64_bytes_in_base64() {
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        assert_eq!(key(&of(24).into()).map(|key| key.expose_secret().to_vec()), Ok(vec![7; 24]));
        for bad in [of(23), of(65), STANDARD.encode([7; 32]), "whsec_%%%".to_owned(), "whsec_".to_owned()] {
            assert!(key(&bad.clone().into()).is_err(), "{bad}");
        }
        assert!(key(&of(64).into()).is_ok());
    }
}
