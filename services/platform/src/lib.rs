//! MiniShop platform.
