//! The environment of a program, as other runtimes make it of what the configuration says: each variable once, the last word counts, and
//! `HOME` of one that isn't told is what the container's `/etc/passwd` says.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::small_file;

/// No sensible passwd file is longer, in bytes. What stands behind that isn't looked at.
const MAX_PASSWD: usize = 1 << 20;
/// For users without an entry.
const NOWHERE: &str = "/";

/// The environment, complete. The root is the container's by now; its files are hostile.
pub(super) fn complete(env: &[String], uid: u32) -> Vec<String> {
    let mut env = once(env);
    env.retain(|variable| variable != "HOME=");
    if !env.iter().any(|variable| name(variable) == "HOME") {
        let passwd = read_passwd().unwrap_or_default();
        env.push(format!("HOME={}", home(&passwd, uid).unwrap_or(NOWHERE)));
    }
    env
}

/// Each variable once, where it is first named, with its last value.
fn once(env: &[String]) -> Vec<String> {
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(env.len());
    let mut variables: Vec<&String> = Vec::with_capacity(env.len());
    for variable in env {
        match places.get(name(variable)).and_then(|place| variables.get_mut(*place)) {
            Some(earlier) => *earlier = variable,
            None => {
                places.insert(name(variable), variables.len());
                variables.push(variable);
            }
        }
    }
    variables.into_iter().cloned().collect()
}

fn name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// Never waits: a fifo or a device of that name has no entries.
fn read_passwd() -> Result<String, Errno> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file: OwnedFd = rustix::fs::openat2(&root, "etc/passwd", flags, Mode::empty(), how)?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    small_file::read(&file, MAX_PASSWD)
}

/// The home directory of `uid` in a passwd(5) file.
fn home(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let id = fields.nth(2)?;
        let is_number = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
        let home = fields.nth(2)?;
        (is_number && id.parse() == Ok(uid) && home.starts_with('/') && !home.contains('\0')).then_some(home)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_the_entry_s() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\n+5:x:+7:1::/seven:\nweb:x:33:33::relative:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n";
        assert_eq!(home(passwd, 0), Some("/root"));
        assert_eq!(home(passwd, 33), Some("/srv"));
        assert_eq!(home(passwd, 7), None);
    }

    #[test]
    fn what_is_said_stays() {
        let env = vec!["A=1".to_owned(), "HOME=/said".to_owned()];
        assert_eq!(complete(&env, 0), env);
    }

    #[test]
    fn the_last_word_on_a_variable_counts() {
        let env = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let said = env("A=1 B=2 HOME=/x A=3= C B= AA=4 A HOME=/y");
        assert_eq!(complete(&said, 0), env("A B= HOME=/y C AA=4"));
        let none = complete(&env("HOME=/x HOME="), u32::MAX);
        assert_eq!(none, ["HOME=/"], "an empty one is none");
    }

    proptest::proptest! {
        #[test]
        fn hostile_files_give_an_absolute_path_or_none(passwd in "(.{0,30}\n){0,8}", uid in 0_u32..40) {
            if let Some(home) = home(&passwd, uid) {
                proptest::prop_assert!(home.starts_with('/'));
            }
        }
    }
}
