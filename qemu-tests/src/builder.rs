//! Says what machine to boot an image on, and boots it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::accel::{self, Accel};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::machine::{Disk, DiskFault, Firmware, Forward, Hardware, Kernel, Machine, SerialConsole};
use crate::ports;
use crate::process;
use crate::state;
use crate::vm::Vm;

/// Where distributions put UEFI for virtual machines: program and template of its variables.
const FIRMWARE: [(&str, &str); 5] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
];
/// Attempts when another process takes a free port before QEMU does.
const PORT_ATTEMPTS: u32 = 5;

/// A port that is to be forwarded.
#[derive(Debug, Clone)]
struct Wish {
    /// With 0 for any free port of this computer.
    forward: Forward,
    /// If the port isn't free, any other will do.
    or_another: bool,
}

/// A machine to boot, from [`Vm::builder`].
pub struct Builder {
    image: Image,
    machine: Machine,
    accel: Option<Accel>,
    memory_mb: Option<u32>,
    cpus: u32,
    cmdline: String,
    disks: Vec<Disk>,
    system: bool,
    data: bool,
    data_size: u64,
    data_readonly: bool,
    data_fault: Option<DiskFault>,
    network: bool,
    forwards: Vec<Wish>,
    state: Option<PathBuf>,
    console: SerialConsole,
    echo: Option<Box<dyn Write + Send>>,
    read_console: bool,
    reboot: bool,
    extra: Vec<OsString>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("image", &self.image.appliance)
            .field("machine", &self.machine)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new(image: &Image) -> Self {
        Self {
            image: image.clone(),
            machine: Machine::default(),
            accel: None,
            memory_mb: None,
            cpus: 1,
            cmdline: String::new(),
            disks: Vec::new(),
            system: true,
            data: true,
            data_size: 0,
            data_readonly: false,
            data_fault: None,
            network: true,
            forwards: Vec::new(),
            state: None,
            console: SerialConsole::Pipe,
            echo: None,
            read_console: true,
            reboot: false,
            extra: Vec::new(),
        }
    }

    /// Kind of computer. Default: [`Machine::Microvm`].
    pub fn machine(mut self, machine: Machine) -> Self {
        self.machine = machine;
        self
    }

    /// How instructions are executed. Default: KVM if it works here, else TCG; `GARBOARD_ACCEL` overrides that.
    pub fn accel(mut self, accel: Accel) -> Self {
        self.accel = Some(accel);
        self
    }

    /// Memory in MiB. Default: what the appliance declares.
    pub fn memory_mb(mut self, memory_mb: u32) -> Self {
        self.memory_mb = Some(memory_mb);
        self
    }

    /// Processors. Default: 1.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus.max(1);
        self
    }

    /// Further words at the end of the kernel command line. A UEFI image's command line is sealed: there it is an error.
    pub fn cmdline(mut self, words: &str) -> Self {
        self.cmdline = format!("{} {words}", self.cmdline).trim().to_owned();
        self
    }

    /// A further disk: a raw image that the machine may write to.
    pub fn disk(mut self, path: impl Into<PathBuf>) -> Self {
        let name = format!("extra{}", self.disks.len());
        self.disks.push(Disk::new(name, path));
        self
    }

    /// Leaves the system disk out, to see what the appliance makes of that.
    pub fn without_system(mut self) -> Self {
        self.system = false;
        self
    }

    /// Leaves the data disk out, to see what the appliance makes of that.
    pub fn without_data(mut self) -> Self {
        self.data = false;
        self
    }

    /// Lets the data disk only be read.
    pub fn readonly_data(mut self) -> Self {
        self.data_readonly = true;
        self
    }

    /// Breaks the data disk.
    pub fn data_fault(mut self, fault: DiskFault) -> Self {
        self.data_fault = Some(fault);
        self
    }

    /// Makes the data disk (on UEFI: the whole disk) at least so many bytes large; the appliance grows into it.
    pub fn data_size(mut self, bytes: u64) -> Self {
        self.data_size = bytes;
        self
    }

    /// Leaves the network card out.
    pub fn without_network(mut self) -> Self {
        self.network = false;
        self
    }

    /// Forwards a TCP port of the machine that isn't declared, from a free port of 127.0.0.1 ([`Vm::port`] says which).
    pub fn forward(self, guest: u16) -> Self {
        self.forward_from(0, guest, "tcp")
    }

    /// Forwards `host` of 127.0.0.1 (0: any free one) to `guest` in the machine; for declared ports too.
    pub fn forward_from(self, host: u16, guest: u16, protocol: &str) -> Self {
        self.wish(host, guest, protocol, false)
    }

    /// Forwards `host` of 127.0.0.1 to `guest` in the machine; if `host` is taken or not allowed, any free port.
    pub fn forward_preferably_from(self, host: u16, guest: u16, protocol: &str) -> Self {
        self.wish(host, guest, protocol, true)
    }

    fn wish(mut self, host: u16, guest: u16, protocol: &str, or_another: bool) -> Self {
        self.forwards.push(Wish { forward: Forward { protocol: protocol.to_owned(), host, guest }, or_another });
        self
    }

    /// Keeps the writable disks in `directory`: the next machine with the same directory finds the data of this one. Without it
    /// every machine begins with the image's data. While the machine lives, no other boots with that directory.
    pub fn state(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state = Some(directory.into());
        self
    }

    /// Gives the machine this process's terminal as its console; Ctrl-a x quits. [`Vm::console`] then sees nothing.
    pub fn terminal(mut self) -> Self {
        self.console = SerialConsole::Terminal;
        self
    }

    /// Puts the machine's console on a socket, [`Vm::console_socket`], for others. [`Vm::console`] then sees nothing.
    pub fn console_socket(mut self) -> Self {
        self.console = SerialConsole::Socket;
        self
    }

    /// Copies the console to `echo` as it comes.
    pub fn echo(mut self, echo: impl Write + Send + 'static) -> Self {
        self.echo = Some(Box::new(echo));
        self
    }

    /// Doesn't read the console, as when no cable is plugged in or the other end sleeps: it fills up, until [`Vm::read_console`].
    pub fn unread_console(mut self) -> Self {
        self.read_console = false;
        self
    }

    /// Lets the machine restart itself. Without it QEMU ends then, and [`Vm::wait_exit`] says [`crate::Ending::Reboot`].
    pub fn reboot(mut self) -> Self {
        self.reboot = true;
        self
    }

    /// A further argument for QEMU.
    pub fn qemu_argument(mut self, argument: impl Into<OsString>) -> Self {
        self.extra.push(argument.into());
        self
    }

    /// Boots the machine. Returns as soon as QEMU runs.
    ///
    /// # Errors
    /// If the image doesn't fit the machine, a disk can't be copied, or QEMU doesn't start.
    pub fn boot(mut self) -> Result<Vm> {
        let qemu = process::qemu();
        let mut lock = self.state.as_deref().map(state::lock).transpose()?;
        let directory = tempfile::Builder::new().prefix("garboard-vm-").tempdir();
        let directory = directory.map_err(Error::file("make a directory in", &std::env::temp_dir()))?;
        let mut hardware = self.hardware(&qemu, &directory)?;
        let (echo, read) = (self.echo.take(), self.read_console);
        let wishes = self.wishes();
        let mut attempt = 1;
        loop {
            if hardware.network.is_some() {
                hardware.network = Some(resolve(&wishes, attempt, ports::is_free)?);
            }
            match process::start(&qemu, &hardware) {
                // Another process was faster.
                Err(Error::Unsuitable(message)) if message.contains("host forwarding") && attempt < PORT_ATTEMPTS => {
                    attempt += 1;
                }
                Err(e) => return Err(e),
                Ok((process, monitor)) => {
                    if let Some(lock) = lock.take() {
                        process.run.keep_until_end(lock);
                    }
                    return Ok(Vm::attach(process, monitor, &hardware, directory, echo, read));
                }
            }
        }
    }

    /// What was asked for, then the declared ports that nothing was asked for.
    fn wishes(&self) -> Vec<Wish> {
        let declared = self.image.ports.iter().map(|port| {
            let forward = Forward { protocol: port.protocol.clone(), host: 0, guest: port.port };
            Wish { forward, or_another: true }
        });
        let mut all: Vec<Wish> = Vec::new();
        for wish in self.forwards.iter().cloned().chain(declared) {
            let leads_there = |other: &Wish| {
                let (one, other) = (&wish.forward, &other.forward);
                one.guest == other.guest && one.protocol == other.protocol
            };
            // Whoever names a port of this computer wants that one, too.
            let named = wish.forward.host != 0 && !wish.or_another;
            let met = |other: &Wish| leads_there(other) && (!named || other.forward.host == wish.forward.host);
            if !all.iter().any(met) {
                all.push(wish);
            }
        }
        all
    }

    fn hardware(&self, qemu: &Path, directory: &TempDir) -> Result<Hardware> {
        let accel = self.accel.map_or_else(|| Accel::choose(qemu, &self.image.kernel), Ok)?;
        let uefi = self.machine == Machine::Uefi;
        if uefi && !self.cmdline.is_empty() {
            return Err(Error::Unsuitable("a UEFI image's kernel command line is sealed: it can't be added to".into()));
        }
        let kernel = Kernel {
            image: self.image.kernel.clone(),
            initrd: self.image.initrd.clone(),
            cmdline: format!("{} {}", self.image.cmdline, self.cmdline),
            tsc_khz: Some(accel::tsc_khz()),
        };
        Ok(Hardware {
            machine: self.machine,
            accel,
            memory_mb: self.memory_mb.unwrap_or(self.image.memory_mb),
            cpus: self.cpus,
            kernel: (!uefi).then_some(kernel),
            firmware: if uefi { Some(firmware(directory.path())?) } else { None },
            disks: self.all_disks(directory.path())?,
            network: self.network.then(Vec::new),
            console: self.console,
            status: directory.path().join("status"),
            monitor: directory.path().join("monitor"),
            reboot: self.reboot,
            extra: self.extra.clone(),
        })
    }

    /// The image's disks, writable ones as copies, and the extra ones.
    fn all_disks(&self, directory: &Path) -> Result<Vec<Disk>> {
        let mut disks = Vec::new();
        if self.machine == Machine::Uefi {
            let image = self.image.disk.as_deref().ok_or_else(|| {
                Error::Unsuitable("the image has no disk.raw for a UEFI machine: build it with the disk".into())
            })?;
            let name = self.image.root_hash.get(..16).unwrap_or("bare");
            let path = state::system_disk(image, name, self.state.as_deref(), directory, self.data_size)?;
            disks.push(Disk::new("disk", path));
        } else {
            if let Some(system) = self.image.system.as_ref().filter(|_| self.system) {
                disks.push(Disk { readonly: true, ..Disk::new("system", system) });
            }
            if let Some(data) = self.image.data.as_deref().filter(|_| self.data) {
                let directory = self.state.as_deref().unwrap_or(directory);
                let disk = Disk::new("data", state::data_disk(data, directory, self.data_size)?);
                disks.push(Disk { readonly: self.data_readonly, fault: self.data_fault, ..disk });
            }
        }
        disks.extend(self.disks.iter().cloned());
        Ok(disks)
    }
}

/// Ports of this computer for all wishes. After the first attempt those that may be others are others.
fn resolve(wishes: &[Wish], attempt: u32, is_free: impl Fn(u16, &str) -> bool) -> Result<Vec<Forward>> {
    let mut named = BTreeSet::new();
    for Wish { forward, .. } in wishes.iter().filter(|wish| wish.forward.host != 0 && !wish.or_another) {
        if !named.insert((&forward.protocol, forward.host)) {
            return Err(Error::Unsuitable(format!(
                "forward {} port {} of 127.0.0.1: it can't lead to two ports of the machine; choose another for one of them",
                forward.protocol, forward.host
            )));
        }
    }
    let resolve = |wish: &Wish| {
        let Forward { host, protocol, .. } = &wish.forward;
        let free = *host != 0 && is_free(*host, protocol);
        let host = if *host == 0 || wish.or_another && (!free || attempt > 1) {
            ports::any(protocol).map_err(|e| Error::Unsuitable(format!("find a free port of 127.0.0.1: {e}")))?
        } else if free {
            *host
        } else {
            return Err(Error::Unsuitable(format!(
                "forward {protocol} port {host} of 127.0.0.1: it is taken, or below 1024 and you are not root; choose another"
            )));
        };
        Ok(Forward { host, ..wish.forward.clone() })
    };
    wishes.iter().map(resolve).collect()
}

/// UEFI with a copy of its variables in `directory`.
fn firmware(directory: &Path) -> Result<Firmware> {
    let found = FIRMWARE.iter().find(|(code, variables)| Path::new(code).is_file() && Path::new(variables).is_file());
    let (code, variables) = found.ok_or_else(|| {
        Error::Unsuitable("UEFI for virtual machines is not installed: install OVMF (Debian: apt install ovmf)".into())
    })?;
    let copy = directory.join("efi-variables");
    fs::copy(variables, &copy).map_err(Error::file("copy", Path::new(variables)))?;
    Ok(Firmware { code: code.into(), variables: copy })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Port;

    fn builder() -> Builder {
        let mut image = Image::bare("kernel", "initrd", "quiet");
        image.ports = vec![Port { port: 80, protocol: "tcp".into() }, Port { port: 53, protocol: "udp".into() }];
        Builder::new(&image)
    }

    #[test]
    fn declared_ports_are_forwarded_and_wishes_win() {
        let builder = builder().forward_from(8081, 80, "tcp").forward(8080);
        let forwards = resolve(&builder.wishes(), 1, |_, _| true).unwrap();
        let of = |guest| forwards.iter().filter(|f| f.guest == guest).map(|f| f.host).collect::<Vec<_>>();
        assert_eq!(of(80), [8081]);
        assert!(of(8080)[0] != 0 && of(53)[0] != 0);
        assert_eq!(forwards.len(), 3);
    }

    #[test]
    fn a_port_may_be_reached_by_two_but_no_port_leads_to_two() {
        let wishes = |second| {
            let builder = builder().forward_from(8081, 80, "tcp").forward_from(second, 80, "tcp");
            builder.forward_from(8081, 53, "udp").forward_preferably_from(80, 80, "tcp").wishes()
        };
        let hosts =
            |wishes: &[Wish]| resolve(wishes, 1, |_, _| true).unwrap().iter().map(|f| f.host).collect::<Vec<_>>();
        assert_eq!(hosts(&wishes(8082)), [8081, 8082, 8081]);
        assert_eq!(hosts(&wishes(8081)), [8081, 8081], "said twice");
        let twice = builder().forward_from(8081, 80, "tcp").forward_from(8081, 90, "tcp").wishes();
        let message = resolve(&twice, 1, |_, _| true).unwrap_err().to_string();
        assert!(message.contains("tcp port 8081 of 127.0.0.1: it can't lead to two"), "{message}");
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let message =
            resolve(&builder().forward_from(port, 80, "tcp").wishes(), 1, ports::is_free).unwrap_err().to_string();
        assert!(message.contains(&port.to_string()), "{message}");

        let preferred = builder().forward_preferably_from(port, 80, "tcp").wishes();
        assert_ne!(resolve(&preferred, 1, ports::is_free).unwrap()[0].host, port);
    }

    #[test]
    fn a_free_port_is_taken_and_another_once_that_failed() {
        let preferred = builder().forward_preferably_from(8080, 80, "tcp").wishes();
        let resolve = |attempt| resolve(&preferred, attempt, |port, _| port == 8080).unwrap()[0].host;
        assert_eq!(resolve(1), 8080);
        assert_ne!(resolve(2), 8080);
    }

    #[test]
    fn data_is_kept_in_the_state_directory_and_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let mut image = Image::bare("kernel", "initrd", "");
        let data = directory.path().join("data.ext4");
        fs::write(&data, "as built").unwrap();
        image.data = Some(data.clone());
        let state = directory.path().join("state");
        let disk = |builder: &Builder| {
            builder.all_disks(directory.path().join("temporary").as_path()).unwrap()[0].path.clone()
        };
        let kept = disk(&Builder::new(&image).state(&state));
        fs::write(&kept, "CHANGED!").unwrap();
        assert_eq!(fs::read_to_string(disk(&Builder::new(&image).state(&state))).unwrap(), "CHANGED!");
        assert_eq!(fs::read_to_string(disk(&Builder::new(&image))).unwrap(), "as built");
        assert_eq!(fs::read_to_string(&data).unwrap(), "as built");
    }

    #[test]
    fn unsuitable_wishes_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |builder: Builder| {
            builder.accel(Accel::Tcg).hardware(Path::new("qemu"), &directory).unwrap_err().to_string()
        };
        assert!(refused(builder().machine(Machine::Uefi).cmdline("debug")).contains("sealed"));
        assert!(refused(builder().machine(Machine::Uefi)).contains("disk.raw"));
    }
}
