//! What texts may contain: the rules behind `minishop.rules.v1` and the named patterns.

use std::fmt::Write as _;

/// Maximum number of characters of a client's text that a response repeats.
const SHOWN: usize = 64;

/// Returns whether a character is hidden: control, zero-width, bidirectional or another format character.
pub const fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{0}'..='\u{1F}'
            | '\u{7F}'..='\u{9F}'
            | '\u{AD}'
            | '\u{61C}'
            | '\u{180E}'
            | '\u{200B}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{FEFF}'
            | '\u{FFF9}'..='\u{FFFB}'
            | '\u{E0000}'..='\u{E007F}'
    )
}

/// Returns whether a text contains a hidden character.
pub fn has_hidden(text: &str) -> bool {
    let plain = text.bytes().all(|b| matches!(b, 0x20..=0x7E));
    !plain && text.chars().any(is_hidden)
}

/// Returns whether a text begins or ends with white space of any script.
pub fn has_outer_space(text: &str) -> bool {
    text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace)
}

/// Returns whether a text has more than `limit` characters (Unicode scalar values).
pub fn is_longer_than(text: &str, limit: usize) -> bool {
    // A character takes at least one byte, so most texts need no count.
    text.len() > limit && text.chars().count() > limit
}

/// Returns whether a text has the form of a currency code, three capitals. `core` decides which codes exist.
pub fn is_currency_form(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())
}

/// Returns whether a text is a digest of 32 bytes: 64 hexadecimal digits in lower case.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Prepares a client's text for repetition: at most 64 characters, hidden ones escaped.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(SHOWN));
    for c in text.chars().take(SHOWN) {
        if is_hidden(c) {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_the_listed_ones() {
        let listed = [
            (0x00, 0x1F),
            (0x7F, 0x9F),
            (0xAD, 0xAD),
            (0x61C, 0x61C),
            (0x180E, 0x180E),
            (0x200B, 0x200F),
            (0x2028, 0x202E),
            (0x2060, 0x206F),
            (0xFEFF, 0xFEFF),
            (0xFFF9, 0xFFFB),
            (0xE0000, 0xE007F),
        ];
        for code in 0..=0x10_FFFF_u32 {
            let Some(c) = char::from_u32(code) else {
                continue;
            };
            let expected = listed.iter().any(|&(from, to)| (from..=to).contains(&code));
            assert_eq!(is_hidden(c), expected, "U+{code:04X}");
            assert_eq!(has_hidden(&format!("a{c}b")), expected, "U+{code:04X}");
        }
    }

    #[test]
    fn length_counts_characters_not_bytes() {
        assert!(!is_longer_than(&"🦀".repeat(128), 128));
        assert!(is_longer_than(&"🦀".repeat(129), 128));
        assert!(is_longer_than(&"a".repeat(129), 128));
    }

    #[test]
    fn a_repeated_text_is_short_and_shows_what_is_hidden() {
        assert_eq!(shown("a\nb\u{202E}"), "a\\u{a}b\\u{202e}");
        assert_eq!(shown(&"é".repeat(100)).chars().count(), 64);
    }
}
