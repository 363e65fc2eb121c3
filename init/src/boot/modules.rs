//! Loads kernel modules in the order the builder found.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use garboard_runtime::plan::Module;
use rustix::io::Errno;

use super::{BootError, Cmdline, Trace, modalias, order};
use crate::sys;

/// The initrd's list of modules.
const ORDER: &str = "/modules/order";

/// The modules that the initrd lists. An initrd without a list has none: everything is built into the kernel.
pub fn of_initrd() -> Result<Vec<Module>, BootError> {
    let fault = |cause: &dyn std::fmt::Display| {
        BootError::new("read the module list", ORDER, cause).fix("build the initrd again")
    };
    match std::fs::read(ORDER) {
        Ok(bytes) => order::parse(&bytes).map_err(|e| fault(&e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(fault(&e)),
    }
}

/// Loads those modules, each unless no device wants it. Devices are looked at anew before each: one module's devices appear
/// only once another, its bus, is loaded. Goes on after a fault; the faults are returned.
pub fn load(modules: &[Module], cmdline: &Cmdline, trace: &mut Trace) -> Vec<BootError> {
    let mut faults = Vec::new();
    for module in modules {
        let name = order::module_name(&module.path);
        let given = cmdline.parameters_of(&name);
        // A person who gives a module parameters wants it: that is how virtio_mmio learns of devices without ACPI.
        let wanted =
            module.aliases.is_empty() || !given.is_empty() || modalias::present(Path::new("/sys"), &module.aliases);
        if !wanted {
            continue;
        }
        match insert(module, &given) {
            Ok(()) => trace.mark(format!("module {name}")),
            Err(error) if cmdline.forbids(&name) => {
                faults.push(error.fix("module_blacklist= on the kernel command line forbids it"));
            }
            Err(error) => faults.push(error),
        }
    }
    faults
}

fn insert(module: &Module, given: &str) -> Result<(), BootError> {
    let fault = |cause: &dyn std::fmt::Display| BootError::new("load module", module.path.as_str(), cause);
    let file = File::open(&module.path).map_err(|e| fault(&e).fix("build the image again: it lacks that file"))?;
    let parameters = format!("{} {given}", module.parameters);
    let parameters = CString::new(parameters.trim()).map_err(|e| fault(&e))?;
    let loaded = load_file(&file, &parameters).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO));
    match loaded {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(match errno {
            Errno::NOEXEC => fault(&errno).fix("it was built for another kernel, or is damaged"),
            Errno::NOENT => fault(&"it uses symbols that no loaded module has").fix("list its dependencies before it"),
            Errno::KEYREJECTED | Errno::PERM => {
                fault(&errno).fix("the kernel accepts modules signed by its maker only")
            }
            Errno::NODEV => {
                fault(&errno).fix("its device is not there: give it aliases, so that it is loaded on demand")
            }
            _ => fault(&errno),
        }),
    }
}

/// Loads the module without its signature, and with it only if the kernel insists (Secure Boot's lockdown,
/// `module.sig_enforce`).
///
/// Checking a signature takes the kernel 20 ms under emulation, for each module. It protects a running kernel from whoever may load
/// modules; these lie in the initrd or under the verity root, as trustworthy as PID 1 itself, and loading is locked afterwards.
fn load_file(file: &File, parameters: &CStr) -> io::Result<()> {
    let with_signature = || rustix::system::finit_module(file, parameters, 0).map_err(io::Error::from);
    let Some(length) = unsigned_length(file)? else { return with_signature() };
    match sys::module::load_prefix(file, length, parameters) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EKEYREJECTED | libc::EPERM)) => with_signature(),
        result => result,
    }
}

/// What a signed module ends with (`include/linux/module_signature.h`).
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";
/// Before it: `struct module_signature`, whose last field is the signature's length, big-endian.
const SIGNATURE_HEADER: usize = 12;
const TRAILER: usize = SIGNATURE_HEADER + SIGNATURE_MARK.len();

/// Length of the module in the file without its signature; `None` if it has none.
fn unsigned_length(file: &File) -> io::Result<Option<usize>> {
    let length = file.metadata()?.len();
    let Some(start) = length.checked_sub(u64::try_from(TRAILER).unwrap_or(u64::MAX)) else { return Ok(None) };
    let mut trailer = [0; TRAILER];
    file.read_exact_at(&mut trailer, start)?;
    let signature = signature_length(&trailer).map(u64::from);
    Ok(signature.and_then(|signature| usize::try_from(start.checked_sub(signature)?).ok()))
}

fn signature_length(trailer: &[u8; TRAILER]) -> Option<u32> {
    let header = trailer.strip_suffix(SIGNATURE_MARK)?;
    header.last_chunk::<4>().map(|length| u32::from_be_bytes(*length))
}

/// Where the kernel is told that no more modules are to come.
pub const LOCK: &str = "/proc/sys/kernel/modules_disabled";

/// Forbids loading any further module until the machine starts anew: there is no `modprobe`, and a container that breaks out
/// finds the door shut. `path` is [`LOCK`]; a kernel without modules has no such file.
pub fn lock(path: &Path) -> io::Result<()> {
    match std::fs::write(path, "1") {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn length_of(bytes: &[u8]) -> Option<usize> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        unsigned_length(&file).unwrap()
    }

    #[test]
    fn a_signature_is_recognised() {
        let signed = [&b"MODULE"[..], b"SIGNATURE", &[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 9], SIGNATURE_MARK].concat();
        assert_eq!(length_of(&signed), Some(6));
        assert_eq!(length_of(&signed[..signed.len() - 1]), None, "no mark at the end");
        assert_eq!(length_of(b"MODULE"), None);
        let beyond = [&[0u8; 8][..], &[0xff; 4], SIGNATURE_MARK].concat();
        assert_eq!(length_of(&beyond), None, "longer than the file");
    }
}
