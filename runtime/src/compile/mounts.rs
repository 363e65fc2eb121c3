//! `mounts` of a spec.

use std::borrow::Cow;
use std::collections::HashMap;

use oci_spec::runtime::{Linux, Mount as SpecMount};

use super::bundle::within;
use super::mount_options::Options;
use super::{Base, idmap, namespaces, text};
use crate::launch::{EndLinks, IdMap, IdMapping, Mount, MountFlags, MountSource, Propagation};
use crate::spec::Error;

const LABEL_KIND: &str = "run.oci.mount_context_type";
const LABEL_KINDS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];
/// Filesystems whose files the security policy labels, not the mount.
const LABELLED_BY_POLICY: [&str; 4] = ["proc", "sysfs", "cgroup2", "mqueue"];

/// What the mounts of one spec have in common.
pub(super) struct Mounts<'a> {
    pub(super) base: &'a Base<'a>,
    /// Where a bundle's root directory is.
    pub(super) root: Option<&'a str>,
    pub(super) in_user_namespace: bool,
    /// The ids of that user namespace, as far as they are told.
    pub(super) container_ids: IdMap,
    /// The option that [`label`] makes of `linux.mountLabel`.
    pub(super) label: Option<&'a str>,
    pub(super) propagation: Propagation,
}

impl Mounts<'_> {
    pub(super) fn all(&self, mounts: &[SpecMount]) -> Result<Vec<Mount>, Error> {
        let mut made = Vec::with_capacity(mounts.len());
        for entry in mounts {
            made.push(self.mount(entry, &made)?);
        }
        Ok(made)
    }

    /// One of them, after those that are `made`.
    fn mount(&self, entry: &SpecMount, made: &[Mount]) -> Result<Mount, Error> {
        let given = text("mounts.destination", entry.destination())?;
        let field = format!("mounts[{given}]");
        if given.is_empty() {
            return Err(Error::new("mounts.destination", "empty"));
        }
        let target = match self.root.and_then(|root| in_root(root, &given)) {
            Some(inside) => inside,
            None => clean(&given).into_owned(),
        };
        let mut options = Options::of(entry.options().as_deref().unwrap_or_default());
        let by_option =
            options.own_ids.as_deref().map(|text| idmap::parse(&field, text, &self.container_ids)).transpose()?;
        let own_map = own_map(&field, entry)?.or(by_option);
        let fstype = match entry.typ().as_deref() {
            // Cgroup v1 isn't supported by anything here; specs call both by this name.
            Some("cgroup") => "cgroup2",
            None | Some("none") => "",
            Some(other) => other,
        };
        let propagates = !options.flags.propagation.is_empty();
        let is_bind = options.bind || fstype == "bind";
        if (options.remount || !is_bind) && (options.idmap.is_some() || own_map.is_some()) {
            let what = if options.idmap.is_some() { "`idmap` is" } else { "mappings are" };
            return Err(Error::new(field, format!("{what} for bind mounts")));
        }
        if options.copy_up && options.remount {
            return Err(Error::new(field, "`tmpcopyup` is for a new tmpfs"));
        }
        if (options.remount || !is_bind) && options.links() != Some(EndLinks::Followed) {
            return Err(Error::new(field, "`copy-symlink`, `src-nofollow` and `dest-nofollow` are for bind mounts"));
        }
        let source = if options.remount {
            // With `bind`, a remount is about the mount and not about its filesystem.
            let changes = !options.bind;
            let options = options.filesystem.iter().chain(&options.rest).cloned().collect();
            MountSource::Existing { options: changes.then_some(options) }
        } else if is_bind {
            self.bind(&field, &target, entry, &options, own_map, made)?
        } else if fstype.is_empty() && propagates && options.rest.is_empty() {
            MountSource::Existing { options: None }
        } else {
            self.filesystem(&field, fstype, entry, &options)?
        };
        match source {
            // The bits of an appliance's are all named where it is built.
            _ if self.base.bundle.is_none() => {}
            MountSource::Bind { .. } | MountSource::Inside { .. } => {
                options.replace_those_of_source(self.in_user_namespace);
            }
            MountSource::Filesystem { .. } | MountSource::Existing { .. } => {}
        }
        if matches!(source, MountSource::Bind { .. }) {
            self.keep_from_the_machine(&mut options.flags);
        }
        Ok(Mount { target, source, flags: options.flags })
    }

    /// What is bound belongs to the machine's peers, and a word may be about its top alone, or to share it. With other runtimes a
    /// container's mounts are slaves of the machine's to begin with, unless its root is shared; in a user namespace always.
    fn keep_from_the_machine(&self, flags: &mut MountFlags) {
        const SLAVE: u32 = (libc::MS_SLAVE | libc::MS_REC) as u32;
        let is_kept = self.in_user_namespace || self.propagation != Propagation::Shared;
        if flags.propagation.is_empty() {
            if self.propagation == Propagation::Slave {
                flags.propagation.push(SLAVE);
            }
        } else if is_kept && !flags.withdraws_whole_tree() {
            flags.propagation.insert(0, SLAVE);
        }
    }

    fn bind(
        &self,
        field: &str,
        target: &str,
        entry: &SpecMount,
        options: &Options,
        own_map: Option<IdMap>,
        made: &[Mount],
    ) -> Result<MountSource, Error> {
        // mount(2) takes them as data that it doesn't look at; of a bundle they are named in a warning.
        if let Some(option) = options.rest.first().filter(|_| self.base.bundle.is_none()) {
            return Err(Error::new(field, format!("a bind mount has no option {option:?}")));
        }
        if options.copy_up {
            return Err(Error::new(field, "`tmpcopyup` is for tmpfs"));
        }
        let exclusive = || Error::new(field, "`copy-symlink` goes with neither `src-nofollow` nor `dest-nofollow`");
        let links = options.links().ok_or_else(exclusive)?;
        // Mappings mean an id-mapped mount also without the option, which only keeps older runtimes from overlooking them.
        let recursive = options.idmap.unwrap_or(false);
        let idmap = match (own_map, options.idmap) {
            (Some(ids), _) => IdMapping::Own { ids, recursive },
            (None, Some(_)) if self.in_user_namespace => IdMapping::Container { recursive },
            (None, Some(_)) => {
                return Err(Error::new(field, "`idmap` without mappings or a user namespace has no ids to map to"));
            }
            (None, None) => IdMapping::None,
        };
        let source = entry.source().as_ref().ok_or_else(|| Error::new(field, "a bind mount needs a source"))?;
        let given = text(field, source)?;
        let path = match self.base.bundle {
            Some(bundle) if !given.is_empty() => within(bundle.path, &given),
            _ => given,
        };
        if !path.starts_with('/') || (self.base.bundle.is_none() && path.split('/').any(|name| name == "..")) {
            return Err(Error::new(field, format!("the source {path:?} must be an absolute path without '..'")));
        }
        if let (IdMapping::None, EndLinks::Followed, Some(path)) = (&idmap, links, self.covered(&path, made)) {
            return Ok(MountSource::Inside { path, recursive: options.recursive });
        }
        let create = self.base.volumes.iter().find(|(volume, _)| *volume == target).map(|(_, create)| *create);
        Ok(MountSource::Bind { path, recursive: options.recursive, idmap, links, create })
    }

    /// The place in the container of a source that lies in its root directory, where something is mounted by then: what is beneath
    /// that isn't what is meant.
    fn covered(&self, source: &str, made: &[Mount]) -> Option<String> {
        let place = in_root(self.root?, source)?;
        let covers = |mount: &&Mount| {
            !matches!(mount.source, MountSource::Existing { .. }) && beneath(&mount.target, &place).is_some()
        };
        made.iter().find(covers).map(|_| place.clone())
    }

    fn filesystem(
        &self,
        field: &str,
        fstype: &str,
        entry: &SpecMount,
        options: &Options,
    ) -> Result<MountSource, Error> {
        if fstype.is_empty() {
            return Err(Error::new(
                field,
                "no filesystem type, and not a bind mount, remount or change of propagation",
            ));
        }
        if fstype.contains(['/', '\0']) || fstype.len() > 64 {
            return Err(Error::new(field, format!("{fstype:?} is no filesystem type")));
        }
        if options.copy_up && fstype != "tmpfs" {
            return Err(Error::new(field, format!("`tmpcopyup` is for tmpfs, not {fstype}")));
        }
        let device = entry.source().as_ref().map(|source| text(field, source)).transpose()?;
        let mut list: Vec<String> = options.filesystem.iter().chain(&options.rest).cloned().collect();
        if let Some(label) = self.label
            && !LABELLED_BY_POLICY.contains(&fstype)
        {
            list.push(label.to_owned());
        }
        let device = device.filter(|device| !device.is_empty() && device != fstype);
        Ok(MountSource::Filesystem { fstype: fstype.to_owned(), device, options: list, copy_up: options.copy_up })
    }
}

/// The option of mount(8) that `linux.mountLabel` is; which one, crun's annotation says.
pub(super) fn label(linux: &Linux, annotations: Option<&HashMap<String, String>>) -> Result<Option<String>, Error> {
    let kind = annotations.and_then(|annotations| annotations.get(LABEL_KIND)).filter(|kind| !kind.is_empty());
    let kind = kind.map_or("context", String::as_str);
    if !LABEL_KINDS.contains(&kind) {
        let why = format!("{kind:?} is none of {}", LABEL_KINDS.join(", "));
        return Err(Error::new(format!("annotations[{LABEL_KIND}]"), why));
    }
    let label = linux.mount_label().as_deref().filter(|label| !label.is_empty());
    Ok(label.map(|label| format!("{kind}={label}")))
}

/// What a person should know about `mounts` of a bundle whose root is at `root`.
pub(super) fn warnings(mounts: &[SpecMount], root: &str) -> Vec<String> {
    mounts.iter().flat_map(|entry| misplaced(entry, root).into_iter().chain(ignored(entry))).collect()
}

/// A destination as it is outside.
fn misplaced(entry: &SpecMount, root: &str) -> Option<String> {
    let given = entry.destination().to_str()?;
    let inside = in_root(root, given)?;
    Some(format!("mounts[{given}]: begins with root.path, taken for {inside}: destinations are paths in the container"))
}

/// Options that mean nothing, as bind mounts have no data.
fn ignored(entry: &SpecMount) -> Vec<String> {
    let given = entry.options().as_deref().unwrap_or_default();
    let is_typed = entry.typ().as_deref() == Some("bind");
    // Summing options up takes longer than to see that they can't mean one.
    if !is_typed && !given.iter().any(|option| option.ends_with("bind")) {
        return Vec::new();
    }
    let options = Options::of(given);
    let bind = !options.remount && (options.bind || is_typed);
    let rest = if bind { options.rest } else { Vec::new() };
    let destination = entry.destination().display();
    rest.iter().map(|option| format!("mounts[{destination}]: a bind mount has no option {option:?}, ignored")).collect()
}

/// `uidMappings` and `gidMappings` of one mount: ids on disk → ids outside.
fn own_map(field: &str, entry: &SpecMount) -> Result<Option<IdMap>, Error> {
    let uids = namespaces::ranges(field, entry.uid_mappings().as_deref().unwrap_or_default())?;
    let gids = namespaces::ranges(field, entry.gid_mappings().as_deref().unwrap_or_default())?;
    match (uids.is_empty(), gids.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some(IdMap { uids, gids })),
        _ => Err(Error::new(field, "uidMappings and gidMappings belong together")),
    }
}

/// The absolute path, without `.`, `..` and doubled slashes. A relative one is relative to `/`.
pub(crate) fn clean(path: &str) -> Cow<'_, str> {
    // As nearly all are.
    if path.strip_prefix('/').is_some_and(|names| names.split('/').all(|name| !matches!(name, "" | "." | ".."))) {
        return Cow::Borrowed(path);
    }
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    Cow::Owned(format!("/{}", names.join("/")))
}

/// The place in the container of a path outside that leads to its root directory or into it. A root at `/` has no other places.
fn in_root(root: &str, path: &str) -> Option<String> {
    let (root, path) = (clean(root), clean(path));
    let rest = beneath(&root, &path).filter(|_| root != "/")?;
    Some(if rest.is_empty() { "/".to_owned() } else { rest.to_owned() })
}

/// What is left of `path` beneath `directory`, both clean; empty: it is the same.
fn beneath<'a>(directory: &str, path: &'a str) -> Option<&'a str> {
    let directory = directory.trim_end_matches('/');
    path.strip_prefix(directory).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests;
