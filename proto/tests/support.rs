//! Shared by several tests.

use minishop_core::violation::Violation;

/// The valid order that tests change into invalid ones.
pub const BASE: &str = r#"{"customerId":"c1","items":[{"productId":"p1","qty":2,"price":10.5}]}"#;

/// Formats violations as `field CODE`, sorted: they are compared as a set.
pub fn listed(violations: &[Violation]) -> Vec<String> {
    let mut list: Vec<_> = violations.iter().map(|v| format!("{} {}", v.json_field(), v.code.as_str())).collect();
    list.sort();
    list
}

/// Sorts expectations as [`listed`] does.
pub fn expected(list: &[&str]) -> Vec<String> {
    let mut list: Vec<_> = list.iter().map(|line| (*line).to_owned()).collect();
    list.sort();
    list
}
