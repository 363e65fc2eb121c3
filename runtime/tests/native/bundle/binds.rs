//! What a bind mount has of its source, by the options that are given: as with runc, which remounts it with them.

use std::path::Path;

use libtest_mimic::Trial;
use rustix::mount::{MountFlags, mount_remount};
use serde_json::json;

use super::{Config, bundle, mounted, options, unmount};

pub fn tests() -> Vec<Trial> {
    trials![
        without_options_all_is_the_source_s,
        with_any_option_the_others_are_taken_away,
        a_user_namespace_keeps_what_is_denied,
        a_user_namespace_has_not_the_opposite,
        times_of_access_stay_unless_a_way_is_named,
        recursive_options_take_nothing_away,
    ]
}

/// A container with `source`, mounted with the flags `of_source`, bound to `/x`. Without a flag about times of access they are always
/// kept (`strictatime`), which mountinfo has no word for.
fn bound(source: &Path, of_source: &str, given: &str) -> Config {
    let flag = |name: &str| match name {
        "ro" => MountFlags::RDONLY,
        "nosuid" => MountFlags::NOSUID,
        "nodev" => MountFlags::NODEV,
        "noexec" => MountFlags::NOEXEC,
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        "strictatime" => MountFlags::STRICTATIME,
        "nosymfollow" => MountFlags::from_bits_retain(256),
        other => panic!("{other}"),
    };
    mount_remount(source, MountFlags::BIND | MountFlags::STRICTATIME, "").unwrap();
    let flags = of_source.split(' ').map(flag).fold(MountFlags::BIND, |sum, flag| sum | flag);
    mount_remount(source, flags, "").unwrap();
    let given: Vec<&str> = given.split(' ').collect();
    bundle("binds", "cat /proc/self/mountinfo").mount(json!({"destination": "/x", "source": source, "options": given}))
}

/// What the container has there.
fn seen(config: &Config) -> String {
    options(&config.output(), "/x").join(" ")
}

/// Each case: the source's flags, the options, and what the container has.
fn expect(cases: &[(&str, &str, &str)], in_user_namespace: bool) {
    let source = mounted("binds");
    for (of_source, given, expected) in cases {
        let config = bound(&source, of_source, given);
        let config = if in_user_namespace { config.in_user_namespace() } else { config };
        assert_eq!(seen(&config), *expected, "{of_source} bound with {given}, user namespace: {in_user_namespace}");
    }
    unmount(&source);
}

fn without_options_all_is_the_source_s() {
    for user in [false, true] {
        expect(
            &[
                ("ro noexec nosymfollow nodiratime", "bind", "ro noexec nodiratime relatime nosymfollow"),
                ("nosuid nodev strictatime", "rbind rprivate", "rw nosuid nodev"),
                ("noatime nodiratime", "bind defaults", "rw noatime nodiratime"),
            ],
            user,
        );
    }
}

fn with_any_option_the_others_are_taken_away() {
    expect(
        &[
            ("ro noexec nosymfollow nodiratime", "bind dev", "rw nodiratime relatime"),
            ("ro", "bind nosuid nodev rprivate", "rw nosuid nodev"),
            ("ro", "bind rw nosuid nodev rprivate", "rw nosuid nodev"),
            ("nosuid nodev noexec noatime", "bind dev suid exec atime", "rw noatime"),
            ("nosuid nodev noexec noatime", "bind ro", "ro noatime"),
            ("nodev nosymfollow", "bind ro symfollow", "ro"),
            ("nodev nosuid noatime", "bind ro exec", "ro noatime"),
            // Without an effect of their own on a bind mount.
            ("ro nosuid", "bind sync", "rw"),
            ("ro nosuid", "bind loud", "rw"),
            ("ro nosuid", "rbind rw", "rw"),
        ],
        false,
    );
}

fn a_user_namespace_keeps_what_is_denied() {
    expect(
        &[
            ("ro noexec nosymfollow nodiratime", "bind dev", "ro noexec nodiratime relatime"),
            ("ro", "bind nosuid nodev rprivate", "ro nosuid nodev"),
            ("nosuid nodev noexec noatime", "bind ro", "ro nosuid nodev noexec noatime"),
            ("nodev nosymfollow", "bind ro symfollow", "ro nodev"),
            ("nodev nosymfollow", "bind rw", "rw nodev"),
            ("nodev nosuid noatime", "rbind ro exec", "ro nosuid nodev noatime"),
        ],
        true,
    );
}

fn a_user_namespace_has_not_the_opposite() {
    let source = mounted("opposite");
    for (of_source, given) in [
        ("ro", "bind rw nosuid nodev rprivate"),
        ("nodev nosuid noatime", "bind dev suid exec atime"),
        ("noexec", "rbind exec"),
        ("nodiratime", "bind strictatime"),
        ("relatime", "bind strictatime"),
        ("noatime", "bind strictatime"),
        ("nodiratime", "bind noatime"),
        ("relatime", "bind noatime"),
        ("relatime", "bind nodiratime"),
        ("strictatime", "bind relatime"),
        ("strictatime", "bind noatime"),
        ("strictatime", "bind nodiratime"),
        ("noatime", "bind relatime"),
        // With mapped ids, which come later.
        ("nosuid", "bind idmap suid"),
    ] {
        let refusal = bound(&source, of_source, given).in_user_namespace().refusal();
        assert!(refusal.contains(": operation not permitted (EPERM)"), "{of_source} bound with {given}: {refusal}");
        // The machine's own root may.
        if !given.contains("idmap") {
            bound(&source, of_source, given).output();
        }
    }
    // What is there already isn't the opposite.
    expect(&[("noatime", "bind noatime suid rw", "rw noatime")], true);
    unmount(&source);
}

fn times_of_access_stay_unless_a_way_is_named() {
    expect(
        &[
            ("noatime", "bind norelatime", "rw noatime"),
            ("noatime", "bind atime", "rw noatime"),
            ("noatime", "bind relatime", "rw relatime"),
            ("noatime", "bind nodiratime", "rw nodiratime relatime"),
            ("nodiratime", "bind strictatime", "rw"),
            ("noatime", "bind nodiratime strictatime", "rw nodiratime"),
            ("noatime", "bind nodiratime norelatime", "rw nodiratime relatime"),
            ("nodiratime", "bind diratime", "rw nodiratime relatime"),
            ("noatime", "bind strictatime nostrictatime", "rw noatime"),
        ],
        false,
    );
    expect(
        &[
            ("strictatime", "bind nostrictatime", "rw"),
            ("nodiratime", "bind diratime", "rw nodiratime relatime"),
            ("relatime", "bind norelatime", "rw relatime"),
            ("noatime nodiratime", "bind atime", "rw noatime nodiratime"),
        ],
        true,
    );
}

fn recursive_options_take_nothing_away() {
    expect(&[("nosuid noexec", "rbind rro rexec", "ro nosuid")], false);
}
