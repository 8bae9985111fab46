//! What MiniShop's tests share. Only ever a dev-dependency, and only of integration tests: the unit tests of a crate below it
//! would see that crate twice.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod blocking;
#[cfg(feature = "store")]
pub mod bouncer;
#[cfg(feature = "platform")]
pub mod ctx;
#[cfg(feature = "store")]
pub mod database;
pub mod forward;
#[cfg(feature = "store")]
pub mod fresh_store;
#[cfg(feature = "platform")]
pub mod lines;
#[cfg(feature = "log")]
pub mod log;
#[cfg(feature = "store")]
pub mod lot;
#[cfg(feature = "platform")]
pub mod metrics;
pub mod process;
#[cfg(feature = "platform")]
pub mod rebuilt;
pub mod rest;
#[cfg(feature = "store")]
pub mod rows;
pub mod servers;
#[cfg(feature = "platform")]
pub mod spans;
#[cfg(feature = "platform")]
pub mod topics;
pub mod wait;

/// Returns a name that no other test has, of lower-case letters, digits and underscores.
pub fn fresh_name(what: &str) -> String {
    format!("{what}_{:016x}", rand::random::<u64>())
}

/// Returns a prefix of topics that no other test has.
pub fn fresh_prefix(what: &str) -> String {
    fresh_name(what) + "."
}

/// Spawns work that ends with the test's runtime.
#[expect(clippy::disallowed_methods, reason = "tests play boot's part")]
pub fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}

/// Makes two tests of each function, one per store: `$on` runs it with an [`Engine`](database::Engine).
#[cfg(feature = "store")]
#[macro_export]
macro_rules! on_both_stores {
    ($on:path; $($room:ident: $($sentence:ident)+;)+) => {
        mod sqlite {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    $on($crate::database::Engine::Sqlite, super::$room::$sentence).await;
                }
            )+)+
        }
        mod postgres {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    $on($crate::database::Engine::Postgres, super::$room::$sentence).await;
                }
            )+)+
        }
    };
}
