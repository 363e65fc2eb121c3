//! R11: what a machine without limits of memory must still contain. The rest needs the controllers, and a booted machine.

use garboard_runtime::launch::{MountSource, tmpfs_inodes};
use garboard_runtime::spec::{Mount, MountKind};
use libtest_mimic::Trial;

use crate::site::shell;

pub fn tests() -> Vec<Trial> {
    trials![r11_files_that_hold_nothing_are_limited]
}

/// Makes empty files until it can't, at most 1,500, and prints how many.
fn fill(directory: &str) -> String {
    format!("i=0; while [ $i -lt 1500 ] && true > {directory}/$i; do i=$((i+1)); done 2>/dev/null; echo $i")
}

fn r11_files_that_hold_nothing_are_limited() {
    let limit = usize::try_from(tmpfs_inodes(65_536)).unwrap();
    assert!(limit < 1500);
    let with_tmpfs = |script: &str| {
        shell(script).options(|o| {
            let kind = MountKind::Tmpfs { size: Some(65_536), mode: None, uid: None, gid: None };
            o.mounts.push(Mount { target: "/scratch".to_owned(), kind, read_only: false, noexec: false });
        })
    };
    let made = |text: String| text.trim().parse::<usize>().unwrap();
    // The directory itself is one.
    assert_eq!(made(with_tmpfs(&fill("/scratch")).output()), limit - 1);
    let open = with_tmpfs(&fill("/scratch")).change(|l| {
        for mount in &mut l.mounts {
            if let MountSource::Filesystem { options, .. } = &mut mount.source {
                options.retain(|option| !option.starts_with("nr_inodes"));
            }
        }
    });
    assert_eq!(made(open.output()), 1500, "control: the size alone limits no empty files");

    let mut small = shell(&fill("/tmp"));
    small.upper = garboard_runtime::launch::Upper::Tmpfs { size: 1 << 20 };
    let in_root = made(small.output());
    assert!(in_root > 900 && in_root < limit, "the root filesystem's own directories count, too: {in_root}");
    assert_eq!(made(shell(&fill("/tmp")).output()), 1500, "control: a larger one has room for more");
}
