//! `garboard run`: boots a built appliance in QEMU, for a person at a terminal or for a script.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use garboard_qemu::{Builder, Disk, Ending, Error, Forward, Image, Machine, Vm, scaled, secs};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::detach::{self, Links};
use crate::plain::{plain, plain_lines};
use crate::{cli, commands};

/// Time for containers to stop and disks to be written at the end of `--until-ready`.
const POWER_OFF: Duration = secs(60);
/// Room for volumes, in MiB, if nothing is said.
const DATA_SIZE: u64 = 1024;
/// So often signals are looked for while something is waited for.
const PAUSE: Duration = Duration::from_millis(100);
/// The same while the status is asked for, which takes a moment itself.
const GLANCE: Duration = secs(1);
/// A machine that a person watches may run for as long as they like.
const FOREVER: Duration = secs(10 * 365 * 24 * 60 * 60);

/// Runs the command.
pub fn run(options: &cli::Run) -> Result<ExitCode> {
    let image = Image::load(&options.directory)?;
    let state = state_directory(&options.directory)?;
    if options.detach {
        return detach::run(&state, &options.directory);
    }
    let attached = !options.until_ready && !options.detached && io::stdin().is_terminal() && io::stdout().is_terminal();
    let mut builder = machine(options, &image)?;
    builder = match (attached, options.detached) {
        (true, _) => builder.terminal().reboot(),
        (_, true) => builder.console_socket().reboot(),
        _ => builder.echo(io::stdout()),
    };
    // From here on a signal doesn't end this process, which would cut the machine's power and leave its temporary files.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("listen to signals")?;
    let vm = builder.boot()?;
    // By these other commands find it.
    let sockets = [("console", vm.console_socket()), ("status", vm.status_socket())];
    let links = Links::make(sockets, &state, options.fresh)?;
    eprintln!("garboard: booting {} on {}", plain(&image.appliance), options.machine);
    if options.data_size.is_some()
        && let Some(disk) = larger(vm.disks(), disk_size(options, &image)?)
    {
        eprintln!("garboard: {} is larger than that already, and is left as it is", disk.display());
    }
    for line in forwarded(vm.forwards()) {
        eprintln!("garboard: {line}");
    }
    if attached {
        eprintln!("garboard: this terminal is the console; Ctrl-a x quits, Ctrl-a h helps");
    }
    if options.detached {
        detach::give_sign_of_life()?;
    }
    if options.until_ready {
        until_ready(&vm, links, secs(options.timeout), &mut signals)
    } else {
        until_end(&vm, links, &mut signals)
    }
}

/// The machine that the options describe.
fn machine(options: &cli::Run, image: &Image) -> Result<Builder> {
    let mut builder =
        Vm::builder(image).machine(options.machine).cpus(options.cpus).data_size(disk_size(options, image)?);
    if let Some(accel) = options.accel {
        builder = builder.accel(accel);
    }
    if let Some(memory) = options.memory {
        builder = builder.memory_mb(memory);
    }
    if !options.fresh {
        builder = builder.state(state_directory(&options.directory)?);
    }
    for port in &options.ports {
        builder = builder.forward_from(port.host, port.guest, &port.protocol);
    }
    // The first wish for a port of the appliance counts.
    for port in &image.ports {
        builder = builder.forward_preferably_from(port.port, port.port, &port.protocol);
    }
    Ok(builder)
}

/// Bytes that the writable disk is to have: on UEFI everything else is on it too.
fn disk_size(options: &cli::Run, image: &Image) -> Result<u64> {
    let mib = options.data_size.unwrap_or(DATA_SIZE);
    let data = mib.checked_mul(1 << 20).filter(|&bytes| i64::try_from(bytes).is_ok());
    let too_large = || format!("--data-size {mib}: more MiB than any disk has");
    let data = data.with_context(too_large)?;
    match image.disk.as_ref().filter(|_| options.machine == Machine::Uefi && image.data.is_some()) {
        Some(disk) => {
            let size = disk.metadata().with_context(|| format!("read {}", disk.display()))?.len();
            size.checked_add(data).with_context(too_large)
        }
        None if options.machine == Machine::Uefi => Ok(0),
        None => Ok(data),
    }
}

/// The disk with volumes, if it has more than `wanted` bytes.
fn larger(disks: &[Disk], wanted: u64) -> Option<&Path> {
    let mut paths = disks.iter().filter(|disk| !disk.readonly).map(|disk| disk.path.as_path());
    paths.find(|path| path.metadata().is_ok_and(|metadata| metadata.len() > wanted))
}

/// `DIR.state`, beside the built files: a build replaces those and must not touch volumes.
pub fn state_directory(directory: &Path) -> Result<PathBuf> {
    let whole = directory.canonicalize().with_context(|| format!("read {}", directory.display()))?;
    let mut name = whole.file_name().map_or_else(|| OsString::from("out"), OsString::from);
    name.push(".state");
    Ok(whole.with_file_name(name))
}

/// What to tell about ports.
fn forwarded(forwards: &[Forward]) -> Vec<String> {
    let line = |f: &Forward| {
        let note = if f.host == f.guest { "" } else { " (another port than in the appliance)" };
        format!("127.0.0.1:{} leads to {} port {}{note}", f.host, f.protocol, f.guest)
    };
    forwards.iter().map(line).collect()
}

/// For scripts: ready or not, and why not.
fn until_ready(vm: &Vm, links: Links, timeout: Duration, signals: &mut Signals) -> Result<ExitCode> {
    // The very snapshot that was ready: the next one may differ.
    let mut ready = None;
    loop {
        let waited = vm.elapsed();
        let left = scaled(timeout).saturating_sub(waited);
        match vm.wait_status("appliance as declared", left.min(GLANCE), |snapshot| {
            ready = snapshot.ready.then(|| snapshot.clone());
            Ok(snapshot.ready)
        }) {
            Ok(_) => break,
            Err(_) if signals.pending().next().is_some() => {
                switch_off(vm, links, signals)?;
                bail!("interrupted before the appliance was ready");
            }
            Err(Error::Timeout { .. }) if left > GLANCE => {}
            Err(Error::Timeout { what, evidence, .. }) => {
                return Err(Error::Timeout { what, waited: vm.elapsed(), evidence }.into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    let took = vm.elapsed();
    let status = ready.context("the appliance was ready without a status")?;
    commands::print(&plain_lines(&format!("\n{}\n", status.table())))?;
    drop(links);
    vm.power_off(POWER_OFF)?;
    let name = plain(&status.appliance);
    eprintln!("garboard: {name} was ready after {:.1} s and is switched off", took.as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// For people: until the machine ends, or a signal asks for it.
fn until_end(vm: &Vm, links: Links, signals: &mut Signals) -> Result<ExitCode> {
    while vm.ending().is_none() {
        if signals.pending().next().is_some() {
            switch_off(vm, links, signals)?;
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(PAUSE);
    }
    match vm.wait_exit(FOREVER)? {
        Ending::PowerOff | Ending::Stopped => Ok(ExitCode::SUCCESS),
        Ending::Reboot => bail!("the machine restarted itself, or its kernel panicked: see above"),
        Ending::Qemu(status) => bail!("QEMU ended ({status}): {}", vm.qemu_messages().trim()),
    }
}

/// Stops containers and unmounts disks first; a second signal, or the deadline, cuts the power. Without the links whoever follows the machine
/// by them leaves its port, which has room for one.
fn switch_off(vm: &Vm, links: Links, signals: &mut Signals) -> Result<()> {
    drop(links);
    eprintln!("garboard: switching the machine off; a second signal cuts its power");
    std::thread::scope(|scope| {
        let off = scope.spawn(|| vm.power_off(POWER_OFF));
        while !off.is_finished() {
            if signals.pending().next().is_some() {
                vm.hard_stop();
            }
            std::thread::sleep(PAUSE);
        }
        let done = off.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        done.context("its power is cut")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_kept_beside_the_built_files() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let wanted = directory.path().canonicalize().unwrap().join("out.state");
        assert_eq!(state_directory(&out).unwrap(), wanted);
        assert_eq!(state_directory(&out.join("../out/")).unwrap(), wanted);
    }

    #[test]
    fn a_disk_that_is_larger_than_wanted_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(3).unwrap();
        let disks = [Disk { readonly: true, ..Disk::new("system", file.path()) }, Disk::new("data", file.path())];
        assert_eq!(larger(&disks, 2), Some(file.path()));
        assert_eq!(larger(&disks, 3), None);
        assert_eq!(larger(&disks[..1], 2), None);
    }

    #[test]
    fn ports_that_differ_are_pointed_out() {
        let forward = |host, guest| Forward { protocol: "tcp".into(), host, guest };
        let lines = forwarded(&[forward(8080, 8080), forward(40000, 80)]);
        assert_eq!(lines[0], "127.0.0.1:8080 leads to tcp port 8080");
        assert!(lines[1].contains("127.0.0.1:40000") && lines[1].contains("another port"), "{}", lines[1]);
    }
}
