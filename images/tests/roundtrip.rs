//! Random trees through the whole pipeline and back: by our reader, by another project's, and by `fsck.erofs --extract`.

mod common;

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use common::*;
use erofs_rs::{EroFS, backend::SliceImage};
use garboard_images::erofs::FileKind;
use proptest::prelude::*;

/// What a file is, as the test makes it up.
#[derive(Debug, Clone)]
enum What {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Hardlink(prop::sample::Index),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

#[derive(Debug, Clone)]
struct Made {
    parent: prop::sample::Index,
    name: Vec<u8>,
    what: What,
    mode: u32,
    owner: (u32, u32),
    mtime: u64,
    xattrs: BTreeMap<String, Vec<u8>>,
}

/// Any bytes that are a name, short and long.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 1..12),
        1 => (1usize..=255, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ]
    .prop_map(|mut name: Vec<u8>| {
        name.iter_mut().filter(|byte| matches!(**byte, 0 | b'/')).for_each(|byte| *byte = b'_');
        if name == b"." || name == b".." || name.starts_with(b".wh.") { b"dot".to_vec() } else { name }
    })
}

/// Contents about the sizes at which something changes: nothing, inline, one block, several; with and without holes.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![Just(0usize), 1..40usize, 1000..1050usize, 4090..4100usize, 5000..20_000usize];
    let pieces = prop::collection::vec((any::<bool>(), 0..60usize, any::<u8>()), 0..5);
    let holes = (pieces, 0..5000usize).prop_map(|(pieces, tail)| {
        let blocks =
            pieces.into_iter().flat_map(|(zero, blocks, byte)| vec![if zero { 0 } else { byte }; blocks * 4096]);
        blocks.chain(vec![0; tail]).collect::<Vec<u8>>()
    });
    let plain = (length, any::<u8>()).prop_map(|(length, seed)| {
        (0..length).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<u8>>()
    });
    prop_oneof![4 => plain, 1 => holes]
}

fn made() -> impl Strategy<Value = Made> {
    let what = prop_oneof![
        4 => Just(What::Directory),
        8 => content().prop_map(What::File),
        2 => prop_oneof![name(), (1usize..4095).prop_map(|length| vec![b't'; length])].prop_map(What::Symlink),
        2 => any::<prop::sample::Index>().prop_map(What::Hardlink),
        1 => (1u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| What::Char(major, minor)),
        1 => (0u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| What::Block(major, minor)),
        1 => Just(What::Fifo),
    ];
    let id = || prop_oneof![Just(0u32), 0..70_000u32, Just(u32::MAX - 1)];
    let xattr = ("(user|trusted|security)\\.[a-z]{1,9}", prop::collection::vec(any::<u8>(), 0..300));
    let xattrs = prop_oneof![4 => Just(BTreeMap::new()), 1 => prop::collection::btree_map(xattr.0, xattr.1, 0..4)];
    let mtime = prop_oneof![Just(0u64), any::<u32>().prop_map(u64::from)];
    (any::<prop::sample::Index>(), name(), what, 0u32..=0o7777, (id(), id()), mtime, xattrs).prop_map(
        |(parent, name, what, mode, owner, mtime, xattrs)| Made { parent, name, what, mode, owner, mtime, xattrs },
    )
}

/// What is expected of a file: kind, data, mode, owner, time, attributes, and which number it had first.
type Expected = (FileKind, Vec<u8>, u16, (u32, u32), u64, Vec<(Vec<u8>, Vec<u8>)>, usize);

/// The archive and what should come of it. Names that are taken already are left out.
fn assemble(all: Vec<Made>) -> (Vec<Entry>, BTreeMap<Vec<u8>, Expected>) {
    let mut directories: Vec<Vec<u8>> = vec![Vec::new()];
    let mut others: Vec<Vec<u8>> = Vec::new();
    let mut expected: BTreeMap<Vec<u8>, Expected> = BTreeMap::new();
    let mut entries = Vec::new();
    for (number, made) in all.into_iter().enumerate() {
        let parent = made.parent.get(&directories).clone();
        let path = if parent.is_empty() { made.name } else { [&parent[..], b"/", &made.name].concat() };
        if expected.contains_key(&path) || path.len() > 4000 {
            continue;
        }
        let (kind, data, mut entry) = match made.what {
            What::Directory => (FileKind::Directory, Vec::new(), dir(&path)),
            What::File(data) => (FileKind::File, data.clone(), file(&path, data)),
            What::Symlink(target) => (FileKind::Symlink, target.clone(), symlink(&path, target)),
            What::Char(major, minor) => (
                FileKind::CharDevice { major, minor },
                Vec::new(),
                Entry { device: (major, minor), ..entry(b'3', &path) },
            ),
            What::Block(major, minor) => (
                FileKind::BlockDevice { major, minor },
                Vec::new(),
                Entry { device: (major, minor), ..entry(b'4', &path) },
            ),
            What::Fifo => (FileKind::Fifo, Vec::new(), entry(b'6', &path)),
            What::Hardlink(index) => {
                if !others.is_empty() {
                    let target = index.get(&others);
                    // Its header says again what its file's does, as with tar.
                    let same = expected[target].clone();
                    let (_, _, mode, (uid, gid), mtime, ref xattrs, _) = same;
                    let link = hardlink(&path, target).mode(mode.into()).owner(uid.into(), gid.into());
                    let named =
                        |(name, value): &(Vec<u8>, Vec<u8>)| ([b"SCHILY.xattr.", &name[..]].concat(), value.clone());
                    entries.push(Entry { mtime, records: xattrs.iter().map(named).collect(), ..link });
                    expected.insert(path.clone(), same);
                    others.push(path);
                }
                continue;
            }
        };
        (entry.mode, entry.uid, entry.gid, entry.mtime) =
            (made.mode, made.owner.0.into(), made.owner.1.into(), made.mtime);
        for (name, value) in &made.xattrs {
            entry = entry.xattr(name, value);
        }
        entries.push(entry);
        if kind == FileKind::Directory {
            directories.push(path.clone())
        } else {
            others.push(path.clone())
        }
        let xattrs = made.xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        expected.insert(path, (kind, data, made.mode as u16, made.owner, made.mtime, xattrs, number));
    }
    (entries, expected)
}

fn check(baked: &Baked, expected: &BTreeMap<Vec<u8>, Expected>) {
    let mut top = baked.top();
    top.remove(&Vec::new());
    assert_eq!(top.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let mut numbers = BTreeMap::new();
    for (path, (kind, data, mode, owner, mtime, xattrs, number)) in expected {
        let seen = &top[path];
        assert_eq!((seen.kind, seen.mode, (seen.uid, seen.gid)), (*kind, *mode, *owner));
        assert_eq!((seen.mtime, &seen.xattrs), ((*mtime as i64, 0), xattrs));
        assert!(seen.data == *data, "{}: contents differ", path.escape_ascii());
        // Names of one file have one inode, others have their own.
        assert_eq!(*numbers.entry(*number).or_insert(seen.nid), seen.nid);
        if *kind != FileKind::Directory {
            let names = expected.values().filter(|other| other.6 == *number).count();
            assert_eq!(seen.links as usize, names);
        }
    }
    let different: std::collections::BTreeSet<_> = numbers.values().collect();
    assert_eq!(different.len(), numbers.len());
}

/// The same by a reader that other people wrote.
fn check_with_other_reader(baked: &Baked, expected: &BTreeMap<Vec<u8>, Expected>) {
    let bytes = std::fs::read(&baked.path).unwrap();
    let other = EroFS::new(SliceImage::new(&bytes)).unwrap();
    let mut count = 0;
    for entry in other.walk_dir(baked.lowers[0].as_bytes()).unwrap() {
        let entry = entry.unwrap();
        let path = entry.dir_entry.path();
        let path = path.as_bytes().strip_prefix(baked.lowers[0].as_bytes()).unwrap_or(path.as_bytes());
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let (kind, data, mode, owner, mtime, xattrs, _) = &expected[path];
        let inode = entry.inode;
        count += 1;
        assert_eq!(inode.permissions().mode() & 0o7777, u32::from(*mode));
        assert_eq!(((inode.uid(), inode.gid()), inode.modified_unix()), (*owner, (*mtime as i64, 0)));
        let found: Vec<_> = other.xattrs_inode(inode).unwrap().into_iter().collect();
        assert_eq!(&found, xattrs);
        match kind {
            FileKind::File => {
                let mut content = Vec::new();
                other.open_inode_file(inode).unwrap().read_to_end(&mut content).unwrap();
                assert!(content == *data, "{}: contents differ", path.escape_ascii());
            }
            FileKind::Symlink => assert_eq!(other.read_link_inode(inode).unwrap().as_bytes(), data),
            FileKind::Directory => assert!(inode.is_dir()),
            FileKind::CharDevice { major, minor } | FileKind::BlockDevice { major, minor } => {
                assert_eq!(inode.device(), Some((*major, *minor)));
            }
            FileKind::Fifo => {}
        }
    }
    assert_eq!(count, expected.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_come_back(
        all in prop::collection::vec(made(), 0..60),
        compression in prop::sample::select(COMPRESSIONS.to_vec()),
    ) {
        let (entries, expected) = assemble(all);
        let baked = bake_compressed(&[gzipped(&tarball(&entries))], compression);
        // It knows neither zstd nor shared data; `compressed.rs` has it look at LZ4.
        if baked.reader().compression().is_none() {
            fsck(&baked.path);
        }
        check(&baked, &expected);
        check_with_other_reader(&baked, &expected);
    }
}

/// Directories of many blocks, whose last one is small, large or full.
#[test]
fn large_directories() {
    for (count, length) in [(3000usize, 9usize), (255, 4), (256, 4), (254, 4), (40, 200), (1000, 255)] {
        let entries: Vec<_> =
            (0..count).map(|n| file(format!("{:0>length$}", format!("{n:x}")), n.to_string())).collect();
        let baked = bake_entries(&entries).unwrap();
        fsck(&baked.path);
        let top = baked.top();
        assert_eq!(top.len(), count + 1);
        for (n, entry) in entries.iter().enumerate() {
            assert_eq!(top[&entry.name].data, entry.data);
            if n % 50 != 0 {
                continue;
            }
            let path = [baked.lowers[0].as_bytes(), b"/", &entry.name].concat();
            assert!(baked.reader().lookup(&path).unwrap().is_some());
        }
    }
}

/// What `fsck.erofs` extracts is what went in.
#[test]
fn extraction_by_the_reference_tools() {
    let big: Vec<u8> = (0..3_000_000u32).map(|n| (n ^ n >> 8) as u8).collect();
    // Nothing with holes: release 1.5 of the tools (Debian 12) leaves them out when extracting. The kernel test has those.
    let contents: [(&str, &[u8]); 5] =
        [("empty", b""), ("small", b"s"), ("d/1024", &[3; 1024]), ("d/1025", &[4; 1025]), ("big", &big)];
    let mut entries: Vec<_> = contents.iter().map(|(name, data)| file(name, data)).collect();
    entries.extend([symlink("link", "d/1024"), hardlink("hard", "big"), symlink("long", "x".repeat(4000))]);
    let baked = bake_entries(&entries).unwrap();
    let out = baked.dir.path().join("out");
    run("fsck.erofs", &[&format!("--extract={}", out.display()), "--no-preserve", baked.path.to_str().unwrap()]);
    let layer = out.join(baked.lowers[0].trim_start_matches('/'));
    for (name, data) in contents {
        assert!(std::fs::read(layer.join(name)).unwrap() == data, "{name}");
    }
    assert!(std::fs::read(layer.join("hard")).unwrap() == big);
    assert_eq!(std::fs::read_link(layer.join("link")).unwrap().to_str(), Some("d/1024"));
    assert_eq!(std::fs::read_link(layer.join("long")).unwrap().to_str().map(str::len), Some(4000));
    // Control: the checker does notice a changed superblock.
    let mut bytes = std::fs::read(&baked.path).unwrap();
    bytes[1024 + 36] ^= 1;
    let damaged = baked.dir.path().join("damaged");
    std::fs::write(&damaged, bytes).unwrap();
    assert!(!fsck_accepts(&damaged));
}

/// A file of more than 4 GiB, nearly all of it a hole, and one whose chunks are larger than the smallest.
#[test]
fn files_beyond_four_gibibytes() {
    let size = (5u64 << 30) + 123;
    let sparse = Entry {
        records: vec![
            (b"GNU.sparse.major".to_vec(), b"1".to_vec()),
            (b"GNU.sparse.minor".to_vec(), b"0".to_vec()),
            (b"GNU.sparse.realsize".to_vec(), size.to_string().into_bytes()),
            (b"GNU.sparse.name".to_vec(), b"huge".to_vec()),
        ],
        ..file("GNUSparseFile.0/huge", {
            let mut map = format!("2\n{}\n4\n{}\n3\n", 1u64 << 30, size - 3).into_bytes();
            map.resize(512, 0);
            [map, b"midsend".to_vec()].concat()
        })
    };
    let baked = bake_entries(&[sparse]).unwrap();
    fsck(&baked.path);
    assert!(baked.summary.blocks < 1000);
    let mut reader = baked.reader();
    let inode = reader.lookup(format!("{}/huge", baked.lowers[0]).as_bytes()).unwrap().unwrap();
    assert_eq!(inode.size, size);
    let mut found = Marks { at: 0, seen: Vec::new() };
    reader.copy(&inode, &mut found).unwrap();
    assert_eq!(found.at, size);
    let wanted = [(1 << 30, b'm'), ((1 << 30) + 1, b'i'), ((1 << 30) + 2, b'd'), ((1 << 30) + 3, b's')];
    assert_eq!(found.seen[..4], wanted);
    assert_eq!(found.seen[4..], [(size - 3, b'e'), (size - 2, b'n'), (size - 1, b'd')]);
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Remembers where bytes other than 0 are.
struct Marks {
    at: u64,
    seen: Vec<(u64, u8)>,
}

impl std::io::Write for Marks {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Slices are compared fast in unoptimised tests, too.
        if bytes.chunks(ZEROS.len()).any(|chunk| chunk != &ZEROS[..chunk.len()]) {
            let marks = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0);
            self.seen.extend(marks.map(|(n, &byte)| (self.at + n as u64, byte)));
        }
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
