//! `appliance.toml` → a validated [`Appliance`].
//!
//! [`parse`] reads a declaration and finds everything that is wrong with it at once, each with its line, its column and the
//! fix; [`json_schema`] describes the file to editors. Key names and the syntax of values are Compose's wherever the meaning
//! is the same. Nothing here touches a file, the network or the system.
//!
//! ```
//! let appliance = garboard_config::parse(
//!     "appliance.toml",
//!     r#"
//!         name = "hello"
//!         [containers.web]
//!         image = "images/nginx:1.27"
//!         network_mode = "host"
//!         ports = [80]
//!         restart = "always"
//!     "#,
//! )
//! .unwrap();
//! assert_eq!(appliance.containers[0].ports[0].number, 80);
//!
//! let errors = garboard_config::parse("appliance.toml", "nmae = \"hello\"").unwrap_err();
//! assert!(errors.to_string().contains("did you mean `name`?"));
//! ```

mod appliance;
mod check;
mod container;
mod errors;
mod keys;
mod later;
mod mistakes;
mod problems;
mod read;
mod supervision;
mod syntax;

pub use appliance::*;
pub use container::*;
pub use errors::{Error, Errors, Place};
pub use later::{Fault, place};
pub use supervision::{HealthCheck, HealthTest, OnFailure, Supervision};

use problems::Problems;
use read::{Shape, Table};

/// No declaration is larger, in bytes. (4,096 containers of a dozen lines each fit.)
pub const MAX_SIZE: usize = 1 << 20;
/// No line is longer, in bytes: a person has to find the error in it.
pub const MAX_LINE: usize = 64 << 10;

/// Reads a declaration. `file_name` is only for messages.
pub fn parse(file_name: &str, text: &str) -> Result<Appliance, Errors> {
    // The byte order mark that some editors write means nothing in UTF-8.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut problems = Problems::new();
    if let Some((span, message)) = too_large(text) {
        problems.error(&span, message);
        return Err(problems.into_errors(file_name, text.get(..span.end).unwrap_or_default()));
    }
    let (table, mistakes) = toml::de::DeTable::parse_recoverable(text);
    mistakes::report(text, &mistakes, &mut problems);
    let first = problems.count();
    let keys = keys::ApplianceKeys::read_table(table.get_ref(), &mut problems);
    if !mistakes.is_empty() {
        // What couldn't be read can't be missed or clash either, so only what stands in the file is told.
        problems.drop_echoes(text, first);
        return Err(problems.into_errors(file_name, text));
    }
    let appliance = check::appliance(keys, &mut problems);
    if problems.is_empty() { Ok(appliance) } else { Err(problems.into_errors(file_name, text)) }
}

/// Reads a declaration from a file's bytes, which may be anything.
pub fn parse_bytes(file_name: &str, bytes: &[u8]) -> Result<Appliance, Errors> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(file_name, text),
        Err(error) => {
            let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to().min(MAX_SIZE)]).into_owned();
            let end = valid.len();
            let mut problems = Problems::new();
            problems
                .error(&(end..end), "the file isn't text in UTF-8: it holds other bytes from here on")
                .help("save it as UTF-8 in your editor, or check that it is the file you meant");
            Err(problems.into_errors(file_name, &valid))
        }
    }
}

/// The JSON Schema (draft 2020-12) of a declaration: for editors, and for programs that write one.
pub fn json_schema() -> serde_json::Value {
    let mut schema = keys::ApplianceKeys::schema();
    if let Some(object) = schema.as_object_mut() {
        object.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        object.insert("title".into(), "appliance.toml".into());
        object
            .insert("description".into(), "A Garboard appliance: containers, and the machine that they run on.".into());
    }
    schema
}

/// Where and why a declaration is too large to be read.
fn too_large(text: &str) -> Option<(problems::Span, String)> {
    if text.len() > MAX_SIZE {
        return Some((0..0, format!("the file has {} bytes; a declaration has at most {MAX_SIZE}", text.len())));
    }
    let mut start = 0;
    for line in text.split('\n') {
        if line.len() > MAX_LINE {
            return Some((start..start, format!("the line has {} bytes; the most is {MAX_LINE}", line.len())));
        }
        start += line.len() + 1;
    }
    None
}
