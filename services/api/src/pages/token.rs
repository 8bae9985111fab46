//! Page tokens: a position in a list, bound to that list by a checksum.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// The bytes of the checksum in a token.
const CHECK: usize = 16;
/// The first byte of a token, so that the format can change.
const VERSION: u8 = 1;

/// The list that a token belongs to, as the digest of its name, the client and every filter.
#[derive(Debug, Clone)]
pub struct List(Sha256);

impl List {
    /// Digests the parts of a list's name.
    pub fn new(parts: &[&str]) -> Self {
        let mut hash = Sha256::new_with_prefix(b"minishop.page.v1");
        for part in parts {
            add(&mut hash, part.as_bytes());
        }
        Self(hash)
    }

    /// Encodes a position.
    pub fn token(&self, place: &[u8]) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(place);
        bytes.extend_from_slice(&self.check(place));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Decodes a token; `None` if it is malformed, was changed, or belongs to another list.
    pub fn place<const N: usize>(&self, token: &str) -> Option<[u8; N]> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (place, check) = bytes.strip_prefix(&[VERSION])?.split_at_checked(N)?;
        (check == self.check(place)).then(|| place.try_into().ok()).flatten()
    }

    fn check(&self, place: &[u8]) -> [u8; CHECK] {
        let mut hash = self.0.clone();
        add(&mut hash, place);
        let mut check = [0; CHECK];
        check.copy_from_slice(&hash.finalize()[..CHECK]);
        check
    }
}

/// Adds a part with its length, so that no two lists of parts share a digest.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_in_its_own_list_only() {
        let list = List::new(&["orders", "anonymous", "c1", "created"]);
        let token = list.token(&[7; 16]);
        assert!(token.len() <= 512);
        assert_eq!(list.place(&token), Some([7; 16]));
        for other in [
            List::new(&["orders", "b", "c1", "created"]),
            List::new(&["orders", "anonymous", "c1", ""]),
            List::new(&["orders", "anonymousc1", "", "created"]),
            List::new(&["dead-letters", "anonymous", "c1", "created"]),
        ] {
            assert_eq!(other.place::<16>(&token), None, "{other:?}");
        }
    }

    #[test]
    fn a_token_with_any_character_changed_is_no_token() {
        let list = List::new(&["orders", "a", "", ""]);
        for place in [&[9u8; 16][..], &[9; 8]] {
            let token = list.token(place);
            for at in 0..token.len() {
                for other in ['A', 'B', '_', '=', '!'] {
                    let mut changed: Vec<char> = token.chars().collect();
                    if changed[at] != other {
                        changed[at] = other;
                        let changed: String = changed.into_iter().collect();
                        assert_eq!((list.place::<16>(&changed), list.place::<8>(&changed)), (None, None), "{changed}");
                    }
                }
            }
        }
        for other in ["", "garbage!", "AQ", &"A".repeat(600)] {
            assert_eq!(list.place::<16>(other), None);
        }
    }
}
