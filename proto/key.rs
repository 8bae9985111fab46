//! Record keys and the partitions they map to.

/// The record-key rule: events of one key stay in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventKey {
    /// All orders of a customer share a key.
    #[default]
    Customer,
    /// Each order has its own key.
    Order,
}

impl EventKey {
    /// Parses the setting `customer` or `order`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "customer" => Some(Self::Customer),
            "order" => Some(Self::Order),
            _ => None,
        }
    }

    /// Returns the setting's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Order => "order",
        }
    }

    /// Returns the record key of an event.
    pub const fn pick<'a>(self, customer_id: &'a str, order_id: &'a str) -> &'a str {
        match self {
            Self::Customer => customer_id,
            Self::Order => order_id,
        }
    }
}

/// Returns a key's hash without its sign bit. Its remainders are the partitions that Java's default partitioner and librdkafka's
/// `murmur2` choose, and the shards.
pub fn spread(key: &[u8]) -> u32 {
    murmur2(key) & 0x7FFF_FFFF
}

/// The 32-bit `MurmurHash` 2 with Kafka's seed, as in `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_B28C;
    const M: u32 = 0x5BD1_E995;
    const R: u32 = 24;

    // Keys are far shorter than 4 GiB, and Java's lengths are 32 bits as well.
    #[expect(clippy::cast_possible_truncation, reason = "the reference wraps too")]
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_the_java_client() {
        // The vectors of Kafka's `UtilsTest.testMurmur2`.
        let vectors: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in vectors {
            assert_eq!(murmur2(key).cast_signed(), expected, "{key:?}");
        }
    }

    #[test]
    fn a_partition_is_the_hash_without_sign_counted_off() {
        // murmur2("21") is -973932308, without its sign bit 1173551340.
        assert_eq!(spread(b"21"), 1_173_551_340);
        assert_eq!(spread(b"21") % 8, 4);
    }

    #[test]
    fn the_key_rule_picks_customer_or_order() {
        assert_eq!(EventKey::default().pick("c", "o"), "c");
        assert_eq!(EventKey::parse("order").map(|rule| rule.pick("c", "o")), Some("o"));
        assert_eq!(EventKey::parse("Order"), None);
        assert_eq!(EventKey::Order.as_str(), "order");
    }
}
