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
pub(super) mod saved;
mod stage;
mod stale;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::error::{Error, Result};
use super::store::Entry;
use crate::launch::{Launch, Namespace, RootSource};
use crate::{spec, userns};

use driver::Driver;
use kept::Kept;

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

/// Whether a configuration says that the root is made of layers.
pub(crate) fn has_layers(spec: &oci_spec::runtime::Spec) -> bool {
    spec.annotations().as_ref().is_some_and(|annotations| annotations.contains_key(LAYERS))
}

/// Puts the root of `launch` together, for the container of `entry`. From the first thing that is made, [`destroy`] finds it.
pub(crate) fn prepare(entry: &Entry, launch: &Launch, declared: &Declared) -> Result<Prepared> {
    let (kept, stale) = make(entry, launch)?;
    let userns = launch.ids.as_ref().map(userns::create).transpose()?;
    let (root, warning) = build(entry, launch, declared, &kept, userns.as_ref(), None)?;
    Ok(Prepared { root, userns, warning: stale.into_iter().chain(warning).collect() })
}

/// The same with what was [`saved::save`]d beside `images`. criu makes the user namespace, in which the root's filesystem thus can't
/// be mounted: it is the machine's, as that of any directory.
pub(crate) fn restore(entry: &Entry, launch: &Launch, declared: &Declared, images: &Path) -> Result<Prepared> {
    let (kept, stale) = make(entry, launch)?;
    let driver = saved::load(images, &kept.upper())?;
    let (root, warning) = build(entry, launch, declared, &kept, None, Some(driver))?;
    Ok(Prepared { root, userns: None, warning: stale.into_iter().chain(warning).collect() })
}

/// The container's own directory, and what couldn't be removed of others'.
fn make(entry: &Entry, launch: &Launch) -> Result<(Kept, Option<String>)> {
    let RootSource::Directory(place) = &launch.root.source else {
        return Err(Error::new("put the layers together: the root is no directory"));
    };
    let boot = stale::boot()?;
    let stale = stale::clear(place, &boot, launch.ids.as_ref());
    let kept = Kept::new(place, entry.id(), &boot, launch.ids.as_ref())?;
    kept.write_down(entry)?;
    kept.make()?;
    Ok((kept, stale))
}

fn build(
    entry: &Entry,
    launch: &Launch,
    declared: &Declared,
    kept: &Kept,
    userns: Option<&OwnedFd>,
    restored: Option<Driver>,
) -> Result<(OwnedFd, Option<String>)> {
    let built = stage::build(declared, &kept.directory(), userns, launch.in_user_namespace(), restored)?;
    kept::write_driver_down(entry, built.told.driver)?;
    if let Some(daemon) = built.told.daemon {
        kept::write_daemon_down(entry, daemon)?;
    }
    Ok((built.root, built.told.warning))
}

/// Removes what [`prepare`] has made, if it has. The container's processes have ended.
pub(crate) fn destroy(entry: &Entry) -> Result<()> {
    if !Kept::may_exist(entry) {
        return Ok(());
    }
    kept::end_daemon(entry)?;
    Kept::find(entry)?.map_or(Ok(()), |kept| kept.remove())
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
