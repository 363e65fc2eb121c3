//! What may happen. Each happening brings its own luck, so that leaving one out leaves the others as they are.

use super::super::*;
use super::machine::Luck;
use super::world::{Verdict, World};

/// Something happens somewhere; if it can't at that moment, nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// Time passes.
    Pass,
    /// A child gets on with its start.
    Progress,
    /// A child ends.
    End,
    /// A container says something of itself.
    Word,
    /// A container answers.
    Answer,
    /// A person wants something.
    Person,
    /// Something of the machine is there.
    Machine,
    /// Events that concern nobody, or nobody any more.
    Nonsense,
    /// PID 1 is another one, perhaps right after something has happened.
    Resume,
    /// The machine is to stop.
    Shutdown,
}

impl Happening {
    pub(super) fn any(luck: &mut Luck) -> Self {
        match luck.below(100) {
            0..=24 => Self::Pass,
            25..=49 => Self::Progress,
            50..=57 => Self::End,
            58..=70 => Self::Word,
            71..=80 => Self::Answer,
            81..=86 => Self::Person,
            87..=89 => Self::Machine,
            90..=94 => Self::Nonsense,
            95..=98 => Self::Resume,
            _ if luck.one_in(4) => Self::Shutdown,
            _ => Self::Pass,
        }
    }

    pub(super) fn befall(self, world: &mut World, luck: &mut Luck) -> Verdict {
        let index = luck.below(world.real.len());
        match self {
            Self::Pass => {
                let ms = luck.of(&[0, 1, 40, 200, 3_000, 11_000, 70_000]);
                let late = luck.one_in(4);
                world.pass(world.now + ms, late, luck)?;
            }
            Self::Progress => progress(world, index, luck)?,
            Self::End => {
                let exit = luck.of(&[Exit::Code(0), Exit::Code(1), Exit::Signal(11)]);
                world.end(index, exit)?;
            }
            Self::Word => word(world, index, luck)?,
            Self::Answer => {
                let asked: Vec<usize> = (0..world.real.len()).filter(|i| world.real[*i].asked.is_some()).collect();
                let index = if asked.is_empty() { index } else { luck.of(&asked) };
                if let Some(run) = world.real[index].asked {
                    let event = match luck.below(8) {
                        0 => Event::ProbeLost(index, run),
                        1..=3 => Event::Probed(index, run, Err("bad".repeat(luck.below(150)))),
                        _ => Event::Probed(index, run, Ok(())),
                    };
                    world.tell(event)?;
                }
            }
            Self::Person => {
                let event = match luck.below(3) {
                    0 => Event::StopAsked(index),
                    1 => Event::StartAsked(index),
                    _ => Event::RestartAsked(index),
                };
                world.tell(event)?;
            }
            Self::Machine => machine(world, luck)?,
            Self::Nonsense => nonsense(world, index, luck)?,
            Self::Resume => {
                // In the middle of a turn: nothing of what follows from an event is done.
                match luck.below(16) {
                    0..=3 => world.tell(Event::StopAsked(index))?,
                    4..=5 => world.tell(Event::RestartAsked(index))?,
                    6..=7 => world.tell(Event::StartAsked(index))?,
                    8..=10 => {
                        world.now += luck.of(&[1, 200, 3_000, 11_000]);
                        world.tell(Event::Tick)?;
                    }
                    11 if luck.one_in(4) => world.tell(Event::Shutdown(Goal::PowerOff))?,
                    _ => {}
                }
                world.resume()?;
            }
            Self::Shutdown => world.tell(Event::Shutdown(luck.of(&[Goal::PowerOff, Goal::Reboot, Goal::Halt])))?,
        }
        world.act(luck)
    }
}

fn progress(world: &mut World, index: usize, luck: &mut Luck) -> Verdict {
    let notify = world.state.rules()[index].supervision.notify;
    let real = &mut world.real[index];
    if !real.alive || real.fault.is_some() {
        return Ok(());
    }
    if !real.executed {
        if luck.one_in(6) {
            let transient = luck.one_in(2);
            // One that is being stopped already has another reason.
            if real.stopped.is_none() {
                real.fault = Some(transient);
            }
            let text = "setup".repeat(luck.below(90));
            return world.tell(Event::SetupFailed(index, Fault { text, transient }));
        }
        real.executed = true;
        if luck.one_in(3) {
            return Ok(());
        }
        return world.executed(index);
    }
    if !real.told {
        return world.executed(index);
    }
    if notify { world.tell(Event::Ready(index)) } else { Ok(()) }
}

fn word(world: &mut World, index: usize, luck: &mut Luck) -> Verdict {
    let real = &world.real[index];
    if !real.executed || !real.alive {
        return Ok(());
    }
    world.tell(match luck.below(12) {
        0 => Event::ExtendTimeout(index, luck.of(&[0, 100, 30_000, u64::MAX])),
        1 => Event::WatchdogSet(index, luck.of(&[0, 10, 5_000])),
        2 => Event::WatchdogTrigger(index),
        3..=4 => Event::Ready(index),
        10 if luck.one_in(2) => Event::Leaving(index),
        11 if luck.one_in(2) => Event::Unheard(index, luck.of(&[0, 1, 900])),
        _ => Event::Alive(index),
    })
}

fn machine(world: &mut World, luck: &mut Luck) -> Verdict {
    match luck.below(4) {
        0 if world.data == DataPhase::Pending && luck.one_in(3) => {
            world.data = DataPhase::Unavailable("no disk".into());
            world.tell(Event::DataUnavailable("no disk".into()))
        }
        1 => {
            world.devices = true;
            world.tell(Event::DevicesReady)
        }
        2 => world.tell(Event::Begin),
        _ => {
            world.data = DataPhase::Ready;
            world.tell(Event::DataReady)
        }
    }
}

/// Nothing of this may change anything.
fn nonsense(world: &mut World, index: usize, luck: &mut Luck) -> Verdict {
    let fault = || Fault { text: "nonsense".into(), transient: false };
    let stranger = world.real.len() + luck.of(&[0, 1, 1_000_000]);
    let real = &world.real[index];
    let mut events = vec![
        Event::Launched(stranger),
        Event::LaunchFailed(stranger, fault()),
        Event::Executed(stranger),
        Event::SetupFailed(stranger, fault()),
        Event::Ready(stranger),
        Event::ExtendTimeout(stranger, 1),
        Event::Alive(stranger),
        Event::Leaving(stranger),
        Event::WatchdogSet(stranger, 1),
        Event::WatchdogTrigger(stranger),
        Event::Probed(stranger, 0, Ok(())),
        Event::Exited(stranger, Exit::Code(0)),
        Event::StopAsked(stranger),
        Event::StartAsked(stranger),
        Event::RestartAsked(stranger),
        Event::Probed(index, real.run.wrapping_sub(1), Err("stale".into())),
        Event::Probed(index, real.run.wrapping_add(1), Ok(())),
        Event::ProbeLost(index, real.run.wrapping_sub(1)),
    ];
    if !real.alive {
        events.push(Event::Exited(index, Exit::Code(0)));
        events.push(Event::Executed(index));
        events.push(Event::Ready(index));
        events.push(Event::Alive(index));
        events.push(Event::Leaving(index));
        events.push(Event::Unheard(index, 500));
        events.push(Event::WatchdogTrigger(index));
        events.push(Event::ExtendTimeout(index, 1_000));
        events.push(Event::SetupFailed(index, fault()));
        events.push(Event::Probed(index, real.run, Err("stale".into())));
    } else {
        if world.state.units()[index].phase.active() {
            events.push(Event::Launched(index));
        }
        events.push(Event::LaunchFailed(index, fault()));
        if real.told {
            events.push(Event::Executed(index));
            events.push(Event::SetupFailed(index, fault()));
        }
        if real.asked != Some(real.run) {
            events.push(Event::Probed(index, real.run, Err("unasked".into())));
        }
    }
    for _ in 0..4 {
        let event = events.swap_remove(luck.below(events.len()));
        let before = world.state.units().to_vec();
        world.tell(event.clone())?;
        if world.state.units() != before {
            return Err(format!("{event:?} changed something"));
        }
    }
    Ok(())
}
