//! The JSON Schema and the parser say the same.

use std::collections::BTreeSet;

use serde_json::{Value, json};

const FULL: &str = include_str!("../examples/full.toml");

fn to_json(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

/// Every key that the schema describes, as a path: `containers.*.ports[].target`.
fn described(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (key, schema) in properties {
            let path = format!("{path}.{key}");
            described(schema, &path, found);
            found.insert(path);
        }
    }
    if let Some(schema) = schema.get("additionalProperties").filter(|schema| schema.is_object()) {
        described(schema, &format!("{path}.*"), found);
    }
    if let Some(schema) = schema.get("items") {
        described(schema, &format!("{path}[]"), found);
    }
    for schema in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        described(schema, path, found);
    }
}

/// Every key that a document has, in the same notation.
fn used(schema: &Value, value: &Value, path: &str, found: &mut BTreeSet<String>) {
    for schema in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        used(schema, value, path, found);
    }
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                if let Some(schema) = schema.get("properties").and_then(|properties| properties.get(key)) {
                    let path = format!("{path}.{key}");
                    used(schema, value, &path, found);
                    found.insert(path);
                } else if let Some(schema) = schema.get("additionalProperties") {
                    used(schema, value, &format!("{path}.*"), found);
                }
            }
        }
        Value::Array(list) => {
            for value in list {
                used(&schema["items"], value, &format!("{path}[]"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn the_full_example_uses_every_key_and_is_accepted_by_both() {
    let schema = garboard_config::json_schema();
    let document = to_json(FULL);
    if let Err(errors) = garboard_config::parse("full.toml", FULL) {
        panic!("{errors}");
    }
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> =
        validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");

    let (mut all, mut seen) = (BTreeSet::new(), BTreeSet::new());
    described(&schema, "", &mut all);
    used(&schema, &document, "", &mut seen);
    assert!(all.len() > 100, "{}", all.len());
    let unused: Vec<_> = all.difference(&seen).collect();
    assert!(unused.is_empty(), "keys that examples/full.toml doesn't show: {unused:#?}");
}

#[test]
fn the_schema_is_a_schema_and_every_key_has_a_description() {
    fn check(schema: &Value, path: &str) {
        for (key, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let path = format!("{path}.{key}");
            let description = schema["description"].as_str().unwrap_or_default();
            assert!(description.len() > 5, "{path} has no description");
            check(schema, &path);
        }
    }
    let schema = garboard_config::json_schema();
    assert!(jsonschema::meta::is_valid(&schema));
    check(&schema, "");
    check(&schema["properties"]["containers"]["additionalProperties"], "containers.*");
}

#[test]
fn what_the_parser_takes_the_schema_takes_too() {
    let schema = garboard_config::json_schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for keys in ["tmpfs = \"/run:size=1 m,exec\"", "tmpfs = \"/run:size=1.5MiB\"", "mem_limit = \"64 m\""] {
        let text = format!("name = \"demo\"\n[containers.web]\nimage = \"x\"\n{keys}");
        assert!(garboard_config::parse("x.toml", &text).is_ok(), "the parser refuses {keys}");
        assert!(validator.is_valid(&to_json(&text)), "the schema refuses {keys}");
    }
}

#[test]
fn what_the_schema_refuses_the_parser_refuses_too() {
    let schema = garboard_config::json_schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let document = |keys: &str| format!("name = \"demo\"\n[volumes.data]\n[containers.web]\nimage = \"x\"\n{keys}");
    assert!(validator.is_valid(&to_json(&document(""))));
    for keys in [
        "imge = 1",
        "read_only = \"true\"",
        "ports = 80",
        "ports = [0]",
        "ports = [\"080\"]",
        "network_mode = \"host\"\nports = [\"080\"]",
        "user = \"+1\"",
        "user = \"010\"",
        "cpuset = \"00\"",
        "ulimits = { nproc = \"05\" }",
        "restart = \"on-failure:03\"",
        "logging = { options = { max-file = \"05\" } }",
        "logging = { options = { max-file = \"+5\" } }",
        "volumes = [{ type = \"tmpfs\", target = \"/x\", tmpfs = { mode = \"0000755\" } }]",
        "[network]\naddress = \"192.0.2.7/0024\"",
        "healthcheck = { http = \"http://localhost:00080/\" }",
        "restart = \"sometimes\"",
        "network_mode = \"bridge\"",
        "volumes = [\"/etc:/etc\"]",
        "volumes = [{ source = \"data\" }]",
        "environment = \"A=1\"",
        "environment = [\"A\"]",
        "mem_limit = \"lots\"",
        "stop_grace_period = 10",
        "cap_add = [\"NET_ADMN\"]",
        "user = \"1x\"",
        "ulimits = { nofile = { soft = 1 } }",
        "depends_on = { db = { condition = \"done\" } }",
        "healthcheck = { tcp = 0 }",
        "healthcheck = { http = \"http://example.org\" }",
        "healthcheck = { test = [] }",
        "on_failure = \"always\"",
        "pod = \"-x\"",
        "[console]\naccess = \"control\"\npassphrase_hash = \"open sesame\"",
        "cpu_shares = 1",
        "tmpfs = 3",
        "[containers.db]\n",
        "[sytem]\n",
        "[network]\naddress = \"192.0.2.7\"",
        "[containers.Web]\nimage = 1",
    ] {
        let text = document(keys);
        assert!(!validator.is_valid(&to_json(&text)), "the schema accepts {keys}");
        assert!(garboard_config::parse("x.toml", &text).is_err(), "the parser accepts {keys}");
    }
    assert!(!validator.is_valid(&json!({ "name": "demo" })));
}
