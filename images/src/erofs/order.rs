//! In what order inodes and contents are written: decided from the tree alone.

use std::collections::{HashMap, HashSet};

use super::layout;
use crate::contents::{ContentId, Contents};
use crate::tree::{Kind, NodeId, Tree};

/// The order of all that is written.
#[derive(Debug)]
pub(super) struct Order {
    /// Nodes in the order of their inodes: the root first; what was added by path comes last.
    pub(super) visits: Vec<Visit>,
    /// Contents of layers that have blocks of their own, by digest.
    pub(super) early: Vec<ContentId>,
    /// The rest of those with blocks of their own, of files added by path, as they were added.
    pub(super) late: Vec<ContentId>,
    /// Contents of files added by path, wherever they are: PID 1 reads some of them itself, so none is compressed.
    pub(super) plain: HashSet<ContentId>,
}

/// A node as it is met from the root.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) id: NodeId,
    pub(super) parent: NodeId,
    pub(super) links: u32,
}

/// Orders a tree.
pub(super) fn order(tree: &Tree, contents: &Contents) -> Order {
    let visits = visit(tree);
    let of = |late: bool| -> Vec<ContentId> {
        let nodes = visits.iter().map(|visit| tree.get(visit.id)).filter(|node| node.late == late);
        let mut ids: Vec<_> = nodes
            .filter_map(|node| if let Kind::File(id) = node.kind { Some(id) } else { None })
            .filter(|&id| layout::block_count(contents.get(id)) > 0)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let (mut early, mut late) = (of(false), of(true));
    let plain = late.iter().copied().collect();
    late.retain(|id| early.binary_search(id).is_err());
    early.sort_unstable_by(|a, b| contents.get(*a).cmp(contents.get(*b)));
    Order { visits, early, late, plain }
}

/// Nodes reachable from the root, in the order of their inodes.
fn visit(tree: &Tree) -> Vec<Visit> {
    let mut visits: Vec<Visit> = Vec::new();
    let mut met: HashMap<NodeId, usize> = HashMap::new();
    let mut late = Vec::new();
    let mut pending = vec![(Tree::ROOT, Tree::ROOT)];
    loop {
        let Some((id, parent)) = pending.pop() else {
            late.reverse();
            pending.append(&mut late);
            if pending.is_empty() {
                return visits;
            }
            continue;
        };
        if let Some(&earlier) = met.get(&id) {
            visits[earlier].links += 1;
            continue;
        }
        met.insert(id, visits.len());
        let mut links = 1;
        if let Kind::Directory(entries) = &tree.get(id).kind {
            let subdirectories = entries.values().filter(|&&child| tree.get(child).is_directory()).count();
            links = 2 + u32::try_from(subdirectories).unwrap_or(u32::MAX - 2);
            let (first, last): (Vec<_>, Vec<_>) =
                entries.values().rev().partition(|&&child| !tree.get(child).late || tree.get(id).late);
            pending.extend(first.into_iter().map(|&child| (child, id)));
            late.extend(last.into_iter().rev().map(|&child| (child, id)));
        }
        visits.push(Visit { id, parent, links });
    }
}
