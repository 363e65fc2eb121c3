//! `appliance.toml` → a validated [`Appliance`].
mod appliance;
mod container;
mod errors;

pub use appliance::*;
pub use container::*;
pub use errors::{Error, Errors};

/// Reads a declaration.
pub fn parse(file_name: &str, text: &str) -> Result<Appliance, Errors> {
    let _ = text;
    Err(Errors { file: file_name.to_owned(), source: String::new(), errors: Vec::new(), omitted: 0 })
}

/// Reads a declaration from a file's bytes.
pub fn parse_bytes(file_name: &str, bytes: &[u8]) -> Result<Appliance, Errors> {
    parse(file_name, &String::from_utf8_lossy(bytes))
}

/// The JSON Schema.
pub fn json_schema() -> serde_json::Value {
    serde_json::Value::Null
}
