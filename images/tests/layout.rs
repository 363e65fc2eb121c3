//! What the image's layout promises: equal bytes for equal input, contents first, each once, the plan last.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;

use common::*;
use garboard_images::{Limits, source, store::Store};

fn base() -> Vec<Entry> {
    let mut entries = vec![dir("etc"), file("etc/passwd", "root:x:0:0::/:/bin/sh\n"), symlink("lib", "usr/lib")];
    entries.extend((0..40).map(|n| file(format!("usr/lib/f{n}"), vec![n as u8 + 1; 2000 + n * 100])));
    entries
}

/// Bakes one layer and a plan, in a directory of its own.
fn bake_with_plan(layer: LayerBlob, plan: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    write_layout(&dir.path().join("layout"), &[layer]);
    let image = source::open("layout", dir.path()).unwrap();
    let mut store = Store::new(dir.path()).unwrap();
    store.add_layer(&image, 0, &mut |_| {}).unwrap();
    store.add_dir("/proc", 0o555).unwrap();
    store.add_file("/garboard/reaper", 0o755, &[7u8; 9000][..]).unwrap();
    store.add_file("/garboard/plan", 0o600, plan).unwrap();
    let mut out = tempfile::tempfile().unwrap();
    let summary = store.finish(&mut out).unwrap();
    let mut bytes = vec![0; (summary.blocks * 4096) as usize];
    out.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn i10_equal_input_gives_equal_bytes() {
    let tar = tarball(&base());
    let first = bake_with_plan(gzipped(&tar), b"plan");
    // Another directory, another compression: the same image.
    assert!(first == bake_with_plan(gzipped(&tar), b"plan"));
    assert!(first == bake_with_plan(zstded(&tar), b"plan"));
    assert!(first == bake_with_plan(plain(&tar), b"plan"));
    // The order of entries isn't part of what a tree is; only the layer's name, its diff id, differs.
    let mut reversed = base();
    reversed.reverse();
    let forth = bake(&[plain(&tar)]).unwrap();
    let back = bake(&[plain(&tarball(&reversed))]).unwrap();
    let metadata = |baked: &Baked| (baked.summary.blocks, baked.summary.content_bytes, baked.summary.contents);
    assert_eq!(metadata(&forth), metadata(&back));
    let contents = forth.summary.blocks as usize * 4096 - forth.summary.metadata_bytes as usize;
    let (forth, back) = (std::fs::read(&forth.path).unwrap(), std::fs::read(&back.path).unwrap());
    assert!(forth[4096..contents] == back[4096..contents]);
    // Control: other input gives other bytes and another UUID.
    let mut other = base();
    other[1].data.push(b'#');
    let other = bake_with_plan(gzipped(&tarball(&other)), b"plan");
    assert!(first[1072..1088] != other[1072..1088]);
}

#[test]
fn a_changed_plan_changes_few_blocks() {
    let tar = tarball(&base());
    let (before, after) = (bake_with_plan(gzipped(&tar), &[1; 6000]), bake_with_plan(gzipped(&tar), &[2; 6000]));
    let changed: Vec<_> =
        before.chunks(4096).zip(after.chunks(4096)).enumerate().filter(|(_, (a, b))| a != b).map(|(n, _)| n).collect();
    let blocks = before.len() / 4096;
    assert_eq!(before.len(), after.len());
    // The superblock, for its UUID, and the plan itself at the very end.
    assert_eq!(changed, [0, blocks - 2, blocks - 1]);
}

#[test]
fn equal_contents_are_stored_once() {
    let content = vec![5; 100_000];
    let entries: Vec<_> = (0..20).map(|n| file(format!("f{n}"), &content)).collect();
    let once = bake_entries(&entries[..1]).unwrap();
    let many = bake(&[gzipped(&tarball(&entries)), gzipped(&tarball(&[file("again", &content)]))]).unwrap();
    fsck(&many.path);
    assert_eq!((once.summary.contents, many.summary.contents), (1, 1));
    assert_eq!(many.summary.shared_bytes, 20 * 100_000);
    assert!(many.summary.blocks - once.summary.blocks < 3);
    assert!(many.tree(&many.lowers[1]).values().skip(1).all(|seen| seen.data == content));
}

/// Linux 5.15 takes a link for damaged that lies elsewhere.
#[test]
fn links_lie_in_the_block_of_their_inode() {
    // Sizes that leave every rest of a block; with attributes, that shift what follows, too.
    let mut entries: Vec<_> = (0..300).map(|n| symlink(format!("l{n:03}"), "t".repeat(1 + n * 5))).collect();
    entries.extend(
        (0..300).map(|n| symlink(format!("x{n:03}"), "t".repeat(1 + n)).xattr("user.a", &vec![b'v'; 8 * n + 4])),
    );
    entries.extend((0..20).map(|n| symlink(format!("z{n}"), "t".repeat(4020 + n))));
    let baked = bake_entries(&entries).unwrap();
    fsck(&baked.path);
    let top = baked.top();
    assert_eq!(top.len(), entries.len() + 1);
    for (entry, seen) in entries.iter().map(|entry| (entry, &top[&entry.name])) {
        assert_eq!(seen.data, entry.link);
        // An inode of 64 bytes, then 12 before all attributes, 4 before each, and its name without the prefix.
        let attributes = seen.xattrs.iter().map(|(_, value)| 12 + 4 + 1 + value.len().next_multiple_of(4) as u64 + 3);
        let length = 64 + attributes.sum::<u64>() + seen.data.len() as u64;
        assert!(length > 4096 || seen.nid * 32 % 4096 + length <= 4096, "{}", entry.name.escape_ascii());
    }
}

#[test]
fn files_added_by_path() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::new(dir.path()).unwrap();
    store.add_file("/garboard/modules/x.ko", 0o644, &b"module"[..]).unwrap();
    store.add_dir("/garboard", 0o700).unwrap();
    for bad in ["relative", "/", "/a/../b", "/layers/x", "/garboard/modules/x.ko", "/garboard/modules/x.ko/y", ""] {
        assert!(store.add_file(bad, 0o644, &b""[..]).is_err(), "{bad}");
    }
    assert!(store.add_dir("/garboard/modules/x.ko", 0o755).is_err());
    let path = dir.path().join("image");
    store.finish(&mut File::create_new(&path).unwrap()).unwrap();
    fsck(&path);
    let mut reader = garboard_images::erofs::Reader::new(File::open(&path).unwrap()).unwrap();
    let root = reader.root().unwrap();
    let all = tree(&mut reader, &root);
    assert_eq!(all[&b"garboard"[..]].mode, 0o700);
    assert_eq!(all[&b"garboard/modules"[..]].mode, 0o755);
    assert_eq!(all[&b"garboard/modules/x.ko"[..]].data, b"module");
    assert!(all.contains_key(&b"layers"[..]));
}

#[test]
fn an_image_that_cannot_be_written_is_an_error() {
    let mut store = Store::new(tempfile::tempdir().unwrap().path()).unwrap();
    store.add_file("/f", 0o644, &[1u8; 100_000][..]).unwrap();
    let mut full = File::options().read(true).write(true).open("/dev/full").unwrap();
    let text = store.finish(&mut full).unwrap_err().to_string();
    assert!(text.contains("write system image"), "{text}");
    assert!(Store::new(std::path::Path::new("/nowhere")).unwrap_err().to_string().contains("scratch"));
    assert_eq!(Limits::default().manifest_bytes, 4 << 20);
}
