//! A machine without any appliance: a kernel, busybox and a script, and programs of this machine with their libraries.

// Each test group compiles this module for itself and none uses all of it.
#![allow(dead_code)]

#[path = "cpio.rs"]
mod cpio;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in the making, as the kernel unpacks it into memory.
pub struct Guest {
    archive: Vec<u8>,
    present: BTreeSet<String>,
}

/// What runs before the script. pivot_root(2) can't leave the first root, so all of it moves to another.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /run /new /tmp
mount -t tmpfs -o mode=755 tmpfs /new
for directory in /*; do
    [ $directory = /new ] || cp -a $directory /new/
done
mount -t proc proc /new/proc
mount -t sysfs sysfs /new/sys
mount -t devtmpfs devtmpfs /new/dev
mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
mount -t tmpfs tmpfs /new/run
exec switch_root /new /bin/sh /script
"#;

impl Guest {
    /// One that runs `script` by busybox's shell as its first process, and is switched off after it.
    pub fn new(script: &str) -> Self {
        let mut guest = Self { archive: Vec::new(), present: BTreeSet::new() };
        guest.add("init", 0o100_755, INIT.as_bytes());
        guest.add("script", 0o100_644, format!("{script}\necho the end\npoweroff -f\n").as_bytes());
        guest.file("bin/busybox", Path::new("/bin/busybox"));
        guest
    }

    /// A file of its own.
    pub fn text(&mut self, name: &str, text: &str) {
        self.add(name, 0o100_644, text.as_bytes());
    }

    /// A directory of its own.
    pub fn directory(&mut self, name: &str) {
        self.add(&format!("{name}/."), 0o40755, &[]);
    }

    /// A file of this machine.
    pub fn file(&mut self, name: &str, from: &Path) {
        let mode = fs::metadata(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())).permissions().mode();
        self.add(name, mode, &fs::read(from).unwrap());
    }

    /// A program of this machine as `bin/NAME`, with the libraries that it is linked with, where they are here.
    pub fn program(&mut self, from: &Path) {
        self.program_at(&format!("bin/{}", from.file_name().unwrap().display()), from);
    }

    /// The same elsewhere.
    pub fn program_at(&mut self, name: &str, from: &Path) {
        self.file(name, from);
        let output = Command::new("ldd").arg(from).output().expect("ldd");
        // A static one has none.
        for word in String::from_utf8_lossy(&output.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
            if self.present.insert(word.to_owned()) {
                self.file(word.trim_start_matches('/'), Path::new(word));
            }
        }
    }

    /// The initrd, in `directory`.
    pub fn write(mut self, directory: &Path) -> PathBuf {
        cpio::entry(&mut self.archive, "TRAILER!!!", 0, &[]);
        let initrd = directory.join("initrd");
        fs::write(&initrd, self.archive).unwrap();
        initrd
    }

    fn add(&mut self, name: &str, mode: u32, contents: &[u8]) {
        for (at, _) in name.match_indices('/') {
            if self.present.insert(name[..at].to_owned()) {
                cpio::entry(&mut self.archive, &name[..at], 0o40755, &[]);
            }
        }
        if !name.ends_with("/.") {
            cpio::entry(&mut self.archive, name, mode, contents);
        }
    }
}
