//! That help and parser say the same.

use std::collections::HashSet;

use super::super::commands::PAGES;
use super::super::page::{Flag, Page, Place, Takes};
use super::super::{Arguments, Instead, Parsed, global};
use super::{read, words};

fn printed(line: &str) -> String {
    match read(&words(line)) {
        Err(Instead::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

fn pages() -> impl Iterator<Item = &'static Page> {
    // What `help` does is to print, whatever it is asked.
    std::iter::once(&global::PAGE).chain(PAGES).filter(|page| page.name != "help")
}

/// The flags that set something.
fn flags(page: &Page) -> impl Iterator<Item = &'static Flag> {
    page.all_flags().filter(|flag| !["help", "version"].contains(&flag.long))
}

/// What becomes of the page's command with these flags and this container.
fn given(page: &Page, flags: &[String], container: &str) -> Parsed<String> {
    let (before, name, after) =
        if page.name.is_empty() { (flags, "list", [].as_slice()) } else { ([].as_slice(), page.name, flags) };
    let container = page.arguments.iter().filter(|argument| argument.name == "CONTAINER").map(|_| container.to_owned());
    let line = before.iter().cloned().chain([name.to_owned()]).chain(after.iter().cloned()).chain(container);
    let Arguments { global, command, .. } = Arguments::read(lexopt::Parser::from_args(line))?;
    Ok(if page.name.is_empty() { format!("{global:#?}") } else { format!("{command:#?}") })
}

/// Every way to give the flag a value that isn't its default.
fn ways(flag: &Flag) -> Vec<Vec<String>> {
    let value = match (flag.values, flag.long) {
        ([.., last], _) => last,
        (_, "interval") => "7s",
        _ => "7",
    };
    let long = format!("--{}", flag.long);
    let letters = flag.shorts.chars().map(|letter| format!("-{letter}"));
    let names = letters.clone().chain([long.clone(), format!("-{}", flag.long)]);
    match flag.takes {
        Takes::Nothing => names.map(|name| vec![name]).collect(),
        Takes::Optional(_) => names.chain([format!("{long}=true")]).map(|name| vec![name]).collect(),
        Takes::Value(_) => {
            let attached = letters.map(|name| vec![format!("{name}{value}")]);
            let equal = names.clone().map(|name| vec![format!("{name}={value}")]);
            let apart = names.map(|name| vec![name, value.to_owned()]);
            attached.chain(equal).chain(apart).collect()
        }
    }
}

#[test]
fn whatever_flag_the_help_names_is_understood_in_every_way() {
    for page in pages() {
        let without = given(page, &[], "a").unwrap();
        for flag in flags(page) {
            let found: HashSet<_> = ways(flag).iter().map(|way| given(page, way, "a").unwrap()).collect();
            assert_eq!(found.len(), 1, "{flag:?}: {found:?}");
            assert!(!found.contains(&without), "{flag:?} has no effect");
        }
    }
}

/// So that one hyphen in front of it is no other flags.
#[test]
fn no_word_is_made_of_letters_that_are_flags() {
    for page in pages() {
        for flag in page.all_flags() {
            let letters = |letter: char| page.short(letter).is_some_and(|flag| !matches!(flag.takes, Takes::Value(_)));
            assert!(!flag.long.chars().all(letters), "{}: {}", page.name, flag.long);
        }
    }
}

#[test]
fn whatever_can_be_set_has_a_flag_that_the_help_names() {
    for page in pages() {
        let mut all: Vec<String> = flags(page).filter_map(|flag| ways(flag).pop()).flatten().collect();
        let without = given(page, &[], "a").unwrap();
        // As what follows the container, if anything may.
        all.extend(page.arguments.iter().filter(|argument| argument.place != Place::Needed).map(|_| "b".to_owned()));
        let with = given(page, &all, "c").unwrap();
        for field in without.lines().filter(|line| line.contains(": ") && line.ends_with(',')) {
            assert!(!with.lines().any(|line| line == field), "{}: nothing sets {field}", page.name);
        }
    }
}

#[test]
fn whatever_value_the_help_names_is_one() {
    for page in pages() {
        for flag in flags(page) {
            let with = |value: &str| given(page, &[format!("--{}={value}", flag.long)], "a").unwrap();
            let found: HashSet<_> = flag.values.iter().map(|value| with(value)).collect();
            assert_eq!(found.len(), flag.values.len(), "{flag:?}");
            let default = flag.help.split_once("[default: ").map(|(_, rest)| rest.trim_end_matches(']'));
            // Some are told in words.
            if let Some(default) = default.filter(|default| !default.contains(' ')) {
                assert_eq!(with(default), given(page, &[], "a").unwrap(), "{flag:?}");
            }
        }
    }
}

#[test]
fn every_command_has_a_page() {
    let whole = printed("--help");
    for same in ["-h", "help", "--debug -h list"] {
        assert_eq!(printed(same), whole, "{same}");
    }
    for page in PAGES {
        assert!(whole.contains(&format!("\n  {:10}  {}\n", page.name, page.about)), "{whole}");
        let help = printed(&format!("{} --help", page.name));
        assert!(help.starts_with(&format!("{}\n\nUsage: garboard-runtime {}", page.about, page.name)), "{help}");
        assert_eq!(printed(&format!("{} -h", page.name)), help);
        assert_eq!(printed(&format!("help {}", page.name)), help);
        for flag in page.all_flags() {
            assert!(help.contains(&flag.shown()) && help.contains(flag.help) && !flag.help.is_empty(), "{flag:?}");
        }
    }
    assert!(printed("-v").starts_with("garboard-runtime version "));
    assert_eq!(
        printed("kill --help"),
        "Send a signal to a container\n\
         \n\
         Usage: garboard-runtime kill [OPTIONS] <CONTAINER> [SIGNAL]\n\
         \n\
         Arguments:\n  \
           <CONTAINER>  The container\n  \
           [SIGNAL]     Name or number of the signal [default: TERM]\n\
         \n\
         Options:\n  \
           -a, --all    To all processes, not only the first\n  \
           -r, --regex  CONTAINER is a regular expression: to all containers that it matches\n  \
           -h, --help   Print help\n"
    );
}
