//! Root filesystems of layers, which no part of the specification has. Annotations:
//!
//! | annotation | value | effect |
//! |---|---|---|
//! | `org.garboard.layers` | directories separated by `:`, the topmost first | the root is these, and what the container writes |
//! | `org.garboard.layers.driver` | `overlay`, `fuse-overlayfs` or `copy` | how they are put together, instead of what a probe finds |
//!
//! `root.path` then is a directory on the machine in which each such container has one of its own, from `create` to `delete`, for
//! what it writes. Ids in layers are as on disk, as those of any bundle's root are.
//!
//! Nothing of this is PID 1's, which knows by then that its kernel has an overlay.

mod clear;
mod driver;
mod fuse;
mod kept;
mod merge;
mod removal;
mod stage;
mod stale;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use super::error::{Error, Result};
use super::store::Entry;
use crate::launch::{Launch, Namespace, RootSource};
use crate::{spec, userns};

use driver::Driver;

const LAYERS: &str = "org.garboard.layers";
const DRIVER: &str = "org.garboard.layers.driver";
/// Overlay takes no more (`OVL_MAX_STACK` in the kernel).
const MAX_LAYERS: usize = 500;

/// What a configuration says of layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Absolute paths, the topmost first.
    layers: Vec<String>,
    /// The driver to be used, whatever a probe would find.
    forced: Option<Driver>,
}

/// A root that is mounted and nowhere yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The root.
    pub(crate) root: OwnedFd,
    /// The user namespace that it belongs to, and the container with it.
    pub(crate) userns: Option<OwnedFd>,
    /// What a person should know about it.
    pub(crate) warning: Vec<String>,
}

/// The layers that `annotations` declare for `launch`; `None`: its root is a directory.
pub(crate) fn declared(annotations: &BTreeMap<String, String>, launch: &Launch) -> Result<Option<Declared>> {
    let wrong = |name: &str, why: String| Error::from(spec::Error::new(format!("annotations[{name}]"), why));
    let forced = annotations.get(DRIVER).map(|name| {
        Driver::named(name).ok_or_else(|| wrong(DRIVER, format!("{name:?} is none of overlay, fuse-overlayfs, copy")))
    });
    let forced = forced.transpose()?;
    let Some(layers) = annotations.get(LAYERS) else {
        return match forced {
            Some(_) => Err(wrong(DRIVER, format!("there are no {LAYERS} for it"))),
            None => Ok(None),
        };
    };
    let layers: Vec<String> = layers.split(':').map(str::to_owned).collect();
    if let Some(layer) = layers.iter().find(|path| !path.starts_with('/') || path.split('/').any(|name| name == "..")) {
        return Err(wrong(LAYERS, format!("{layer:?} isn't an absolute path without '..'")));
    }
    if layers.len() > MAX_LAYERS {
        return Err(wrong(LAYERS, format!("{} layers; there may be {MAX_LAYERS}", layers.len())));
    }
    if launch.namespaces.user.is_some() || launch.namespaces.mount != Namespace::New {
        return Err(wrong(LAYERS, "not supported with a user or mount namespace that exists already".to_owned()));
    }
    Ok(Some(Declared { layers, forced }))
}

/// Refuses layers where the root is to outlive the container: what it has written goes with it.
pub(crate) fn expect_none(spec: &oci_spec::runtime::Spec) -> Result<()> {
    if !spec.annotations().as_ref().is_some_and(|annotations| annotations.contains_key(LAYERS)) {
        return Ok(());
    }
    let why = "a root of layers isn't in criu's images: use one directory";
    Err(spec::Error::new(format!("annotations[{LAYERS}]"), why).into())
}

/// Puts the root of `launch` together, for the container of `entry`. From the first thing that is made, [`destroy`] finds it.
pub(crate) fn prepare(entry: &Entry, launch: &Launch, declared: &Declared) -> Result<Prepared> {
    let RootSource::Directory(place) = &launch.root.source else {
        return Err(Error::new("put the layers together: the root is no directory"));
    };
    let boot = stale::boot()?;
    let stale = stale::clear(place, &boot, launch.ids.as_ref());
    let kept = kept::Kept::new(place, entry.id(), &boot, launch.ids.as_ref())?;
    kept.write_down(entry)?;
    kept.make()?;
    let userns = launch.ids.as_ref().map(userns::create).transpose()?;
    let built = stage::build(declared, &kept.directory(), userns.as_ref(), launch.in_user_namespace())?;
    if let Some(daemon) = built.told.daemon {
        kept::write_daemon_down(entry, daemon)?;
    }
    Ok(Prepared { root: built.root, userns, warning: stale.into_iter().chain(built.told.warning).collect() })
}

/// Removes what [`prepare`] has made, if it has. The container's processes have ended.
pub(crate) fn destroy(entry: &Entry) -> Result<()> {
    if !kept::Kept::may_exist(entry) {
        return Ok(());
    }
    kept::end_daemon(entry)?;
    kept::Kept::find(entry)?.map_or(Ok(()), |kept| kept.remove())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declare(annotations: &[(&str, &str)]) -> std::result::Result<Option<Declared>, String> {
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        declared(&annotations, &Launch::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn layers_are_absolute_paths_from_the_top() {
        assert_eq!(declare(&[]), Ok(None));
        let declared = declare(&[(LAYERS, "/top:/base"), (DRIVER, "copy")]).unwrap().unwrap();
        assert_eq!(declared.layers, ["/top", "/base"]);
        assert_eq!(declared.forced, Some(Driver::Copy));
    }

    #[test]
    fn wrong_layers_are_named() {
        let many = vec!["/x"; MAX_LAYERS + 1].join(":");
        for (annotations, why) in [
            (&[(LAYERS, "/a:b")][..], "annotations[org.garboard.layers]: \"b\" isn't an absolute path"),
            (&[(LAYERS, "/a/../b")], "isn't an absolute path without '..'"),
            (&[(LAYERS, "")], "\"\" isn't an absolute path"),
            (&[(LAYERS, &many)], "501 layers; there may be 500"),
            (&[(LAYERS, "/a"), (DRIVER, "aufs")], "\"aufs\" is none of overlay, fuse-overlayfs, copy"),
            (&[(DRIVER, "copy")], "there are no org.garboard.layers for it"),
        ] {
            let error = declare(annotations).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
