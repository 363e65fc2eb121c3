//! What keeps the `health` worker from a good answer, and whose trouble that is.

use garboard_runtime::failure::{Failure, Step};

/// Why there is no good answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is a bad one, in words.
    Bad(String),
    /// The container could not be asked, as the machine was short of something: that is not held against it.
    Unasked,
}

impl Trouble {
    /// A call has failed, on the way to the container or there.
    pub(super) fn of(what: &str, error: &std::io::Error) -> Self {
        let short = [libc::ENOMEM, libc::ENOBUFS, libc::EMFILE, libc::ENFILE];
        if error.raw_os_error().is_some_and(|e| short.contains(&e)) {
            Self::Unasked
        } else {
            Self::Bad(format!("{what}: {error}"))
        }
    }

    /// The program could not be executed. What the container itself is at the end of is its own trouble: its memory, or the processes that its
    /// user may have (execve(2)).
    pub(super) fn of_program(failure: &Failure, own_end: bool) -> Self {
        if failure.is_temporary() && failure.step != Step::Execute && !own_end {
            Self::Unasked
        } else {
            Self::Bad(failure.to_string())
        }
    }
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self::Bad(text)
    }
}

impl From<&str> for Trouble {
    fn from(text: &str) -> Self {
        Self::Bad(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn what_the_machine_is_short_of_is_no_answer_of_the_container() {
        let of = |errno| Trouble::of("do it", &std::io::Error::from_raw_os_error(errno));
        assert_eq!([libc::ENOMEM, libc::EMFILE, libc::ENFILE].map(of), [const { Trouble::Unasked }; 3]);
        assert!(matches!(of(libc::EPERM), Trouble::Bad(text) if text.starts_with("do it: ")));
        let failed = |step, errno, own| Trouble::of_program(&Failure::new(step, "x", errno), own);
        assert_eq!(failed(Step::Clone, Errno::AGAIN, false), Trouble::Unasked);
        for (step, errno, own) in [
            // It has used up what it may have itself, and there is no such program.
            (Step::Clone, Errno::NOMEM, true),
            (Step::Execute, Errno::AGAIN, false),
            (Step::Execute, Errno::NOENT, false),
        ] {
            assert!(matches!(failed(step, errno, own), Trouble::Bad(_)), "{step:?} {errno}");
        }
    }
}
