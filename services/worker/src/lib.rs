//! MiniShop worker.
