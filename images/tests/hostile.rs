//! Attacks on the reading of images (I1 to I9), each with its control: the same bytes do harm where nothing is checked.

mod common;

use std::path::Path;

use common::*;
use garboard_images::erofs::FileKind;
use garboard_images::{Digest, Error, Limits};

/// Unpacks as a careless program does: joins names to a directory and follows whatever is there.
fn unpack_carelessly(entries: &[Entry], root: &Path) {
    for entry in entries {
        let path = root.join(std::str::from_utf8(&entry.name).unwrap());
        let link = std::str::from_utf8(&entry.link).unwrap();
        match entry.kind {
            b'5' => drop(std::fs::create_dir_all(path)),
            b'2' => drop(std::os::unix::fs::symlink(link, path)),
            b'1' => drop(std::fs::hard_link(root.join(link), path)),
            _ => drop(std::fs::write(path, &entry.data)),
        }
    }
}

/// A directory with a `victim` beside the place to unpack to.
struct Playground {
    dir: tempfile::TempDir,
}

impl Playground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        std::fs::write(dir.path().join("victim"), "untouched").unwrap();
        Self { dir }
    }

    fn victim(&self) -> String {
        self.dir.path().join("victim").to_str().unwrap().into()
    }

    fn attacked(&self, entries: &[Entry]) -> bool {
        unpack_carelessly(entries, &self.dir.path().join("root"));
        std::fs::read_to_string(self.victim()).unwrap() != "untouched"
    }

    fn unharmed(&self) -> bool {
        std::fs::read_to_string(self.victim()).unwrap() == "untouched"
    }
}

fn message(result: Result<Baked, Error>) -> String {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn i1_names_that_leave_the_image() {
    let up = [file("../victim", "pwned")];
    let text = message(bake_entries(&up));
    assert!(text.contains("`../victim`") && text.contains("could leave the image"), "{text}");
    assert!(Playground::new().attacked(&up), "control: unchecked, the name leaves the directory");

    for name in ["a/../../x", "..", "/..", "a/..", "./../x"] {
        assert!(bake_entries(&[file(name, "x")]).is_err(), "{name}");
    }
    // Absolute names are taken from the image's root.
    let playground = Playground::new();
    let absolute = [file(playground.victim(), "pwned")];
    let baked = bake_entries(&absolute).unwrap();
    assert_eq!(baked.top()[playground.victim().trim_start_matches('/').as_bytes()].data, b"pwned");
    assert!(playground.unharmed());
    assert!(playground.attacked(&absolute), "control");
}

#[test]
fn i2_writing_through_symlinks_stays_in_the_layer() {
    let playground = Playground::new();
    let outside = playground.dir.path().to_str().unwrap();
    let through = [symlink("escape", outside), file("escape/victim", "pwned")];
    let baked = bake_entries(&through).unwrap();
    let inside = [outside.trim_start_matches('/'), "/victim"].concat();
    assert_eq!(baked.top()[inside.as_bytes()].data, b"pwned");
    assert!(playground.unharmed());
    assert!(playground.attacked(&through), "control");

    // The last component is never followed.
    let playground = Playground::new();
    let last = [symlink("link", playground.victim()), file("link", "pwned")];
    let baked = bake_entries(&last).unwrap();
    assert_eq!((baked.top()[&b"link"[..]].kind, &baked.top()[&b"link"[..]].data[..]), (FileKind::File, &b"pwned"[..]));
    assert!(playground.unharmed());
    assert!(playground.attacked(&last), "control");

    // `..` in a target ends at the layer's root.
    let up = [symlink("up", "../../../.."), file("up/x", "1")];
    assert_eq!(bake_entries(&up).unwrap().top()[&b"x"[..]].data, b"1");
    // Loops end.
    let text = message(bake_entries(&[symlink("a", "b"), symlink("b", "a"), file("a/x", "")]));
    assert!(text.contains("more than 40 symbolic links"), "{text}");
    let text = message(bake_entries(&[file("a", ""), file("a/x", "")]));
    assert!(text.contains("no directory"), "{text}");
}

#[test]
fn i3_hard_links_to_elsewhere() {
    let playground = Playground::new();
    let outside = [hardlink("x", "../victim"), file("x", "pwned")];
    assert!(message(bake_entries(&outside)).contains("could leave the image"));
    assert!(playground.attacked(&outside), "control: the link reaches the file outside");

    let playground = Playground::new();
    let absolute = [hardlink("x", playground.victim()), file("x", "pwned")];
    let text = message(bake_entries(&absolute));
    assert!(text.contains("no earlier entry of this layer"), "{text}");
    assert!(playground.unharmed());

    for entries in [
        vec![hardlink("x", "later"), file("later", "")],
        vec![dir("d"), hardlink("x", "d")],
        vec![file(".wh.gone", ""), hardlink("x", "gone")],
        vec![hardlink("x", "")],
        vec![hardlink("x", "/")],
    ] {
        assert!(bake_entries(&entries).is_err());
    }
    let baked =
        bake_entries(&[file("a", "1"), hardlink("d/b", "/./a"), symlink("s", "nowhere"), hardlink("t", "s")]).unwrap();
    let top = baked.top();
    assert_eq!((top[&b"a"[..]].nid, top[&b"a"[..]].links), (top[&b"d/b"[..]].nid, 2));
    assert_eq!(top[&b"t"[..]].kind, FileKind::Symlink);
}

/// `/proc` and its like as links are kept as they are: they are data here. What mounts over them resolves them in the image.
#[test]
fn i4_system_directories_as_symlinks_are_only_data() {
    let entries: Vec<_> = ["dev", "proc", "sys", "etc"].map(|name| symlink(name, "/tmp/elsewhere")).into();
    let baked = bake_entries(&entries).unwrap();
    for name in ["dev", "proc", "sys", "etc"] {
        assert_eq!(baked.top()[name.as_bytes()].kind, FileKind::Symlink);
        assert_eq!(baked.top()[name.as_bytes()].data, b"/tmp/elsewhere");
    }
    fsck(&baked.path);
}

#[test]
fn i5_devices_setuid_and_capabilities_are_kept_overlay_marks_are_not() {
    let capability = b"\x01\x00\x00\x02\n\x20\x00\x00\x00\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x00\x00";
    let entries = [
        Entry { device: (1, 3), ..entry(b'3', "null") },
        Entry { device: (259, 70_000), ..entry(b'4', "disk") },
        entry(b'6', "fifo"),
        file("su", "x").mode(0o4755).owner(70_000, 5),
        file("ping", "y").xattr("security.capability", capability).xattr("user.note", b"n"),
        dir("fake")
            .xattr("trusted.overlay.opaque", b"y")
            .xattr("user.overlay.opaque", b"y")
            .xattr("trusted.overlay.redirect", b"/etc")
            .xattr("user.overlay.overlay.whiteout", b"")
            .xattr("system.unknown", b"z"),
    ];
    let baked = bake_entries(&entries).unwrap();
    fsck(&baked.path);
    let top = baked.top();
    assert_eq!(top[&b"null"[..]].kind, FileKind::CharDevice { major: 1, minor: 3 });
    assert_eq!(top[&b"disk"[..]].kind, FileKind::BlockDevice { major: 259, minor: 70_000 });
    assert_eq!(top[&b"fifo"[..]].kind, FileKind::Fifo);
    let su = &top[&b"su"[..]];
    assert_eq!((su.mode, su.uid, su.gid), (0o4755, 70_000, 5));
    let expected = [(b"security.capability".to_vec(), capability.to_vec()), (b"user.note".to_vec(), b"n".to_vec())];
    assert_eq!(top[&b"ping"[..]].xattrs, expected);
    assert_eq!(top[&b"fake"[..]].xattrs, [], "overlayfs's own marks from an image are dropped");
    // Control: the same attribute under a name that overlayfs doesn't own is kept.
    let kept = bake_entries(&[dir("d").xattr("trusted.overlai.opaque", b"y")]).unwrap();
    assert_eq!(kept.top()[&b"d"[..]].xattrs.len(), 1);

    for bad in [Entry { device: (4096, 0), ..entry(b'3', "x") }, file("x", "").owner(u64::from(u32::MAX), 0)] {
        assert!(message(bake_entries(&[bad])).contains("out of range"));
    }
}

#[test]
fn i6_whiteouts() {
    for name in [".wh...", ".wh..", ".wh.", "d/.wh...", ".wh..wh.x", ".wh.d/x", "d/.wh..wh.plnk/x"] {
        assert!(bake_entries(&[file(name, "")]).is_err(), "{name}");
    }
    // What AUFS left at the root of old images is no part of them.
    let aufs = [
        file(".wh..wh.aufs", ""),
        dir("./.wh..wh.orph/"),
        dir(".wh..wh.plnk"),
        file(".wh..wh.plnk/1.2", "x"),
        file("f", "f"),
    ];
    let kept = bake_entries(&aufs).unwrap();
    assert_eq!(kept.top().into_keys().collect::<Vec<_>>(), [&b""[..], b"f"]);
    // Through a symbolic link: in the layer's root, like every other name.
    let playground = Playground::new();
    let outside = playground.dir.path().to_str().unwrap();
    let baked = bake_entries(&[symlink("escape", outside), file("escape/.wh.victim", "")]).unwrap();
    let inside = [outside.trim_start_matches('/'), "/victim"].concat();
    assert_eq!(baked.top()[inside.as_bytes()].kind, FileKind::CharDevice { major: 0, minor: 0 });
    assert!(playground.unharmed());

    let lower =
        plain(&tarball(&[dir("d"), file("d/a", "a"), file("b", "b"), dir("e"), file("e/x", "x"), file("c", "c")]));
    let upper = |entries: &[Entry]| {
        let baked = bake(&[lower.clone(), plain(&tarball(entries))]).unwrap();
        fsck(&baked.path);
        baked
    };
    let hides = |seen: &Seen| {
        let marks = [&b"trusted.overlay.opaque"[..], b"user.overlay.opaque"].map(|name| (name.to_vec(), b"y".to_vec()));
        seen.kind == FileKind::Directory && seen.xattrs == marks
    };
    // A whiteout and the name itself in one layer, in either order: only what is below is hidden.
    for entries in [[file("d/new", "n"), file(".wh.d", "")], [file(".wh.d", ""), file("d/new", "n")]] {
        let top = upper(&entries).top();
        assert_eq!(top[&b"d"[..]].kind, FileKind::Directory);
        assert!(hides(&top[&b"d"[..]]));
        assert_eq!(top[&b"d/new"[..]].data, b"n");
    }
    for entries in [[file("b", "new"), file(".wh.b", "")], [file(".wh.b", ""), file("b", "new")]] {
        assert_eq!(upper(&entries).top()[&b"b"[..]].data, b"new");
    }
    // No mark is lost because a file has the directory's name for a while.
    for entries in [
        vec![file(".wh.d", ""), file("d", "file"), dir("d")],
        vec![file("d", "file"), file(".wh.d", ""), dir("d")],
        vec![dir("d"), file("d/.wh..wh..opq", ""), file("d", "file"), dir("d")],
        vec![dir("d"), file("d/.wh.a", ""), symlink("d", "e"), dir("d")],
        vec![file("one", ""), file(".wh.d", ""), hardlink("d", "one"), dir("d")],
    ] {
        let baked = upper(&entries);
        assert!(hides(&baked.top()[&b"d"[..]]));
    }
    assert!(!hides(&upper(&[dir("d"), dir("d")]).top()[&b"d"[..]]), "control");
    // A file in place of a directory, and marks for what that directory had.
    let top = upper(&[file("d", "file"), file("d/.wh.a", ""), file("d/.wh..wh..opq", "")]).top();
    assert_eq!(top[&b"d"[..]].data, b"file");
    // An opaque root hides every layer below; overlayfs doesn't look for the mark there, so they aren't stacked.
    let opaque = upper(&[file(".wh..wh..opq", ""), file("only", "")]);
    assert_eq!(opaque.lowers.len(), 1);
    assert_eq!(upper(&[file("only", "")]).lowers.len(), 2, "control");
}

/// An opaque mark hides what a directory has, not whose it is; a whiteout hides the directory itself.
#[test]
fn i6_directories_without_an_entry_look_like_what_they_cover() {
    let lower = [dir("v").mode(0o700).owner(999, 998), file("v/old", ""), dir("v/sub").mode(0o711).owner(5, 6)];
    let attributes = |upper: &[Entry], name: &str| {
        let baked = bake(&[plain(&tarball(&lower)), plain(&tarball(upper))]).unwrap();
        let seen = &baked.top()[name.as_bytes()];
        (seen.mode, seen.uid, seen.gid)
    };
    let (mark, hidden, new) = (file("v/.wh..wh..opq", ""), file(".wh.v", ""), file("v/sub/new", ""));
    assert_eq!(attributes(std::slice::from_ref(&new), "v"), (0o700, 999, 998), "control");
    for entries in [[mark.clone(), new.clone()], [new.clone(), mark]] {
        assert_eq!(attributes(&entries, "v"), (0o700, 999, 998));
        assert_eq!(attributes(&entries, "v/sub"), (0o755, 0, 0));
    }
    for entries in [[hidden.clone(), new.clone()], [new, hidden]] {
        assert_eq!(attributes(&entries, "v"), (0o755, 0, 0));
        assert_eq!(attributes(&entries, "v/sub"), (0o755, 0, 0));
    }
}

#[test]
fn i7_bombs_end_at_a_limit() {
    let limits = Limits {
        link_bytes: 1 << 20,
        file_bytes: 1 << 20,
        layer_bytes: 4 << 20,
        entries: 1000,
        metadata_bytes: 1 << 20,
        depth: 20,
        extension_bytes: 64 << 10,
        xattr_bytes: 1 << 10,
        ..Limits::default()
    };
    let refused = |entries: &[Entry], what: &str| {
        let text = message(bake_with(&[gzipped(&tarball(entries))], &limits));
        assert!(text.contains(what), "{what}: {text}");
    };
    refused(&[Entry { declared: Some(1 << 40), ..file("tib", "") }], "file_bytes");
    refused(&[file("big", vec![1; (1 << 20) + 1])], "file_bytes");
    // 1000:1 and more: zeros through gzip, in many files.
    refused(&(0..8).map(|n| file(format!("z{n}"), vec![0; 1 << 20])).collect::<Vec<_>>(), "layer_bytes");
    refused(&(0..1100).map(|n| file(format!("f{n}"), "")).collect::<Vec<_>>(), "limit `entries`");
    refused(&[file("n".repeat(70_000), "")], "extension_bytes");
    refused(&[file("n".repeat(5000), "")], "paths have at most 4095");
    refused(&[file("n".repeat(256), "")], "names have at most 255");
    refused(&[file("d/".repeat(30) + "f", "")], "limit `depth`");
    refused(
        &[
            symlink("s", "d/".repeat(15)),
            file("d/".repeat(15) + "x", ""),
            file("s/".to_owned() + &"e/".repeat(10) + "f", ""),
        ],
        "limit `depth`",
    );
    // Forty links of 4,000 bytes to follow, with every header of 512 bytes.
    let mut links: Vec<_> =
        (0..39).map(|n| symlink(format!("l{n}"), "d/../".repeat(800) + &format!("l{}", n + 1))).collect();
    links.extend([dir("d"), symlink("l39", "d")]);
    links.extend((0..8).map(|_| file("l0/.wh.f", "")));
    refused(&links, "limit `link_bytes`");
    refused(&[file("x", "").xattr("user.a", &[b'v'; 1100])], "xattr_bytes");
    let targets: Vec<_> = (0..400).map(|n| symlink(format!("l{n}"), "t".repeat(4000))).collect();
    refused(&targets, "metadata_bytes");
    // Directories 4,000 deep can't be named at all.
    assert!(message(bake_entries(&[file("a/".repeat(4000), "")])).contains("at most 4095"));
    // Control: with room for them, the same entries are accepted.
    assert!(bake_entries(&[file("d/".repeat(30) + "f", ""), file("big", vec![1; (1 << 20) + 1])]).is_ok());
    assert!(bake_entries(&targets).is_ok());
    assert!(bake_entries(&links).is_ok());
}

/// A declared hole of 1 TiB costs neither time nor space, only the limit decides.
#[test]
fn i7_sparse_files() {
    let sparse = |size: u64| Entry {
        records: vec![
            (b"GNU.sparse.size".to_vec(), size.to_string().into_bytes()),
            (b"GNU.sparse.map".to_vec(), b"1048576,3".to_vec()),
        ],
        ..file("sparse", "abc")
    };
    assert!(message(bake_entries(&[sparse(1 << 40)])).contains("file_bytes"));
    let limits = Limits { file_bytes: 1 << 41, ..Limits::default() };
    let baked = bake_with(&[gzipped(&tarball(&[sparse(1 << 40)]))], &limits).unwrap();
    assert!(baked.summary.blocks < 10_000, "{}", baked.summary.blocks);
    let mut reader = baked.reader();
    let inode = reader.lookup(format!("{}/sparse", baked.lowers[0]).as_bytes()).unwrap().unwrap();
    assert_eq!(inode.size, 1 << 40);
}

/// Gaps that aren't holes any more, and the zeros that a large chunk holds around a byte, are paid for in full.
#[test]
fn i7_gaps_that_cost_space_end_at_a_limit() {
    let limits = Limits { content_bytes: 32 << 20, ..Limits::default() };
    let sparse = |count: u64, distance: u64, last: u64| {
        let extents: Vec<_> = (1..=count).map(|n| n * distance).chain([last]).map(|at| format!("{at},1")).collect();
        let entry = Entry {
            records: vec![
                (b"GNU.sparse.size".to_vec(), (last + 1).to_string().into_bytes()),
                (b"GNU.sparse.map".to_vec(), extents.join(",").into_bytes()),
            ],
            ..file("sparse", vec![b'x'; extents.len()])
        };
        bake_with(&[gzipped(&tarball(&[entry]))], &limits)
    };
    // Too many holes in front of the last one.
    assert!(message(sparse(5000, 128 << 10, 60 << 30)).contains("content_bytes"));
    // One byte in each chunk of 1 MiB.
    assert!(message(sparse(100, 1 << 20, 60 << 30)).contains("content_bytes"));
    assert!(sparse(10, 1 << 20, 60 << 30).is_ok(), "control");
}

#[test]
fn i8_what_differs_from_its_digest_is_refused() {
    let tar = tarball(&[file("a", vec![7; 100_000])]);
    for good in [plain(&tar), gzipped(&tar), zstded(&tar)] {
        assert!(bake(std::slice::from_ref(&good)).is_ok(), "control");
        let refused = |layer: LayerBlob| message(bake(&[layer]));
        // A flipped bit, anywhere.
        for at in [0, 3, 20, good.blob.len() / 2, good.blob.len() - 1] {
            let mut blob = good.blob.clone();
            blob[at] ^= 1;
            let text = refused(LayerBlob { blob, ..good.clone() });
            assert!(text.contains("expected sha256:"), "{at}: {text}");
        }
        // Shorter or longer than its descriptor.
        let cut = good.blob[..good.blob.len() - 5].to_vec();
        assert!(refused(LayerBlob { blob: cut.clone(), ..good.clone() }).contains("its descriptor says"));
        let long = [&good.blob[..], b"garbage"].concat();
        assert!(refused(LayerBlob { blob: long.clone(), ..good.clone() }).contains("its descriptor says"));
        // The same with descriptors that agree: the stream itself is cut off or followed by something.
        assert!(bake(&[layer(&tar, cut, good.media_type)]).is_err());
        assert!(bake(&[layer(&tar, long, good.media_type)]).is_err());
        // A diff id of another stream.
        let text = refused(LayerBlob { diff_id: Digest::of(b"other"), ..good.clone() });
        assert!(text.contains("decompressed"), "{text}");
    }
}

#[test]
fn i8_manifest_and_configuration_are_verified() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    let tar = tarball(&[file("a", "a")]);
    let blobs = layout.join("blobs/sha256");
    write_layout(&layout, &[plain(&tar)]);
    let names: Vec<_> = std::fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path()).collect();
    let open = || garboard_images::source::open("layout", dir.path());
    assert!(open().is_ok(), "control");
    for name in names.iter().filter(|name| !name.ends_with(Digest::of(&tar).hex())) {
        let good = std::fs::read(name).unwrap();
        let mut bad = good.clone();
        // Still the same JSON, with a space for a space that means nothing.
        *bad.last_mut().unwrap() = b' ';
        std::fs::write(name, &bad).unwrap();
        assert!(open().unwrap_err().to_string().contains("expected sha256:"));
        std::fs::write(name, [&good[..], b" "].concat()).unwrap();
        assert!(open().unwrap_err().to_string().contains("its descriptor says"));
        std::fs::write(name, vec![b' '; (4 << 20) + 1]).unwrap();
        assert!(open().unwrap_err().to_string().contains("manifest_bytes"));
        std::fs::remove_file(name).unwrap();
        assert!(open().unwrap_err().to_string().contains("No such file"));
        // A fifo isn't waited for.
        run("mkfifo", &[name.to_str().unwrap()]);
        assert!(open().unwrap_err().to_string().contains("not a regular file"));
        std::fs::remove_file(name).unwrap();
        std::fs::write(name, &good).unwrap();
    }
    assert!(open().is_ok());
}

#[test]
fn i9_a_hard_link_may_come_twice() {
    let baked = bake_entries(&[file("a", "once"), hardlink("b", "a"), hardlink("b", "a"), hardlink("a", "b")]).unwrap();
    let top = baked.top();
    assert_eq!((&top[&b"a"[..]].data[..], &top[&b"b"[..]].data[..]), (&b"once"[..], &b"once"[..]));
}

/// As with engines, which set what a link's header says through the link's name.
#[test]
fn i9_a_hard_links_header_holds_for_its_file() {
    let entries = [
        file("su", "x")
            .mode(0o4755)
            .owner(1, 2)
            .xattr("security.capability", b"c")
            .xattr("user.a", b"1")
            .xattr("user.b", b"2"),
        Entry { mtime: 5, ..hardlink("link", "su").mode(0o640).owner(3, 4).xattr("user.b", b"3") },
        symlink("s", "su").mode(0o777),
        Entry { mtime: 5, ..hardlink("t", "s").owner(3, 4) },
    ];
    let top = bake_entries(&entries).unwrap().top();
    let su = &top[&b"su"[..]];
    assert_eq!((su.links, su.mode, su.uid, su.gid, su.mtime), (2, 0o640, 3, 4, (5, 0)));
    assert_eq!(su.xattrs, [("user.a", "1"), ("user.b", "3")].map(|(name, value)| (name.into(), value.into())));
    let s = &top[&b"s"[..]];
    assert_eq!((s.links, s.mode, s.uid, s.gid, s.mtime), (2, 0o777, 3, 4, (1_700_000_000, 0)));
    // Together they may have no more attributes than one entry.
    let many: Vec<_> = [file("f", "")]
        .into_iter()
        .chain((0..10).map(|n| hardlink(format!("l{n}"), "f").xattr(&format!("user.{n}"), &[b'v'; 20_000])))
        .collect();
    assert!(message(bake_entries(&many)).contains("xattr_bytes"));
    assert!(bake_entries(&many[..5]).is_ok(), "control");
}

#[test]
fn i9_the_last_of_equal_names_wins() {
    let baked = bake_entries(&[
        file("f", "first").mode(0o600),
        dir("d").mode(0o700),
        file("d/kept", "k"),
        file("f", "second").mode(0o640),
        dir("./d/").mode(0o711).owner(3, 4),
        dir("gone"),
        file("gone/x", "x"),
        file("gone", "file now"),
    ])
    .unwrap();
    let top = baked.top();
    assert_eq!((&top[&b"f"[..]].data[..], top[&b"f"[..]].mode), (&b"second"[..], 0o640));
    assert_eq!((top[&b"d"[..]].mode, top[&b"d"[..]].uid, top[&b"d"[..]].gid), (0o711, 3, 4));
    assert_eq!(top[&b"d/kept"[..]].data, b"k");
    assert_eq!(top[&b"gone"[..]].data, b"file now");
    assert!(!top.contains_key(&b"gone/x"[..]));
}
