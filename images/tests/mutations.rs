//! Damaged input never panics, hangs or grows: the fuzz targets' functions on mutations of good input, as part of every
//! test run.

mod common;

use common::*;
use garboard_images::fuzz;
use proptest::prelude::*;

fn sample() -> Vec<Entry> {
    vec![
        dir("d").owner(70_000, 1).xattr("user.note", b"value"),
        file("d/f", vec![7; 3000]).xattr("security.capability", &[1; 20]),
        file("d/g", vec![0; 70_000]),
        file("d/c", (0..9000u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>()),
        symlink("d/s", "../d"),
        hardlink("d/s/h", "d/f"),
        file(".wh.gone", ""),
        file("d/.wh..wh..opq", ""),
        Entry { device: (1, 3), ..entry(b'3', "null") },
        Entry {
            records: vec![
                (b"GNU.sparse.map".to_vec(), b"4096,3,100000,3".to_vec()),
                (b"GNU.sparse.size".to_vec(), b"200000".to_vec()),
            ],
            ..file("sparse", "abcdef")
        },
        file("n".repeat(150), "long name"),
    ]
}

/// Writes the checksum of every header again, so that a change gets past it.
fn fix_checksums(tar: &mut [u8], headers: &[usize]) {
    for &at in headers {
        let header = &mut tar[at..at + 512];
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Where headers are: blocks whose magic says so.
fn headers(tar: &[u8]) -> Vec<usize> {
    (0..tar.len()).step_by(512).filter(|at| tar[at + 257..].starts_with(b"ustar")).collect()
}

/// Edits: a place (as a fraction of the whole) and the byte to put there.
fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\0 /.0127xLKSg=\n".to_vec())];
    prop::collection::vec((any::<prop::sample::Index>(), byte), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_layers(edits in edits(), cut in prop::option::weighted(0.2, any::<prop::sample::Index>())) {
        let mut tar = tarball(&sample());
        let headers = headers(&tar);
        for (at, byte) in edits {
            // Headers and extension records rather than the long stretches of data.
            let at = headers[at.index(headers.len())] + at.index(1024);
            if let Some(place) = tar.get_mut(at) {
                *place = byte;
            }
        }
        fix_checksums(&mut tar, &headers);
        if let Some(cut) = cut {
            tar.truncate(cut.index(tar.len()));
        }
        fuzz::layer_tar(&tar);
    }

    #[test]
    fn damaged_images(edits in edits(), form in 0..COMPRESSIONS.len()) {
        let mut image = GOOD_IMAGES.with(|images| images[form].clone());
        // Everything but the superblock, whose checksum would refuse it at once.
        for (at, byte) in edits {
            let at = 4096 + at.index(image.len() - 4096);
            image[at] = byte;
        }
        fuzz::erofs(&image);
    }

    #[test]
    fn damaged_json(edits in edits(), start in 0usize..3) {
        let mut json = JSON[start].as_bytes().to_vec();
        for (at, byte) in edits {
            let at = at.index(json.len());
            json[at] = byte;
        }
        fuzz::manifests(&json);
    }
}

thread_local! {
    static GOOD_IMAGES: [Vec<u8>; 3] = COMPRESSIONS.map(|compression| {
        std::fs::read(bake_compressed(&[plain(&tarball(&sample()))], compression).path).unwrap()
    });
}

const JSON: [&str; 3] = [
    r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":3,"platform":{"os":"linux","architecture":"amd64"},"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}"#,
    r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Cmd":["x"]},"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#,
    r#"[{"Config":"c.json","RepoTags":["x:latest"],"Layers":["l/layer.tar"]}]"#,
];

/// What the mutations start from is good, so that they test more than the first check.
#[test]
fn the_samples_are_accepted() {
    let baked = bake_entries(&sample()).unwrap();
    fsck(&baked.path);
    for compression in COMPRESSIONS {
        let compressed = bake_compressed(&[gzipped(&tarball(&sample()))], compression);
        assert_eq!(compressed.reader().compression(), compression);
    }
    let top = baked.top();
    assert_eq!(top[&b"sparse"[..]].data.len(), 200_000);
    assert_eq!(top[&b"d/h"[..]].links, 2);
    let mut tar = tarball(&sample());
    let headers = headers(&tar);
    assert!(headers.len() >= sample().len());
    let before = tar.clone();
    fix_checksums(&mut tar, &headers);
    assert!(bake(&[plain(&tar)]).is_ok() && tar.len() == before.len());
}
