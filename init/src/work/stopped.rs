//! The `stopped` worker: keeps on the data filesystem which containers a person has stopped and that are to stay so over a boot.
//!
//! One file, a name to a line, replaced as a whole: after a power cut it is the older or the newer one.

use std::io;
use std::path::Path;

use garboard_runtime::plan::{self, Plan, Restart};

use super::{emit, own_file, report};
use crate::boot;
use crate::kept::OWN;

const FILE: &str = "stopped";
/// As many names as there can be containers, each as long as it can be; what lies behind that is no record of ours.
const LIMIT: u64 = 512 << 10;

/// Keeps that just these containers of the plan at this path (first argument) are stopped: their indices. Status 0: it is on
/// the disk.
pub fn run(arguments: &[String]) -> i32 {
    run_in(Path::new(plan::DATA), arguments)
}

/// [`run`] with the data filesystem at another place.
pub fn run_in(root: &Path, arguments: &[String]) -> i32 {
    match keep(root, arguments) {
        Ok(()) => 0,
        Err(fault) => {
            // Status 1 says enough if this can't be said.
            let _ = emit(&report::Stopped { fault });
            1
        }
    }
}

fn keep(root: &Path, arguments: &[String]) -> Result<(), String> {
    let (plan, indices) = arguments.split_first().ok_or("without a plan")?;
    let plan = boot::read_plan_at(plan).map_err(|e| e.to_string())?;
    let name = |index: &String| plan.containers.get(index.parse::<usize>().ok()?).map(|c| c.name.as_str());
    let mut text = String::new();
    for name in indices.iter().filter_map(name) {
        text.push_str(name);
        text.push('\n');
    }
    own_file::replace(&root.join(OWN), FILE, text.as_bytes())
        .map_err(|errno| format!("write {}: {errno}", root.join(OWN).join(FILE).display()))
}

/// The indices of the containers of the plan that a person had stopped and that are to stay so. No record: none. A record that
/// can't be read is told.
pub fn read(plan: &Plan) -> Result<Vec<usize>, String> {
    read_in(Path::new(plan::DATA), plan)
}

/// [`read`] with the data filesystem at another place.
pub fn read_in(root: &Path, plan: &Plan) -> Result<Vec<usize>, String> {
    let text = match own_file::read(&root.join(OWN), FILE, LIMIT) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(format!("read {}: {e}", root.join(OWN).join(FILE).display())),
    };
    let text = String::from_utf8_lossy(&text);
    let names: std::collections::BTreeSet<&str> = text.lines().collect();
    let stays = |c: &plan::Container| c.restart == Restart::UnlessStopped && names.contains(c.name.as_str());
    Ok(plan.containers.iter().enumerate().filter(|(_, c)| stays(c)).map(|(index, _)| index).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    /// A directory that stands for the data filesystem, with a plan of three containers in it: the last one is always started.
    fn place() -> (tempfile::TempDir, Plan, String) {
        let place = tempfile::tempdir().unwrap();
        let mut plan = boot::features::tests::plan();
        let one = plan.containers.first().unwrap().clone();
        let named = |name: &str, restart| plan::Container { name: name.into(), restart, ..one.clone() };
        plan.containers = vec![
            named("web", Restart::UnlessStopped),
            named("db", Restart::UnlessStopped),
            named("job", Restart::Always),
        ];
        let path = place.path().join("plan");
        std::fs::write(&path, plan.encode().unwrap()).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (place, plan, path)
    }

    fn keep(root: &Path, plan: &str, indices: &[&str]) -> i32 {
        let arguments: Vec<String> = [&[plan], indices].concat().into_iter().map(str::to_owned).collect();
        run_in(root, &arguments)
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let (place, plan, path) = place();
        let root = place.path();
        assert_eq!(read_in(root, &plan), Ok(vec![]), "nothing was kept yet");
        // A power cut may have left half of one.
        std::fs::create_dir(root.join(OWN)).unwrap();
        std::fs::write(root.join(OWN).join("stopped.new"), "we").unwrap();
        for (indices, stopped) in
            [(&["0", "1"][..], vec![0, 1]), (&["1"], vec![1]), (&[], vec![]), (&["9", "x"], vec![])]
        {
            assert_eq!(keep(root, &path, indices), 0);
            assert_eq!(read_in(root, &plan), Ok(stopped), "{indices:?}");
        }
        assert_eq!(std::fs::read_dir(root.join(OWN)).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn it_is_nobody_else_s() {
        let (place, _, path) = place();
        assert_eq!(keep(place.path(), &path, &["0"]), 0);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        let directory = place.path().join(OWN);
        assert_eq!((mode(&directory), mode(&directory.join(FILE))), (0o700, 0o600));
    }

    #[test]
    fn only_names_that_the_plan_has_and_whose_policy_says_so_count() {
        let (place, plan, _) = place();
        let directory = place.path().join(OWN);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join(FILE), b"job\n\xff\nstranger\ndb").unwrap();
        assert_eq!(read_in(place.path(), &plan), Ok(vec![1]));
        // However long it is.
        std::fs::write(directory.join(FILE), ["db\n".as_bytes(), &vec![b'x'; 1 << 20], b"\nweb\n"].concat()).unwrap();
        assert_eq!(read_in(place.path(), &plan), Ok(vec![1]));
    }

    #[test]
    fn a_record_that_leads_elsewhere_is_told_and_not_followed() {
        let (place, plan, path) = place();
        let directory = place.path().join(OWN);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(place.path().join("elsewhere"), "db\n").unwrap();
        symlink("../elsewhere", directory.join(FILE)).unwrap();
        assert!(read_in(place.path(), &plan).unwrap_err().contains(".garboard/stopped"));
        // It is replaced as a whole.
        assert_eq!(keep(place.path(), &path, &["0"]), 0);
        assert_eq!(read_in(place.path(), &plan), Ok(vec![0]));
        assert_eq!(std::fs::read_to_string(place.path().join("elsewhere")).unwrap(), "db\n");
        std::fs::remove_dir_all(&directory).unwrap();
        symlink("/", &directory).unwrap();
        assert_eq!(keep(place.path(), &path, &["0"]), 1);
        assert!(read_in(place.path(), &plan).is_err());
    }
}
