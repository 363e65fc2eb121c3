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
use crate::view::View;
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
    compression: Option<Algorithm>,
}

/// A layer that was added.
#[derive(Debug)]
struct Stored {
    diff_id: Digest,
    /// Its directory's name: the diff id, with `-2` and so on behind it if the layer is there in another form already.
    name: String,
    layer: Layer,
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
        Ok(Self { limits, tree, contents, layers: Vec::new(), compression: None })
    }

    /// Reads, verifies and checks layer `n` (0 is the bottom) of `image`, whose lower layers must have been added.
    ///
    /// A layer that is there already costs nothing. `progress` gets the number of bytes read from the source, each time
    /// some were. Returns the layer's directory in the image, normally `/layers/<diff id>`: take the directories from
    /// here or from [`Store::lowers`] rather than making up their names.
    pub fn add_layer(&mut self, image: &Image, n: usize, progress: &mut dyn FnMut(u64)) -> Result<String> {
        let below = self.chain(image, n)?;
        if let Some(found) = self.find(image, n, &below) {
            return Ok(self.directory(found));
        }
        let object = image.layer_name(n);
        let Some(wanted) = image.layers.get(n) else {
            return Err(Error::unsupported(object, format!("the image has {} layers", image.layers.len())));
        };
        let same = self.layers.iter().position(|stored| stored.diff_id == wanted.diff_id);
        let mut layer = match same {
            // The same layer over others, whose directories look different: nothing needs to be read again.
            Some(same) => copy_layer(&mut self.tree, &self.layers[same].layer)?,
            None => {
                let blob = Progress { inner: image.open_layer(wanted)?, progress };
                let Self { limits, tree, contents, .. } = self;
                layer::read(&object, blob, &wanted.expected(), layer::Target { limits, tree, contents })?
            }
        };
        self.inherit(&mut layer, &below)?;
        let variants = self.layers.iter().filter(|stored| stored.diff_id == wanted.diff_id).count();
        let suffix = if variants == 0 { String::new() } else { format!("-{}", variants + 1) };
        let name = format!("{}{suffix}", wanted.diff_id.hex());
        let parent = self.tree.child(Tree::ROOT, LAYERS.as_bytes()).unwrap_or(Tree::ROOT);
        self.tree.link(parent, name.as_bytes(), layer.root)?;
        self.layers.push(Stored { diff_id: wanted.diff_id, name, layer });
        Ok(self.directory(self.layers.len() - 1))
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
        let id = self.tree.add(Node { kind, attributes, opaque: false, late: true })?;
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
        let mut chain = Vec::new();
        for n in 0..count.min(image.layers.len()) {
            let found = self
                .find(image, n, &chain)
                .ok_or_else(|| Error::unsupported(image.layer_name(n), "it was not added to the store yet"))?;
            chain.push(found);
        }
        Ok(chain)
    }

    /// Layer `n` of `image` as it is over the layers `below`, if it is there.
    fn find(&self, image: &Image, n: usize, below: &[usize]) -> Option<usize> {
        let diff_id = image.layers.get(n)?.diff_id;
        let view = self.view_of(below);
        let made = Attributes::made(0o755);
        self.layers.iter().position(|stored| {
            stored.diff_id == diff_id
                && stored.layer.implicit.iter().all(|(id, path)| {
                    let wanted = self.covered(&view, &stored.layer, path).unwrap_or(&made);
                    self.tree.get(*id).attributes == *wanted
                })
        })
    }

    /// Gives directories without an entry of their own the attributes of what they cover.
    fn inherit(&mut self, layer: &mut Layer, below: &[usize]) -> Result<()> {
        let view = self.view_of(below);
        let covered: HashMap<NodeId, Attributes> = layer
            .implicit
            .iter()
            .map(|(&id, path)| (id, self.covered(&view, layer, path).cloned().unwrap_or(Attributes::made(0o755))))
            .collect();
        for &id in layer.implicit.keys() {
            if let Some(attributes) = covered.get(&id) {
                self.tree.set_attributes(id, attributes.clone())?;
            }
        }
        Ok(())
    }

    /// The attributes of the directory below that `path` of `layer` covers; `None` if it covers none, or hides it.
    fn covered<'a>(&self, view: &View<'a>, layer: &Layer, path: &[Box<[u8]>]) -> Option<&'a Attributes> {
        let mut at = layer.root;
        let mut hidden = false;
        for name in path {
            // An opaque directory hides what lies in the one below, not that one itself.
            hidden |= self.tree.get(at).opaque;
            // An entry may have been replaced by something else later on.
            at = self.tree.child(at, name)?;
        }
        if hidden { None } else { view.directory(path) }
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

/// A second copy of a layer's nodes; contents are shared, hard links stay together.
fn copy_layer(tree: &mut Tree, layer: &Layer) -> Result<Layer> {
    let mut copies: HashMap<NodeId, NodeId> = HashMap::new();
    let root = copy_node(tree, layer.root, &mut copies)?;
    let mut pending = vec![layer.root];
    while let Some(original) = pending.pop() {
        let Kind::Directory(entries) = tree.get(original).kind.clone() else { continue };
        for (name, child) in entries {
            let copy = match copies.get(&child) {
                Some(&copy) => copy,
                None => {
                    pending.push(child);
                    copy_node(tree, child, &mut copies)?
                }
            };
            tree.link(copies[&original], &name, copy)?;
        }
    }
    // Directories that were replaced later have no copy.
    let implicit = layer.implicit.iter().filter_map(|(id, path)| Some((*copies.get(id)?, path.clone())));
    Ok(Layer { root, implicit: implicit.collect() })
}

fn copy_node(tree: &mut Tree, id: NodeId, copies: &mut HashMap<NodeId, NodeId>) -> Result<NodeId> {
    let original = tree.get(id);
    let kind = if original.is_directory() { Kind::Directory(Default::default()) } else { original.kind.clone() };
    let node = Node { kind, attributes: original.attributes.clone(), opaque: original.opaque, late: false };
    let copy = tree.add(node)?;
    copies.insert(id, copy);
    Ok(copy)
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
