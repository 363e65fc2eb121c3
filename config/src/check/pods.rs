//! Containers that share their network, message queues, host name and ids.

use std::collections::{BTreeMap, BTreeSet};

use super::Draft;
use crate::errors::quote;
use crate::keys::ContainerKeys;
use crate::problems::{Problems, Span};
use crate::read::{At, Field};

/// What all containers of a pod have together, one of them can't declare for itself.
pub(super) fn check_member(keys: &ContainerKeys, problems: &mut Problems) {
    let Some(pod) = &keys.pod else { return };
    fn key<T>(field: &Option<Field<T>>) -> Option<&Span> {
        field.as_ref().map(|field| &field.key)
    }
    for (place, what) in [
        (key(&keys.hostname), "its host name is the pod's name"),
        (key(&keys.domainname), "it has no domain name"),
        (key(&keys.uts), "its host name is the pod's name"),
        (key(&keys.ipc), "they share their message queues"),
        (key(&keys.userns_mode), "they have ids of their own together"),
    ] {
        if let Some(place) = place {
            problems
                .error(place, format!("a container of a pod can't choose this for itself: {what}"))
                .help("leave it out, or take the container out of the pod")
                .related(&pod.key, "in a pod by this");
        }
    }
}

/// Gives the containers of each pod what they share: the ids of its first, and a host name.
pub(super) fn unite(drafts: &mut [Draft], problems: &mut Problems) {
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    check_sysctls(drafts, problems);
    for index in 0..drafts.len() {
        let Some(At { value: pod, span }) = drafts[index].pod.clone() else { continue };
        let founder = *first.entry(pod.clone()).or_insert(index);
        let (ids, network) = (drafts[founder].container.ids, drafts[founder].container.network);
        let other = drafts[founder].name.clone();
        let unknown = drafts[index].unconnected || drafts[founder].unconnected;
        if drafts[index].container.network != network && !unknown {
            problems
                .error(
                    &span,
                    format!("the containers of the pod {} share their network, and these declare two", quote(&pod)),
                )
                .help("give them the same `network_mode`")
                .related(&other, "the pod's first container");
        }
        let container = &mut drafts[index].container;
        (container.ids, container.hostname, container.pod) = (ids, Some(pod.clone()), Some(pod));
    }
}

/// What a container may set belongs to namespaces that its pod shares, so that two values are as many as one of them.
fn check_sysctls(drafts: &[Draft], problems: &mut Problems) {
    let mut set: BTreeMap<(&str, &str), (&str, &Span)> = BTreeMap::new();
    for draft in drafts {
        let Some(pod) = &draft.pod else { continue };
        for ((name, value), place) in draft.container.sysctls.iter().zip(&draft.sysctls) {
            let (first, there) = *set.entry((&pod.value, name)).or_insert((value, place));
            if first != value {
                problems
                    .error(
                        place,
                        format!(
                            "the containers of the pod {} share {}, and these declare two values",
                            quote(&pod.value),
                            quote(name)
                        ),
                    )
                    .help("give it the same value in each, or set it in one of them")
                    .related(there, "the other one");
            }
        }
    }
}

/// A pod starts when all of its containers can, so none may wait for what waits for another of them. `edges` are as in `order`.
pub(super) fn check_order(drafts: &[Draft], edges: &[Vec<(usize, usize)>], problems: &mut Problems) {
    // A container stands for its pod by the pod's first.
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    let group: Vec<usize> = (drafts.iter().enumerate())
        .map(|(index, draft)| match &draft.pod {
            Some(pod) => *first.entry(pod.value.as_str()).or_insert(index),
            None => index,
        })
        .collect();
    let mut needs: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); drafts.len()];
    for (index, known) in edges.iter().enumerate() {
        needs[group[index]].extend(known.iter().map(|(other, _)| group[*other]));
    }
    let circle = circles(&needs);
    let mut told = BTreeSet::new();
    for (index, draft) in drafts.iter().enumerate() {
        let (Some(pod), here) = (&draft.pod, group[index]) else { continue };
        let leaves = |other: usize| group[other] != here && circle[group[other]] == circle[here];
        let Some((other, entry)) = edges[index].iter().find(|(other, _)| leaves(*other)) else { continue };
        if told.insert(here) {
            let (other, place) = (&drafts[*other].container.name, &draft.depends_on[*entry]);
            problems.error(place, format!("{} waits for the pod {} itself", quote(other), quote(&pod.value))).help(
                "a pod starts when all of its containers can: take one of them out of it, or out of this `depends_on`",
            );
        }
    }
}

/// For each node of a graph one that stands for all that it reaches and is reached by (Kosaraju's algorithm). `edges` are those that
/// lead away from a node.
fn circles(edges: &[BTreeSet<usize>]) -> Vec<usize> {
    let mut back: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
    for (from, others) in edges.iter().enumerate() {
        others.iter().for_each(|to| back[*to].push(from));
    }
    // The nodes in the order in which a search ends with them. A search keeps how far it got in each of them.
    let (mut ended, mut seen) = (Vec::with_capacity(edges.len()), vec![false; edges.len()]);
    for start in 0..edges.len() {
        let mut path = Vec::new();
        if !std::mem::replace(&mut seen[start], true) {
            path.push((start, edges[start].iter()));
        }
        while let Some((here, others)) = path.last_mut() {
            match others.find(|other| !seen[**other]) {
                Some(&next) => {
                    seen[next] = true;
                    path.push((next, edges[next].iter()));
                }
                None => {
                    ended.push(*here);
                    path.pop();
                }
            }
        }
    }
    let mut circle: Vec<Option<usize>> = vec![None; edges.len()];
    for start in ended.into_iter().rev() {
        let mut left = vec![start];
        while let Some(here) = left.pop() {
            if circle[here].is_none() {
                circle[here] = Some(start);
                left.extend(&back[here]);
            }
        }
    }
    circle.into_iter().enumerate().map(|(node, circle)| circle.unwrap_or(node)).collect()
}

#[cfg(test)]
mod tests {
    use super::circles;

    #[test]
    fn nodes_of_a_circle_stand_together() {
        let edges = [vec![1], vec![2], vec![0, 3], vec![4], vec![3, 5], vec![], vec![0]];
        let found = circles(&edges.map(|others| others.into_iter().collect()));
        let same = |one: usize, other: usize| found[one] == found[other];
        assert!(same(0, 1) && same(1, 2) && same(3, 4), "{found:?}");
        assert!(!same(2, 3) && !same(4, 5) && !same(0, 6) && !same(5, 6), "{found:?}");
        assert!(circles(&[]).is_empty());
    }
}
