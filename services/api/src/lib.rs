//! MiniShop api.
