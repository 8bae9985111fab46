//! A PostgreSQL server with a full disk: a tablespace on a small file system in memory, which only root can mount.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use minishop_store::StoreError;
use minishop_testkit::database::Engine;
use minishop_testkit::rows::{order, orders};

use crate::support::{Fixture, on};

/// A small file system; unmounted with the test.
struct Disk(tempfile::TempDir);

impl Disk {
    /// Mounts one that the server may use; `None` if mounting is not allowed.
    fn mount() -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("minishop-full").tempdir_in("/var/tmp").unwrap();
        let mounted = run("mount", &["-t", "tmpfs", "-o", "size=48m,mode=755", "none", dir.path().to_str().unwrap()]);
        mounted.then(|| Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills the file system.
    fn fill(&self) {
        let mut filler = std::fs::File::create(self.path().join("filler")).unwrap();
        let full = std::io::copy(&mut std::io::repeat(0), &mut filler).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn empty(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l", self.path().to_str().unwrap()]);
    }
}

fn run(program: &str, words: &[&str]) -> bool {
    Command::new(program).args(words).status().is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_room_for_orders_takes_no_writes_until_there_is_some() {
    if !std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
        eprintln!("not root: no small disk can be mounted");
        return;
    }
    let Some(disk) = Disk::mount() else { return eprintln!("no small disk can be mounted here") };
    on(Engine::Postgres, async |f: Fixture| {
        let name = f.name();
        let owner = std::fs::create_dir(disk.path().join("server")).is_ok()
            && run("chown", &["postgres", &format!("{}/server", disk.path().display())]);
        assert!(owner, "the server owns its directory");
        let tablespace = format!("small_{name}");
        f.administer(&format!("CREATE TABLESPACE {tablespace} LOCATION '{}/server'", disk.path().display())).await;
        f.administer(&format!("ALTER DATABASE {name} SET TABLESPACE {tablespace}")).await;

        f.store.orders.ping().await.unwrap();
        let mut intake = f.store.orders.intake().await.unwrap();
        intake.accept(&[order("a", "first")]).await.unwrap();
        disk.fill();
        // Free space in existing pages is used first.
        let mut refused = None;
        for n in 0..100 {
            if let Err(error) = intake.accept(&orders(&format!("client-{n}"), 0..200)).await {
                refused = Some(error);
                break;
            }
        }
        assert!(matches!(refused, Some(StoreError::Retry { .. })), "nothing was written, and it passes: {refused:?}");
        for _ in 0..2 {
            let ping = f.store.orders.ping().await;
            assert!(matches!(ping, Err(StoreError::Retry { .. })), "there is no room: {ping:?}");
        }
        disk.empty();
        f.store.orders.ping().await.unwrap();
        assert_eq!(intake.accept(&orders("after", 0..200)).await.unwrap().len(), 200);
        // Only an empty tablespace can be dropped, and only a database that nobody uses can be moved out of it.
        f.cut_stores().await;
        f.left_alone().await;
        f.administer(&format!("ALTER DATABASE {name} SET TABLESPACE pg_default")).await;
        f.administer(&format!("DROP TABLESPACE {tablespace}")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_only_reads_takes_no_writes() {
    on(Engine::Postgres, async |f: Fixture| {
        let name = f.name();
        f.sql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
        let store = f.open_again(false).await.unwrap();
        assert!(matches!(store.orders.ping().await, Err(StoreError::Retry { .. })));
    })
    .await;
}
