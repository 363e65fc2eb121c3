//! Compressed images: what goes in comes out, by three readers; what doesn't shrink isn't compressed; and the other
//! properties of images hold as well.

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::*;
use erofs_rs::{EroFS, backend::SliceImage};
use garboard_images::erofs::{Algorithm, Reader};
use garboard_images::{source, store::Store};
use proptest::prelude::*;

/// Bytes in a chunk, as the format's description says.
const CHUNK: usize = 128 << 10;

/// Bytes that nothing can shrink, other ones for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64*: a few lines, and good enough that no compressor finds anything in it.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that shrink well, other ones for each seed.
fn words(seed: u64, length: usize) -> Vec<u8> {
    let lines =
        (seed..).flat_map(|n| format!("line {} of a text that repeats itself\n", n.wrapping_mul(n)).into_bytes());
    lines.take(length).collect()
}

fn baked(entries: &[Entry], algorithm: Algorithm) -> Baked {
    bake_compressed(&[gzipped(&tarball(entries))], Some(algorithm))
}

/// Blocks of a compressed file's data; `None` if it isn't compressed.
fn compressed_blocks(baked: &Baked, name: &str) -> Option<u64> {
    let mut reader = baked.reader();
    let inode = reader.lookup(format!("{}/{name}", baked.lowers[0]).as_bytes()).unwrap().unwrap();
    reader.compressed_blocks(&inode).unwrap().map(|(_, blocks)| blocks)
}

/// Lets `fsck.erofs` extract an LZ4 image (release 1.5 knows no other), and compares. It refuses images that say that files
/// share compressed data, though it reads them: it gets a copy that doesn't say so.
fn check_extracted(baked: &Baked, entries: &[Entry]) {
    let mut bytes = fs::read(&baked.path).unwrap();
    bytes[1024 + 80] &= !0x20;
    let checksum = crc32c::crc32c(&bytes[1024..1028]);
    let checksum = crc32c::crc32c_append(checksum, &[0; 4]);
    let checksum = !crc32c::crc32c_append(checksum, &bytes[1032..4096]);
    bytes[1028..1032].copy_from_slice(&checksum.to_le_bytes());
    let (copy, out) = (baked.dir.path().join("copy"), baked.dir.path().join("extracted"));
    fs::write(&copy, bytes).unwrap();
    let text =
        run("fsck.erofs", &["-d3", &format!("--extract={}", out.display()), "--no-preserve", copy.to_str().unwrap()]);
    assert!(text.contains("successfully") && !text.contains("<E>"), "{text}");
    for entry in entries {
        let name = std::str::from_utf8(&entry.name).unwrap();
        let read = fs::read(out.join(baked.lowers[0].trim_start_matches('/')).join(name)).unwrap();
        assert!(read == entry.data, "{name}: contents differ");
    }
}

/// The same by a reader that other people wrote.
fn check_with_other_reader(path: &Path, lower: &str, entries: &[Entry]) {
    let bytes = fs::read(path).unwrap();
    let other = EroFS::new(SliceImage::new(&bytes)).unwrap();
    for entry in entries {
        let path = [lower.as_bytes(), b"/", &entry.name].concat();
        let mut content = Vec::new();
        other.open(&path[..]).unwrap().read_to_end(&mut content).unwrap();
        assert!(content == entry.data, "{}: contents differ", path.escape_ascii());
    }
}

fn check(baked: &Baked, entries: &[Entry]) {
    let top = baked.top();
    assert_eq!(top.len(), entries.len() + 1);
    for entry in entries {
        assert!(top[&entry.name].data == entry.data, "{}: contents differ", entry.name.escape_ascii());
    }
    check_with_other_reader(&baked.path, &baked.lowers[0], entries);
    if baked.reader().compression() != Some(Algorithm::Zstd) {
        check_extracted(baked, entries);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Files of pieces that shrink, that don't, and of zeros, cut anywhere.
    #[test]
    fn random_files_come_back(
        files in prop::collection::vec(prop::collection::vec((0u8..3, 0usize..200_000), 0..4), 1..6),
        seed in any::<u32>(),
    ) {
        let piece = |n: usize, &(kind, length): &(u8, usize)| match kind {
            0 => words(u64::from(seed) + n as u64, length),
            1 => noise(u64::from(seed) + n as u64, length),
            // So few that all of a file's together are no hole, which `fsck.erofs` 1.5 doesn't extract.
            _ => vec![0; length % 20_000],
        };
        let entries: Vec<_> = files.iter().enumerate().map(|(n, pieces)| {
            file(format!("f{n}"), pieces.iter().enumerate().flat_map(|(m, p)| piece(10 * n + m, p)).collect::<Vec<u8>>())
        }).collect();
        for algorithm in [Algorithm::Lz4, Algorithm::Zstd] {
            check(&baked(&entries, algorithm), &entries);
        }
    }
}

/// Files about the sizes at which something changes: a block, two, a chunk, several.
#[test]
fn every_size_at_which_something_changes() {
    let around = [4096, 8192, 12_288, CHUNK - 4096, CHUNK, CHUNK + 4096, CHUNK + 8192, 2 * CHUNK, 5 * CHUNK];
    let sizes = around.into_iter().flat_map(|size| [size - 1, size, size + 1]);
    let mut entries: Vec<_> = sizes.map(|size| file(format!("w{size}"), words(size as u64, size))).collect();
    // A chunk that shrinks before one that doesn't, and the other way round.
    entries.push(file("mixed", [words(1, CHUNK), noise(2, CHUNK), words(3, CHUNK + 5000), noise(4, 3000)].concat()));
    for algorithm in [Algorithm::Lz4, Algorithm::Zstd] {
        let baked = baked(&entries, algorithm);
        check(&baked, &entries);
        assert_eq!(baked.reader().compression(), Some(algorithm));
        assert_eq!(compressed_blocks(&baked, "w4096"), None, "one block can't become less");
        assert_eq!(compressed_blocks(&baked, "w4097"), Some(1));
        let mixed = compressed_blocks(&baked, "mixed").unwrap();
        assert!((CHUNK / 4096..CHUNK / 4096 + 40).contains(&(mixed as usize)), "{mixed}");
        let plain = bake_entries(&entries).unwrap();
        assert!(baked.summary.content_blocks * 2 < plain.summary.content_blocks, "{:?}", baked.summary);
        assert_eq!(baked.summary.content_bytes, plain.summary.content_bytes);
    }
}

/// An image that doesn't shrink is the same as one that nobody tried to compress: any kernel reads it.
#[test]
fn what_does_not_shrink_stays_as_it_is() {
    let entries = [file("noise", noise(1, 3 * CHUNK + 100)), file("small", words(1, 4000)), file("inline", "x")];
    let layers = [gzipped(&tarball(&entries))];
    let plain = fs::read(bake(&layers).unwrap().path).unwrap();
    for algorithm in [Algorithm::Lz4, Algorithm::Zstd] {
        let baked = bake_compressed(&layers, Some(algorithm));
        assert_eq!((baked.reader().compression(), compressed_blocks(&baked, "noise")), (None, None));
        assert!(fs::read(&baked.path).unwrap() == plain);
    }
}

/// Files that are mostly holes keep them; in others, such as programs, zeros are compressed like the rest.
#[test]
fn holes_are_kept_where_they_are_the_larger_part() {
    let entries = [
        file("sparse", [words(1, 4096), vec![0; 1 << 20], words(2, 5000)].concat()),
        file("program", [words(3, 300_000), vec![0; 200_000], noise(4, 200_000)].concat()),
    ];
    for algorithm in [Algorithm::Lz4, Algorithm::Zstd] {
        let baked = baked(&entries, algorithm);
        let top = baked.top();
        assert!(entries.iter().all(|entry| top[&entry.name].data == entry.data));
        check_with_other_reader(&baked.path, &baked.lowers[0], &entries);
        assert_eq!(compressed_blocks(&baked, "sparse"), None);
        assert!((50..100).contains(&compressed_blocks(&baked, "program").unwrap()));
    }
}

#[test]
fn equal_contents_are_compressed_once_and_marked_as_shared() {
    let content = words(1, 300_000);
    let entries: Vec<_> = (0..20).map(|n| file(format!("f{n}"), &content)).collect();
    let incompatible = |baked: &Baked| fs::read(&baked.path).unwrap()[1024 + 80];
    for algorithm in [Algorithm::Lz4, Algorithm::Zstd] {
        let (once, many) = (baked(&entries[..1], algorithm), baked(&entries, algorithm));
        check(&many, &entries);
        assert_eq!(once.summary.content_blocks, many.summary.content_blocks);
        // Only where files really share data is Linux 6.1 asked for.
        assert_eq!((incompatible(&once), incompatible(&many)), (0x03, 0x23));
        let linked = baked(&[entries[0].clone(), hardlink("link", "f0")], algorithm);
        assert_eq!(incompatible(&linked), 0x03);
    }
}

/// Bakes one layer and two files added by path, one of whose contents the layer has as well.
fn bake_with_plan(layer: &LayerBlob, plan: &[u8], algorithm: Algorithm) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    write_layout(&dir.path().join("layout"), std::slice::from_ref(layer));
    let image = source::open("layout", dir.path()).unwrap();
    let mut store = Store::new(dir.path()).unwrap();
    store.compress(Some(algorithm));
    store.add_layer(&image, 0, &mut |_| {}).unwrap();
    store.add_file("/garboard/modules/x.ko", 0o644, &words(7, 200_000)[..]).unwrap();
    store.add_file("/garboard/plan", 0o600, plan).unwrap();
    let mut out = tempfile::tempfile().unwrap();
    let summary = store.finish(&mut out).unwrap();
    let mut bytes = vec![0; (summary.blocks * 4096) as usize];
    out.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn files_of_pid_1_stay_as_they_are_and_last() {
    let blob = gzipped(&tarball(&[file("same", words(7, 200_000)), file("other", words(8, 200_000))]));
    for algorithm in [Algorithm::Lz4, Algorithm::Zstd] {
        let before = bake_with_plan(&blob, &[1; 6000], algorithm);
        let mut reader = Reader::new(std::io::Cursor::new(&before)).unwrap();
        let mut blocks = |path: &str| {
            let inode = reader.lookup(path.as_bytes()).unwrap().unwrap();
            reader.compressed_blocks(&inode).unwrap()
        };
        let layer = format!("/layers/{}", blob.diff_id.hex());
        let compressed =
            ["/garboard/plan", "/garboard/modules/x.ko", &format!("{layer}/same"), &format!("{layer}/other")]
                .map(|path| blocks(path).is_some());
        assert_eq!(compressed, [false, false, false, true]);
        let after = bake_with_plan(&blob, &[2; 6000], algorithm);
        let changed = before.chunks(4096).zip(after.chunks(4096)).enumerate().filter(|(_, (a, b))| a != b);
        let last = before.len() / 4096;
        assert_eq!(changed.map(|(n, _)| n).collect::<Vec<_>>(), [0, last - 2, last - 1]);
    }
}

#[test]
fn equal_input_gives_equal_bytes() {
    let entries: Vec<_> = (0..30).map(|n| file(format!("f{n}"), words(n, 10_000 + n as usize * 20_000))).collect();
    let tar = tarball(&entries);
    for algorithm in [Algorithm::Lz4, Algorithm::Zstd] {
        let bytes = |layer| fs::read(bake_compressed(&[layer], Some(algorithm)).path).unwrap();
        let first = bytes(gzipped(&tar));
        assert!(first == bytes(plain(&tar)) && first == bytes(zstded(&tar)));
    }
}

/// Why dm-verity covers the image beneath: there are bits whose change gives other bytes, and no error.
#[test]
fn compression_is_no_protection() {
    for algorithm in [Algorithm::Lz4, Algorithm::Zstd] {
        let text = words(1, CHUNK);
        let baked = baked(&[file("f", &text)], algorithm);
        let good = fs::read(&baked.path).unwrap();
        let altered = (4096 + 3000..4096 + 4000).find_map(|at| {
            let mut image = good.clone();
            image[at] ^= 1;
            let mut reader = Reader::new(std::io::Cursor::new(image)).unwrap();
            let inode = reader.lookup(format!("{}/f", baked.lowers[0]).as_bytes()).unwrap().unwrap();
            reader.read(&inode, 1 << 20).ok()
        });
        assert!(altered.unwrap() != text);
    }
}

/// A damaged index or chunk is an error that says so, never other bytes of the right length.
#[test]
fn damage_is_noticed() {
    for algorithm in [Algorithm::Lz4, Algorithm::Zstd] {
        let baked = baked(&[file("f", words(1, CHUNK))], algorithm);
        let good = fs::read(&baked.path).unwrap();
        let read = |image: &[u8]| {
            let mut reader = Reader::new(std::io::Cursor::new(image)).unwrap();
            let inode = reader.lookup(format!("{}/f", baked.lowers[0]).as_bytes()).unwrap().unwrap();
            reader.read(&inode, 1 << 20).map_err(|error| error.to_string())
        };
        assert!(read(&good).unwrap() == words(1, CHUNK));
        let mut cut = good.clone();
        cut[4096..4096 + 8000].fill(0);
        assert!(read(&cut).unwrap_err().contains("damaged data at 0"));
        // The index: the second entry's count of blocks.
        let entry = good.windows(8).rposition(|bytes| bytes[..4] == [2, 0, 0, 0] && bytes[5] == 8).unwrap();
        let mut index = good.clone();
        index[entry + 4] = 33;
        assert!(read(&index).unwrap_err().contains("compression index of an unknown form"));
    }
}
