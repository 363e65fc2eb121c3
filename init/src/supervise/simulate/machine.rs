//! What a seed makes of a machine: its containers, their pods and what they wait for.

use garboard_runtime::plan::{Condition, HealthCheck, HealthTest, OnFailure, Restart, Supervision};

use super::super::backoff::next_random;
use super::super::{Need, Rules};

/// All of a run's chance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Luck(pub(super) u64);

impl Luck {
    pub(super) fn next(&mut self) -> u64 {
        next_random(&mut self.0)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A machine of up to nine containers.
pub(super) fn machine(luck: &mut Luck) -> Vec<Rules> {
    let pods = luck.below(3);
    (0..1 + luck.below(9)).map(|index| container(index, pods, luck)).collect()
}

fn container(index: usize, pods: usize, luck: &mut Luck) -> Rules {
    let conditions = [Condition::Started, Condition::Started, Condition::Healthy, Condition::Completed];
    let edges = if index == 0 { 0 } else { luck.below(3) };
    let needs = (0..edges).map(|_| Need { on: luck.below(index), condition: luck.of(&conditions) }).collect();
    let restart = match luck.below(6) {
        0 => Restart::No,
        1 => Restart::OnFailure(None),
        2 => Restart::OnFailure(Some(luck.below(4) as u32)),
        3 => Restart::UnlessStopped,
        _ => Restart::Always,
    };
    Rules {
        restart,
        needs,
        stop_grace_ms: luck.of(&[0, 1, 500, 10_000, 20_000]),
        needs_data: luck.one_in(4),
        // Of no chance of its own: what once broke is kept by its seed.
        needs_record: restart == Restart::UnlessStopped && index % 2 == 1,
        needs_devices: luck.one_in(4),
        supervision: supervision(luck),
        pod: (pods > 0 && luck.one_in(2)).then(|| luck.below(pods)),
    }
}

fn supervision(luck: &mut Luck) -> Supervision {
    let notify = luck.one_in(3);
    let check = HealthCheck {
        test: HealthTest::Tcp(80),
        interval_ms: luck.of(&[1, 100, 5_000]),
        timeout_ms: 1_000,
        retries: 1 + luck.below(3) as u32,
        start_period_ms: luck.of(&[0, 300, 20_000]),
        start_interval_ms: luck.of(&[1, 50, 1_000]),
        restart: luck.one_in(2),
    };
    let failures = [OnFailure::Ignore, OnFailure::Ignore, OnFailure::Ignore, OnFailure::Restart];
    let on_failure = match luck.below(40) {
        0 => OnFailure::Reboot,
        1 => OnFailure::PowerOff,
        _ => luck.of(&failures),
    };
    Supervision {
        notify,
        start_timeout_ms: luck.of(&[50, 5_000, 60_000]),
        watchdog_ms: (notify && luck.one_in(2)).then(|| luck.of(&[20, 1_000, 30_000])),
        health: luck.one_in(3).then_some(check),
        on_failure,
    }
}

/// Whether pods depend on each other in a circle, so that they can't stop in one breath each.
pub(super) fn tangled(rules: &[Rules]) -> bool {
    let group = |index: usize| rules[index].pod.map_or(1000 + index, |pod| pod);
    let edges: Vec<(usize, usize)> = rules
        .iter()
        .enumerate()
        .flat_map(|(index, r)| r.needs.iter().map(move |need| (index, need.on)))
        .map(|(from, to)| (group(from), group(to)))
        .filter(|(from, to)| from != to)
        .collect();
    // Takes away whoever nobody depends on, until that is nobody.
    let mut left = edges;
    loop {
        let wanted: Vec<usize> = left.iter().map(|(_, to)| *to).collect();
        let before = left.len();
        left.retain(|(from, _)| wanted.contains(from));
        if left.len() == before {
            return !left.is_empty();
        }
    }
}
