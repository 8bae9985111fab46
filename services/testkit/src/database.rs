//! A database that no other test uses, and direct access to it.

mod access;
mod sessions;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minishop_core::clock::Clock;
use minishop_store::error::OpenError;
use minishop_store::postgres::{self, PostgresSettings};
use minishop_store::{Store, sqlite};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::blocking::block_on;
use crate::fresh_name;
use crate::servers::server;
use access::Connection;
pub use access::Held;

/// Which database a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A file.
    Sqlite,
    /// On the server in `MINISHOP_TEST_POSTGRES`.
    Postgres,
}

impl Engine {
    /// Returns whether there is a server for it; `false` only if that is permitted.
    pub fn is_here(self) -> bool {
        self == Self::Sqlite || server("MINISHOP_TEST_POSTGRES").is_some()
    }
}

/// A handle on a database. The database goes with its last handle, also when the test fails.
#[derive(Debug, Clone)]
pub struct Database {
    place: Place,
    keep: Arc<Keep>,
}

#[derive(Debug, Clone)]
enum Place {
    File(PathBuf),
    Url(String),
}

#[derive(Debug)]
enum Keep {
    /// A file below a directory of the test.
    Nothing,
    Directory {
        _dir: tempfile::TempDir,
    },
    OnServer {
        server: String,
        name: String,
    },
}

/// The settings of stores on PostgreSQL.
pub fn settings(migrate: bool) -> PostgresSettings {
    PostgresSettings { app_name: "minishop-test".to_owned(), migrate }
}

impl Database {
    /// Creates an empty database; `None` if there is no server and that is permitted.
    pub async fn fresh(engine: Engine) -> Option<Self> {
        match engine {
            Engine::Sqlite => Some(Self::sqlite()),
            Engine::Postgres => Some(Self::on(server("MINISHOP_TEST_POSTGRES")?).await),
        }
    }

    /// Creates the place of a file.
    pub fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { place: Place::File(dir.path().join("minishop.db")), keep: Arc::new(Keep::Directory { _dir: dir }) }
    }

    /// Returns a handle on a file that others have made and will remove.
    pub fn of(file: &Path) -> Self {
        Self { place: Place::File(file.to_owned()), keep: Arc::new(Keep::Nothing) }
    }

    /// Creates an empty database on a server.
    pub async fn on(server: String) -> Self {
        let name = fresh_name("test");
        Connection::server(&server).await.run(&format!("CREATE DATABASE {name}")).await;
        let place = Place::Url(format!("{}/{name}", server.rsplit_once('/').expect("a URL with a database").0));
        Self { place, keep: Arc::new(Keep::OnServer { server, name }) }
    }

    /// Returns the same database by the address of a proxy before its server.
    #[must_use]
    pub fn behind(&self, proxy: SocketAddr) -> Self {
        let (before, after) = self.url().rsplit_once('@').expect("a user");
        let name = after.split_once('/').expect("a database").1;
        Self { place: Place::Url(format!("{before}@{proxy}/{name}")), keep: self.keep.clone() }
    }

    /// Returns whether it is on a server, as in the distributed mode.
    pub fn is_distributed(&self) -> bool {
        matches!(self.place, Place::Url(_))
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        match &self.place {
            Place::File(path) => path,
            Place::Url(_) => panic!("a database on a server is not a file"),
        }
    }

    /// Returns the URL on the server.
    pub fn url(&self) -> &str {
        match &self.place {
            Place::File(_) => panic!("a file has no URL"),
            Place::Url(url) => url,
        }
    }

    /// Returns the name on the server.
    pub fn name(&self) -> &str {
        self.url().rsplit_once('/').expect("a URL with a database").1
    }

    /// Returns host and port of the server.
    pub fn server(&self) -> &str {
        let before = self.url().rsplit_once('/').expect("a URL with a database").0;
        before.rsplit_once(['@', '/']).expect("a host").1
    }

    /// Returns where another process finds it: a file's path, or a URL. [`open`] takes either.
    pub fn address(&self) -> &str {
        match &self.place {
            Place::File(path) => path.to_str().expect("UTF-8"),
            Place::Url(url) => url,
        }
    }

    /// Opens the store. On a server its clock is the server's.
    pub async fn open(&self, clock: Arc<dyn Clock>, migrate: bool) -> Result<Store, OpenError> {
        open(self.address(), clock, migrate).await
    }
}

/// Opens the store at a file's path or a URL, as another process does.
pub async fn open(address: &str, clock: Arc<dyn Clock>, migrate: bool) -> Result<Store, OpenError> {
    if address.starts_with("postgres://") {
        return postgres::connect(address, &settings(migrate)).await;
    }
    sqlite::open(address.as_ref(), clock, migrate).await
}

impl Drop for Keep {
    fn drop(&mut self) {
        let Self::OnServer { server, name } = self else { return };
        let drop_it = async {
            let mut connection = PgConnection::connect(server).await?;
            sqlx::raw_sql(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).execute(&mut connection).await
        };
        // A thread of its own, because a runtime cannot be started inside another one.
        let dropped = std::thread::scope(|scope| scope.spawn(|| block_on(drop_it)).join());
        // A server of the test's own may be gone.
        if !dropped.is_ok_and(|outcome| outcome.is_ok()) {
            eprintln!("the database {name} is left behind");
        }
    }
}
