//! Writes the REST routes from the `google.api.http` options.

use std::fmt::Write as _;

use prost_reflect::{DescriptorPool, DynamicMessage, Value};

/// Writes the table of all routes, in the order of the protos.
pub fn generate(pool: &DescriptorPool) -> String {
    let option = pool.get_extension_by_name("google.api.http").expect("google/api/annotations.proto is imported");
    let mut out = String::from("&[\n");
    for method in pool.services().flat_map(|s| s.methods().collect::<Vec<_>>()) {
        let options = method.options();
        assert!(options.has_extension(&option), "{} has no google.api.http option", method.full_name());
        let Value::Message(rule) = options.get_extension(&option).into_owned() else {
            panic!("{}: google.api.http is a message", method.full_name())
        };
        let (verb, path) = verb_and_path(method.full_name(), &rule);
        let rpc = format!("/{}/{}", method.parent_service().full_name(), method.name());
        writeln!(out, "    crate::Route {{ method: {verb:?}, path: {path:?}, rpc: {rpc:?} }},")
            .expect("a String takes every text");
    }
    out + "]\n"
}

fn verb_and_path(method: &str, rule: &DynamicMessage) -> (&'static str, String) {
    let mut found = None;
    for (field, value) in rule.fields() {
        match (field.name(), value) {
            ("get", Value::String(path)) => found = Some(("GET", path.clone())),
            ("post", Value::String(path)) => found = Some(("POST", path.clone())),
            ("body", Value::String(body)) => {
                assert_eq!(body, "*", "{method}: the body is the whole request");
            }
            (name, _) => {
                panic!("{method}: google.api.http {name} is not known to proto/codegen/routes.rs")
            }
        }
    }
    found.unwrap_or_else(|| panic!("{method}: google.api.http names no path"))
}
