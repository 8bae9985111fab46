//! Converts protobuf names to Rust paths.

use prost_reflect::{EnumDescriptor, MessageDescriptor};

/// Returns the Rust path of a message: `crate::orders::v1::Order`.
pub fn message(message: &MessageDescriptor) -> String {
    path(message.package_name(), message.full_name())
}

/// Returns the Rust path of an enum: `crate::orders::v1::order::Status`.
pub fn enumeration(enumeration: &EnumDescriptor) -> String {
    path(enumeration.package_name(), enumeration.full_name())
}

/// Returns whether a package is ours.
pub fn is_ours(package: &str) -> bool {
    package.starts_with("minishop.")
}

fn path(package: &str, full_name: &str) -> String {
    let package = package.strip_prefix("minishop.").expect("one of our packages");
    let name = &full_name["minishop.".len() + package.len() + 1..];
    let mut parts: Vec<String> = name.split('.').map(str::to_owned).collect();
    let last = parts.pop().expect("a name has a last part");
    let outer: String = parts.iter().map(|outer| snake(outer) + "::").collect();
    format!("crate::{}::{outer}{last}", package.replace('.', "::"))
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.char_indices() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
