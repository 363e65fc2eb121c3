//! What a layer's entries have besides their content: owner, mode, time and extended attributes, each one checked.

use super::apply::{Applier, Refusal};
use super::path;
use crate::tarball::Member;
use crate::tree::{Attributes, Kind, Node, NodeId, Xattrs};
use crate::{Error, Result};

impl Applier<'_> {
    /// What a member's header says.
    pub(super) fn attributes(&self, member: &Member) -> Result<Attributes, Refusal> {
        // The highest id means "none" to the kernel.
        let id = |id: u64| u32::try_from(id).ok().filter(|&id| id != u32::MAX);
        Ok(Attributes {
            mode: member.mode,
            uid: id(member.uid).ok_or_else(|| format!("user id {} is out of range", member.uid))?,
            gid: id(member.gid).ok_or_else(|| format!("group id {} is out of range", member.gid))?,
            mtime: member.mtime,
            xattrs: self.xattrs(member)?,
        })
    }

    /// The attributes worth keeping: none of overlayfs's own (they would forge whiteouts and redirects), none of namespaces
    /// that EROFS doesn't have.
    fn xattrs(&self, member: &Member) -> Result<Xattrs, Refusal> {
        self.check_xattrs(member, member.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum())?;
        let mut kept = Xattrs::new();
        for (name, value) in &member.xattrs {
            let of_overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
            if of_overlay || !crate::erofs::xattr::storable(name) {
                continue;
            }
            if name.len() > path::NAME_MAX || name.contains(&0) || value.len() > usize::from(u16::MAX) {
                return Err(format!("attribute `{}` that no file can have", path::display(name)).into());
            }
            kept.insert(name.as_slice().into(), value.as_slice().into());
        }
        Ok(kept)
    }

    fn check_xattrs(&self, member: &Member, bytes: usize) -> Result<()> {
        let limit = self.limits.xattr_bytes;
        if bytes as u64 <= limit {
            return Ok(());
        }
        let object = format!("{}: entry `{}`: its attributes", self.layer, path::display(&member.name));
        Err(Error::Limit { object, limit, unit: "bytes", name: "xattr_bytes" })
    }

    /// What a hard link's header makes of its file. Engines set owner, attributes, mode and time through the new name, too.
    pub(super) fn link_attributes(&self, id: NodeId, member: &Member) -> Result<Attributes, Refusal> {
        let Node { kind, attributes: old, .. } = self.tree.get(id);
        let mut attributes = self.attributes(member)?;
        if let Kind::Symlink(_) = kind {
            (attributes.mode, attributes.mtime) = (old.mode, old.mtime);
        }
        // Attributes are only added, but a new owner (even the same) takes capabilities away.
        for (name, value) in old.xattrs.iter().filter(|(name, _)| ***name != *b"security.capability") {
            attributes.xattrs.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let lengths = attributes.xattrs.iter().map(|(name, value)| name.len() + value.len());
        self.check_xattrs(member, lengths.sum())?;
        Ok(attributes)
    }
}
