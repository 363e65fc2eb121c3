use std::os::unix::fs::{FileExt, symlink};

use proptest::prelude::*;

use super::*;

const KEPT: KeptLog = KeptLog { file_size: 100, files: 3 };

fn files(data: &tempfile::TempDir, kept: KeptLog) -> Files {
    let logs = open_logs(data.path().to_str().unwrap()).unwrap();
    Files::open(&logs, "web", kept).unwrap()
}

/// Sizes of all files, the newest first.
fn sizes(data: &tempfile::TempDir) -> Vec<u64> {
    let directory = data.path().join(".garboard/logs/web");
    let mut sizes = Vec::new();
    for number in 0..200 {
        if let Ok(file) = std::fs::symlink_metadata(directory.join(numbered(number))) {
            sizes.push(file.len());
        }
    }
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), sizes.len());
    sizes
}

fn read(data: &tempfile::TempDir, name: &str) -> String {
    std::fs::read_to_string(data.path().join(".garboard/logs/web").join(name)).unwrap()
}

#[test]
fn a_torn_line_is_closed_and_what_nobody_accounted_for_is_cut() {
    let data = tempfile::tempdir().unwrap();
    let mut first = files(&data, KEPT);
    first.begin(0, 0).unwrap();
    first.append(b"whole\nto").unwrap();
    let (inode, _) = first.written();
    // A new boot.
    let mut second = files(&data, KEPT);
    second.begin(0, 0).unwrap();
    second.append(b"next\n").unwrap();
    assert_eq!(read(&data, "log"), "whole\nto\nnext\n");
    // The next worker of the same boot, of whose file all but the first line is not accounted for.
    let mut third = files(&data, KEPT);
    third.begin(inode, 6).unwrap();
    third.append(b"again\n").unwrap();
    assert_eq!(read(&data, "log"), "whole\nagain\n");
    assert_eq!(third.written(), (inode, 12));
    // Another file isn't cut.
    let mut fourth = files(&data, KEPT);
    fourth.begin(inode + 1, 0).unwrap();
    assert_eq!(read(&data, "log"), "whole\nagain\n");
}

#[test]
fn files_of_larger_declarations_make_room() {
    let data = tempfile::tempdir().unwrap();
    drop(files(&data, KEPT));
    let directory = data.path().join(".garboard/logs/web");
    for (number, size) in [(0, 150), (1, 90), (2, 100), (3, 10)] {
        let line = "x".repeat(size - 1) + "\n";
        std::fs::write(directory.join(numbered(number)), line).unwrap();
    }
    let mut fewer = files(&data, KEPT);
    assert_eq!(sizes(&data), [150, 90, 100]);
    fewer.begin(0, 0).unwrap();
    assert_eq!(sizes(&data), [0, 150], "what was too large was rotated, and nothing else has room");
}

#[test]
fn the_logs_of_others_are_removed_and_no_link_is_followed() {
    let data = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("log"), "precious").unwrap();
    symlink(elsewhere.path(), data.path().join(OWN)).unwrap();
    let logs = open_logs(data.path().to_str().unwrap()).unwrap();
    Files::open(&logs, "web", KEPT).unwrap();
    std::fs::create_dir_all(data.path().join(".garboard/logs/gone/deep/er")).unwrap();
    symlink(elsewhere.path(), data.path().join(".garboard/logs/link")).unwrap();
    symlink(elsewhere.path(), data.path().join(".garboard/logs/gone/deep/link")).unwrap();
    assert!(find(data.path().to_str().unwrap(), "link").is_none());
    retain(&logs, |name| name == "web").unwrap();
    assert_eq!(names(&logs).unwrap(), ["web"]);
    assert!(find(data.path().to_str().unwrap(), "web").is_some());
    forget(data.path().to_str().unwrap()).unwrap();
    assert_eq!(names(&logs).unwrap(), [""; 0]);
    assert_eq!(std::fs::read_to_string(elsewhere.path().join("log")).unwrap(), "precious");
    // Where there is nothing, nothing is made.
    forget(elsewhere.path().to_str().unwrap()).unwrap();
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Whatever is appended, whoever is killed when, and however declarations change: there is never more than declared.
    #[test]
    fn never_more_than_declared(steps in proptest::collection::vec((1..101_usize, 0..9_u8, 2..5_u32, 100..150_u64), 1..60)) {
        let data = tempfile::tempdir().unwrap();
        let mut kept = KEPT;
        let mut now = files(&data, kept);
        for (length, what, files_declared, file_size) in steps {
            match what {
                // Killed, and declared otherwise meanwhile.
                0 => {
                    kept = KeptLog { file_size, files: files_declared };
                    now = files(&data, kept);
                }
                // Killed in the middle of a rotation.
                1 => {
                    let directory = data.path().join(".garboard/logs/web");
                    let _ = std::fs::rename(directory.join("log.1"), directory.join("log.2"));
                    now = files(&data, kept);
                }
                // The machine lost its power in the middle of a line.
                2 => {
                    let path = data.path().join(".garboard/logs/web/log");
                    if let Ok(file) = std::fs::File::options().write(true).open(path) {
                        file.set_len(file.metadata().unwrap().len().saturating_sub(1)).unwrap();
                        file.write_all_at(b"", 0).unwrap();
                    }
                    now = files(&data, kept);
                }
                _ => {}
            }
            now.begin(0, 0).unwrap();
            let line = "x".repeat(length - 1) + "\n";
            if !now.has_room(line.len()) {
                now.rotate().unwrap();
            }
            now.append(line.as_bytes()).unwrap();
            let sizes = sizes(&data);
            prop_assert!(sizes.len() <= kept.files as usize, "{sizes:?}");
            prop_assert!(sizes.iter().sum::<u64>() <= kept.file_size * u64::from(kept.files), "{sizes:?} {kept:?}");
            prop_assert!(read(&data, "log").ends_with(&line));
        }
    }
}
