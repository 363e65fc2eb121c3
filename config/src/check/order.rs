//! The order in which containers start.

use std::collections::{BTreeMap, BTreeSet};

use super::{Draft, pods, undeclared};
use crate::container::{Condition, Container, Restart};
use crate::errors::quote;
use crate::problems::Problems;

/// The containers, each after those it depends on, else in the order of declaration. Notes dependencies that can't be kept.
pub(super) fn sorted(drafts: Vec<Draft>, problems: &mut Problems) -> Vec<Container> {
    let names: BTreeMap<&str, usize> =
        drafts.iter().enumerate().map(|(index, draft)| (draft.container.name.as_str(), index)).collect();
    // For each container, the index of each dependency that exists, with the number of its entry.
    let mut edges: Vec<Vec<(usize, usize)>> = Vec::with_capacity(drafts.len());
    for draft in &drafts {
        let mut known = Vec::new();
        for (entry, (dependency, span)) in draft.container.depends_on.iter().zip(&draft.depends_on).enumerate() {
            match names.get(dependency.container.as_str()) {
                Some(&index) => known.push((index, entry)),
                None => {
                    let others = names.keys().copied().filter(|name| *name != draft.container.name);
                    undeclared("container", &dependency.container, others, span, problems);
                }
            }
        }
        edges.push(known);
    }
    check_completion(&drafts, &edges, problems);
    check_health(&drafts, &edges, problems);
    let sound = problems.count();
    let order = sort(&drafts, &edges, problems);
    if problems.count() == sound {
        pods::check_order(&drafts, &edges, problems);
    }
    drop(names);
    let mut drafts: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
    order.into_iter().filter_map(|index| drafts.get_mut(index)?.take()).map(|draft| draft.container).collect()
}

/// A container that is always started again is never done.
fn check_completion(drafts: &[Draft], edges: &[Vec<(usize, usize)>], problems: &mut Problems) {
    for (draft, edges) in drafts.iter().zip(edges) {
        for &(other, entry) in edges {
            let (Some(other), Some(dependency)) = (drafts.get(other), draft.container.depends_on.get(entry)) else {
                continue;
            };
            let restarts = matches!(other.container.restart, Restart::Always | Restart::UnlessStopped);
            if dependency.condition == Condition::Completed && restarts {
                let name = quote(&dependency.container);
                let span = draft.depends_on.get(entry).unwrap_or(&draft.name);
                let problem = problems.error(span, format!("{name} never completes: it is always started again"));
                problem.help("give it restart = \"no\" or \"on-failure\", or wait for \"service_started\"");
                if let Some(restart) = &other.restart {
                    problem.related(restart, "its restart policy");
                }
            }
        }
    }
}

/// A container that nobody asks is never found healthy. Whether an image has a health check of its own shows later.
fn check_health(drafts: &[Draft], edges: &[Vec<(usize, usize)>], problems: &mut Problems) {
    for (draft, edges) in drafts.iter().zip(edges) {
        for &(other, entry) in edges {
            let (Some(other), Some(dependency)) = (drafts.get(other), draft.container.depends_on.get(entry)) else {
                continue;
            };
            let asked = other.container.supervision.health.is_some() || other.unsupervised;
            if dependency.condition == Condition::Healthy && !asked {
                let span = draft.depends_on.get(entry).unwrap_or(&draft.name);
                problems
                    .error(span, format!("{} has no health check, so it is never healthy", quote(&dependency.container)))
                    .help("give it one, or wait for \"service_started\"; with notify = true that is when it says that it is ready");
            }
        }
    }
}

/// Kahn's algorithm, taking the first declared of those that are ready. When none is, a cycle is named and cut.
fn sort(drafts: &[Draft], edges: &[Vec<(usize, usize)>], problems: &mut Problems) -> Vec<usize> {
    let mut waiting: Vec<usize> = edges.iter().map(Vec::len).collect();
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
    for (index, known) in edges.iter().enumerate() {
        for (other, _) in known {
            dependents[*other].push(index);
        }
    }
    let mut ready: BTreeSet<usize> = (0..edges.len()).filter(|index| waiting[*index] == 0).collect();
    let mut left: BTreeSet<usize> = (0..edges.len()).collect();
    let mut order = Vec::with_capacity(edges.len());
    while !left.is_empty() {
        let next = match ready.pop_first() {
            Some(next) => next,
            None => cut_cycle(drafts, edges, &left, problems),
        };
        if !left.remove(&next) {
            continue;
        }
        order.push(next);
        for &dependent in &dependents[next] {
            waiting[dependent] = waiting[dependent].saturating_sub(1);
            if waiting[dependent] == 0 {
                ready.insert(dependent);
            }
        }
    }
    order
}

/// Names a cycle among the containers that are `left`, each of which depends on another one that is left; one of its members.
fn cut_cycle(
    drafts: &[Draft],
    edges: &[Vec<(usize, usize)>],
    left: &BTreeSet<usize>,
    problems: &mut Problems,
) -> usize {
    let mut path: Vec<(usize, usize)> = Vec::new();
    let mut at: BTreeMap<usize, usize> = BTreeMap::new();
    let mut here = left.first().copied().unwrap_or_default();
    while !at.contains_key(&here) {
        let Some(&(next, entry)) = edges[here].iter().find(|(other, _)| left.contains(other)) else {
            return here;
        };
        at.insert(here, path.len());
        path.push((here, entry));
        here = next;
    }
    let cycle = &path[at[&here]..];
    // Told from its first declared member, whichever way it was entered.
    let first = cycle.iter().enumerate().min_by_key(|(_, (index, _))| *index).map_or(0, |(place, _)| place);
    let cycle: Vec<(usize, usize)> = cycle[first..].iter().chain(&cycle[..first]).copied().collect();
    let (index, entry) = cycle[0];
    let mut chain: Vec<String> =
        cycle.iter().take(12).map(|(index, _)| drafts[*index].container.name.clone()).collect();
    if cycle.len() > chain.len() {
        chain.push("...".into());
    }
    chain.push(drafts[index].container.name.clone());
    problems
        .error(&drafts[index].depends_on[entry], format!("containers wait for each other: {}", chain.join(" -> ")))
        .help("take one of these out of the `depends_on` of the one before it");
    index
}
