//! How orders are handled: confirmed at once, or by calling a webhook.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use super::check::Problems;
use super::values;
use crate::outbound::Targets;

/// The settings of handling, as texts.
#[derive(Debug, Clone, clap::Args)]
pub struct HandlerFlags {
    /// How orders are processed: confirm (no external call) or webhook (your endpoint is called).
    #[arg(long, global = true, env = "MINISHOP_HANDLER", value_name = "NAME", default_value = "confirm")]
    handler: String,
    /// HTTP or HTTPS URL of the endpoint that fulfils orders; each event is posted to it.
    #[arg(long, global = true, env = "MINISHOP_WEBHOOK_URL", value_name = "URL")]
    webhook_url: Option<String>,
    /// Secret that signs each call (Standard Webhooks): `whsec_` followed by the base64 of 24 to 64 bytes.
    #[arg(long, global = true, env = "MINISHOP_WEBHOOK_SECRET", hide_env_values = true, value_name = "SECRET", value_parser = values::secret)]
    webhook_secret: Option<SecretString>,
    /// File with that secret, instead of the secret itself; must not be readable by others.
    #[arg(long, global = true, env = "MINISHOP_WEBHOOK_SECRET_FILE", value_name = "FILE")]
    webhook_secret_file: Option<PathBuf>,
    /// Timeout of a call, until the whole response is read, 100ms to 5m.
    #[arg(long, global = true, env = "MINISHOP_WEBHOOK_TIMEOUT", value_name = "DURATION", default_value = "10s")]
    webhook_timeout: String,
    /// Maximum number of calls in flight, 1 to 256; calls of one record key run one at a time.
    #[arg(long, global = true, env = "MINISHOP_WEBHOOK_CONCURRENCY", value_name = "NUMBER", default_value = "32")]
    webhook_concurrency: String,
    /// Addresses that may be called: any, or public (only the public internet).
    #[arg(long, global = true, env = "MINISHOP_WEBHOOK_TARGETS", value_name = "WHICH", default_value = "any")]
    webhook_targets: String,
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
    /// Where events are posted.
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

impl HandlerFlags {
    /// Joins the settings. Without the webhook handler, webhook settings are checked but not used.
    pub(super) fn check(self, found: &mut Problems) -> Handling {
        let webhook = found.read("MINISHOP_HANDLER", &self.handler, false, is_webhook);
        let url = self.webhook_url.filter(|url| !url.is_empty());
        if webhook && url.is_none() {
            found.add("CONFIG_VALUE", "MINISHOP_WEBHOOK_URL", "is not set; give the URL that the webhook handler calls");
        }
        // The part before an @ could be a password, so no part of the address is repeated.
        let url = url
            .and_then(|url| endpoint(&url).map_err(|problem| found.add("CONFIG_VALUE", "MINISHOP_WEBHOOK_URL", &problem)).ok());
        let named = self.webhook_secret.is_some() || self.webhook_secret_file.is_some();
        let secret = found.secret("MINISHOP_WEBHOOK_SECRET", self.webhook_secret, self.webhook_secret_file.as_deref());
        if webhook && !named {
            found.add("CONFIG_VALUE", "MINISHOP_WEBHOOK_SECRET", "is not set; give the secret that signs each call");
        }
        let key = secret.and_then(|secret| {
            key(&secret).map_err(|problem| found.add("CONFIG_VALUE", "MINISHOP_WEBHOOK_SECRET", problem)).ok()
        });
        let timeout = found.read("MINISHOP_WEBHOOK_TIMEOUT", &self.webhook_timeout, Duration::from_secs(10), timeout);
        let concurrency = found.read("MINISHOP_WEBHOOK_CONCURRENCY", &self.webhook_concurrency, 1, |text| {
            values::whole(text, 1..=256).and_then(|number| usize::try_from(number).map_err(|error| error.to_string()))
        });
        let targets = found.read("MINISHOP_WEBHOOK_TARGETS", &self.webhook_targets, Targets::Any, targets);
        match (webhook, url, key) {
            (true, Some(url), Some(key)) => Handling::Webhook(Webhook { url, key, timeout, concurrency, targets }),
            _ => Handling::Confirm,
        }
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
fn key(secret: &SecretString) -> Result<SecretSlice<u8>, &'static str> {
    const FORM: &str =
        "is not whsec_ followed by the base64 of 24 to 64 bytes; create one with: echo whsec_$(openssl rand -base64 32)";
    let coded = secret.expose_secret().strip_prefix("whsec_").ok_or(FORM)?;
    let key = STANDARD.decode(coded).map_err(|_| FORM)?;
    if (24..=64).contains(&key.len()) { Ok(key.into()) } else { Err(FORM) }
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
