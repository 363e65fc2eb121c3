//! The last steps: streams, session, privileges, filter, exec.

use std::ffi::CString;

use rustix::fs::Mode;
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::{Inherited, identity};
use crate::failure::{Context, Failure, Step};
use crate::launch::Process;
use crate::report;
use crate::sys::exec::{Strings, execve};
use crate::sys::process::{SeccompFilter, close_on_exec_from, reset_signals, set_limit};

/// Where a program without a slash is looked for when `env` has no `PATH`; Docker's default.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Executes the program. Returns only with the reason why it couldn't.
pub(crate) fn execute(inherited: &Inherited<'_>) -> Result<(), Failure> {
    let process = &inherited.launch.process;
    // Everything that allocates comes before the filter.
    let name = process.args.first().map_or("", String::as_str);
    let candidates = candidates(name, &process.env).at(Step::Execute, || name)?;
    let arguments = Strings::new(&process.args).at(Step::Execute, || name)?;
    let environment = Strings::new(&process.env).at(Step::Execute, || name)?;
    let filter = match &inherited.launch.seccomp {
        Some(seccomp) => {
            Some(SeccompFilter::new(&seccomp.bpf, seccomp.flags).at(Step::LoadSeccomp, || "malformed filter")?)
        }
        None => None,
    };

    place_stdio(inherited)?;
    rustix::process::setsid().at(Step::CreateSession, || name)?;
    close_on_exec_from(3).at(Step::CloseDescriptors, || "from 3")?;
    identity::limit_bounding_set(&process.capabilities)?;
    for limit in &process.rlimits {
        set_limit(limit)
            .at(Step::SetResourceLimit, || format!("{} to {}:{}", limit.resource, limit.soft, limit.hard))?;
    }
    if !process.no_new_privileges {
        // Without no_new_privs only CAP_SYS_ADMIN may load a filter, so it is loaded while there is one.
        load(filter.as_ref())?;
    }
    identity::become_user(process)?;
    rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(0o022)));
    reset_signals();
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivileges, || name)?;
        load(filter.as_ref())?;
    }

    report::executing(inherited.report).at(Step::Execute, || name)?;
    let mut failure = Errno::NOENT;
    for candidate in &candidates {
        match execve(candidate, &arguments, &environment) {
            Errno::NOENT | Errno::NOTDIR => {}
            // Remembered, as a shell does: a later directory may have one that can be executed.
            Errno::ACCESS => failure = Errno::ACCESS,
            errno => {
                failure = errno;
                break;
            }
        }
    }
    Err(Failure::new(Step::Execute, program_text(process), failure))
}

fn load(filter: Option<&SeccompFilter>) -> Result<(), Failure> {
    filter.map_or(Ok(()), |filter| filter.load().at(Step::LoadSeccomp, || "of the container"))
}

/// The program for an error message: by name, and where it was looked for.
fn program_text(process: &Process) -> String {
    match process.args.first() {
        Some(name) if name.contains('/') => name.clone(),
        Some(name) => format!("{name} (in PATH {})", search_path(&process.env)),
        None => String::new(),
    }
}

fn search_path(env: &[String]) -> &str {
    env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH)
}

/// The paths to try, in order, as execvp(3) does.
fn candidates(name: &str, env: &[String]) -> Result<Vec<CString>, Errno> {
    let text = |path: String| CString::new(path).map_err(|_| Errno::INVAL);
    if name.contains('/') {
        return Ok(vec![text(name.to_owned())?]);
    }
    // An empty entry would mean the working directory; nobody means that in a container.
    search_path(env).split(':').filter(|d| !d.is_empty()).map(|directory| text(format!("{directory}/{name}"))).collect()
}

/// Puts the streams on 0, 1 and 2, by copies above, as they may lie crosswise.
fn place_stdio(inherited: &Inherited<'_>) -> Result<(), Failure> {
    let copy = |fd| fcntl_dupfd_cloexec(fd, 3).at(Step::PlaceStdio, || "copy");
    let [stdin, stdout, stderr] = inherited.stdio;
    let (stdin, stdout, stderr) = (copy(stdin)?, copy(stdout)?, copy(stderr)?);
    rustix::stdio::dup2_stdin(&stdin).at(Step::PlaceStdio, || "0")?;
    rustix::stdio::dup2_stdout(&stdout).at(Step::PlaceStdio, || "1")?;
    rustix::stdio::dup2_stderr(&stderr).at(Step::PlaceStdio, || "2")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, env: &[&str]) -> Vec<String> {
        let env: Vec<String> = env.iter().map(|e| (*e).to_owned()).collect();
        candidates(name, &env).unwrap().into_iter().map(|c| c.into_string().unwrap()).collect()
    }

    #[test]
    fn a_plain_name_is_looked_up_in_path() {
        assert_eq!(found("web", &["A=b", "PATH=/x::/y"]), ["/x/web", "/y/web"]);
        assert_eq!(found("./web", &["PATH=/x"]), ["./web"]);
        assert!(found("web", &[]).contains(&"/usr/bin/web".to_owned()));
    }
}
