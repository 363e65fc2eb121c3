//! `mounts` of a spec.

use oci_spec::runtime::Mount as SpecMount;

use super::text;
use crate::launch::{CreateDir, Mount, MountFlags, MountSource};
use crate::spec::Error;

/// Filesystems that a container may get a new instance of, with the options each may have.
const FILESYSTEMS: [(&str, &[&str]); 6] = [
    ("proc", &["hidepid", "subset"]),
    ("tmpfs", &["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "noswap"]),
    ("devpts", &["newinstance", "ptmxmode", "mode", "uid", "gid", "max"]),
    ("mqueue", &[]),
    ("sysfs", &[]),
    ("cgroup2", &["nsdelegate", "memory_recursiveprot", "memory_localevents"]),
];

/// Options that say what is the case anyway: the kernel's default, or ours (mounts are private).
const NO_CHANGE: [&str; 11] =
    ["defaults", "rw", "suid", "dev", "exec", "async", "relatime", "strictatime", "private", "rprivate", "atime"];

pub(super) fn mounts(
    mounts: &[SpecMount],
    volumes: &[(String, CreateDir)],
    user_namespace: bool,
) -> Result<Vec<Mount>, Error> {
    mounts.iter().map(|entry| mount(entry, volumes, user_namespace)).collect()
}

fn mount(entry: &SpecMount, volumes: &[(String, CreateDir)], user_namespace: bool) -> Result<Mount, Error> {
    let target = text("mounts.destination", entry.destination())?;
    let field = format!("mounts[{target}]");
    if !target.starts_with('/') || target.split('/').any(|name| name == "..") {
        return Err(Error::new(field, "the destination must be an absolute path without '..'"));
    }
    let mapped = |mappings: &Option<Vec<_>>| mappings.as_ref().is_some_and(|list| !list.is_empty());
    if mapped(entry.uid_mappings()) || mapped(entry.gid_mappings()) {
        return Err(Error::new(field, "a mapping of its own isn't supported; `idmap` maps to the container's ids"));
    }
    let mut options = Options::default();
    for option in entry.options().iter().flatten() {
        options.take(&field, option)?;
    }
    let fstype = match entry.typ().as_deref() {
        // Cgroup v1 isn't supported by anything here; specs call both by this name.
        Some("cgroup") => Some("cgroup2"),
        other => other,
    };
    let create = volumes.iter().find(|(volume, _)| *volume == target).map(|(_, create)| *create);
    let source = if options.bind || fstype == Some("bind") {
        options.bind_source(&field, entry, create, user_namespace)?
    } else {
        options.filesystem(&field, fstype.unwrap_or(""))?
    };
    Ok(Mount { target, source, flags: options.flags })
}

/// What the options of one entry add up to.
#[derive(Default)]
struct Options {
    flags: MountFlags,
    bind: bool,
    recursive: bool,
    idmap: bool,
    rest: Vec<String>,
}

impl Options {
    fn take(&mut self, field: &str, option: &str) -> Result<(), Error> {
        match option {
            "ro" => self.flags.readonly = true,
            "nosuid" => self.flags.nosuid = true,
            "nodev" => self.flags.nodev = true,
            "noexec" => self.flags.noexec = true,
            "noatime" => self.flags.noatime = true,
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "idmap" | "ridmap" => self.idmap = true,
            known if NO_CHANGE.contains(&known) => {}
            "shared" | "rshared" | "slave" | "rslave" | "unbindable" | "runbindable" | "remount" | "sync"
            | "dirsync" | "mand" | "rro" | "tmpcopyup" | "nosymfollow" | "nodiratime" => {
                return Err(Error::new(field, format!("option {option:?} isn't supported")));
            }
            other => self.rest.push(other.to_owned()),
        }
        Ok(())
    }

    fn bind_source(
        &self,
        field: &str,
        entry: &SpecMount,
        create: Option<CreateDir>,
        user_namespace: bool,
    ) -> Result<MountSource, Error> {
        if let Some(option) = self.rest.first() {
            return Err(Error::new(field, format!("a bind mount has no option {option:?}")));
        }
        if self.idmap && !user_namespace {
            return Err(Error::new(field, "`idmap` without a user namespace has no ids to map to"));
        }
        let source = entry.source().as_ref().ok_or_else(|| Error::new(field, "a bind mount needs a source"))?;
        let path = text(field, source)?;
        if !path.starts_with('/') || path.split('/').any(|name| name == "..") {
            return Err(Error::new(field, format!("the source {path:?} must be an absolute path without '..'")));
        }
        Ok(MountSource::Bind { path, recursive: self.recursive, idmap: self.idmap, create })
    }

    fn filesystem(&self, field: &str, fstype: &str) -> Result<MountSource, Error> {
        let Some((_, allowed)) = FILESYSTEMS.iter().find(|(name, _)| *name == fstype) else {
            return Err(Error::new(field, format!("filesystem {fstype:?} isn't supported")));
        };
        for option in &self.rest {
            let key = option.split('=').next().unwrap_or_default();
            if !allowed.contains(&key) {
                return Err(Error::new(field, format!("{fstype} has no option {option:?} here")));
            }
        }
        if self.idmap {
            return Err(Error::new(field, "`idmap` is for bind mounts"));
        }
        Ok(MountSource::Filesystem { fstype: fstype.to_owned(), options: self.rest.clone() })
    }
}
