//! The world around the automaton: children that live and die, a clock of its own, and what is carried out when.

use std::collections::VecDeque;

use garboard_runtime::plan::Condition;

use super::super::*;
use super::check;
use super::machine::Luck;
use super::real::Real;

pub(super) type Verdict = Result<(), String>;

/// The automaton and the world around it.
pub(super) struct World {
    pub(super) state: State,
    /// The automaton as it was kept and resumed; hears the same, and must say the same for so many events.
    twin: Option<(State, u32)>,
    pub(super) now: u64,
    pub(super) real: Vec<Real>,
    pub(super) data: DataPhase,
    pub(super) devices: bool,
    pub(super) tangled: bool,
    queue: VecDeque<Action>,
    launches: VecDeque<usize>,
    pub(super) shutdown_at: Option<u64>,
    pub(super) finished: u32,
    /// That was carried out.
    pub(super) ended: bool,
    pub(super) steps: u64,
    /// What happened, if anybody wants to know.
    pub(super) trace: Option<Vec<String>>,
}

/// What was before an event.
pub(super) struct Before {
    pub(super) units: Vec<Unit>,
    pub(super) common: Common,
}

impl World {
    pub(super) fn new(rules: Vec<Rules>, seed: u64, traced: bool) -> Self {
        let real = vec![Real::default(); rules.len()];
        let tangled = super::machine::tangled(&rules);
        let mut state = State::new(rules, Policy::default(), seed);
        state.take_changed();
        Self {
            state,
            twin: None,
            now: 1_000,
            real,
            data: DataPhase::Pending,
            devices: false,
            tangled,
            queue: VecDeque::new(),
            launches: VecDeque::new(),
            shutdown_at: None,
            finished: 0,
            ended: false,
            steps: 0,
            trace: traced.then(Vec::new),
        }
    }

    /// Tells the automaton, and looks at its answer.
    pub(super) fn tell(&mut self, event: Event) -> Verdict {
        let before = Before { units: self.state.units().to_vec(), common: self.state.common().clone() };
        let actions = self.state.step(event.clone(), self.now);
        self.steps += 1;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>8} {event:?} => {actions:?}", self.now));
        }
        self.compare(&event, &actions)?;
        super::expect::update(self, &before, &event, &actions)?;
        check::all(self, &before, &event, &actions)?;
        self.queue.extend(actions);
        Ok(())
    }

    /// Keeps the automaton and resumes it beside itself. What it had asked for and nobody has done is lost, but for what is owed.
    pub(super) fn resume(&mut self) -> Verdict {
        for unit in self.state.units() {
            let size = postcard::to_stdvec(unit).map_err(|e| e.to_string())?.len();
            if size > 2 * (LONGEST_TEXT + 2) + 100 {
                return Err(format!("a record of {size} bytes: {unit:?}"));
            }
        }
        let units = postcard::from_bytes(&postcard::to_stdvec(self.state.units()).unwrap()).unwrap();
        let common = postcard::from_bytes(&postcard::to_stdvec(self.state.common()).unwrap()).unwrap();
        let again = State::resume(self.state.rules().to_vec(), Policy::default(), units, common);
        // The older one is the twin: the run goes on with what was kept.
        self.twin = Some((std::mem::replace(&mut self.state, again), 200));
        self.state.take_changed();
        self.queue = self.state.owed().into();
        self.launches.clear();
        // As the loop does.
        for index in 0..self.real.len() {
            if self.state.wants_launch(index) {
                self.real[index].fault = Some(true);
                let text = "crashed while launching it".to_owned();
                self.tell(Event::LaunchFailed(index, Fault { text, transient: true }))?;
            }
            let run = self.state.run(index);
            if self.state.probing(index) && self.real[index].asked != Some(run) {
                self.tell(Event::ProbeLost(index, run))?;
            }
        }
        Ok(())
    }

    fn compare(&mut self, event: &Event, actions: &[Action]) -> Verdict {
        let Some((mut twin, left)) = self.twin.take() else { return Ok(()) };
        let said = twin.step(event.clone(), self.now);
        let same = twin.units() == self.state.units() && twin.common() == self.state.common();
        if said != actions || !same || twin.next_deadline(self.now) != self.state.next_deadline(self.now) {
            return Err(format!("resumed, it says {actions:?} and not {said:?}"));
        }
        self.twin = (left > 0).then(|| (twin, left - 1));
        Ok(())
    }

    /// Carries out what the automaton asked for; launches may wait.
    pub(super) fn act(&mut self, luck: &mut Luck) -> Verdict {
        loop {
            while let Some(action) = self.queue.pop_front() {
                match action {
                    Action::Launch(index) => self.launches.push_back(index),
                    Action::Stop(index) => {
                        self.real[index].signalled = true;
                        if !self.real[index].deaf && luck.one_in(2) {
                            self.end(index, luck.of(&[Exit::Code(0), Exit::Signal(15), Exit::Code(1)]))?;
                        }
                    }
                    Action::Kill(index) => {
                        if !self.real[index].undying {
                            self.end(index, Exit::Signal(9))?;
                        }
                    }
                    Action::Probe(index) => self.real[index].asked = Some(self.real[index].run),
                    Action::Finish(_) => self.ended = true,
                }
            }
            if luck.one_in(4) {
                return Ok(());
            }
            let Some(index) = self.launches.pop_front() else { return Ok(()) };
            self.launch(index, luck)?;
        }
    }

    fn launch(&mut self, index: usize, luck: &mut Luck) -> Verdict {
        if !self.state.wants_launch(index) {
            return Ok(());
        }
        if luck.one_in(8) {
            let transient = luck.one_in(2);
            self.real[index].fault = Some(transient);
            return self.tell(Event::LaunchFailed(index, Fault { text: "fault".repeat(luck.below(90)), transient }));
        }
        let real = &mut self.real[index];
        if real.alive {
            return Err(format!("two instances of {index}"));
        }
        real.run_over();
        (real.alive, real.deaf, real.undying) = (true, luck.one_in(4), luck.one_in(16));
        real.run += 1;
        self.tell(Event::Launched(index))
    }

    /// A child ends, whatever it did.
    pub(super) fn end(&mut self, index: usize, exit: Exit) -> Verdict {
        if !self.real[index].alive {
            return Ok(());
        }
        // As the loop does: what it had to say of its launch comes first.
        if self.real[index].executed && !self.real[index].told {
            self.executed(index)?;
        }
        self.tell(Event::SetupFailed(
            index,
            Fault { text: "it ended before its program ran".into(), transient: false },
        ))?;
        (self.real[index].alive, self.real[index].exit) = (false, Some(exit));
        self.tell(Event::Exited(index, exit))
    }

    /// The report of a program that was executed is read.
    pub(super) fn executed(&mut self, index: usize) -> Verdict {
        self.real[index].told = true;
        self.tell(Event::Executed(index))
    }

    /// Time passes at the pace of the deadlines, as the timer has it, perhaps a little late.
    pub(super) fn pass(&mut self, until: u64, late: bool, luck: &mut Luck) -> Verdict {
        while let Some(at) = self.state.next_deadline(self.now).filter(|at| *at <= until) {
            let delay = if late { luck.below(40) as u64 } else { 0 };
            self.now = self.now.max(at) + delay;
            self.tell(Event::Tick)?;
            self.act(luck)?;
        }
        self.now = self.now.max(until);
        self.tell(Event::Tick)
    }

    /// Whether a condition holds in truth.
    pub(super) fn holds(&self, need: &Need) -> bool {
        let on = &self.real[need.on];
        match need.condition {
            Condition::Started => on.ever_started,
            Condition::Healthy => on.running() && matches!(on.health, Health::None | Health::Healthy),
            Condition::Completed => on.ever_completed,
        }
    }

    /// Whether what a container waits for holds in truth, apart from those of its pod.
    pub(super) fn may_come_in(&self, index: usize) -> bool {
        let rules = &self.state.rules()[index];
        let together = |need: &&Need| rules.pod.is_some() && self.state.rules()[need.on].pod == rules.pod;
        let needs = rules.needs.iter().filter(|need| !together(need)).all(|need| self.holds(need));
        let (data, devices) = (self.data == DataPhase::Ready, self.devices);
        let settled = self.data != DataPhase::Pending;
        needs
            && (!rules.needs_record || settled)
            && (!rules.needs_data || data)
            && (!rules.needs_devices || devices)
            && !self.real[index].alive
    }
}
