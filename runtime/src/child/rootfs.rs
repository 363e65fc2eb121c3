//! The root filesystem: layers, overlay and upper, put together on a tmpfs that only this mount namespace has.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::paths;
use crate::failure::{Context, Failure, Step};
use crate::filesystem;
use crate::launch::{Launch, RootSource, Upper, tmpfs_inodes};
use crate::launcher::{Mount, Nodes, Tree, Trees};

/// Room for the workspace's own directories when nothing of the container is written to it.
const WORKSPACE_SIZE: u64 = 1 << 20;

/// Mounts the workspace over `/`, where every namespace has a directory, and enters it: relative paths are the workspace's.
///
/// What is looked up from the root is unaffected, as this process's root stays the directory beneath.
pub(crate) fn workspace(launch: &Launch, slash: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let size = match &launch.root.source {
        RootSource::Layers { upper: Upper::Tmpfs { size }, .. } => *size,
        _ => WORKSPACE_SIZE,
    };
    let options = [format!("size={size}"), format!("nr_inodes={}", tmpfs_inodes(size)), "mode=755".to_owned()];
    // It is also the upper: mounted in the container's user namespace, so that its root owns it.
    let tmpfs = filesystem::new("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NODEV)?;
    paths::attach(tmpfs.as_fd(), slash).at(Step::Mount, || "tmpfs workspace on /")?;
    rustix::process::fchdir(&tmpfs).at(Step::ChangeDirectory, || "workspace")?;
    Ok(tmpfs)
}

/// Builds the root in the workspace and returns it.
pub(crate) fn build<'a>(launch: &Launch, trees: &'a Trees, workspace: BorrowedFd<'_>) -> Result<Mount<'a>, Failure> {
    match (&launch.root.source, &trees.root) {
        (RootSource::Directory(path), Some(tree)) => place(tree, workspace, "root", path),
        (RootSource::Layers { .. }, _) => {
            let layers = Layers::place(launch, trees, workspace)?;
            layers.dress_upper(workspace)?;
            layers.overlay(workspace, launch.in_user_namespace()).map(Mount::Own)
        }
        (RootSource::Directory(path), None) => Err(Failure::new(Step::Open, path.as_str(), Errno::BADF)),
    }
}

/// Mounts a root that is a directory over `/` itself, if nothing has to be put together first: then a workspace would be one
/// filesystem more to make, and one more to get away from.
pub(crate) fn build_on<'a>(
    launch: &Launch,
    trees: &'a Trees,
    slash: BorrowedFd<'_>,
) -> Result<Option<Mount<'a>>, Failure> {
    match (&launch.root.source, &trees.root, &trees.devices) {
        (RootSource::Directory(path), Some(tree), Nodes::Bound(_)) => {
            let root = tree.detached()?;
            paths::attach(root.as_fd(), slash).at(Step::Mount, || format!("{path} on /"))?;
            Ok(Some(root))
        }
        _ => Ok(None),
    }
}

/// The root that stands at its place already.
pub(crate) fn stands(trees: &Trees) -> Result<Mount<'_>, Failure> {
    trees.root.as_ref().ok_or_else(|| Failure::new(Step::Open, "root directory", Errno::BADF))?.detached()
}

/// Puts a root that is a directory on its own `place`, the workspace beneath it: hooks find it, with all its mounts, where the
/// configuration says.
pub(crate) fn build_at<'a>(
    launch: &Launch,
    trees: &'a Trees,
    place: BorrowedFd<'_>,
) -> Result<(OwnedFd, Mount<'a>), Failure> {
    let tree = trees.root.as_ref().ok_or_else(|| Failure::new(Step::Open, "root directory", Errno::BADF))?;
    // Before the workspace covers it.
    let root = tree.detached()?;
    let workspace = workspace(launch, place)?;
    paths::attach(root.as_fd(), workspace.as_fd()).at(Step::Mount, || "root at its own path")?;
    Ok((workspace, root))
}

/// Layers in the workspace, ready to be put together.
pub(crate) struct Layers<'a> {
    /// What is at `layers/N`, the topmost first.
    pub(crate) mounts: Vec<Mount<'a>>,
    /// The workspace's directories for what is written, and for the filesystem's own use.
    pub(crate) upper: (&'static str, &'static str),
}

impl<'a> Layers<'a> {
    /// Puts the launch's layers and its upper into the workspace.
    pub(crate) fn place(launch: &Launch, trees: &'a Trees, workspace: BorrowedFd<'_>) -> Result<Self, Failure> {
        let RootSource::Layers { layers, upper } = &launch.root.source else {
            return Err(Failure::check("a root without layers"));
        };
        directory(workspace, "layers")?;
        let mut mounts = Vec::with_capacity(trees.layers.len());
        for (number, (tree, path)) in trees.layers.iter().zip(layers).enumerate() {
            mounts.push(place(tree, workspace, &format!("layers/{number}"), path)?);
        }
        let upper = match (upper, &trees.upper) {
            (Upper::Directory(path), Some(tree)) => {
                place(tree, workspace, "kept", path)?;
                ("kept/upper", "kept/work")
            }
            // Also without one: absent mount points are made there before the root becomes read-only.
            _ => {
                directory(workspace, "upper")?;
                directory(workspace, "work")?;
                ("upper", "work")
            }
        };
        Ok(Self { mounts, upper })
    }

    /// Gives an upper that is new the topmost layer's owner and mode.
    pub(crate) fn dress_upper(&self, workspace: BorrowedFd<'_>) -> Result<(), Failure> {
        let Some(topmost) = self.mounts.first() else { return Ok(()) };
        copy_root_attributes(workspace, self.upper.0, topmost.as_fd())
    }

    /// Their overlay, mounted on the workspace's `root`.
    pub(crate) fn overlay(&self, workspace: BorrowedFd<'_>, in_user_namespace: bool) -> Result<OwnedFd, Failure> {
        // The overlay's own marks, for whoever mounts it in a user namespace (overlayfs.rst, "userxattr").
        let user_marks = in_user_namespace;
        let count = self.mounts.len();
        directory(workspace, "root")?;
        match overlay_by_fsopen(count, self.upper, user_marks) {
            Ok(mount) => {
                let target = open_in(workspace, "root")?;
                paths::attach(mount.as_fd(), target.as_fd()).at(Step::Mount, || "overlay on the root")?;
                Ok(mount)
            }
            Err(Refusal::LowerdirPlus) => {
                overlay_by_string(count, self.upper, user_marks).at(Step::Mount, || "overlay on the root")?;
                open_in(workspace, "root")
            }
            Err(Refusal::Other(failure)) => Err(failure),
        }
    }
}

/// The root directory's owner and mode are the upper's in an overlay; they should be the image's.
fn copy_root_attributes(workspace: BorrowedFd<'_>, upper: &str, topmost: BorrowedFd<'_>) -> Result<(), Failure> {
    let stat = rustix::fs::fstat(topmost).at(Step::Open, || "topmost layer")?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let upper = rustix::fs::openat(workspace, upper, flags, Mode::empty()).at(Step::Open, || upper)?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(&upper, Some(uid), Some(gid)).at(Step::Create, || "owner of /")?;
    rustix::fs::fchmod(&upper, Mode::from_raw_mode(stat.st_mode & 0o7777)).at(Step::Create, || "mode of /")
}

/// Why the new mount API didn't do it.
enum Refusal {
    /// The kernel is older than 6.7 and has no `lowerdir+`.
    LowerdirPlus,
    /// Anything else.
    Other(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

fn overlay_by_fsopen(layers: usize, (upper, work): (&str, &str), user_marks: bool) -> Result<OwnedFd, Refusal> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Mount, || "overlay")?;
    // Before 6.5 overlayfs takes whatever it is given, and refuses it in the end, with a line on the console. It takes an option
    // without its value too, which later kernels refuse at once and quietly.
    if fsconfig_set_flag(context.as_fd(), "lowerdir+").is_ok() {
        return Err(Refusal::LowerdirPlus);
    }
    for number in 0..layers {
        match fsconfig_set_string(context.as_fd(), "lowerdir+", format!("layers/{number}")) {
            Err(Errno::INVAL) if number == 0 => return Err(Refusal::LowerdirPlus),
            other => other.at(Step::MountOption, || format!("overlay lowerdir+ of layer {number}"))?,
        }
    }
    fsconfig_set_string(context.as_fd(), "source", "overlay").at(Step::MountOption, || "overlay source")?;
    fsconfig_set_string(context.as_fd(), "upperdir", upper).at(Step::MountOption, || "overlay upperdir")?;
    fsconfig_set_string(context.as_fd(), "workdir", work).at(Step::MountOption, || "overlay workdir")?;
    if user_marks {
        fsconfig_set_flag(context.as_fd(), "userxattr").at(Step::MountOption, || "overlay userxattr")?;
    }
    fsconfig_create(context.as_fd()).at(Step::Mount, || "overlay")?;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
    Ok(mount.at(Step::Mount, || "overlay")?)
}

/// For kernels before 6.7: every layer in one string, which mount(2) takes a page of.
fn overlay_by_string(layers: usize, directories: (&str, &str), user_marks: bool) -> Result<(), Errno> {
    let options = std::ffi::CString::new(overlay_options(layers, directories, user_marks)).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount("overlay", "root", "overlay", MountFlags::empty(), options.as_c_str())
}

fn overlay_options(layers: usize, (upper, work): (&str, &str), user_marks: bool) -> String {
    let lowers: Vec<String> = (0..layers).map(|number| format!("layers/{number}")).collect();
    let marks = if user_marks { ",userxattr" } else { "" };
    format!("lowerdir={},upperdir={upper},workdir={work}{marks}", lowers.join(":"))
}

/// Attaches a tree to a new directory of the workspace; `path` is its name outside, for errors.
pub(super) fn place<'a>(tree: &'a Tree, workspace: BorrowedFd<'_>, name: &str, path: &str) -> Result<Mount<'a>, Failure> {
    directory(workspace, name)?;
    let (mount, target) = (tree.detached()?, open_in(workspace, name)?);
    paths::attach(mount.as_fd(), target.as_fd()).at(Step::Mount, || format!("{path} in the workspace"))?;
    Ok(mount)
}

fn directory(workspace: BorrowedFd<'_>, name: &str) -> Result<(), Failure> {
    rustix::fs::mkdirat(workspace, name, Mode::from_raw_mode(0o755)).at(Step::Create, || format!("{name} in the workspace"))
}

fn open_in(workspace: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(workspace, name, flags, Mode::empty()).at(Step::Open, || format!("{name} in the workspace"))
}

#[cfg(test)]
mod tests {
    use super::overlay_options;

    #[test]
    fn layers_are_one_string_from_the_top() {
        let options = overlay_options(3, ("upper", "work"), true);
        assert_eq!(options, "lowerdir=layers/0:layers/1:layers/2,upperdir=upper,workdir=work,userxattr");
        // What mount(2) takes: a page, less the terminating NUL. So many layers do on kernels before 6.7.
        assert!(overlay_options(330, ("kept/upper", "kept/work"), true).len() < 4096);
    }
}
