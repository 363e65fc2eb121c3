//! The kernel's word on images: mounted for real, alone and stacked by overlayfs.
//!
//! Needs root, loop devices and a kernel with erofs and overlayfs, so it runs on request:
//! `cargo test -p garboard-images --test kernel -- --ignored`. The virtual machine tests mount images in any case.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use common::*;
use garboard_images::{erofs::Algorithm, source, store::Store};

/// A mount that ends with the test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], on: &Path) -> Mounted {
    fs::create_dir_all(on).unwrap();
    run("mount", &[arguments, &[on.to_str().unwrap()]].concat());
    Mounted(on.into())
}

fn mount_image(baked: &Baked) -> Mounted {
    mount(&["-t", "erofs", "-o", "ro,loop", baked.path.to_str().unwrap()], &baked.dir.path().join("mnt"))
}

/// Every path under `root` with what can be seen of it.
fn walk(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let content = if kind.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else if kind.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if kind.is_file() {
            format!("{}", garboard_images::Digest::of(&fs::read(&path).unwrap()))
        } else {
            assert!(kind.is_char_device() || kind.is_block_device() || kind.is_fifo());
            metadata.rdev().to_string()
        };
        let seen =
            format!("{:o} {}:{} {} {content}", metadata.mode(), metadata.uid(), metadata.gid(), metadata.mtime());
        found.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), seen);
    }
    found
}

#[test]
#[ignore = "needs root, loop devices and erofs in the kernel"]
fn the_kernel_sees_what_went_in() {
    for compression in COMPRESSIONS {
        sees_what_went_in(compression);
    }
}

fn sees_what_went_in(compression: Option<Algorithm>) {
    let big: Vec<u8> = (0..1_000_000u32).map(|n| (n ^ n >> 8) as u8).collect();
    let holes = [vec![1; 4096], vec![0; 300 << 10], vec![2; 5000], vec![0; 100 << 10]].concat();
    let mut entries = vec![
        file("empty", ""),
        file("inline", [9; 1024]).mode(0o4711).owner(70_000, 80_000),
        file("block", [8; 1025]),
        file("big", &big),
        file("holes", &holes),
        file("all-hole", vec![0; 1 << 20]),
        hardlink("hard", "big"),
        symlink("link", "big"),
        symlink("long", "x".repeat(4000)),
        file(b"caf\xe9".as_slice(), "latin"),
        Entry { device: (1, 3), ..entry(b'3', "null") },
        Entry { device: (259, 70_000), ..entry(b'4', "disk") },
        entry(b'6', "fifo"),
        dir("many").mode(0o1777),
    ];
    entries.extend((0..2000).map(|n| file(format!("many/file-with-a-name-{n}"), n.to_string())));
    // About blocks and chunks, and two files that share one content.
    let text: Vec<u8> = (0..90_000u32).flat_map(|n| format!("{n} ").into_bytes()).collect();
    let sizes = [4097, 8192, 8193, 131_071, 131_072, 131_073, 135_169, 262_145, 500_000, 500_000];
    entries.extend(sizes.iter().enumerate().map(|(n, &size)| file(format!("text{n}"), &text[..size])));
    let baked = bake_compressed(&[gzipped(&tarball(&entries))], compression);
    assert_eq!(baked.reader().compression(), compression);
    let mounted = mount_image(&baked);
    let layer = mounted.0.join(baked.lowers[0].trim_start_matches('/'));
    assert_eq!(walk(&layer).len(), entries.len() + 1);
    assert!(fs::read(layer.join("holes")).unwrap() == holes);
    assert!(fs::read(layer.join("all-hole")).unwrap() == vec![0; 1 << 20]);
    for entry in &entries {
        let path = layer.join(std::ffi::OsStr::from_bytes(&entry.name));
        let metadata = fs::symlink_metadata(&path).unwrap();
        match entry.kind {
            b'0' => assert!(fs::read(&path).unwrap() == entry.data),
            b'1' => assert_eq!((metadata.nlink(), metadata.ino()), (2, fs::metadata(layer.join("big")).unwrap().ino())),
            b'2' => assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), entry.link),
            b'3' | b'4' => {
                let device = metadata.rdev();
                let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
                assert_eq!((major as u32, minor as u32), entry.device);
            }
            _ => {}
        }
        if entry.kind != b'1' {
            assert_eq!(metadata.mode() & 0o7777, entry.mode);
            assert_eq!((u64::from(metadata.uid()), u64::from(metadata.gid())), (entry.uid, entry.gid));
            assert_eq!(metadata.mtime(), 1_700_000_000);
        }
    }
    let refused = fs::write(layer.join("new"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

/// The merged view that the builder asks is the one overlayfs gives.
#[test]
#[ignore = "needs root, loop devices, erofs and overlayfs in the kernel"]
fn overlayfs_sees_what_the_view_says() {
    let mut bottom =
        vec![dir("d").mode(0o750).owner(5, 6), dir("e"), dir("gone"), symlink("s", "d"), dir("deep/er").mode(0o700)];
    bottom.extend(["d/a", "d/b", "e/x", "gone/y", "f", "g", "deep/er/z"].map(|name| file(name, name)));
    let middle = [
        file("d/.wh.a", ""),
        file("d/c", "c"),
        file("e/.wh..wh..opq", ""),
        file("e/new", "new"),
        file(".wh.gone", ""),
        file("f/now-a-directory", "f"),
        file("deep/er/top", "t"),
        // Nothing is merged here, and nothing is hidden that isn't hidden already.
        file("alone/there", ""),
        file("alone/.wh.gone", ""),
        file("e/.wh.x", ""),
    ];
    let top = [file(".wh.g", ""), file("gone/back", "b"), file("s", "a file now"), dir("e").mode(0o711)];
    let layers = [&bottom[..], &middle, &[], &top, &[]].map(|entries| gzipped(&tarball(entries)));
    let check = |layers: &[LayerBlob], hidden: bool| {
        let dir = tempfile::tempdir().unwrap();
        write_layout(&dir.path().join("layout"), layers);
        let image = source::open("layout", dir.path()).unwrap();
        let mut store = Store::new(dir.path()).unwrap();
        for n in 0..layers.len() {
            store.add_layer(&image, n, &mut |_| {}).unwrap();
        }
        let lowers = store.lowers(&image).unwrap();
        let names = [
            "",
            "d",
            "d/a",
            "d/b",
            "d/c",
            "e",
            "e/x",
            "e/new",
            "gone",
            "gone/y",
            "gone/back",
            "f",
            "g",
            "s",
            "deep/er",
            "deep/er/top",
            "deep/er/z",
            "f/now-a-directory",
        ];
        let view = store.view(&image).unwrap();
        let said: Vec<_> =
            names.map(|name| view.metadata(name).unwrap().map(|seen| (seen.mode, seen.uid, seen.gid))).into();
        let contents: Vec<_> = names.map(|name| view.read(name, 100).ok().flatten()).into();
        let path = dir.path().join("system.erofs");
        store.finish(&mut fs::File::create_new(&path).unwrap()).unwrap();
        let baked = Baked { path, lowers, summary: bake(&[]).unwrap().summary, dir };
        let mounted = mount_image(&baked);
        for option in ["", ",userxattr"] {
            let lower: Vec<_> = baked.lowers.iter().map(|lower| format!("{}{lower}", mounted.0.display())).collect();
            // A second, empty lower directory: overlayfs wants two.
            let empty = baked.dir.path().join("empty");
            fs::create_dir_all(&empty).unwrap();
            let options = format!("ro,lowerdir={}:{}{option}", lower.join(":"), empty.display());
            let overlay = mount(&["-t", "overlay", "overlay", "-o", &options], &baked.dir.path().join("merged"));
            let merged: Vec<_> = names
                .map(|name| {
                    fs::metadata(overlay.0.join(name)).ok().map(|seen| (seen.mode() & 0o7777, seen.uid(), seen.gid()))
                })
                .into();
            assert_eq!(merged, said, "{option}");
            let read: Vec<_> = names.map(|name| fs::read(overlay.0.join(name)).ok()).into();
            assert_eq!(read, contents, "{option}");
            assert_eq!(walk(&overlay.0).contains_key(&b"d/b"[..]), !hidden);
            for directory in ["", "d", "e", "alone"].map(|name| overlay.0.join(name)) {
                for entry in fs::read_dir(directory).into_iter().flatten() {
                    let path = entry.unwrap().path();
                    assert!(
                        fs::symlink_metadata(&path).is_ok(),
                        "{} is listed and isn't there: {option}",
                        path.display()
                    );
                }
            }
        }
        said
    };
    let said = check(&layers, false);
    // Directories without an entry in the upper layers keep what they were below.
    assert_eq!((said[1], said[14]), (Some((0o750, 5, 6)), Some((0o700, 0, 0))));
    let opaque = gzipped(&tarball(&[file(".wh..wh..opq", ""), file("d/c", "only")]));
    check(&[layers[0].clone(), opaque], true);
}
