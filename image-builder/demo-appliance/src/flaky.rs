//! A job that fails twice after each boot before it succeeds: the restart policy at work.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// How often it fails before it succeeds.
const FAILURES: u32 = 2;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Counts this start in `file`, which must outlive the container, and fails if it is one of the first two of this boot.
pub fn run(file: &Path) -> Result<ExitCode, String> {
    let boot = fs::read_to_string(BOOT_ID).map_err(|e| format!("read {BOOT_ID}: {e}"))?;
    let earlier = fs::read_to_string(file).unwrap_or_default();
    let attempt = failures_so_far(&earlier, boot.trim()) + 1;
    if attempt > FAILURES {
        println!("attempt {attempt}: recovered");
        return Ok(ExitCode::SUCCESS);
    }
    fs::write(file, format!("{} {attempt}\n", boot.trim())).map_err(|e| format!("write {}: {e}", file.display()))?;
    eprintln!("attempt {attempt}: failing on purpose");
    Ok(ExitCode::FAILURE)
}

/// What an earlier start noted, if it was in the same boot.
fn failures_so_far(note: &str, boot: &str) -> u32 {
    match note.trim().split_once(' ') {
        Some((id, count)) if id == boot => count.parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_within_one_boot_only() {
        assert_eq!(failures_so_far("", "a"), 0);
        assert_eq!(failures_so_far("a 1\n", "a"), 1);
        assert_eq!(failures_so_far("a 2\n", "a"), 2);
        assert_eq!(failures_so_far("b 2\n", "a"), 0);
        assert_eq!(failures_so_far("a many\n", "a"), 0);
    }

    #[test]
    fn notes_its_failures_and_then_succeeds() {
        let dir = std::env::temp_dir().join(format!("garboard-flaky-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("count");
        for attempt in 1..=FAILURES {
            assert_eq!(run(&file).unwrap(), ExitCode::FAILURE);
            let boot = fs::read_to_string(BOOT_ID).unwrap();
            assert_eq!(failures_so_far(&fs::read_to_string(&file).unwrap(), boot.trim()), attempt);
        }
        assert_eq!(run(&file).unwrap(), ExitCode::SUCCESS);
        fs::remove_dir_all(&dir).unwrap();
    }
}
