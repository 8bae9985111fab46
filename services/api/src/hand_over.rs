//! How the API's writers report their commits.

use std::sync::Arc;

use minishop_platform::ctx::Commits;
use minishop_store::OutboxRow;

/// A commit, as reported.
#[derive(Debug)]
pub enum Committed {
    /// These rows are committed: the database confirmed it.
    Rows(Vec<OutboxRow>),
    /// A connection was lost: rows may be committed under unknown numbers.
    InDoubt,
}

/// Reports a commit.
pub type HandOver = Arc<dyn Fn(Committed) + Send + Sync>;

/// Returns the callback that passes commits to `commits`.
pub fn to_commits(commits: Commits) -> HandOver {
    Arc::new(move |committed| match committed {
        Committed::Rows(rows) => commits.report(rows),
        Committed::InDoubt => commits.verify(),
    })
}
