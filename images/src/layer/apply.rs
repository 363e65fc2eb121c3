//! A layer's entries put into the tree, each one checked.
//!
//! The tree is only data, so no name can reach outside it. What remains to decide is what a strange archive *means*;
//! the rules (also in `FORMAT.md`) are those that image engines show, made definite where they differ:
//!
//! * Parents that have no entry are made. Their attributes come from the layers below, see [`Layer::implicit`].
//! * A parent that is a symbolic link *of this layer* is followed inside the layer's root, as in a chroot there; the last
//!   component never is. A parent that is anything else but a directory is an error, except to a whiteout, which is
//!   then without effect.
//! * A later entry replaces an earlier one; a directory over a directory only changes its attributes. A directory over anything
//!   else hides what lower layers have there.
//! * Hard links name an earlier entry of the same layer, no directory, and bring their own owner, mode, time and attributes.
//! * Whiteouts hide lower layers only, wherever in the archive they stand.

use std::collections::BTreeSet;
use std::io::Read;

use super::path::{self, Mark};
use crate::contents::Contents;
use crate::tarball::{self, Input, Member, Tarball};
use crate::tree::{Attributes, Kind, Node, NodeId, Tree};
use crate::{Error, Limits, Result};

/// Symbolic links followed for one name, as the kernel has it.
pub(crate) const MOST_LINKS: usize = 40;

/// Directories made without an entry of their own and in no whiteout's place.
pub(crate) type Implicit = BTreeSet<NodeId>;

/// A layer being read.
pub(super) struct Applier<'a> {
    pub(super) layer: &'a str,
    pub(super) limits: &'a Limits,
    pub(super) tree: &'a mut Tree,
    pub(super) contents: &'a mut Contents,
    pub(super) root: NodeId,
    /// Directories without an entry so far.
    pub(super) implicit: Implicit,
}

/// Why an entry is refused: a sentence about it, or an error that stands by itself.
pub(super) enum Refusal {
    Entry(String),
    Other(Error),
}

impl From<String> for Refusal {
    fn from(detail: String) -> Self {
        Self::Entry(detail)
    }
}

impl From<&str> for Refusal {
    fn from(detail: &str) -> Self {
        Self::Entry(detail.into())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// A directory of the layer, reached by name.
struct Place {
    /// Its ancestors, the layer's root first, and the directory itself last.
    steps: Vec<NodeId>,
}

impl Place {
    fn id(&self) -> NodeId {
        // The root is never popped.
        self.steps[self.steps.len() - 1]
    }
}

impl Applier<'_> {
    /// Puts one member in, reading its data from `data`.
    pub(super) fn apply<R: Input>(&mut self, member: Member, data: &mut Tarball<R>) -> Result<()> {
        let entry = path::display(&member.name);
        self.try_apply(member, data).map_err(|refusal| match refusal {
            Refusal::Entry(detail) => Error::Entry { layer: self.layer.into(), entry, detail },
            Refusal::Other(error) => error,
        })
    }

    fn try_apply<R: Input>(&mut self, member: Member, data: &mut Tarball<R>) -> Result<(), Refusal> {
        let parts = path::components(&member.name)?;
        let Some((&last, parents)) = parts.split_last() else {
            if member.kind != tarball::Kind::Directory {
                return Err("the root can only be a directory".into());
            }
            let attributes = self.attributes(&member)?;
            self.tree.set_attributes(self.root, attributes)?;
            self.implicit.remove(&self.root);
            return Ok(());
        };
        if path::is_aufs_metadata(&parts) {
            return Ok(());
        }
        if parents.iter().any(|part| part.starts_with(b".wh.")) {
            return Err("a directory with a reserved whiteout name".into());
        }
        let mark = path::mark(last)?;
        let Some(parent) = self.walk(parents, true)? else {
            return match mark {
                Mark::None => Err("its parent is no directory".into()),
                // What this layer has instead of a directory hides everything below by itself. umoci writes such marks.
                Mark::Whiteout(_) | Mark::Opaque => Ok(()),
            };
        };
        if parent.steps.len() > self.limits.depth {
            return Err(self.too_deep().into());
        }
        match mark {
            Mark::Opaque => {
                self.tree.get_mut(parent.id()).opaque = true;
                Ok(())
            }
            Mark::Whiteout(hidden) => self.whiteout(parent.id(), hidden),
            Mark::None => self.place(parent.id(), last, &member, data),
        }
    }

    /// Hides `name` of the layers below.
    fn whiteout(&mut self, parent: NodeId, name: &[u8]) -> Result<(), Refusal> {
        match self.tree.child(parent, name) {
            // What this layer itself has there hides it already; a directory must not be merged.
            Some(id) => {
                let own = self.tree.get_mut(id);
                own.opaque |= own.is_directory();
                // It covers nothing any more whose attributes it could have.
                self.implicit.remove(&id);
            }
            None => {
                let kind = Kind::CharDevice { major: 0, minor: 0 };
                let node = Node { kind, attributes: Attributes::made(0), opaque: false, whiteouts: false, late: false };
                let id = self.tree.add(node)?;
                self.tree.link(parent, name, id)?;
                self.tree.get_mut(parent).whiteouts = true;
            }
        }
        Ok(())
    }

    fn place<R: Input>(
        &mut self,
        parent: NodeId,
        name: &[u8],
        member: &Member,
        data: &mut Tarball<R>,
    ) -> Result<(), Refusal> {
        let existing = self.tree.child(parent, name);
        if let tarball::Kind::Hardlink(target) = &member.kind {
            let id = self.link_target(target)?;
            let attributes = self.link_attributes(id, member)?;
            self.tree.set_attributes(id, attributes)?;
            return Ok(self.tree.link(parent, name, id)?);
        }
        let attributes = self.attributes(member)?;
        if let (tarball::Kind::Directory, Some(id)) = (&member.kind, existing)
            && self.tree.get(id).is_directory()
        {
            self.tree.set_attributes(id, attributes)?;
            self.implicit.remove(&id);
            return Ok(());
        }
        let kind = match &member.kind {
            tarball::Kind::Directory => Kind::Directory(Default::default()),
            tarball::Kind::File => Kind::File(self.content(member, data)?),
            tarball::Kind::Symlink(target) => Kind::Symlink(symlink_target(target)?),
            &tarball::Kind::CharDevice { major, minor } => device(Kind::CharDevice { major, minor }, major, minor)?,
            &tarball::Kind::BlockDevice { major, minor } => device(Kind::BlockDevice { major, minor }, major, minor)?,
            tarball::Kind::Fifo => Kind::Fifo,
            tarball::Kind::Hardlink(_) => return Err("a hard link".into()),
        };
        // A whiteout may have stood here, or a directory that hid something. Unpacked one by one, whatever stood here took away
        // what is below, too.
        let opaque = existing.is_some() && matches!(kind, Kind::Directory(_));
        let id = self.tree.add(Node { kind, attributes, opaque, whiteouts: false, late: false })?;
        Ok(self.tree.link(parent, name, id)?)
    }

    /// The node a hard link names.
    fn link_target(&mut self, target: &[u8]) -> Result<NodeId, Refusal> {
        let shown = path::display(target);
        let missing = || format!("a hard link to `{shown}`, which is no earlier entry of this layer");
        let parts = path::components(target).map_err(|detail| format!("a hard link to `{shown}`: {detail}"))?;
        let (&last, parents) = parts.split_last().ok_or_else(missing)?;
        let parent = self.walk(parents, false)?.ok_or_else(missing)?;
        let id = self.tree.child(parent.id(), last).ok_or_else(missing)?;
        let node = self.tree.get(id);
        if node.is_directory() || node.is_whiteout() {
            return Err(format!("a hard link to `{shown}`, which is a directory or hidden").into());
        }
        Ok(id)
    }

    /// Goes to a directory, following symbolic links inside the layer; `None` if something else is in the way. What is
    /// missing is made, or `None` is returned.
    fn walk(&mut self, parts: &[&[u8]], create: bool) -> Result<Option<Place>, Refusal> {
        let mut place = Place { steps: vec![self.root] };
        let mut pending: Vec<Box<[u8]>> = parts.iter().rev().map(|&part| part.into()).collect();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if *part == *b".." {
                // Only from a link's target. The root's parent is the root.
                if place.steps.len() > 1 {
                    place.steps.pop();
                }
                continue;
            }
            let child = self.tree.child(place.id(), &part);
            let next = match child.map(|id| (id, &self.tree.get(id).kind)) {
                Some((id, Kind::Directory(_))) => id,
                Some((_, Kind::Symlink(target))) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(format!("more than {MOST_LINKS} symbolic links in its path").into());
                    }
                    if target.starts_with(b"/") {
                        place.steps.truncate(1);
                    }
                    if path::split(target).any(|part| part.len() > path::NAME_MAX) {
                        return Err("its parent is a symbolic link to a name that can't be".into());
                    }
                    pending.extend(path::split(target).rev().map(Box::from));
                    let length = target.len();
                    self.tree.charge_link(length)?;
                    continue;
                }
                Some((id, _)) if !self.tree.get(id).is_whiteout() => return Ok(None),
                _ if !create => return Ok(None),
                _ => self.make_parent(&place, &part, child.is_some())?,
            };
            place.steps.push(next);
        }
        Ok(Some(place))
    }

    /// Makes a directory that has no entry (yet).
    fn make_parent(&mut self, place: &Place, name: &[u8], hides: bool) -> Result<NodeId, Refusal> {
        if place.steps.len() > self.limits.depth {
            return Err(self.too_deep().into());
        }
        let mut node = Node::directory(Attributes::made(0o755));
        node.opaque = hides;
        let id = self.tree.add(node)?;
        self.tree.link(place.id(), name, id)?;
        if !hides {
            self.implicit.insert(id);
        }
        Ok(id)
    }

    fn content<R: Input>(
        &mut self,
        member: &Member,
        data: &mut Tarball<R>,
    ) -> Result<crate::contents::ContentId, Refusal> {
        if member.size > self.limits.file_bytes {
            let object = format!("{}: entry `{}`", self.layer, path::display(&member.name));
            let limit = self.limits.file_bytes;
            return Err(Error::Limit { object, limit, unit: "bytes", name: "file_bytes" }.into());
        }
        let mut writer = self.contents.writer();
        let mut buffer = [0; 64 << 10];
        let mut copy = |writer: &mut crate::contents::Writer<'_>, length: u64| -> Result<()> {
            let mut rest = (&mut *data).take(length);
            loop {
                match rest.read(&mut buffer).map_err(|e| super::stream_error(self.layer, e))? {
                    0 => return Ok(()),
                    count => writer.write(&buffer[..count])?,
                }
            }
        };
        match &member.sparse {
            None => copy(&mut writer, member.stored)?,
            Some(map) => {
                let mut at = 0;
                for &tarball::Extent { offset, length } in &map.extents {
                    writer.write_zeros(offset - at)?;
                    copy(&mut writer, length)?;
                    at = offset + length;
                }
                writer.write_zeros(map.real_size - at)?;
            }
        }
        Ok(writer.finish()?)
    }

    fn too_deep(&self) -> Error {
        let (object, limit) = (self.layer.to_owned(), self.limits.depth as u64);
        Error::Limit { object, limit, unit: "directories above an entry", name: "depth" }
    }
}

fn symlink_target(target: &[u8]) -> Result<Box<[u8]>, Refusal> {
    if target.is_empty() || target.len() > path::PATH_MAX || target.contains(&0) {
        return Err(format!("a symbolic link to `{}`, which is no path", path::display(target)).into());
    }
    Ok(target.into())
}

/// Device numbers have 12 bits for the major and 20 for the minor.
fn device(kind: Kind, major: u32, minor: u32) -> Result<Kind, Refusal> {
    if major < 1 << 12 && minor < 1 << 20 {
        Ok(kind)
    } else {
        Err(format!("device number {major}:{minor} is out of range").into())
    }
}
