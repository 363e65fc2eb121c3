//! What ought to follow from each event, worked out a second time from what is true.

use garboard_runtime::plan::{OnFailure, Restart};

use super::super::*;
use super::world::{Before, Verdict, World};

/// Notes what the event means for the truth, and compares what can be compared at once.
pub(super) fn update(world: &mut World, before: &Before, event: &Event, actions: &[Action]) -> Verdict {
    match event {
        Event::Executed(index) if known(world, *index) && !world.state.rules()[*index].supervision.notify => {
            started(world, *index);
        }
        Event::Ready(index) if known(world, *index) => {
            let real = &world.real[*index];
            if real.executed && real.since.is_none() && world.state.rules()[*index].supervision.notify {
                started(world, *index);
            }
        }
        Event::Launched(index) if known(world, *index) && before.units[*index].phase == Phase::Launching => {
            let watchdog_ms = world.state.rules()[*index].supervision.watchdog_ms;
            world.real[*index].watchdog_ms = watchdog_ms;
        }
        Event::Leaving(index) if heard(world, *index) && world.real[*index].leaving.is_none() => {
            let (now, grace) = (world.now, world.state.rules()[*index].stop_grace_ms);
            let real = &mut world.real[*index];
            if real.running() && grace > 0 {
                let latest = now + grace + Policy::default().stop_extension_ms;
                (real.leaving, real.alive_at, real.alive_by) = (Some(latest), Some(now), Some(now + grace));
                (real.watchdog_ms, real.asked) = (None, None);
            }
        }
        Event::ExtendTimeout(index, ms) if heard(world, *index) && world.real[*index].running() => {
            let asked = world.now.saturating_add(*ms);
            let real = &mut world.real[*index];
            if let Some((latest, by)) = real.leaving.zip(real.alive_by) {
                real.alive_by = Some(by.max(asked.min(latest)));
            }
        }
        Event::Alive(index) if heard(world, *index) && world.real[*index].leaving.is_none() => {
            let now = world.now;
            let real = &mut world.real[*index];
            real.alive_by = real.watchdog_ms.filter(|_| real.running()).map(|ms| now + ms);
            if real.running() && real.watchdog_ms.is_some() {
                real.alive_at = Some(now);
            }
            real.spared &= !real.running();
        }
        Event::Unheard(index, ms) if heard(world, *index) && world.real[*index].running() && *ms > 0 => {
            let real = &mut world.real[*index];
            if let Some(by) = real.alive_by.filter(|_| !real.spared) {
                (real.alive_by, real.spared) = (Some(by + ms), true);
            }
        }
        Event::WatchdogSet(index, ms) if heard(world, *index) && world.real[*index].leaving.is_none() => {
            let now = world.now;
            let real = &mut world.real[*index];
            real.watchdog_ms = Some(*ms).filter(|ms| *ms > 0);
            real.alive_by = real.watchdog_ms.filter(|_| real.running()).map(|ms| now + ms);
        }
        Event::Probed(index, run, answer) if known(world, *index) => {
            answered(world, *index, *run, Some(answer.is_ok()))
        }
        Event::ProbeLost(index, run) if known(world, *index) => answered(world, *index, *run, None),
        Event::StartAsked(index) | Event::RestartAsked(index) if before.common.goal.is_none() => {
            for member in together(world, *index) {
                let phase = before.units[member].phase;
                if matches!(phase, Phase::Exited | Phase::Failed | Phase::Backoff { .. }) {
                    world.real[member].anew();
                }
            }
        }
        Event::LaunchFailed(index, _) if known(world, *index) && before.units[*index].phase == Phase::Launching => {
            ended(world, before, *index)?;
        }
        Event::Exited(index, _) if known(world, *index) => {
            if before.units[*index].phase.active() {
                ended(world, before, *index)?;
            }
            world.real[*index].run_over();
        }
        _ => {}
    }
    for action in actions {
        match action {
            Action::Stop(index) | Action::Kill(index) => {
                let worked_until = match world.state.units()[*index].phase {
                    Phase::Stopping { purpose: Purpose::Unhealthy, .. } => world.real[*index].well_at,
                    Phase::Stopping { purpose: Purpose::Watchdog, .. } => world.real[*index].alive_at,
                    _ => Some(world.now),
                };
                forgive(world, *index, worked_until);
                world.real[*index].stopped.get_or_insert(world.now);
            }
            Action::Launch(index) if matches!(event, Event::Tick) && !before.units[*index].lingers => {
                world.real[*index].relaunches += 1;
            }
            _ => {}
        }
    }
    Ok(())
}

fn known(world: &World, index: usize) -> bool {
    index < world.real.len()
}

pub(super) fn together(world: &World, index: usize) -> Vec<usize> {
    let rules = world.state.rules();
    let Some(one) = rules.get(index) else { return vec![] };
    let member = |other: &usize| *other == index || (one.pod.is_some() && rules[*other].pod == one.pod);
    (0..rules.len()).filter(member).collect()
}

/// A running or starting container, whose word counts.
fn heard(world: &World, index: usize) -> bool {
    let real = world.real.get(index);
    real.is_some_and(|r| r.alive && r.stopped.is_none()) && world.state.rules()[index].supervision.notify
}

fn started(world: &mut World, index: usize) {
    let (now, check) = (world.now, world.state.rules()[index].supervision.health.is_some());
    let real = &mut world.real[index];
    if !real.alive || real.stopped.is_some() || real.fault.is_some() || real.since.is_some() {
        return;
    }
    (real.since, real.ever_started) = (Some(now), true);
    real.health = if check { Health::Starting } else { Health::None };
    real.alive_by = real.watchdog_ms.map(|ms| now + ms);
}

/// Docker's rules.
fn answered(world: &mut World, index: usize, run: u32, good: Option<bool>) {
    let Some(check) = world.state.rules()[index].supervision.health.clone() else { return };
    let now = world.now;
    let real = &mut world.real[index];
    if real.run != run || real.asked != Some(run) {
        return;
    }
    real.asked = None;
    if !real.running() {
        return;
    }
    match good {
        None => {}
        Some(true) => {
            (real.good, real.bad, real.health, real.well_at) = (true, 0, Health::Healthy, Some(now));
        }
        Some(false) => {
            let starting_up = now < real.since.unwrap() + check.start_period_ms;
            if !starting_up || real.good || real.health == Health::Unhealthy {
                real.bad += 1;
                if real.bad >= check.retries {
                    real.health = Health::Unhealthy;
                }
            }
        }
    }
}

/// A long run starts the counts over, at the moment it ends or is first told to, if it was seen to work for so long.
fn forgive(world: &mut World, index: usize, worked_until: Option<u64>) {
    let real = &mut world.real[index];
    let worked = real.since.zip(worked_until).map(|(since, until)| until - since);
    if real.stopped.is_none() && worked.is_some_and(|ms| ms >= Policy::default().stable_ms) {
        (real.streak, real.failures) = (0, 0);
    }
}

/// What ought to follow from an end.
fn ended(world: &mut World, before: &Before, index: usize) -> Verdict {
    forgive(world, index, Some(world.now));
    let rules = world.state.rules()[index].clone();
    let purpose = match before.units[index].phase {
        Phase::Stopping { purpose, .. } => Some(purpose),
        _ => None,
    };
    let (goal, unit) = (before.common.goal, world.state.units()[index].clone());
    let real = &mut world.real[index];
    let transient = real.fault == Some(true) && !matches!(purpose, Some(Purpose::Unhealthy | Purpose::Watchdog));
    let by_itself = real.stopped.is_none() && real.since.is_some();
    let success = by_itself && real.exit.is_some_and(Exit::success);
    real.ever_completed |= success;
    real.fault = None;
    let forever = rules.supervision.on_failure == OnFailure::Restart;
    enum Then {
        Rests,
        Fails,
        Comes { longest: bool },
        Anew,
    }
    let then = if goal.is_some() {
        Then::Rests
    } else {
        match (purpose, rules.restart) {
            (Some(Purpose::Asked | Purpose::Shutdown), _) => Then::Rests,
            (Some(Purpose::Restart), _) => Then::Anew,
            (Some(Purpose::Pod(_)), _) => Then::Fails,
            _ if transient => Then::Comes { longest: false },
            (_, Restart::Always | Restart::UnlessStopped) => Then::Comes { longest: false },
            _ if success => Then::Rests,
            (_, Restart::OnFailure(limit)) => {
                real.failures += 1;
                let over = limit.is_some_and(|limit| real.failures > limit);
                if over && !forever { Then::Fails } else { Then::Comes { longest: over } }
            }
            (_, Restart::No) if forever => Then::Comes { longest: true },
            (_, Restart::No) => Then::Fails,
        }
    };
    let policy = Policy::default();
    let right = match then {
        Then::Rests => unit.phase == Phase::Exited,
        Then::Fails => unit.phase == Phase::Failed,
        Then::Anew => {
            real.anew();
            real.launched = true;
            matches!(unit.phase, Phase::Waiting | Phase::Launching)
        }
        Then::Comes { longest } => {
            real.streak += 1;
            let doubled =
                1_u64.checked_shl(real.streak - 1).map_or(u64::MAX, |n| n.saturating_mul(policy.backoff_base_ms));
            let full = if longest { policy.backoff_cap_ms } else { doubled.min(policy.backoff_cap_ms) };
            match unit.phase {
                Phase::Backoff { until } => (full - full / 4..=full).contains(&(until - world.now)),
                // The end of another one may have followed in the same breath.
                _ => world.state.common().goal.is_some() || matches!(unit.reason, Reason::Pod(_)),
            }
        }
    };
    if right { Ok(()) } else { Err(format!("{index} ended, and is {unit:?} (was {:?})", before.units[index])) }
}
