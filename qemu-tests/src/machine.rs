//! QEMU's command line, as a pure function of the hardware wanted.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::accel::Accel;

/// Which computer QEMU pretends to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Machine {
    /// A minimal computer without PCI and firmware: the fastest boot.
    #[default]
    Microvm,
    /// A PC with PCI, booting kernel and initrd directly.
    Q35,
    /// The same PC, booting the disk image by UEFI.
    Uefi,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Microvm => "microvm",
            Self::Q35 => "q35",
            Self::Uefi => "uefi",
        })
    }
}

impl FromStr for Machine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Microvm, Self::Q35, Self::Uefi]
            .into_iter()
            .find(|machine| machine.to_string() == text)
            .ok_or_else(|| format!("unknown machine '{text}': there are microvm, q35 and uefi"))
    }
}

/// Everything that decides QEMU's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// Kind of computer.
    pub machine: Machine,
    /// How its instructions are executed.
    pub accel: Accel,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Processors.
    pub cpus: u32,
    /// What is booted directly; `None` on UEFI.
    pub kernel: Option<Kernel>,
    /// UEFI itself; `None` otherwise.
    pub firmware: Option<Firmware>,
    /// Disks in order of attachment.
    pub disks: Vec<Disk>,
    /// A network card with these ports forwarded; `None`: no network card.
    pub network: Option<Vec<Forward>>,
    /// Where the serial console goes.
    pub console: SerialConsole,
    /// Unix socket of the status port.
    pub status: PathBuf,
    /// Unix socket of QEMU's monitor.
    pub monitor: PathBuf,
    /// A reboot starts the machine again instead of ending QEMU.
    pub reboot: bool,
    /// Further arguments, at the end.
    pub extra: Vec<OsString>,
}

/// A kernel for direct boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel image.
    pub image: PathBuf,
    /// The initrd.
    pub initrd: PathBuf,
    /// The appliance's own command line.
    pub cmdline: String,
    /// Rate of the time stamp counter in kHz, which a kernel on a microvm without KVM can't find out by itself.
    pub tsc_khz: Option<u64>,
}

/// UEFI's two flash devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// Its program, read-only.
    pub code: PathBuf,
    /// Its variables: a copy that may be written to.
    pub variables: PathBuf,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Name within QEMU, and the disk's serial number: letters and digits.
    pub name: String,
    /// A raw image.
    pub path: PathBuf,
    /// The machine can't write to it.
    pub readonly: bool,
    /// It is broken.
    pub fault: Option<DiskFault>,
}

impl Disk {
    /// A sound disk that the machine may write to.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), readonly: false, fault: None }
    }
}

/// A sector that answers every access of one kind with an input/output error, as on a worn-out disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFault {
    /// Writing fails; else reading.
    pub write: bool,
    /// Which: the disk's 512-byte units are counted from 0.
    pub sector: u64,
}

/// A port of 127.0.0.1 that leads to one of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// On this computer.
    pub host: u16,
    /// In the machine.
    pub guest: u16,
}

/// Where the serial console goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SerialConsole {
    /// To QEMU's standard input and output.
    Pipe,
    /// To the terminal that QEMU runs on; Ctrl-a x quits.
    Terminal,
    /// To a Unix socket beside the status port's, named `console`, for whoever connects. What nobody reads is lost: a file of it
    /// would have no end.
    Socket,
}

impl Hardware {
    /// QEMU's arguments.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut all = Arguments::default();
        all.add("-name", "garboard");
        all.flags(&["-nodefaults", "-no-user-config"]);
        all.add("-display", "none");
        if !self.reboot {
            all.flags(&["-no-reboot"]);
        }
        match self.machine {
            Machine::Microvm => {
                all.add("-machine", "microvm,acpi=on,rtc=on,pcie=off,usb=off");
                // Virtio 1.0, as everywhere else.
                all.add("-global", "virtio-mmio.force-legacy=false")
            }
            Machine::Q35 | Machine::Uefi => all.add("-machine", "q35,usb=off,vmport=off"),
        };
        match self.accel {
            Accel::Kvm => all.add("-accel", "kvm").add("-cpu", "host"),
            // One thread for all processors: with a thread each, QEMU before 8.1 may keep the translation of an instruction that
            // another processor is just patching, and Linux, which patches itself, then panics at its breakpoint ("Oops: int3").
            Accel::Tcg => all.add("-accel", "tcg,thread=single").add("-cpu", "max"),
        };
        all.add("-m", format!("{}M", self.memory_mb)).add("-smp", self.cpus.to_string());
        self.boot(&mut all);
        self.console(&mut all);
        for disk in &self.disks {
            all.add_path("-drive", &drive(disk), &disk.path);
            all.add("-device", format!("{},drive={},serial={}", self.virtio("virtio-blk"), disk.name, disk.name));
        }
        if let Some(forwards) = &self.network {
            let rules = forwards.iter().map(|f| format!(",hostfwd={}:127.0.0.1:{}-:{}", f.protocol, f.host, f.guest));
            all.add("-netdev", format!("user,id=uplink{}", rules.collect::<String>()));
            // Without its boot ROM, which firmware would try to boot from.
            let rom = if self.machine == Machine::Microvm { "" } else { ",romfile=" };
            all.add("-device", format!("{},netdev=uplink{rom}", self.virtio("virtio-net")));
        }
        all.list.extend(self.extra.iter().cloned());
        all.list
    }

    fn boot(&self, all: &mut Arguments) {
        if let Some(kernel) = &self.kernel {
            all.add_path("-kernel", "", &kernel.image).add_path("-initrd", "", &kernel.initrd);
            all.add("-append", self.cmdline(kernel));
        }
        if let Some(firmware) = &self.firmware {
            all.add_path("-drive", "if=pflash,unit=0,format=raw,readonly=on,file=", &firmware.code);
            all.add_path("-drive", "if=pflash,unit=1,format=raw,file=", &firmware.variables);
        }
    }

    /// The kernel's command line with what this machine needs at its end.
    fn cmdline(&self, kernel: &Kernel) -> String {
        let mut words = vec![kernel.cmdline.trim().to_owned(), "console=ttyS0".into(), "panic=-1".into()];
        if self.machine == Machine::Microvm {
            // It has neither a keyboard controller nor PCI to reset it by.
            words.push("reboot=t".into());
            if let (Accel::Tcg, Some(khz)) = (self.accel, kernel.tsc_khz) {
                words.push(format!("tsc_early_khz={khz}"));
            }
        }
        words.retain(|word| !word.is_empty());
        words.join(" ")
    }

    fn console(&self, all: &mut Arguments) {
        if self.console == SerialConsole::Socket {
            let path = self.status.with_file_name("console");
            all.add_path("-chardev", "socket,id=console,server=on,wait=off,path=", &path);
        } else {
            let mux = if self.console == SerialConsole::Terminal { ",mux=on" } else { "" };
            all.add("-chardev", format!("stdio,id=console,signal=off{mux}"));
        }
        all.add("-serial", "chardev:console");
        if self.console == SerialConsole::Terminal {
            all.add("-mon", "chardev=console,mode=readline");
        }
        all.add_path("-chardev", "socket,id=status,server=on,wait=off,path=", &self.status);
        all.add("-device", self.virtio("virtio-serial"));
        all.add("-device", "virtserialport,chardev=status,name=org.garboard.status.0");
        all.add_path("-chardev", "socket,id=monitor,server=on,wait=off,path=", &self.monitor);
        all.add("-mon", "chardev=monitor,mode=control");
    }

    /// A virtio device's name on this machine's bus.
    fn virtio(&self, device: &str) -> String {
        format!("{device}-{}", if self.machine == Machine::Microvm { "device" } else { "pci" })
    }
}

/// The options of a disk's drive, but for its path.
fn drive(disk: &Disk) -> String {
    let readonly = if disk.readonly { ",readonly=on" } else { "" };
    let (driver, path) = match disk.fault {
        None => (String::new(), "file="),
        Some(DiskFault { write, sector }) => {
            let access = if write { "write" } else { "read" };
            let rule = [("event", "none"), ("iotype", access), ("errno", "5"), ("sector", &sector.to_string())]
                .map(|(key, value)| format!(",file.inject-error.0.{key}={value}"));
            (format!(",file.driver=blkdebug{},file.image.driver=file", rule.concat()), "file.image.filename=")
        }
    };
    format!("if=none,id={},format=raw{readonly}{driver},{path}", disk.name)
}

#[derive(Default)]
struct Arguments {
    list: Vec<OsString>,
}

impl Arguments {
    fn flags(&mut self, names: &[&str]) {
        self.list.extend(names.iter().map(OsString::from));
    }

    fn add(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.list.extend([name.into(), value.into()]);
        self
    }

    /// An option that ends in a path. In option lists (those with a prefix) QEMU wants commas doubled.
    fn add_path(&mut self, name: &str, prefix: &str, path: &Path) -> &mut Self {
        let mut value = OsString::from(prefix);
        if prefix.is_empty() {
            value.push(path);
        } else {
            value.push(path.to_string_lossy().replace(',', ",,"));
        }
        self.add(name, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hardware(machine: Machine) -> Hardware {
        let kernel = Kernel {
            image: "k".into(),
            initrd: "i".into(),
            cmdline: "quiet roothash=00".into(),
            tsc_khz: Some(2_000_000),
        };
        let firmware = Firmware { code: "code".into(), variables: "vars".into() };
        Hardware {
            machine,
            accel: Accel::Tcg,
            memory_mb: 384,
            cpus: 2,
            kernel: (machine != Machine::Uefi).then_some(kernel),
            firmware: (machine == Machine::Uefi).then_some(firmware),
            disks: vec![Disk { readonly: true, ..Disk::new("system", "/a,b/system.erofs") }],
            network: Some(vec![Forward { protocol: "tcp".into(), host: 8080, guest: 80 }]),
            console: SerialConsole::Pipe,
            status: "/run/x/status".into(),
            monitor: "/run/x/monitor".into(),
            reboot: false,
            extra: vec!["-S".into()],
        }
    }

    fn line(hardware: &Hardware) -> String {
        hardware.arguments().iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn microvm_has_mmio_devices_and_a_clock_rate() {
        let line = line(&hardware(Machine::Microvm));
        assert!(line.contains("-machine microvm,"), "{line}");
        assert!(
            line.contains("-append quiet roothash=00 console=ttyS0 panic=-1 reboot=t tsc_early_khz=2000000 "),
            "{line}"
        );
        assert!(line.contains("-device virtio-blk-device,drive=system,serial=system"), "{line}");
        assert!(line.contains("readonly=on,file=/a,,b/system.erofs"), "{line}");
        assert!(line.contains("hostfwd=tcp:127.0.0.1:8080-:80"), "{line}");
        assert!(line.contains("virtserialport,chardev=status,name=org.garboard.status.0"), "{line}");
        assert!(line.contains("-no-reboot") && line.ends_with("-S"), "{line}");
        assert!(!line.contains("-pci"), "{line}");
    }

    #[test]
    fn emulated_processors_take_turns() {
        let line = line(&hardware(Machine::Q35));
        assert!(line.contains("-accel tcg,thread=single -cpu max") && line.contains("-smp 2"), "{line}");
    }

    #[test]
    fn kvm_finds_the_clock_rate_by_itself() {
        let line = line(&Hardware { accel: Accel::Kvm, reboot: true, ..hardware(Machine::Microvm) });
        assert!(line.contains("-accel kvm -cpu host") && !line.contains("tsc_early_khz"), "{line}");
        assert!(!line.contains("-no-reboot"), "{line}");
    }

    #[test]
    fn q35_has_pci_devices() {
        let line = line(&Hardware { network: None, ..hardware(Machine::Q35) });
        assert!(line.contains("virtio-blk-pci") && line.contains("virtio-serial-pci"), "{line}");
        assert!(!line.contains("reboot=t") && !line.contains("-netdev"), "{line}");
    }

    #[test]
    fn uefi_boots_from_flash_and_disk_only() {
        let line = line(&Hardware { console: SerialConsole::Terminal, ..hardware(Machine::Uefi) });
        assert!(line.contains("if=pflash,unit=0,format=raw,readonly=on,file=code"), "{line}");
        assert!(!line.contains("-kernel") && line.contains("stdio,id=console,signal=off,mux=on"), "{line}");
    }

    #[test]
    fn a_console_on_a_socket_is_nowhere_else() {
        let line = line(&Hardware { console: SerialConsole::Socket, ..hardware(Machine::Microvm) });
        let console = "-chardev socket,id=console,server=on,wait=off,path=/run/x/console ";
        assert!(line.contains(console) && !line.contains("stdio"), "{line}");
    }

    #[test]
    fn a_broken_disk_has_its_fault_between_it_and_the_machine() {
        let fault = Some(DiskFault { write: true, sector: 7 });
        let disk = Disk { fault, ..Disk::new("data", "/a,b/data.ext4") };
        let line = line(&Hardware { disks: vec![disk], ..hardware(Machine::Microvm) });
        let drive = "if=none,id=data,format=raw,file.driver=blkdebug,file.inject-error.0.event=none,file.inject-error.0.iotype=write,\
                     file.inject-error.0.errno=5,file.inject-error.0.sector=7,file.image.driver=file,file.image.filename=/a,,b/data.ext4";
        assert!(line.contains(drive), "{line}");
    }

    #[test]
    fn machines_have_names() {
        for machine in [Machine::Microvm, Machine::Q35, Machine::Uefi] {
            assert_eq!(machine.to_string().parse(), Ok(machine));
        }
        assert!("vax".parse::<Machine>().unwrap_err().contains("microvm"));
    }
}
