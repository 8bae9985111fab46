//! Generates Rust from the protos: types and services (prost, tonic), canonical JSON (pbjson); our own generators write the
//! validators, the `Shape` tables for strict JSON, and the REST routes. Nothing else is generated; `protoc` is not needed.

#[path = "proto/codegen/names.rs"]
mod names;
#[path = "proto/codegen/routes.rs"]
mod routes;
#[path = "proto/codegen/rules.rs"]
mod rules;
#[path = "proto/codegen/shapes.rs"]
mod shapes;
#[path = "proto/codegen/validate.rs"]
mod validate;

use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const FILES: [&str; 3] =
    ["minishop/orders/v1/orders.proto", "minishop/ops/v1/operations.proto", "minishop/events/v1/events.proto"];

fn main() -> Result<()> {
    for input in ["build.rs", "proto/codegen", "proto/minishop", "proto/third_party"] {
        println!("cargo:rerun-if-changed={input}");
    }
    #[expect(clippy::disallowed_methods, reason = "how Cargo tells a build script where to write")]
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto", "proto/third_party"])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;

    let pool = compiler.descriptor_pool();
    let descriptors = compiler.encode_file_descriptor_set();
    types(&compiler)?;
    json(&descriptors, &out)?;
    fs::write(out.join("validators.rs"), validate::generate(&pool))?;
    fs::write(out.join("shapes.rs"), shapes::generate(&pool))?;
    fs::write(out.join("routes.rs"), routes::generate(&pool))?;
    let descriptors = without_foreign_comments(&pool, &descriptors)?;
    fs::write(out.join("descriptors.bin"), descriptors)?;
    Ok(())
}

/// Drops the comments of other projects' files, which are nine tenths of the descriptors.
fn without_foreign_comments(pool: &DescriptorPool, descriptors: &[u8]) -> Result<Vec<u8>> {
    let set = pool
        .get_message_by_name("google.protobuf.FileDescriptorSet")
        .ok_or("google/protobuf/descriptor.proto is not imported")?;
    let mut set = DynamicMessage::decode(set, descriptors)?;
    let Some(Value::List(files)) = set.get_field_by_name_mut("file") else {
        return Err("a FileDescriptorSet has no list of files".into());
    };
    for file in files {
        let Value::Message(file) = file else { continue };
        let package = file.get_field_by_name("package");
        let ours = package.is_some_and(|p| p.as_str().is_some_and(names::is_ours));
        if !ours {
            file.clear_field_by_name("source_code_info");
        }
    }
    Ok(set.encode_to_vec())
}

/// Writes the messages and services.
fn types(compiler: &protox::Compiler) -> Result<()> {
    let mut files = compiler.file_descriptor_set();
    // Rust needs no messages of the option protos, but prost-build requires google.protobuf.
    files.file.retain(|f| f.package().starts_with("minishop.") || f.package() == "google.protobuf");
    let mut config = prost_build::Config::new();
    // Ordered maps: equal messages encode to equal bytes.
    config.btree_map(["."]);
    config.compile_well_known_types().extern_path(".google.protobuf", "crate::wkt");
    tonic_prost_build::configure().compile_fds_with_config(files, config)?;
    Ok(())
}

/// Writes canonical proto3 JSON: commands strict, events tolerant, every field printed (zeros and empty lists too).
fn json(descriptors: &[u8], out: &Path) -> Result<()> {
    let mut strict = pbjson_build::Builder::new();
    strict.register_descriptors(descriptors)?.emit_fields().btree_map(["."]);
    strict.build(&[".minishop.orders", ".minishop.ops"])?;

    let mut tolerant = pbjson_build::Builder::new();
    tolerant.register_descriptors(descriptors)?.emit_fields().ignore_unknown_fields().ignore_unknown_enum_variants();
    tolerant.build(&[".minishop.events"])?;

    for package in ["orders", "ops", "events"] {
        let path = out.join(format!("minishop.{package}.v1.serde.rs"));
        let code = fs::read_to_string(&path)?;
        fs::write(path, own_numbers(&code)?)?;
    }
    Ok(())
}

/// Replaces pbjson's number reader with ours: pbjson's accepts texts that are not JSON ("+2", "inf", ".5") and buffers every
/// number.
fn own_numbers(code: &str) -> Result<String> {
    let theirs = "::pbjson::private::NumberDeserialize<";
    if !code.contains(theirs) {
        return Err("pbjson-build no longer names NumberDeserialize: see own_numbers in build.rs".into());
    }
    Ok(code.replace(theirs, "crate::json::Number<"))
}
