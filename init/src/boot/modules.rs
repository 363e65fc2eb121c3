//! Loads kernel modules in the order the builder found.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::Path;

use garboard_runtime::plan::Module;
use rustix::io::Errno;

use super::{BootError, Cmdline, Trace, modalias, order};

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
    let loaded = rustix::system::finit_module(&file, &parameters, 0).or_else(|errno| match errno {
        Errno::KEYREJECTED | Errno::PERM => insert_signed(&module.path, &parameters).unwrap_or(Err(errno)),
        errno => Err(errno),
    });
    match loaded {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(match errno {
            Errno::NOEXEC => fault(&errno).fix("it was built for another kernel, or is damaged"),
            Errno::NOENT => fault(&"it uses symbols that no loaded module has").fix("list its dependencies before it"),
            Errno::KEYREJECTED | Errno::PERM => fault(&errno).fix("the kernel accepts signed modules only"),
            Errno::NODEV => {
                fault(&errno).fix("its device is not there: give it aliases, so that it is loaded on demand")
            }
            _ => fault(&errno),
        }),
    }
}

/// Loads the module with the signature that lies beside it in `PATH.sig`; `None` if there is none.
///
/// The builder takes signatures off: checking one takes the kernel 20 ms under emulation, and initrd and image are as
/// trustworthy as the kernel itself. A kernel that insists (Secure Boot's lockdown, `module.sig_enforce`) gets module and
/// signature together.
fn insert_signed(path: &str, parameters: &CString) -> Option<rustix::io::Result<()>> {
    let signature = std::fs::read(format!("{path}.sig")).ok()?;
    let mut module = std::fs::read(path).ok()?;
    module.extend(signature);
    Some(rustix::system::init_module(&module, parameters))
}

/// Forbids loading any further module until the machine starts anew.
pub fn lock() -> io::Result<()> {
    std::fs::write("/proc/sys/kernel/modules_disabled", "1")
}
