//! `mounts` of a spec.

use oci_spec::runtime::Mount as SpecMount;

use super::bundle::within;
use super::mount_options::Options;
use super::{Base, namespaces, text};
use crate::launch::{IdMap, IdMapping, Mount, MountSource, Propagation};
use crate::spec::Error;

/// Filesystems whose files the security policy labels, not the mount.
const LABELLED_BY_POLICY: [&str; 4] = ["proc", "sysfs", "cgroup2", "mqueue"];

/// What the mounts of one spec have in common.
pub(super) struct Mounts<'a> {
    pub(super) base: &'a Base<'a>,
    pub(super) in_user_namespace: bool,
    /// `linux.mountLabel`
    pub(super) label: Option<&'a str>,
    pub(super) propagation: Propagation,
}

impl Mounts<'_> {
    pub(super) fn all(&self, mounts: &[SpecMount]) -> Result<Vec<Mount>, Error> {
        mounts.iter().map(|entry| self.mount(entry)).collect()
    }

    fn mount(&self, entry: &SpecMount) -> Result<Mount, Error> {
        let given = text("mounts.destination", entry.destination())?;
        let field = format!("mounts[{given}]");
        if given.is_empty() {
            return Err(Error::new("mounts.destination", "empty"));
        }
        let target = clean(&given);
        let mut options = Options::of(entry.options().as_deref().unwrap_or_default());
        let own_map = own_map(&field, entry)?;
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
        let source = if options.remount {
            // With `bind`, a remount is about the mount and not about its filesystem.
            let changes = !options.bind;
            let options = options.filesystem.iter().chain(&options.rest).cloned().collect();
            MountSource::Existing { options: changes.then_some(options) }
        } else if is_bind {
            self.bind(&field, &target, entry, &options, own_map)?
        } else if fstype.is_empty() && propagates && options.rest.is_empty() {
            MountSource::Existing { options: None }
        } else {
            self.filesystem(&field, fstype, entry, &options)?
        };
        if !propagates && self.propagation == Propagation::Slave && matches!(source, MountSource::Bind { .. }) {
            options.flags.propagation = vec![u32::try_from(libc::MS_SLAVE | libc::MS_REC).unwrap_or_default()];
        }
        Ok(Mount { target, source, flags: options.flags })
    }

    fn bind(
        &self,
        field: &str,
        target: &str,
        entry: &SpecMount,
        options: &Options,
        own_map: Option<IdMap>,
    ) -> Result<MountSource, Error> {
        // mount(2) takes them as data that it doesn't look at; of a bundle they are named in a warning.
        if let Some(option) = options.rest.first().filter(|_| self.base.bundle.is_none()) {
            return Err(Error::new(field, format!("a bind mount has no option {option:?}")));
        }
        if options.copy_up {
            return Err(Error::new(field, "`tmpcopyup` is for tmpfs"));
        }
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
        let create = self.base.volumes.iter().find(|(volume, _)| *volume == target).map(|(_, create)| *create);
        Ok(MountSource::Bind { path, recursive: options.recursive, idmap, create })
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
            list.push(format!("context={label}"));
        }
        let device = device.filter(|device| !device.is_empty() && device != fstype);
        Ok(MountSource::Filesystem { fstype: fstype.to_owned(), device, options: list, copy_up: options.copy_up })
    }
}

/// Options that mean nothing, as bind mounts have no data.
pub(super) fn ignored(mounts: &[SpecMount]) -> Vec<String> {
    let of_one = |entry: &SpecMount| {
        let options = Options::of(entry.options().as_deref().unwrap_or_default());
        let bind = !options.remount && (options.bind || entry.typ().as_deref() == Some("bind"));
        let rest = if bind { options.rest } else { Vec::new() };
        let destination = entry.destination().display().to_string();
        rest.into_iter()
            .map(move |option| format!("mounts[{destination}]: a bind mount has no option {option:?}, ignored"))
    };
    mounts.iter().flat_map(of_one).collect()
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
fn clean(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::Bundle;

    fn one(json: &str) -> Result<Mount, Error> {
        let base = Base { bundle: Some(Bundle { path: "/bundle", id: "c" }), volumes: &[] };
        let mounts = Mounts { base: &base, in_user_namespace: true, label: None, propagation: Propagation::Private };
        mounts.mount(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn destinations_are_cleaned_and_begin_at_the_root() {
        assert_eq!(
            (clean("a/./b//c/.."), clean("../../x"), clean("/"), clean("/dev/")),
            ("/a/b".to_owned(), "/x".to_owned(), "/".to_owned(), "/dev".to_owned())
        );
        assert_eq!(one(r#"{"destination":"data","type":"tmpfs"}"#).unwrap().target, "/data");
    }

    #[test]
    fn a_relative_source_lies_in_the_bundle() {
        let mount = one(r#"{"destination":"/x","source":"files/x","options":["rbind"]}"#).unwrap();
        assert_eq!(
            mount.source,
            MountSource::Bind {
                path: "/bundle/files/x".to_owned(),
                recursive: true,
                idmap: IdMapping::None,
                create: None
            }
        );
    }

    #[test]
    fn unknown_options_are_the_filesystem_s() {
        let mount =
            one(r#"{"destination":"/x","type":"tmpfs","source":"shm","options":["size=4k","sync","ro","mode=700"]}"#);
        let MountSource::Filesystem { fstype, device, options, .. } = mount.unwrap().source else { panic!() };
        assert_eq!((fstype.as_str(), device.as_deref()), ("tmpfs", Some("shm")));
        assert_eq!(options, ["sync", "size=4k", "mode=700"]);
    }

    #[test]
    fn options_that_a_bind_mount_has_not_are_named() {
        let entry = |json: &str| serde_json::from_str::<SpecMount>(json).unwrap();
        let typo = entry(r#"{"destination":"/x","source":"/y","options":["bind","ro","nosuuid","mode=1"]}"#);
        let other = entry(r#"{"destination":"/z","type":"tmpfs","options":["mode=1"]}"#);
        let warnings = ignored(&[typo.clone(), other]);
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("mounts[/x]") && warnings[0].contains("nosuuid"), "{warnings:?}");
        // An appliance's mounts are written by nobody but its own build: there it is a mistake.
        let base = Base { bundle: None, volumes: &[] };
        let mounts = Mounts { base: &base, in_user_namespace: false, label: None, propagation: Propagation::Private };
        assert!(mounts.mount(&typo).unwrap_err().to_string().contains("nosuuid"));
    }

    #[test]
    fn mappings_of_its_own_are_kept() {
        let mount = one(r#"{"destination":"/x","source":"/y","options":["bind","ridmap"],
                "uidMappings":[{"containerID":0,"hostID":1000,"size":1}],"gidMappings":[{"containerID":0,"hostID":1000,"size":1}]}"#);
        let MountSource::Bind { idmap: IdMapping::Own { ids, recursive: true }, .. } = mount.unwrap().source else {
            panic!()
        };
        assert_eq!((ids.uids[0].inside, ids.uids[0].outside), (0, 1000));
    }

    #[test]
    fn existing_mounts_change() {
        let source = |json: &str| one(json).unwrap().source;
        let remount = source(r#"{"destination":"/","options":["remount","ro","size=1m"]}"#);
        assert_eq!(remount, MountSource::Existing { options: Some(vec!["size=1m".to_owned()]) });
        let bind = source(r#"{"destination":"/","type":"none","options":["remount","bind","ro"]}"#);
        assert_eq!(bind, MountSource::Existing { options: None });
        assert_eq!(source(r#"{"destination":"/","options":["rshared"]}"#), MountSource::Existing { options: None });
    }

    #[test]
    fn what_makes_no_sense_is_an_error_with_its_destination() {
        for (json, word) in [
            (r#"{"destination":"/x","options":["bind"]}"#, "source"),
            (r#"{"destination":"/x","type":"none"}"#, "type"),
            (r#"{"destination":"/x","type":"tmpfs","options":["idmap"]}"#, "idmap"),
            (r#"{"destination":"/x","type":"proc","options":["tmpcopyup"]}"#, "tmpcopyup"),
            (r#"{"destination":"/x","type":"tmpfs","options":["remount","tmpcopyup"]}"#, "tmpcopyup"),
            (
                r#"{"destination":"/x","type":"tmpfs","uidMappings":[{"containerID":0,"hostID":1,"size":1}],
                    "gidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
                "mappings are for bind mounts",
            ),
            (
                r#"{"destination":"/x","source":"/y","options":["bind"],"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
                "gid",
            ),
        ] {
            let error = one(json).unwrap_err().to_string();
            assert!(error.contains("mounts[/x]") && error.contains(word), "{error}");
        }
    }
}
