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
    for index in 0..drafts.len() {
        let Some(At { value: pod, span }) = drafts[index].pod.clone() else { continue };
        let founder = *first.entry(pod.clone()).or_insert(index);
        let (ids, network) = (drafts[founder].container.ids, drafts[founder].container.network);
        let other = drafts[founder].name.clone();
        if drafts[index].container.network != network {
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

/// A pod starts when all of its containers can, so none may wait for what waits for another of them. `edges` are as in `order`.
pub(super) fn check_order(drafts: &[Draft], edges: &[Vec<(usize, usize)>], problems: &mut Problems) {
    // A container stands for its pod by the pod's first.
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        if let Some(pod) = &draft.pod {
            first.entry(pod.value.as_str()).or_insert(index);
        }
    }
    let group = |index: usize| match &drafts[index].pod {
        Some(pod) => first.get(pod.value.as_str()).copied().unwrap_or(index),
        None => index,
    };
    let mut needs: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (index, known) in edges.iter().enumerate() {
        let others = known.iter().map(|(other, _)| group(*other)).filter(|other| *other != group(index));
        needs.entry(group(index)).or_default().extend(others);
    }
    for (name, &pod) in &first {
        for (index, draft) in drafts.iter().enumerate().filter(|(index, _)| group(*index) == pod) {
            let leaves =
                edges[index].iter().find(|(other, _)| group(*other) != pod && reaches(&needs, group(*other), pod));
            if let Some((other, entry)) = leaves {
                let (other, place) = (&drafts[*other].container.name, &draft.depends_on[*entry]);
                problems
                    .error(place, format!("{} waits for the pod {} itself", quote(other), quote(name)))
                    .help("a pod starts when all of its containers can: take one of them out of it, or out of this `depends_on`");
                break;
            }
        }
    }
}

fn reaches(needs: &BTreeMap<usize, BTreeSet<usize>>, from: usize, to: usize) -> bool {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(here) = left.pop() {
        if here == to {
            return true;
        }
        if seen.insert(here) {
            left.extend(needs.get(&here).into_iter().flatten());
        }
    }
    false
}
