//! Record headers, and their encoding in the stores.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The usual size of the headers that differ from record to record.
const ROOM: usize = 384;

/// The headers of a record: ordered, possibly repeated, values possibly null or not UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, Option<Bytes>)>);

impl Headers {
    /// Appends a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.0.push((name.to_owned(), Some(Bytes::copy_from_slice(value.as_ref()))));
        self
    }

    /// Returns the first header of a name as UTF-8; `None` when it is absent, null or not UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).and_then(|(_, v)| std::str::from_utf8(v.as_deref()?).ok())
    }

    /// Encodes the count, then length-prefixed names and values (big-endian; −1 is a null value).
    pub fn encode(&self) -> Bytes {
        let mut writer = HeaderWriter::default();
        for (name, value) in &self.0 {
            writer.put_or_null(name, value.as_deref());
        }
        writer.finish()
    }

    /// Decodes the output of [`Headers::encode`]; `None` for other bytes.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut headers = Vec::new();
        visit(bytes, |name, value| headers.push((name.to_owned(), value.map(|value| bytes.slice_ref(value)))))?;
        Some(Self(headers))
    }
}

/// Calls `each` with the headers that [`Headers::encode`] has encoded, without copying them; `None` for other bytes.
pub(crate) fn visit<'b>(mut bytes: &'b [u8], mut each: impl FnMut(&'b str, Option<&'b [u8]>)) -> Option<()> {
    for _ in 0..bytes.try_get_u32().ok()? {
        let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
        let name = std::str::from_utf8(bytes.split_off(..length)?).ok()?;
        let value = match bytes.try_get_i32().ok()? {
            -1 => None,
            length => Some(bytes.split_off(..usize::try_from(length).ok()?)?),
        };
        each(name, value);
    }
    bytes.is_empty().then_some(())
}

/// Writes the encoding of [`Headers::encode`] directly. Put the constant headers into one writer and clone it for each record.
#[derive(Debug, Default)]
pub struct HeaderWriter {
    count: usize,
    out: BytesMut,
}

impl Clone for HeaderWriter {
    /// Copies what is written, with room for the headers of one record.
    fn clone(&self) -> Self {
        let mut out = BytesMut::with_capacity(self.out.len() + ROOM);
        out.put_slice(&self.out);
        Self { count: self.count, out }
    }
}

impl HeaderWriter {
    /// Appends a header.
    pub fn put(&mut self, name: &str, value: &[u8]) {
        self.put_or_null(name, Some(value));
    }

    /// Appends a header whose value may be null.
    pub fn put_or_null(&mut self, name: &str, value: Option<&[u8]>) {
        if self.count == 0 {
            // Room for the count, which is known only at the end.
            self.out.put_u32(0);
        }
        self.count += 1;
        self.out.put_u32(length(name.len()));
        self.out.put_slice(name.as_bytes());
        match value {
            None => self.out.put_i32(-1),
            Some(value) => {
                self.out.put_u32(length(value.len()));
                self.out.put_slice(value);
            }
        }
    }

    /// Returns the encoded bytes.
    pub fn finish(mut self) -> Bytes {
        if self.count == 0 {
            self.out.put_u32(0);
        }
        self.out[..4].copy_from_slice(&length(self.count).to_be_bytes());
        self.out.freeze()
    }
}

fn length(n: usize) -> u32 {
    u32::try_from(n).expect("headers are far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_writer_and_the_list_make_the_same_bytes() {
        assert_eq!(HeaderWriter::default().finish(), Headers::default().encode());
        let mut constant = HeaderWriter::default();
        constant.put("a", b"1");
        let mut record = constant.clone();
        record.put("b", "\u{e9}".as_bytes());
        assert_eq!(record.finish(), Headers::default().with("a", "1").with("b", "\u{e9}").encode());
        assert_eq!(constant.finish(), Headers::default().with("a", "1").encode());
    }

    proptest! {
        #[test]
        fn headers_survive_the_store(list in prop::collection::vec((".{0,12}", prop::option::of(prop::collection::vec(any::<u8>(), 0..20))), 0..8)) {
            let headers = Headers(list.into_iter().map(|(n, v)| (n, v.map(Bytes::from))).collect());
            prop_assert_eq!(Headers::decode(&headers.encode()), Some(headers));
        }

        #[test]
        fn other_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Headers::decode(&Bytes::from(bytes));
        }
    }
}
