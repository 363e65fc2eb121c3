//! Every declaration in `tests/errors` is wrong, and is told so in the words of the `.txt` beside it.
//!
//! After a change of wording: `GARBOARD_BLESS=1 cargo test -p garboard-config --test errors`, and read the difference.

use std::path::Path;

#[test]
fn wrong_declarations_are_explained() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors");
    let mut files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() >= 20, "{} files in {}", files.len(), directory.display());
    let mut different = Vec::new();
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let errors = match garboard_config::parse_bytes(name, &std::fs::read(&path).unwrap()) {
            Err(errors) => errors.to_string(),
            Ok(appliance) => panic!("{name} is accepted: {appliance:#?}"),
        };
        let expected_path = path.with_extension("txt");
        if std::env::var_os("GARBOARD_BLESS").is_some() {
            std::fs::write(&expected_path, &errors).unwrap();
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if errors != expected {
            different.push(format!("== {name}: expected\n{expected}\n== found\n{errors}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn errors_know_their_places() {
    let errors =
        garboard_config::parse("x.toml", "name = \"demo\"\n[containers.web]\n  image = \"x\"\n  mem_limit = 64\n")
            .unwrap_err();
    let error = errors.iter().next().unwrap();
    assert_eq!((error.place.line, error.place.column, error.place.span.clone()), (4, 15, 59..61));
    assert_eq!(error.help.as_deref(), Some("a size without a unit is in bytes: did you mean \"64m\"?"));
    assert_eq!((errors.iter().count(), errors.omitted(), errors.file()), (1, 0, "x.toml"));
    assert!(errors.to_string().contains("x.toml:4:15"), "{errors}");
    assert!(!errors.to_string().contains('\u{1b}'), "{errors}");
    assert!(errors.to_ansi().contains('\u{1b}'));
}

#[test]
fn columns_count_characters_and_lines_end_either_way() {
    let errors = garboard_config::parse(
        "x.toml",
        "name = \"demo\"\r\n[containers.web]\r\nlabels = { \"漢字\" = 1 }\r\n\"ü\" = 1\r\n",
    )
    .unwrap_err();
    let places: Vec<_> = errors.iter().map(|error| (error.place.line, error.place.column)).collect();
    assert_eq!(places, [(2, 13), (4, 1)]);
}
