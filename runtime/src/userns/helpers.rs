//! newuidmap(1) and newgidmap(1): setuid programs that write the maps which /etc/subuid and /etc/subgid allow a user.

use std::process::{Command, Stdio};

use rustix::io::Errno;

use crate::failure::{Failure, Step};
use crate::launch::IdRange;

/// Has `program` write the map of process `pid`. Blocks until it has.
///
/// It is looked up in `PATH`, which is the user's own: a false one could do no more than the user can.
pub(super) fn write_map(program: &str, pid: i32, ranges: &[IdRange]) -> Result<(), Failure> {
    let mut command = Command::new(program);
    command.arg(pid.to_string()).args(arguments(ranges)).stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output().map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Failure::new(Step::MapIds, program, errno)
    })?;
    if output.status.success() {
        return Ok(());
    }
    // It names itself, and the range that isn't the user's.
    let complaint = String::from_utf8_lossy(&output.stderr).trim_end().replace('\n', ", ");
    let text = if complaint.starts_with(program) { complaint } else { format!("{program}: {complaint}") };
    Err(Failure::new(Step::MapIds, text, Errno::PERM))
}

/// Three numbers for each range.
fn arguments(ranges: &[IdRange]) -> Vec<String> {
    ranges.iter().flat_map(|r| [r.inside, r.outside, r.size]).map(|number| number.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGES: [IdRange; 2] =
        [IdRange { inside: 0, outside: 1000, size: 1 }, IdRange { inside: 1, outside: 100_000, size: 65_536 }];

    #[test]
    fn a_range_is_three_arguments() {
        assert_eq!(arguments(&RANGES), ["0", "1000", "1", "1", "100000", "65536"]);
    }

    #[test]
    fn what_a_helper_says_is_passed_on() {
        let absent = write_map("newuidmap-that-is-absent", 1, &RANGES).unwrap_err().to_string();
        assert!(absent.contains("map ids by newuidmap-that-is-absent: no such file or directory (ENOENT)") && absent.contains("uidmap"), "{absent}");
        // Any program that complains and fails.
        let refused = write_map("sleep", -1, &RANGES).unwrap_err().to_string();
        assert!(refused.contains("map ids by sleep: invalid option") && refused.contains("/etc/subuid"), "{refused}");
    }
}
