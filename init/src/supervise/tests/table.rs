//! Every phase's answer to every event, written down: a change of behaviour shows here.

use garboard_runtime::plan::HealthCheck;

use super::watched::check;
use super::*;

/// The moment of every event; whatever has a deadline in `phases` is due then at [`Event::Tick`] only.
const NOW: u64 = 50;
const DUE: u64 = 100;

fn phases() -> Vec<Phase> {
    let purposes = [
        Purpose::Shutdown,
        Purpose::Asked,
        Purpose::Restart,
        Purpose::Unhealthy,
        Purpose::Watchdog,
        Purpose::Late,
        Purpose::Pod(1),
    ];
    let stopping = purposes.map(|purpose| Phase::Stopping { purpose, deadline: DUE, latest: 500, kills: 0 });
    let mut phases = vec![
        Phase::Waiting,
        Phase::Launching,
        Phase::Starting { deadline: DUE, executed: false },
        Phase::Starting { deadline: DUE, executed: true },
        Phase::Running { since: 10 },
        Phase::Backoff { until: DUE },
    ];
    phases.extend(stopping);
    phases.extend([Phase::Exited, Phase::Failed]);
    phases
}

fn events(index: usize) -> Vec<Event> {
    let fault = |transient| Fault { text: "x".into(), transient };
    vec![
        Event::Begin,
        Event::DataReady,
        Event::DataUnavailable("x".into()),
        Event::DevicesReady,
        Event::Launched(index),
        Event::LaunchFailed(index, fault(false)),
        Event::LaunchFailed(index, fault(true)),
        Event::Executed(index),
        Event::SetupFailed(index, fault(false)),
        Event::Ready(index),
        Event::ExtendTimeout(index, 200),
        Event::Alive(index),
        Event::WatchdogSet(index, 20),
        Event::WatchdogTrigger(index),
        Event::Unheard(index, 500),
        Event::Leaving(index),
        Event::Probed(index, 1, Ok(())),
        Event::Probed(index, 1, Err("x".into())),
        Event::Probed(index, 2, Err("x".into())),
        Event::ProbeLost(index, 1),
        Event::Exited(index, OK),
        Event::Exited(index, BAD),
        Event::StopAsked(index),
        Event::StartAsked(index),
        Event::RestartAsked(index),
        Event::Tick,
        Event::Shutdown(Goal::Halt),
    ]
}

/// One container that has everything there is, in `phase`.
fn state(phase: Phase) -> State {
    let health = HealthCheck { retries: 1, start_interval_ms: 1_000, restart: true, ..check() };
    let supervision = Supervision {
        notify: true,
        start_timeout_ms: 5_000,
        watchdog_ms: Some(90),
        health: Some(health),
        on_failure: OnFailure::Ignore,
    };
    let rules = Rules { needs_data: true, supervision, ..rules(Restart::OnFailure(None), &[]) };
    let watch = match phase {
        Phase::Running { .. } => Watch {
            health: Health::Starting,
            probing: true,
            alive_by: Some(DUE),
            watchdog_ms: Some(90),
            ..Watch::default()
        },
        _ => Watch::default(),
    };
    let common = Common { begun: true, ..alone(Restart::No).common().clone() };
    let mut s =
        State::resume(vec![rules], Policy::default(), vec![Unit { phase, run: 1, watch, ..Unit::new() }], common);
    s.take_changed();
    s
}

fn short(phase: Phase) -> String {
    match phase {
        Phase::Stopping { purpose, deadline, kills, .. } => format!("Stopping({purpose:?}, {deadline}, {kills})"),
        Phase::Starting { deadline, executed } => format!("Starting({deadline}, {executed})"),
        Phase::Running { since } => format!("Running({since})"),
        Phase::Backoff { until } => format!("Backoff({until})"),
        other => format!("{other:?}"),
    }
}

/// What changed, and what was asked for; `None`: nothing.
fn answer(phase: Phase, event: &Event) -> Option<String> {
    let mut s = state(phase);
    let before = s.units()[0].clone();
    let now = if *event == Event::Tick { DUE } else { NOW };
    let actions = s.step(event.clone(), now);
    let after = s.units()[0].clone();
    let changed = if after != before { vec![0] } else { vec![] };
    assert_eq!(s.take_changed().0, changed, "{phase:?} {event:?}");
    if changed.is_empty() && actions.is_empty() {
        return None;
    }
    let mut text = if after.phase == phase { "itself".to_owned() } else { short(after.phase) };
    if after.reason != Reason::None {
        text.push_str(&format!(" {:?}", after.reason));
    }
    if let Some((fault, _)) = &after.fault {
        text.push_str(&format!(" for {fault:?}"));
    }
    if !actions.is_empty() {
        text.push_str(&format!(" {actions:?}"));
    }
    Some(text)
}

/// All answers but those that are nothing at all.
fn table() -> String {
    let mut table = String::new();
    for event in events(0) {
        table.push_str(&format!("{event:?}\n"));
        for phase in phases() {
            if let Some(answer) = answer(phase, &event) {
                table.push_str(&format!("    {} -> {answer}\n", short(phase)));
            }
        }
    }
    table
}

#[test]
fn every_phase_has_an_answer_to_every_event() {
    let (is, expected) = (table(), include_str!("table.txt"));
    let differs = is.lines().zip(expected.lines()).find(|(is, expected)| is != expected);
    assert!(is == expected, "{differs:?} in\n{is}");
}

#[test]
fn events_about_nobody_change_nothing() {
    for phase in phases() {
        for index in [1, 7, usize::MAX] {
            for event in events(index) {
                let about_nobody = format!("{event:?}").contains(&index.to_string());
                // Those of run 1 of container 0 are about somebody, as are those about all.
                if about_nobody && events(0).iter().all(|e| *e != event) {
                    let mut s = state(phase);
                    let before = s.units().to_vec();
                    assert_eq!(s.step(event, NOW), []);
                    assert_eq!(s.units(), before);
                    assert!(s.take_changed().0.is_empty());
                }
            }
        }
    }
}
