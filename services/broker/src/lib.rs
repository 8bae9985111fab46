//! MiniShop broker.
