//! Any bytes give an appliance or errors: bounded, and never a panic.

use std::time::{Duration, Instant};

use garboard_config::{Errors, MAX_LINE, MAX_SIZE, parse, parse_bytes};
use proptest::prelude::*;

const FULL: &str = include_str!("../examples/full.toml");

/// Begins what a terminal obeys.
const ESCAPE: char = '\u{1b}';

/// The errors of `text`, drawn too.
fn refused(text: &str) -> (Errors, String) {
    let errors = parse("x.toml", text).expect_err("accepted");
    let drawn = errors.to_string();
    (errors, drawn)
}

#[test]
fn too_large_a_file_is_refused_before_it_is_read() {
    for size in [MAX_SIZE + 1, 10_000_000] {
        let (errors, drawn) = refused(&"# hello\n".repeat(size / 8 + 1));
        assert_eq!(errors.iter().count(), 1);
        assert!(drawn.contains("a declaration has at most 1048576"), "{drawn}");
    }
    // One that is as large as it may be is read.
    let filler = "#".repeat(MAX_LINE - 1) + "\n";
    let text = format!("name = \"demo\"\ncontainers.web.image = \"x\"\n{}", filler.repeat(15));
    assert!(text.len() > MAX_SIZE - 2 * MAX_LINE);
    assert!(parse("x.toml", &text).is_ok());
}

#[test]
fn too_long_a_line_is_named() {
    let (errors, drawn) = refused(&format!("name = \"demo\"\n# {}\n", "x".repeat(MAX_LINE)));
    assert_eq!(errors.iter().next().map(|error| error.place.line), Some(2), "{drawn}");
    assert!(drawn.len() < 1000);
}

#[test]
fn bytes_that_are_no_text_are_refused_at_their_place() {
    let errors = parse_bytes("x.toml", b"name = \"demo\"\nx = \"\xff\"\n").unwrap_err();
    let place = &errors.iter().next().unwrap().place;
    assert_eq!((place.line, place.column), (2, 6));
    assert!(errors.to_string().contains("UTF-8"), "{errors}");
    for bytes in [&b""[..], b"\0", b"\xff", &[0xff; 100_000], b"\xef\xbb\xbf", b"\x7fELF\x02\x01\x01\0"] {
        parse_bytes("x.toml", bytes).unwrap_err().to_string();
    }
}

/// Nesting costs stack when it is read and when it is dropped: a small stack must do.
#[test]
fn deep_nesting_needs_little_stack() {
    let path = ["a"; 78].join(".");
    let inputs = vec![
        format!("x = {}", "[".repeat(60_000)),
        format!("x = {}", "{ a = ".repeat(10_000)),
        "[".repeat(60_000),
        "[[a]]\n".repeat(100_000),
        format!("{} = 1", "a.".repeat(30_000)),
        format!("[{path}]\n{path} = {}1{}", format!("{{ {path} = ").repeat(70), "}".repeat(70)),
        format!("x = {}1{}", "[".repeat(75), "]".repeat(75)),
    ];
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(move || {
        for input in inputs {
            let (errors, drawn) = refused(&input);
            assert!(errors.iter().count() > 0 && drawn.len() < 100_000);
        }
    });
    thread.unwrap().join().unwrap();
}

/// Containers each of which depends on all before it, with more keys, in which `{i}` is its number.
fn all_earlier(keys: &str) -> String {
    let one = |i: usize| {
        let earlier: String = (0..i).map(|other| format!("\"c{other}\",")).collect();
        format!("[containers.c{i}]\nimage=\"x\"\ndepends_on=[{earlier}]\n{}", keys.replace("{i}", &i.to_string()))
    };
    (0..420).map(one).collect()
}

/// Each of these fills a whole file with whatever multiplies: errors, keys, containers, ports, edges.
#[test]
fn a_full_file_of_anything_is_bounded() {
    let fill = |unit: &str| unit.repeat(MAX_SIZE / unit.len());
    let numbered = |unit: fn(usize) -> String, n: usize| (0..n).map(unit).collect::<String>();
    let containers = |n: usize| numbered(|i| format!("[containers.c{i}]\nimage=\"x\"\n"), n);
    let inputs = [
        fill("x=\n"),
        fill("= "),
        fill("\"'\n"),
        fill("[a]\n"),
        numbered(|i| format!("k{i}=1\n"), 90_000),
        format!("name=\"a\"\n{}", containers(4_097)),
        format!(
            "name=\"a\"\n[containers.a]\nimage=\"x\"\nnetwork_mode=\"host\"\nports=[\n{}]",
            "\"1-1024\",\n".repeat(90_000)
        ),
        format!("name=\"a\"\n[containers.a]\nimage=\"x\"\ndepends_on=[\n{}]", "\"b\",\n".repeat(150_000)),
        numbered(|i| format!("[containers.c{i}]\nimage=\"x\"\ndepends_on=[\"c{}\"]\n", (i + 1) % 4_096), 4_096),
        numbered(|i| format!("[containers.c{i}]\nimage=\"x\"\ndepends_on=[\"c{}\"]\n", i ^ 1), 4_096),
        // Words that look like many others.
        format!(
            "name=\"a\"\n[containers.a]\nimage=\"x\"\nvolumes=[\n{}]\n{}",
            numbered(|i| format!("\"{i:x>62}:/{i}\",\n"), 7_000),
            numbered(|i| format!("[volumes.{i:y>62}]\n"), 7_000)
        ),
        numbered(|i| format!("[containers.{i:y>62}]\nimage=\"x\"\ndepends_on=[\"{i:x>62}\"]\n"), 4_096),
        format!("name=\"a\"\n[containers.a]\nimage=\"x\"\n{}", numbered(|i| format!("{i:x>60}=1\n"), 15_500)),
        // As many edges as there is room for, between pods of one container and in circles.
        format!("nmae=\"a\"\n{}", all_earlier("pod=\"p{i}\"\n")),
        format!("{}\n[containers.a]\nimage=\"x\"\npod=\"p1\"\ndepends_on=[\"c300\"]\n", all_earlier("pod=\"p{i}\"\n")),
        numbered(
            |i| {
                let others: String =
                    (0..380).filter(|other| *other != i).map(|other| format!("\"c{other}\",")).collect();
                format!("[containers.c{i}]\nimage=\"x\"\ndepends_on=[{others}]\n")
            },
            380,
        ),
        // Each port in each container.
        numbered(
            |i| {
                let ranges: String =
                    (0..64).map(|r| format!("\"{}-{}\",", r * 1024 + 1, (r + 1) * 1024 - r / 63)).collect();
                format!("[containers.c{i}]\nimage=\"x\"\nnetwork_mode=\"host\"\nports=[{ranges}]\n")
            },
            1_120,
        ),
        format!(
            "nmae=\"a\"\n[containers.a]\nimage=\"x\"\n[containers.a.blkio_config]\ndevice_read_iops=[\n{}]",
            numbered(|i| format!("{{path=\"/dev/{i}\",rate=1}},\n"), 30_000)
        ),
    ];
    for input in inputs {
        assert!(input.len() <= MAX_SIZE, "{}", input.len());
        let start = Instant::now();
        let (errors, drawn) = refused(&input);
        let beginning: String = input.chars().take(40).collect();
        assert!(errors.iter().count() <= 100, "{beginning}");
        assert!(drawn.len() < 200_000, "{beginning}: {} bytes of messages", drawn.len());
        assert!(start.elapsed() < Duration::from_secs(30), "{beginning}: {:?}", start.elapsed());
    }
    assert!(parse("x.toml", &format!("name=\"a\"\n{}", containers(4_096))).is_ok());
}

#[test]
fn what_a_person_reads_holds_no_control_characters() {
    let (errors, drawn) =
        refused("name = \"\\u001b[2J\\u202e\"\n\"\\u0007\" = 1\n# \u{202e}\n[containers.\"\\u001b\"]\n");
    assert!(errors.iter().count() >= 3, "{drawn}");
    assert!(!drawn.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{drawn:?}");
}

/// Pieces of declarations, for putting together ones that are nearly right.
fn piece() -> impl Strategy<Value = String> {
    let lines: Vec<String> = FULL.lines().map(str::to_owned).collect();
    let odd = [
        "\"", "[", "]", "{", "}", "=", "#", ".", ",", "\\", "'''", "\"\"\"", "\r", "\t", "0", "-1", "ü", "\u{7f}",
        "1e9", "[[", "]]",
    ];
    prop_oneof![
        6 => proptest::sample::select(lines),
        2 => proptest::sample::select(odd.to_vec()).prop_map(str::to_owned),
        1 => "[a-z_]{1,12} = [0-9a-z\"{}\\[\\],.: -]{0,20}",
        1 => any::<String>(),
    ]
}

/// A value of any kind, for any key.
fn value() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[a-zA-Z0-9:/=,._+ -]{0,24}",
        "[0-9]{0,24}[a-zA-Zµ]{0,4}",
        any::<String>().prop_map(|s| s.escape_default().to_string())
    ];
    let leaf = prop_oneof![
        word.prop_map(|word| format!("'{}'", word.replace(['\'', '\n', '\r'], ""))),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("TOML has no NaN payloads", |n| n.is_finite())
            .prop_map(|number| format!("{number:?}")),
        any::<bool>().prop_map(|value| value.to_string()),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(", "))),
            proptest::collection::vec((key(), inner), 0..4).prop_map(|table| format!(
                "{{{}}}",
                table.iter().map(|(k, v)| format!("{k} = {v}")).collect::<Vec<_>>().join(", ")
            )),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    let known: Vec<String> = FULL
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    proptest::sample::select(known)
}

fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    match parse_bytes("x.toml", bytes) {
        Ok(appliance) => {
            prop_assert!(!appliance.containers.is_empty());
            // What holds of every appliance, however it came about.
            let mut ports = std::collections::BTreeSet::new();
            for (index, container) in appliance.containers.iter().enumerate() {
                prop_assert!(!container.image.is_empty());
                prop_assert!(container.ids.is_none_or(|ids| ids.base >= 65_536 && ids.size == 65_536));
                for dependency in &container.depends_on {
                    prop_assert!(appliance.position(&dependency.container).is_some_and(|other| other < index));
                }
                prop_assert!(container.ports.iter().all(|port| ports.insert(*port)));
            }
        }
        Err(errors) => {
            prop_assert!(errors.iter().count() > 0);
            let drawn = errors.to_string();
            prop_assert!(!drawn.contains(ESCAPE));
            let mut last = 0;
            for error in errors.iter() {
                prop_assert!(error.place.line >= 1 && error.place.column >= 1);
                prop_assert!(error.place.span.start >= last && error.place.span.end <= bytes.len());
                last = error.place.span.start;
            }
            errors.to_ansi();
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        check(&bytes)?;
    }

    #[test]
    fn shuffled_pieces(pieces in proptest::collection::vec(piece(), 0..40), newlines in any::<bool>()) {
        check(pieces.join(if newlines { "\n" } else { "" }).as_bytes())?;
    }

    #[test]
    fn any_value_for_any_key(entries in proptest::collection::btree_map(key(), value(), 0..12), table in proptest::option::of(key())) {
        let keys: String = entries.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let head = table.map_or_else(|| "[containers.web]\nimage = 'x'".to_owned(), |table| format!("[{table}]"));
        check(format!("name = \"demo\"\n{head}\n{keys}").as_bytes())?;
    }

    #[test]
    fn one_byte_changed(at in 0..FULL.len(), byte in any::<u8>()) {
        let mut bytes = FULL.as_bytes().to_vec();
        bytes[at] = byte;
        check(&bytes)?;
    }

    #[test]
    fn cut_short(at in 0..FULL.len()) {
        check(&FULL.as_bytes()[..at])?;
    }
}
