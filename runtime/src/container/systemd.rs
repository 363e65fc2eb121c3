//! systemd makes, changes and ends the scope that a container's cgroup belongs to, for those who want no cgroup made beside it.

use super::bus::message::{Body, Incoming, Method, Properties, Value};
use super::bus::{Bus, Failure};
use super::error::{Error, Result};
use super::scope::{self, Scope};
use super::{cgroup, is_ordinary_user};
use crate::launch::Cgroup;

const MANAGER: &str = "org.freedesktop.systemd1";
const INVALID: &str = "org.freedesktop.DBus.Error.InvalidArgs";
const JOBS: &str = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// Makes the scope with process `pid` in it, which it moves there, and returns its cgroup's path.
pub(crate) fn start(scope: &Scope, pid: i32, mut properties: Properties) -> Result<String> {
    properties.push(("PIDs".to_owned(), Value::U32s(vec![pid.cast_unsigned()])));
    let what = |failure: Failure| Error::new(format!("have systemd make {}: {failure}", scope.unit));
    let mut bus = connect()?;
    let body =
        |properties: &Properties| Body::default().text(&scope.unit).text("fail").properties(properties).no_units();
    let mut start =
        |bus: &mut Bus| known(&mut properties, |properties| job(bus, "StartTransientUnit", &body(properties)));
    let mut started = start(&mut bus);
    if is_named(&started, "UnitExists") && reset(&mut bus, &scope.unit) {
        started = start(&mut bus);
    }
    started.map_err(what)?;
    let path = cgroup::of_process(pid)?;
    // Limits are set there, and everything in it is killed in the end: it must be no one else's.
    if path.rsplit('/').next() != Some(scope.unit.as_str()) {
        return Err(Error::new(format!(
            "have systemd make {}: it says that it has, but process {pid} is in the cgroup {path}",
            scope.unit
        )));
    }
    Ok(path)
}

/// Changes limits of the scope `unit`, until it ends.
pub(crate) fn change(unit: &str, cgroup: &Cgroup) -> Result<()> {
    let mut properties = scope::limits(cgroup);
    if properties.is_empty() {
        return Ok(());
    }
    let mut bus = connect()?;
    let changed = known(&mut properties, |properties| {
        bus.call(&manager("SetUnitProperties"), &Body::default().text(unit).bool(true).properties(properties))
    });
    changed.map(drop).map_err(|failure| Error::new(format!("have systemd change {unit}: {failure}")))
}

/// Calls with these properties, or with those of them that an older systemd knows: the cgroup's file has the rest all the same.
fn known<T>(
    properties: &mut Properties,
    mut call: impl FnMut(&Properties) -> std::result::Result<T, Failure>,
) -> std::result::Result<T, Failure> {
    match call(properties) {
        Err(Failure::Refused(name, _)) if name == INVALID && scope::drop_idle(properties) => call(properties),
        other => other,
    }
}

/// Moves process `pid` into the scope `unit`, or its cgroup `beneath`, from where only systemd may.
pub(crate) fn attach(unit: &str, beneath: &str, pid: i32) -> Result<()> {
    let body = Body::default().text(unit).text(beneath).numbers(&[pid.cast_unsigned()]);
    let attached = connect()?.call(&manager("AttachProcessesToUnit"), &body);
    attached.map(drop).map_err(|failure| Error::new(format!("have systemd move process {pid} to {unit}: {failure}")))
}

/// Ends the scope `unit`, whose processes have ended. One that has gone by itself meanwhile is as good.
pub(crate) fn stop(unit: &str) -> Result<()> {
    let mut bus = connect()?;
    let stopped = job(&mut bus, "StopUnit", &Body::default().text(unit).text("replace"));
    if stopped.is_err() && !is_named(&stopped, "NoSuchUnit") {
        return stopped.map_err(|failure| Error::new(format!("have systemd end {unit}: {failure}")));
    }
    reset(&mut bus, unit);
    Ok(())
}

/// Forgets that a unit of that name has failed.
fn reset(bus: &mut Bus, unit: &str) -> bool {
    bus.call(&manager("ResetFailedUnit"), &Body::default().text(unit)).is_ok()
}

/// Calls what begins a job and waits until it is done.
fn job(bus: &mut Bus, member: &'static str, body: &Body) -> std::result::Result<(), Failure> {
    bus.subscribe(JOBS)?;
    let begun = bus.call(&manager(member), body)?;
    let job = begun.text(0).ok_or_else(|| Failure::Broken(format!("{member}: no job in the answer")))?;
    // Number, path, unit and result; by who has begun it, as anybody may send signals to this connection.
    let by_systemd = |signal: &Incoming| signal.sender == begun.sender && signal.member == "JobRemoved";
    let removed = bus.wait_for(|signal| by_systemd(signal) && signal.text(1) == Some(job))?;
    match removed.text(3) {
        Some("done") => Ok(()),
        other => Err(Failure::Broken(format!("{member}: the job's result is {:?}", other.unwrap_or_default()))),
    }
}

fn is_named(result: &std::result::Result<(), Failure>, error: &str) -> bool {
    matches!(result, Err(Failure::Refused(name, _)) if name.strip_prefix(MANAGER) == Some(format!(".{error}").as_str()))
}

fn manager(member: &'static str) -> Method {
    let (path, interface) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
    Method { destination: MANAGER, path, interface, member }
}

/// The machine's bus, or that of an ordinary user.
fn connect() -> Result<Bus> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (whose, address) = if is_ordinary_user() {
        let usual = || variable("XDG_RUNTIME_DIR").map(|directory| format!("unix:path={directory}/bus"));
        ("user's", variable("DBUS_SESSION_BUS_ADDRESS").or_else(usual))
    } else {
        let usual = || "unix:path=/run/dbus/system_bus_socket".to_owned();
        ("system", Some(variable("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(usual)))
    };
    let fix = "is systemd running there? If not, use the cgroupfs driver (--cgroup-manager=cgroupfs)";
    let address = address.ok_or_else(|| {
        Error::new(format!(
            "connect to the user's bus: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set: {fix}"
        ))
    })?;
    Bus::connect(&address).map_err(|failure| Error::new(format!("the {whose} bus at {address}: {failure}: {fix}")))
}
