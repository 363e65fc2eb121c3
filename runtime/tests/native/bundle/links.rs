//! Symbolic links at the ends of bind mounts' paths, as crun's options have them.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use libtest_mimic::Trial;
use serde_json::json;

use super::{Config, bundle};
use crate::site::scratch;

pub fn tests() -> Vec<Trial> {
    trials![
        a_source_that_is_a_link_is_mounted_itself,
        a_link_at_the_target_is_mounted_on,
        a_link_is_copied,
        a_copied_link_takes_nothing_s_place,
        a_copied_link_stays_in_the_root,
    ]
}

/// Outside: a file, and a link to it.
fn link() -> PathBuf {
    let directory = scratch("links");
    std::fs::write(directory.join("file"), "followed\n").unwrap();
    let _ = std::fs::remove_file(directory.join("link"));
    symlink("file", directory.join("link")).unwrap();
    directory.join("link")
}

/// Bound with these options to `/target`, beside which there is a file `named`.
fn bound(script: &str, options: &[&str]) -> Config {
    let config = bundle("links", script);
    std::fs::write(config.rootfs().join("named"), "covered\n").unwrap();
    let options: Vec<&str> = ["bind"].iter().chain(options).copied().collect();
    config.mount(json!({"destination": "/target", "source": link(), "options": options}))
}

/// The same in a user namespace, if it is to be.
fn within(config: Config, user_namespace: bool) -> Config {
    if user_namespace { config.in_user_namespace() } else { config }
}

fn a_source_that_is_a_link_is_mounted_itself() {
    for option in ["src-nofollow", "ro"] {
        let expected = if option == "ro" { "followed\n" } else { "file\n" };
        let config = bound("readlink /target || cat /target", &[option]);
        assert_eq!(config.output(), expected, "{option}");
        // Onto what is there, too.
        let config = bound("readlink /target || cat /target", &[option]);
        std::fs::write(config.rootfs().join("target"), "").unwrap();
        assert_eq!(config.output(), expected, "{option}");
    }
}

fn a_link_at_the_target_is_mounted_on() {
    let script = "readlink /target; cat /target /named";
    for (options, expected) in [
        (&["dest-nofollow"][..], "followed\ncovered\n"),
        (&["dest-nofollow", "src-nofollow"], "file\n"),
        (&[], "named\nfollowed\nfollowed\n"),
    ] {
        for user in [false, true] {
            let config = within(bound(script, options), user);
            symlink("named", config.rootfs().join("target")).unwrap();
            // The link that is mounted leads to a file of the container's, which it hasn't.
            let text = config.run().unwrap().output;
            assert!(text.starts_with(expected), "{options:?}: {text}");
        }
    }
    // Nothing is made by what the link names.
    let config = bound("cat /target; ls /nowhere", &["dest-nofollow"]);
    symlink("nowhere", config.rootfs().join("target")).unwrap();
    let text = config.run().unwrap().output;
    assert!(text.starts_with("followed\n") && text.contains("/nowhere: No such file"), "{text}");
}

fn a_link_is_copied() {
    let script = "readlink /target; stat -c %u /target; grep -c ' /target ' /proc/self/mountinfo; true";
    for user in [false, true] {
        let config = within(bound(script, &["copy-symlink"]), user);
        // Nothing is mounted, and the second time it is there.
        for _ in 0..2 {
            assert_eq!(config.output(), "file\n0\n0\n", "user namespace: {user}");
        }
    }
    // What is no link is bound.
    let config = bundle("links", "cat /target/link").mount(json!({
        "destination": "/target", "source": link().parent(), "options": ["bind", "copy-symlink"]
    }));
    assert_eq!(config.output(), "followed\n");
}

fn a_copied_link_takes_nothing_s_place() {
    let config = bound("true", &["copy-symlink"]);
    symlink("named", config.rootfs().join("target")).unwrap();
    let refusal = config.refusal();
    assert!(refusal.contains("/target as the link that ") && refusal.contains("EEXIST"), "{refusal}");
}

fn a_copied_link_stays_in_the_root() {
    let outside = scratch("links-outside");
    let config = bundle("links", "readlink /way/made/target");
    symlink(&outside, config.rootfs().join("way")).unwrap();
    let options = json!(["bind", "copy-symlink"]);
    let mount = json!({"destination": "/way/made/target", "source": link(), "options": options});
    let config = config.mount(mount);
    assert_eq!(config.output(), "file\n");
    assert!(!outside.join("made").exists());
    // By the path as a string it would be there.
    assert!(config.rootfs().join("way").is_dir() && std::fs::create_dir(config.rootfs().join("way/made")).is_ok());
    assert!(outside.join("made").exists());
}
