//! MiniShop core.
