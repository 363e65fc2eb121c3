//! What must hold after every event, whatever happens.

use garboard_runtime::plan::OnFailure;

use super::super::*;
use super::expect::together;
use super::world::{Before, Verdict, World};

/// Fails with a text unless `right`.
macro_rules! must {
    ($right:expr, $($text:tt)*) => {
        if !$right {
            return Err(format!($($text)*));
        }
    };
}

pub(super) fn all(world: &mut World, before: &Before, event: &Event, actions: &[Action]) -> Verdict {
    changes(world, before, event)?;
    for (place, action) in actions.iter().enumerate() {
        must!(!actions[..place].contains(action), "{action:?} twice");
        self::action(world, before, event, *action)?;
    }
    for index in 0..world.real.len() {
        unit(world, before, event, index)?;
    }
    if let Event::StopAsked(index) = event {
        for member in together(world, *index) {
            let phase = world.state.units()[member].phase;
            let goes = phase.last() || matches!(phase, Phase::Stopping { .. });
            must!(before.common.goal.is_some() || goes, "{member} is {phase:?} when {index} is to stop");
        }
    }
    deadlines(world, event)?;
    if world.state.common().goal.is_some() {
        world.shutdown_at.get_or_insert(world.now);
    }
    Ok(())
}

/// Exactly what changed is told.
fn changes(world: &mut World, before: &Before, event: &Event) -> Verdict {
    let (changed, common) = world.state.take_changed();
    let differs: Vec<usize> = world
        .state
        .units()
        .iter()
        .zip(&before.units)
        .enumerate()
        .filter(|(_, (a, b))| a != b)
        .map(|(i, _)| i)
        .collect();
    // One that was given up, is asked for and is given up at once for the same reason is as it was, but was not meanwhile.
    let asked = matches!(event, Event::StartAsked(_) | Event::RestartAsked(_));
    let rest_told = differs.iter().all(|index| changed.contains(index));
    must!(changed == differs || (asked && rest_told), "changed: {differs:?}, told: {changed:?}");
    must!(common == (*world.state.common() != before.common), "the common memory changed, told: {common}");
    Ok(())
}

fn action(world: &mut World, before: &Before, event: &Event, action: Action) -> Verdict {
    let goal = world.state.common().goal;
    match action {
        Action::Launch(index) => {
            let was = &before.units[index];
            must!(before.common.goal.is_none(), "launch of {index} during shutdown");
            must!(!world.real[index].alive, "a second instance of {index}");
            if goal.is_some() {
                // Another one was given up in the same moment: what its launch had to wait for may be stopping already.
                must!(!world.state.wants_launch(index), "{index} is launched while the machine stops");
                return Ok(());
            }
            if let Phase::Backoff { until } = was.phase {
                let asked = matches!(event, Event::StartAsked(_) | Event::RestartAsked(_));
                must!(asked || world.now >= until, "{index} before its delay is over");
            }
            if !world.real[index].launched {
                must!(world.may_come_in(index), "{index} before its conditions");
                let needs = &world.state.rules()[index].needs;
                must!(needs.iter().all(|need| world.holds(need)), "{index} before its pod's members");
                for member in together(world, index) {
                    // Another one of this moment is no longer waiting, but does only now what it waited for.
                    let ready =
                        world.real[member].launched || world.may_come_in(member) || before.units[member].phase.last();
                    must!(ready, "{index} before {member} of its pod can come");
                }
            }
            world.real[index].launched = true;
        }
        Action::Stop(index) | Action::Kill(index) => {
            let is = world.state.units()[index].phase;
            must!(world.real[index].alive, "{index} is stopped and isn't there");
            let Phase::Stopping { purpose, .. } = is else { return Err(format!("{index} is stopped and {is:?}")) };
            if matches!(action, Action::Stop(_)) {
                let up = matches!(before.units[index].phase, Phase::Running { .. } | Phase::Starting { .. });
                must!(up, "{index} is asked twice");
            }
            if matches!(action, Action::Kill(_))
                && matches!(before.units[index].phase, Phase::Stopping { kills: 0, .. })
            {
                must!(world.real[index].signalled, "{index} is killed and was never asked to stop");
            }
            let wide = matches!(purpose, Purpose::Shutdown | Purpose::Asked | Purpose::Restart | Purpose::Pod(_));
            if wide && !world.tangled {
                for member in together(world, index) {
                    let phase = world.state.units()[member].phase;
                    let up = matches!(phase, Phase::Running { .. } | Phase::Starting { .. });
                    // One that starts again before the others of its pod have ended was told to since.
                    must!(
                        !up || matches!(before.units[index].phase, Phase::Stopping { .. }),
                        "{member} goes on without {index}"
                    );
                }
            }
            let ill = world.real[index].health == Health::Unhealthy;
            must!(purpose != Purpose::Unhealthy || ill, "{index} is stopped and is not unhealthy");
            let watched = matches!(purpose, Purpose::Unhealthy | Purpose::Watchdog);
            let new = !matches!(before.units[index].phase, Phase::Stopping { .. });
            must!(!watched || !new || before.common.goal.is_none(), "{index} is stopped out of its turn");
            if purpose == Purpose::Shutdown {
                must!(goal.is_some(), "{index} is stopped without need");
                for (other, rules) in world.state.rules().iter().enumerate() {
                    let depends = rules.needs.iter().any(|need| need.on == index);
                    let inside = rules.pod.is_some() && rules.pod == world.state.rules()[index].pod;
                    let waited = world.state.units()[other].phase.active();
                    must!(!depends || inside || !waited, "{index} is stopped before {other}");
                }
            }
        }
        Action::Probe(index) => {
            let real = &world.real[index];
            must!(real.running() && goal.is_none(), "{index} is asked and doesn't run, or not for long");
            must!(real.asked != Some(real.run), "{index} is asked twice at once");
            must!(world.state.probing(index), "no answer of {index} is awaited");
        }
        Action::Finish(is) => {
            must!(goal == Some(is) && !world.state.units().iter().any(|u| u.phase.active()), "finished too early");
            world.finished += 1;
            must!(world.finished == 1, "finished twice");
        }
    }
    Ok(())
}

fn unit(world: &World, before: &Before, event: &Event, index: usize) -> Verdict {
    let (is, was, real) = (&world.state.units()[index], &before.units[index], &world.real[index]);
    // What PID 1 itself looks at.
    if let Some(wrong) = world.state.unsound(index, real.alive) {
        return Err(format!("{index} {wrong}: {is:?}"));
    }
    must!((is.phase.active() || is.lingers) == real.alive, "{index} is there: {}; {is:?}", real.alive);
    must!(is.exit == real.exit, "{index} ended with {:?}; {is:?}", real.exit);
    must!(world.state.run(index) == real.run, "{index} is in run {}; {is:?}", real.run);
    must!(is.restarts == real.relaunches, "{index} was started again {} times; {is:?}", real.relaunches);
    must!(is.streak == real.streak && is.failures == real.failures, "{index}: {} ends in a row; {is:?}", real.streak);
    must!(matches!(is.phase, Phase::Running { .. }) == real.running(), "{index} runs: {}; {is:?}", real.running());
    if real.running() {
        must!(is.watch.health == real.health, "{index} is {:?}; {is:?}", real.health);
        must!(is.watch.spared == real.spared, "{index} was given time {}; {is:?}", real.spared);
        must!(is.watch.alive_by == real.alive_by, "{index} must be alive by {:?}; {is:?}", real.alive_by);
        // On the way down each stops when its turn comes, and not before.
        if *event == Event::Tick && world.state.common().goal.is_none() {
            must!(real.alive_by.is_none_or(|by| by > world.now), "{index} missed its watchdog unseen");
        }
    }
    let restart = world.state.rules()[index].supervision.health.as_ref().is_some_and(|check| check.restart);
    let restart = restart && before.common.goal.is_none();
    must!(!(real.running() && restart && real.health == Health::Unhealthy), "{index} is unhealthy and goes on");
    // Rest.
    let asked =
        matches!(event, Event::StartAsked(of) | Event::RestartAsked(of) if together(world, *of).contains(&index));
    if was.phase.last() && !asked {
        must!(is.phase == was.phase && is.reason == was.reason, "{index} rested as {was:?} and is {is:?}");
    }
    let fell = is.phase == Phase::Failed && was.phase != Phase::Failed && before.common.goal.is_none();
    if fell {
        let by_hand = matches!(was.phase, Phase::Stopping { purpose: Purpose::Asked, .. });
        // One whose last attempt to be killed fails in the moment in which its pod goes down.
        let falls = |other: usize| {
            let now = world.state.units()[other].phase;
            other != index && now == Phase::Failed && before.units[other].phase != Phase::Failed
        };
        let in_the_fall = is.reason == Reason::Unkillable && together(world, index).into_iter().any(falls);
        let with_pod = matches!(is.reason, Reason::Pod(_))
            || matches!(was.phase, Phase::Stopping { purpose: Purpose::Pod(_), .. })
            || in_the_fall;
        let goal = match world.state.rules()[index].supervision.on_failure {
            _ if by_hand => None,
            OnFailure::Restart if !with_pod && world.state.common().goal.is_none() => {
                return Err(format!("{index} was given up: {is:?}"));
            }
            OnFailure::Reboot => Some(Goal::Reboot),
            OnFailure::PowerOff => Some(Goal::PowerOff),
            OnFailure::Restart | OnFailure::Ignore => None,
        };
        must!(goal.is_none() || world.state.common().goal.is_some(), "{index} was given up without consequence");
        must!(goal.is_none() || world.state.common().because.is_some(), "nobody knows why");
        if !with_pod && !by_hand && world.state.common().goal.is_none() {
            for member in together(world, index) {
                let phase = world.state.units()[member].phase;
                let goes = phase.last() || matches!(phase, Phase::Stopping { .. });
                must!(goes, "{index} was given up and {member} goes on as {phase:?}");
            }
        }
    }
    // One that merely comes back disturbs nobody of its pod.
    if let Event::Exited(of, _) = event
        && *of != index
        && *of < world.real.len()
        && matches!(world.state.units()[*of].phase, Phase::Backoff { .. })
        && together(world, *of).contains(&index)
    {
        must!(is == was || matches!(was.phase, Phase::Waiting), "{of} restarts and {index} is {is:?}");
    }
    Ok(())
}

fn deadlines(world: &World, event: &Event) -> Verdict {
    let next = world.state.next_deadline(world.now);
    let due = |unit: &Unit| match unit.phase {
        Phase::Starting { deadline, .. } | Phase::Stopping { deadline, .. } | Phase::Backoff { until: deadline } => {
            Some(deadline)
        }
        _ => None,
    };
    let first = world.state.units().iter().filter_map(due).min();
    must!(first.is_none_or(|first| next.is_some_and(|next| next <= first)), "{first:?} is due and not told");
    let runs = world.state.units().iter().any(|u| matches!(u.phase, Phase::Running { .. }));
    must!(next.is_none() || first.is_some() || runs, "a deadline at {next:?} for nothing");
    must!(*event != Event::Tick || next.is_none_or(|next| next > world.now), "due at {next:?}, and it was just told");
    Ok(())
}
