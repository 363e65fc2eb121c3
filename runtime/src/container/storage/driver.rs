//! Which of the drivers puts layers together: decided by what was found to work.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::hint;

/// How layers become one root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Driver {
    /// The kernel's overlay.
    Overlay,
    /// fuse-overlayfs(1), a process that lives as long as the container's root.
    Fuse,
    /// A copy.
    Copy,
}

impl Driver {
    /// Its name in annotations.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Fuse => "fuse-overlayfs",
            Self::Copy => "copy",
        }
    }

    /// By its name in annotations.
    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Overlay, Self::Fuse, Self::Copy].into_iter().find(|driver| driver.name() == name)
    }
}

/// What was found: `None` is what works, else why it doesn't.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    /// Mounting the layers as an overlay.
    pub(super) overlay: Option<Errno>,
    /// Opening `/dev/fuse`, and finding the program.
    pub(super) fuse: Option<Errno>,
}

/// The first driver that works, and what a person should know about it.
pub(super) fn choose(probe: &Probe) -> (Driver, Option<String>) {
    let Some(overlay) = probe.overlay.map(hint::errno_text) else { return (Driver::Overlay, None) };
    let refused = format!("the kernel can't mount them as an overlay here: {overlay}");
    match probe.fuse.map(hint::errno_text) {
        None => (Driver::Fuse, Some(format!("layers: fuse-overlayfs is used, as {refused}"))),
        Some(fuse) => {
            let missing = format!("fuse-overlayfs or /dev/fuse can't be used: {fuse}");
            (Driver::Copy, Some(format!("layers: they are copied, as {refused}, and {missing}")))
        }
    }
}

/// Whether a failed mount says that the kernel has no overlay for these directories. Anything else is an error, as want of memory
/// or of descriptors is no reason to copy an image.
pub(super) fn is_refusal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::PERM | Errno::ACCESS | Errno::NODEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::ROFS
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_works_is_chosen_and_what_is_missing_told() {
        let choose = |overlay, fuse| choose(&Probe { overlay, fuse });
        assert_eq!(choose(None, None), (Driver::Overlay, None));
        assert_eq!(choose(None, Some(Errno::NOENT)), (Driver::Overlay, None));
        let (driver, told) = choose(Some(Errno::PERM), None);
        assert_eq!(driver, Driver::Fuse);
        assert!(told.unwrap().contains(
            "fuse-overlayfs is used, as the kernel can't mount them as an overlay here: operation not permitted (EPERM)"
        ));
        let (driver, told) = choose(Some(Errno::NODEV), Some(Errno::NOENT));
        assert_eq!(driver, Driver::Copy);
        let told = told.unwrap();
        assert!(told.contains("they are copied") && told.contains("ENODEV") && told.contains("ENOENT"), "{told}");
    }

    #[test]
    fn a_shortage_is_no_refusal() {
        for errno in [Errno::NOMEM, Errno::NOSPC, Errno::MFILE, Errno::NOENT] {
            assert!(!is_refusal(errno), "{errno}");
        }
        assert!(is_refusal(Errno::PERM) && is_refusal(Errno::NODEV));
    }

    #[test]
    fn drivers_have_names() {
        assert_eq!(Driver::named("fuse-overlayfs"), Some(Driver::Fuse));
        assert_eq!(Driver::named("vfs"), None);
    }
}
