//! MiniShop.
fn main() {}
