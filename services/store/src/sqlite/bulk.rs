//! Inserts of many rows in few statements: each statement is a hop to the connection's thread.

/// One insert in four sizes, so that any number of rows needs few statements and few prepared plans.
#[derive(Debug)]
pub(super) struct Bulk {
    texts: [(usize, String); 4],
}

impl Bulk {
    /// Joins `head`, one `row` of placeholders per row, and `tail`.
    pub(super) fn new(head: &str, row: &str, tail: &str) -> Self {
        let text = |rows: usize| (rows, format!("{head} VALUES {} {tail}", vec![row; rows].join(", ")));
        Self { texts: [text(64), text(16), text(4), text(1)] }
    }

    /// Cuts rows, in their order, into chunks for which there is a statement.
    pub(super) fn chunks<'r, T>(&'static self, mut rows: &'r [T]) -> impl Iterator<Item = (&'static str, &'r [T])> {
        std::iter::from_fn(move || {
            let (size, sql) = self.texts.iter().find(|(size, _)| *size <= rows.len())?;
            let (chunk, rest) = rows.split_at(*size);
            rows = rest;
            Some((sql.as_str(), chunk))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    static BULK: LazyLock<Bulk> = LazyLock::new(|| Bulk::new("INSERT INTO t (a)", "(?)", "RETURNING a"));

    #[test]
    fn every_row_is_in_one_chunk_and_in_its_place() {
        for count in [0, 1, 3, 4, 63, 64, 65, 255, 256] {
            let rows: Vec<usize> = (0..count).collect();
            let mut seen = Vec::new();
            for (sql, chunk) in BULK.chunks(&rows) {
                assert_eq!(sql.matches("(?)").count(), chunk.len());
                seen.extend_from_slice(chunk);
            }
            assert_eq!(seen, rows);
        }
    }
}
