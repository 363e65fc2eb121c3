//! Contents kept and read back, and the bounds on them.

use std::fs::File;

use proptest::prelude::*;

use super::*;

fn contents() -> Contents {
    Contents::new(&std::env::temp_dir(), &Limits::default()).unwrap()
}

fn put(contents: &mut Contents, pieces: &[(bool, usize)]) -> ContentId {
    let mut writer = contents.writer();
    for &(zero, length) in pieces {
        if zero {
            writer.write_zeros(length as u64).unwrap();
        } else {
            writer.write(&vec![b'x'; length]).unwrap();
        }
    }
    writer.finish().unwrap()
}

proptest! {
    /// However it is cut into pieces, holes declared or written out: one content, which reads back anywhere.
    #[test]
    fn contents_come_back(
        pieces in prop::collection::vec((any::<bool>(), 0usize..200_000), 0..8),
        cuts in prop::collection::vec(1usize..100_000, 1..5),
        at in any::<prop::sample::Index>(),
    ) {
        let whole: Vec<u8> = pieces.iter().flat_map(|&(zero, n)| vec![if zero { 0 } else { b'x' }; n]).collect();
        let mut contents = contents();
        let id = put(&mut contents, &pieces);
        let mut writer = contents.writer();
        let mut rest = &whole[..];
        for cut in cuts.iter().cycle() {
            let (part, others) = rest.split_at(rest.len().min(*cut));
            writer.write(part).unwrap();
            rest = others;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(writer.finish().unwrap(), id);
        let content = contents.get(id);
        prop_assert_eq!(content.size, whole.len() as u64);
        if content.holes.is_empty() {
            prop_assert_eq!(content.digest, Digest::of(&whole));
        }
        let from = if whole.is_empty() { 0 } else { at.index(whole.len()) };
        let mut read = vec![1; whole.len() - from];
        contents.read_at(id, from as u64, &mut read).unwrap();
        prop_assert!(read == whole[from..]);
    }
}

#[test]
fn holes_are_found_and_bounded() {
    let mut contents = contents();
    let id = put(&mut contents, &[(false, 4096), (true, 16 * 4096), (false, 4096), (true, 15 * 4096), (false, 1)]);
    assert_eq!(*contents.get(id).holes, [Hole { start: 1, count: 16 }]);
    assert_eq!(contents.get(id).stored(), 4096 * 17 + 1);
    let many: Vec<_> = (0..MOST_HOLES + 10).flat_map(|_| [(false, 4096), (true, 16 * 4096)]).collect();
    let id = put(&mut contents, &many);
    assert_eq!(contents.get(id).holes.len(), MOST_HOLES);
}

/// Two contents with the same bytes between different holes differ.
#[test]
fn holes_are_part_of_what_is_compared() {
    let mut contents = contents();
    let first = put(&mut contents, &[(false, 4096), (true, 1 << 20), (false, 4096)]);
    let second = put(&mut contents, &[(false, 8192), (true, 1 << 20)]);
    let third = put(&mut contents, &[(false, 8192)]);
    assert_eq!(contents.get(first).digest, contents.get(third).digest);
    assert!(first != second && second != third && first != third);
    assert_eq!(contents.shared(), 0);
    assert_eq!(put(&mut contents, &[(false, 8192)]), third);
    assert_eq!(contents.shared(), 8192);
}

/// Written bytes and zeros that can't be holes any more count; a gap is refused before any of it is written out.
#[test]
fn the_bytes_that_are_kept_are_bounded() {
    let limits = Limits { content_bytes: 40 << 20, ..Limits::default() };
    let contents = || Contents::new(&std::env::temp_dir(), &limits).unwrap();
    let refused = |error: Error| {
        let text = error.to_string();
        assert!(text.contains(&format!("{} bytes, the limit `content_bytes`", limits.content_bytes)), "{text}");
    };
    let mut few = contents();
    put(&mut few, &[(false, 30 << 20)]);
    put(&mut few, &[(true, 1 << 40), (false, 1)]);
    refused(few.writer().write(&vec![b'y'; 20 << 20]).unwrap_err());

    let mut many = contents();
    let mut writer = many.writer();
    for _ in 0..MOST_HOLES {
        writer.write_zeros(SHORTEST_HOLE * BLOCK as u64).unwrap();
        writer.write(&[b'x'; BLOCK]).unwrap();
    }
    writer.write_zeros(60 << 30).unwrap();
    refused(writer.write(&[b'x'; BLOCK]).unwrap_err());
    assert!(many.spool.metadata().unwrap().len() <= limits.content_bytes);
}

#[test]
fn a_full_disk_is_told_with_the_directory_and_the_way_to_another() {
    let mut contents = contents();
    contents.spool = File::options().write(true).open("/dev/full").unwrap();
    let mut writer = contents.writer();
    writer.write(b"x").unwrap();
    let text = writer.finish().unwrap_err().to_string();
    let directory = std::env::temp_dir();
    assert!(text.contains(&format!("in {}: No space left", directory.display())), "{text}");
    assert!(text.contains("set TMPDIR to a directory"), "{text}");
}
