use proptest::prelude::*;

use super::*;

fn directory(files: &[&[u8]]) -> (tempfile::TempDir, OwnedFd) {
    let place = tempfile::tempdir().unwrap();
    for (number, content) in files.iter().enumerate() {
        std::fs::write(place.path().join(numbered(u32::try_from(number).unwrap())), content).unwrap();
    }
    let fd = rustix::fs::open(place.path(), OFlags::RDONLY | OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    (place, fd)
}

fn file(boot: &str, lines: std::ops::Range<u32>) -> Vec<u8> {
    let mut text = format!("# boot {boot} began 2026-03-01T12:00:00.000Z\n");
    for n in lines {
        text.push_str(&format!("2026-03-01T12:00:01.000Z stdout F line {n}\n"));
    }
    text.into_bytes()
}

fn texts(lines: &VecDeque<KeptLine>) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[test]
fn the_newest_of_earlier_boots_come_from_as_many_files_as_it_takes() {
    let newest = [file("two", 4..6), file("now", 6..9)].concat();
    let (_place, fd) = directory(&[&file("now", 9..99), &newest, &file("two", 2..4), &file("one", 0..2)]);
    assert_eq!(texts(&tail(&fd, "now", 3, 10_000)), ["line 3", "line 4", "line 5"]);
    let all = tail(&fd, "now", 100, 10_000);
    assert_eq!(texts(&all), ["line 0", "line 1", "line 2", "line 3", "line 4", "line 5"]);
    assert_eq!((all[0].boot.as_deref(), all[5].boot.as_deref(), all[5].time_ms), (Some("one"), Some("two"), 1000));
    assert!(tail(&fd, "now", 0, 10_000).is_empty());
    // Bounded by bytes, and without a hole.
    assert_eq!(texts(&tail(&fd, "now", 100, 3 * (6 + OVERHEAD))), ["line 3", "line 4", "line 5"]);
}

#[test]
fn a_line_goes_on_in_the_next_file_but_not_in_the_next_boot() {
    let begun = [file("one", 0..1), b"2026-03-01T12:00:01.000Z stdout P begun\n".to_vec()].concat();
    let (_place, fd) = directory(&[&file("one", 1..2), &begun]);
    let continues = |lines: VecDeque<KeptLine>| lines.iter().map(|line| line.continues).collect::<Vec<_>>();
    assert_eq!(continues(tail(&fd, "now", 9, 10_000)), [false, false, true]);
    let (_place, fd) = directory(&[&[begun, file("two", 1..2)].concat()]);
    assert_eq!(continues(tail(&fd, "now", 9, 10_000)), [false, false, false]);
}

/// What is said of missing lines is none of those that were asked for.
#[test]
fn a_gap_at_the_end_is_no_line() {
    let mut gap = String::new();
    format::gap(&mut gap, 700);
    let (_place, fd) = directory(&[&[file("one", 0..3), gap.into_bytes()].concat()]);
    let lines = tail(&fd, "now", 1, 10_000);
    assert_eq!(
        lines.iter().map(|line| (line.text.as_str(), line.missing)).collect::<Vec<_>>(),
        [("line 2", 0), ("", 700)]
    );
}

proptest! {
    #[test]
    fn any_files_are_read_within_bounds(
        files in proptest::collection::vec(proptest::collection::vec(prop_oneof![any::<u8>().prop_map(|b| vec![b]),
            Just(b"\n".to_vec()), Just(b"# boot one began 2026-03-01T12:00:00.000Z\n".to_vec()),
            Just(b"2026-03-01T12:00:01.000Z stdout P ".to_vec())], 0..200), 0..4),
        count in 0..50_usize, bytes in 0..5000_usize,
    ) {
        let files: Vec<Vec<u8>> = files.into_iter().map(|parts| parts.concat()).collect();
        let (_place, fd) = directory(&files.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let lines = tail(&fd, "now", count, bytes);
        prop_assert!(lines.iter().filter(|line| line.missing == 0).count() <= count);
        prop_assert!(lines.iter().map(cost).sum::<usize>() <= bytes);
        for line in &lines {
            prop_assert!(!line.text.chars().any(|c| c.is_control() && c != '\t'));
        }
    }
}
