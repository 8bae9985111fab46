//! Signatures as in Standard Webhooks 1.0: HMAC-SHA256 over id, time and body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;

/// The message id: equal in every attempt.
pub(super) const ID: &str = "webhook-id";
/// The time of the call, in seconds since 1970.
pub(super) const TIMESTAMP: &str = "webhook-timestamp";
/// `v1,` and the signature.
pub(super) const SIGNATURE: &str = "webhook-signature";

/// Signs calls with one key.
#[derive(Debug)]
pub(super) struct Signer(SecretSlice<u8>);

impl Signer {
    pub fn new(key: SecretSlice<u8>) -> Self {
        Self(key)
    }

    /// Signs one call.
    pub fn sign(&self, id: &str, at: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).expect("a key of any length");
        mac.update(format!("{id}.{at}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_library_makes_the_same_signature() {
        let key = vec![9; 32];
        let theirs = standardwebhooks::Webhook::from_bytes(key.clone()).expect("a key");
        let body = "{\"data\":\"žluťoučký\"}";
        let expected = theirs.sign("event-1", 1_700_000_000, body.as_bytes()).expect("signed");
        assert_eq!(Signer::new(key.into()).sign("event-1", 1_700_000_000, body.as_bytes()), expected);
    }
}
