//! The layer store: layers go in as tar streams, an EROFS image comes out.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::contents::Contents;
use crate::erofs::Algorithm;
use crate::layer::{self, Layer, path};
use crate::source::Image;
use crate::tree::{Attributes, Kind, Node, NodeId, Tree};
use crate::view::{Merged, View};
use crate::{Digest, Error, Limits, Result};

/// The directory of the layers.
const LAYERS: &str = "layers";

/// Collects layers and files, then writes the EROFS image.
#[derive(Debug)]
pub struct Store {
    limits: Limits,
    tree: Tree,
    contents: Contents,
    layers: Vec<Stored>,
    /// Of each layer of an image, by its chain ID (see [`Image::chain_ids`]), which of `layers` it is.
    chains: HashMap<Digest, usize>,
    compression: Option<Algorithm>,
}

/// A layer that was added.
#[derive(Debug)]
struct Stored {
    diff_id: Digest,
    /// Its directory's name: the diff id, with `-2` and so on behind it if the layer is there in another form already.
    name: String,
    layer: Layer,
    /// The layer's implicit directories, in the order of [`Store::covered`].
    inherited: Vec<NodeId>,
}

/// What [`Store::finish`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Size of the image in blocks of [`crate::erofs::BLOCK_SIZE`] bytes.
    pub blocks: u64,
    /// The filesystem's UUID, made from its content.
    pub uuid: [u8; 16],
    /// Files, directories, links and devices.
    pub inodes: u64,
    /// Different file contents stored in blocks of their own; small ones lie behind their inodes.
    pub contents: u64,
    /// Bytes those contents have, holes and padding not counted.
    pub content_bytes: u64,
    /// Blocks that they take, compressed or not.
    pub content_blocks: u64,
    /// Bytes not stored because an equal content was there already.
    pub shared_bytes: u64,
    /// Bytes of inodes, attributes, small directories and small contents.
    pub metadata_bytes: u64,
}

impl Store {
    /// An empty store that keeps contents in a nameless file in the directory `scratch`, with the default [`Limits`].
    pub fn new(scratch: &Path) -> Result<Self> {
        Self::with_limits(scratch, Limits::default())
    }

    /// [`Store::new`] with other limits.
    pub fn with_limits(scratch: &Path, limits: Limits) -> Result<Self> {
        let contents = Contents::new(scratch, &limits)?;
        let mut tree = Tree::new(&limits);
        let layers = tree.add(Node::directory(Attributes::made(0o755)))?;
        tree.link(Tree::ROOT, LAYERS.as_bytes(), layers)?;
        Ok(Self { limits, tree, contents, layers: Vec::new(), chains: HashMap::new(), compression: None })
    }

    /// Reads, verifies and checks layer `n` (0 is the bottom) of `image`, whose lower layers must have been added.
    ///
    /// A layer that is there already costs nothing. `progress` gets the number of bytes read from the source, each time
    /// some were. Returns the layer's directory in the image, normally `/layers/<diff id>`: take the directories from
    /// here or from [`Store::lowers`] rather than making up their names.
    pub fn add_layer(&mut self, image: &Image, n: usize, progress: &mut dyn FnMut(u64)) -> Result<String> {
        let (Some(wanted), Some(chain_id)) = (image.layers.get(n), image.chain_ids().nth(n)) else {
            let object = image.layer_name(n);
            return Err(Error::unsupported(object, format!("the image has {} layers", image.layers.len())));
        };
        let below = self.chain(image, n)?;
        let found = match self.chains.get(&chain_id) {
            Some(&found) => found,
            None => {
                let read = |target: layer::Target<'_>| {
                    let blob = Progress { inner: image.open_layer(wanted)?, progress };
                    layer::read(&image.layer_name(n), blob, &wanted.expected(), target)
                };
                let found = self.form_over(wanted.diff_id, &below, read)?;
                self.chains.insert(chain_id, found);
                found
            }
        };
        Ok(self.directory(found))
    }

    /// The layer directories to stack for `image`, the topmost first, as overlayfs wants them: no directory twice (it
    /// refuses that), none beneath a layer that hides everything below it (it doesn't look for that mark on a root).
    pub fn lowers(&self, image: &Image) -> Result<Vec<String>> {
        let mut lowers = Vec::new();
        for &n in self.chain(image, image.layers.len())?.iter().rev() {
            // Equal layers: the upper one hides the lower one completely.
            if !lowers.contains(&self.directory(n)) {
                lowers.push(self.directory(n));
            }
            if self.tree.get(self.layers[n].layer.root).opaque {
                break;
            }
        }
        Ok(lowers)
    }

    /// The merged view over the layers of `image`, all of which must have been added.
    pub fn view(&self, image: &Image) -> Result<View<'_>> {
        Ok(self.view_of(&self.chain(image, image.layers.len())?))
    }

    /// Adds a file owned by root at the absolute `path`, outside `/layers`; missing parents are made with mode 0755.
    ///
    /// Contents added here lie behind everything else in the order they were added: add last what changes most.
    pub fn add_file(&mut self, path: &str, mode: u32, mut content: impl Read) -> Result<()> {
        let (parent, name) = self.late_parent(path)?;
        if self.tree.child(parent, &name).is_some() {
            return Err(Error::unsupported(path, "it was added already"));
        }
        let mut writer = self.contents.writer();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match content.read(&mut buffer).map_err(Error::io("read", path))? {
                0 => break,
                count => writer.write(&buffer[..count])?,
            }
        }
        let kind = Kind::File(writer.finish()?);
        let attributes = Attributes::made((mode & 0o7777) as u16);
        let id = self.tree.add(Node { kind, attributes, opaque: false, whiteouts: false, late: true })?;
        self.tree.link(parent, &name, id)
    }

    /// Adds an empty directory owned by root, or changes the mode of one that is there.
    pub fn add_dir(&mut self, path: &str, mode: u32) -> Result<()> {
        let (parent, name) = self.late_parent(path)?;
        let id = self.late_directory(parent, &name, path)?;
        self.tree.get_mut(id).attributes.mode = (mode & 0o7777) as u16;
        Ok(())
    }

    /// Compresses the layers' files that shrink; those added by path, PID 1's own, stay as they are. `None`, the default:
    /// nothing is compressed.
    pub fn compress(&mut self, compression: Option<Algorithm>) {
        self.compression = compression;
    }

    /// Writes the EROFS image to `out` from its beginning; the position is then its end. `out` must be an empty file.
    pub fn finish(self, out: &mut File) -> Result<Summary> {
        crate::erofs::write(&self.tree, &self.contents, self.compression, out)
    }

    /// The stored forms of the lowest `count` layers of `image`, the bottom one first.
    fn chain(&self, image: &Image, count: usize) -> Result<Vec<usize>> {
        let missing = |n| Error::unsupported(image.layer_name(n), "it was not added to the store yet");
        let known = image.chain_ids().take(count).map(|id| self.chains.get(&id).copied());
        known.enumerate().map(|(n, found)| found.ok_or_else(|| missing(n))).collect()
    }

    /// The form that a layer has over the layers `below`: one that is there, or a new one.
    fn form_over(
        &mut self,
        diff_id: Digest,
        below: &[usize],
        read: impl FnOnce(layer::Target<'_>) -> Result<Layer>,
    ) -> Result<usize> {
        let forms: Vec<usize> = (0..self.layers.len()).filter(|&n| self.layers[n].diff_id == diff_id).collect();
        let (layer, covered) = match forms.first() {
            // The same layer over others, whose directories may look different: nothing needs to be read again.
            Some(&first) => {
                let layer = &self.layers[first].layer;
                let mut covered = self.covered(layer, below);
                if let Some(&form) = forms.iter().find(|&&form| self.looks_like(&self.layers[form].inherited, &covered))
                {
                    return Ok(form);
                }
                let (layer, copies) = layer.copy(&mut self.tree)?;
                covered.iter_mut().for_each(|(id, _)| *id = copies[id]);
                (layer, covered)
            }
            None => {
                let Self { limits, tree, contents, .. } = self;
                let layer = read(layer::Target { limits, tree, contents })?;
                let covered = self.covered(&layer, below);
                (layer, covered)
            }
        };
        for &(id, covered) in &covered {
            let attributes = covered.map_or(Attributes::made(0o755), |below| self.tree.get(below).attributes.clone());
            self.tree.set_attributes(id, attributes)?;
        }
        let suffix = if forms.is_empty() { String::new() } else { format!("-{}", forms.len() + 1) };
        let name = format!("{}{suffix}", diff_id.hex());
        let parent = self.tree.child(Tree::ROOT, LAYERS.as_bytes()).unwrap_or(Tree::ROOT);
        self.tree.link(parent, name.as_bytes(), layer.root)?;
        let inherited = covered.into_iter().map(|(id, _)| id).collect();
        self.layers.push(Stored { diff_id, name, layer, inherited });
        Ok(self.layers.len() - 1)
    }

    /// The directories of `layer` without an entry of their own, each with the directory of the layers `below` whose
    /// attributes it has: that which it covers, unless that one is hidden. In an order that depends on names only.
    fn covered(&self, layer: &Layer, below: &[usize]) -> Vec<(NodeId, Option<NodeId>)> {
        let view = self.view_of(below);
        let mut found = Vec::new();
        let mut pending = vec![(layer.root, view.root().clone())];
        while let Some((id, below)) = pending.pop() {
            let Node { kind: Kind::Directory(entries), opaque, .. } = self.tree.get(id) else { continue };
            if layer.implicit.contains(&id) {
                found.push((id, below.first().copied().filter(|&below| self.tree.get(below).is_directory())));
            }
            // An opaque directory hides what lies in the one below, not that one itself.
            let below = if *opaque { Merged::new() } else { below };
            let directories = entries.iter().filter(|&(_, &child)| self.tree.get(child).is_directory());
            pending.extend(directories.map(|(name, &child)| (child, view.child(&below, name).unwrap_or_default())));
        }
        found
    }

    /// Whether the directories `inherited` of a form look like those that a layer would have with attributes from `covered`.
    fn looks_like(&self, inherited: &[NodeId], covered: &[(NodeId, Option<NodeId>)]) -> bool {
        let made = Attributes::made(0o755);
        inherited.iter().zip(covered).all(|(&own, &(_, below))| {
            self.tree.get(own).attributes == *below.map_or(&made, |below| &self.tree.get(below).attributes)
        })
    }

    fn view_of(&self, chain: &[usize]) -> View<'_> {
        let roots = chain.iter().rev().map(|&n| self.layers[n].layer.root).collect();
        View::new(&self.tree, &self.contents, roots)
    }

    fn directory(&self, n: usize) -> String {
        format!("/{LAYERS}/{}", self.layers[n].name)
    }

    /// Parent directory and name for something added by path.
    fn late_parent(&mut self, path: &str) -> Result<(NodeId, Box<[u8]>)> {
        let bad = |detail: &str| Error::unsupported(path, detail);
        let parts: Vec<&[u8]> = path::split(path.as_bytes()).collect();
        let (&name, parents) = parts.split_last().ok_or_else(|| bad("not the path of a file"))?;
        let odd = |part: &&[u8]| *part == b".." || part.contains(&0) || part.len() > path::NAME_MAX;
        if !path.starts_with('/') || parts.iter().any(odd) || parts.first() == Some(&LAYERS.as_bytes()) {
            return Err(bad("not an absolute path outside /layers"));
        }
        let mut parent = Tree::ROOT;
        for part in parents {
            parent = self.late_directory(parent, part, path)?;
        }
        Ok((parent, name.into()))
    }

    /// A directory added by path, made if it isn't there.
    fn late_directory(&mut self, parent: NodeId, name: &[u8], path: &str) -> Result<NodeId> {
        match self.tree.child(parent, name) {
            Some(id) if self.tree.get(id).is_directory() => Ok(id),
            Some(_) => Err(Error::unsupported(path, "a file is where a directory should be")),
            None => {
                let node = Node { late: true, ..Node::directory(Attributes::made(0o755)) };
                let id = self.tree.add(node)?;
                self.tree.link(parent, name, id)?;
                Ok(id)
            }
        }
    }
}

/// Tells how much was read.
struct Progress<'a, R> {
    inner: R,
    progress: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Progress<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.progress)(count as u64);
        Ok(count)
    }
}
