//! The distribution's kernel, from its package: downloaded and unpacked into the user's cache, without root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Choice;
use crate::scratch::{self, Scratch};

/// Packages that depend on the newest kernel of a series, the preferred one first: Debian's kernel for virtual machines, then
/// Ubuntu's.
const METAPACKAGES: [&str; 3] = ["linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64", "linux-image-virtual"];
/// How the names of directories begin in which packages are unpacked.
const SCRATCH: &str = ".fetch-";
const FIX: &str = "name a kernel in the declaration ([kernel] image = …, modules = …) or with --kernel and --modules";

/// Finds the kernel in the cache, fetching its packages first if they are not there.
pub fn fetch(say: &dyn Fn(&str)) -> Result<Choice> {
    let cache = cache_directory()?;
    let packages = match newest_packages() {
        Ok(packages) => packages,
        // Without package lists what was fetched earlier still serves.
        Err(error) => return newest_cached(&cache).ok_or(error),
    };
    let directory = cache.join(directory_name(&packages));
    if !directory.is_dir() {
        say(&format!("fetching {}", names(&packages)));
        let fetched = unpack_packages(&packages, &cache, &directory);
        if let Err(error) = fetched.with_context(|| format!("fetch {}", names(&packages))) {
            // Without a network too.
            let earlier = newest_cached(&cache).ok_or(error)?;
            say("couldn't be fetched; the kernel that was fetched before serves");
            return Ok(earlier);
        }
    }
    kernel_in(&directory)
}

/// A package and the version that apt would install.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
}

fn names(packages: &[Package]) -> String {
    packages.iter().map(|package| package.name.as_str()).collect::<Vec<_>>().join(" and ")
}

/// One directory for each kernel version; an update of the package is another directory.
fn directory_name(packages: &[Package]) -> String {
    packages.first().map(|first| format!("{}_{}", first.name, first.version.replace(':', "%3a"))).unwrap_or_default()
}

/// `$XDG_CACHE_HOME/garboard/kernels`, `~/.cache` by default (XDG Base Directory Specification).
fn cache_directory() -> Result<PathBuf> {
    let from_environment = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = from_environment("XDG_CACHE_HOME").or_else(|| from_environment("HOME").map(|home| home.join(".cache")));
    let cache = cache.context("find the cache directory: neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(cache.join("garboard/kernels"))
}

/// The kernel's packages by way of the first metapackage that this system knows.
fn newest_packages() -> Result<Vec<Package>> {
    for metapackage in METAPACKAGES {
        let depends = apt_cache(&["depends", metapackage])?;
        let Some(image) = dependency(&depends, "linux-image-") else { continue };
        // Ubuntu has the modules in a package of their own.
        let modules = dependency(&apt_cache(&["depends", &image])?, "linux-modules-");
        return [Some(image), modules].into_iter().flatten().map(with_version).collect();
    }
    bail!("find a kernel: apt knows none of {}; run `apt-get update` as root, or {FIX}", METAPACKAGES.join(", "))
}

fn with_version(name: String) -> Result<Package> {
    let policy = apt_cache(&["policy", &name])?;
    let version = candidate(&policy).with_context(|| format!("apt has no version of {name} to install; {FIX}"))?;
    Ok(Package { name, version })
}

/// Runs apt-cache. A package that it doesn't know is empty output, not an error.
fn apt_cache(arguments: &[&str]) -> Result<String> {
    let output = Command::new("apt-cache").args(arguments).env("LC_ALL", "C").output();
    let output =
        output.with_context(|| format!("run apt-cache, which only Debian and its kin have; elsewhere, {FIX}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first `Depends:` line of `apt-cache depends` whose package name begins with `prefix` (and isn't virtual, `<…>`).
fn dependency(output: &str, prefix: &str) -> Option<String> {
    let depends = output.lines().filter_map(|line| line.trim().trim_start_matches('|').strip_prefix("Depends: "));
    depends.map(str::trim).find(|name| name.starts_with(prefix)).map(str::to_owned)
}

/// The `Candidate:` of `apt-cache policy`.
fn candidate(output: &str) -> Option<String> {
    let version = output.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?.trim();
    (version != "(none)").then(|| version.to_owned())
}

/// Downloads and unpacks beside the place where the result belongs, then renames: nobody finds half a kernel there.
fn unpack_packages(packages: &[Package], cache: &Path, directory: &Path) -> Result<()> {
    fs::create_dir_all(cache).with_context(|| format!("make {}", cache.display()))?;
    let scratch = {
        let _turn = scratch::turn(cache)?;
        Scratch::make(cache, SCRATCH)?
    };
    let (downloads, unpacked) = (scratch.path().join("downloads"), scratch.path().join("unpacked"));
    fs::create_dir(&downloads)?;
    let wanted = packages.iter().map(|package| format!("{}={}", package.name, package.version));
    let mut download = Command::new("apt-get");
    download.current_dir(&downloads).args(["--quiet=2", "download"]).args(wanted);
    run(&mut download).context("if the package lists are old, run `apt-get update` as root")?;
    for entry in fs::read_dir(&downloads)? {
        run(Command::new("dpkg-deb").arg("--extract").arg(entry?.path()).arg(&unpacked))?;
    }
    kernel_in(&unpacked)?;
    match fs::rename(&unpacked, directory) {
        // Another build fetched the same meanwhile.
        Err(_) if directory.is_dir() => {}
        result => result.with_context(|| format!("move the kernel to {}", directory.display()))?,
    }
    forget_old(cache, directory);
    Ok(())
}

/// Removes all kernels but `directory` and the newest other: a build that began before may still read that.
fn forget_old(cache: &Path, directory: &Path) {
    let mut others: Vec<PathBuf> = cached(cache).into_iter().filter(|path| path != directory).collect();
    others.pop();
    for path in others {
        // What can't be removed does no harm.
        let _ = fs::remove_dir_all(path);
    }
}

/// Runs a program; what it said on stderr becomes the error.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.env("LC_ALL", "C").output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// `boot/vmlinuz-*` and `lib/modules/*` (or `usr/lib/modules/*`) of an unpacked package.
fn kernel_in(directory: &Path) -> Result<Choice> {
    let image = only_entry(&directory.join("boot"), "vmlinuz-")?;
    let modules =
        ["lib/modules", "usr/lib/modules"].into_iter().find_map(|at| only_entry(&directory.join(at), "").ok());
    let modules = modules.with_context(|| format!("no lib/modules in {}", directory.display()))?;
    Ok(Choice { image: Some(image), modules: Some(modules) })
}

fn only_entry(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("look into {}", directory.display()))?;
    let named = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let mut paths: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    paths.sort();
    paths.pop().with_context(|| format!("nothing named {prefix}* in {}", directory.display()))
}

/// The kernel in the cache that was put there last.
fn newest_cached(cache: &Path) -> Option<Choice> {
    kernel_in(&cached(cache).pop()?).ok()
}

/// All kernels in the cache, the newest last.
fn cached(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    let mut kernels: Vec<_> = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).collect();
    kernels.sort_by_key(|entry| entry.metadata().and_then(|metadata| metadata.modified()).ok());
    kernels.into_iter().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_apt_says() {
        let depends = "linux-image-6.12-cloud-amd64\n  Depends: linux-image-6.12.117+deb12-cloud-amd64\n";
        assert_eq!(dependency(depends, "linux-image-").as_deref(), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        let ubuntu =
            "linux-image-6.8.0-1-generic\n  Depends: kmod\n |Depends: linux-modules-6.8.0-1-generic\n  Breaks: x\n";
        assert_eq!(dependency(ubuntu, "linux-modules-").as_deref(), Some("linux-modules-6.8.0-1-generic"));
        assert_eq!(dependency("", "linux-image-"), None);
        let policy = "x:\n  Installed: (none)\n  Candidate: 6.12.117-1~deb12u1\n  Version table:\n";
        assert_eq!(candidate(policy).as_deref(), Some("6.12.117-1~deb12u1"));
        assert_eq!(candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"), None);
    }

    #[test]
    fn finds_the_kernel_in_an_unpacked_package() {
        let dir = tempfile::tempdir().unwrap();
        assert!(kernel_in(dir.path()).is_err());
        fs::create_dir_all(dir.path().join("boot")).unwrap();
        fs::create_dir_all(dir.path().join("lib/modules/6.12.1")).unwrap();
        fs::write(dir.path().join("boot/config-6.12.1"), "").unwrap();
        assert!(kernel_in(dir.path()).unwrap_err().to_string().contains("vmlinuz-*"));
        fs::write(dir.path().join("boot/vmlinuz-6.12.1"), "").unwrap();
        let kernel = kernel_in(dir.path()).unwrap();
        assert_eq!(kernel.image.unwrap(), dir.path().join("boot/vmlinuz-6.12.1"));
        assert_eq!(kernel.modules.unwrap(), dir.path().join("lib/modules/6.12.1"));
    }

    #[test]
    fn the_cache_serves_without_package_lists() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(newest_cached(cache.path()), None);
        let kernel = cache.path().join("linux-image-1_1");
        fs::create_dir_all(kernel.join("boot")).unwrap();
        fs::create_dir_all(kernel.join("lib/modules/1")).unwrap();
        fs::write(kernel.join("boot/vmlinuz-1"), "").unwrap();
        fs::create_dir(cache.path().join(".fetch-abc")).unwrap();
        assert_eq!(newest_cached(cache.path()).unwrap().modules.unwrap(), kernel.join("lib/modules/1"));
    }

    #[test]
    fn what_an_interrupted_fetch_left_is_removed_by_the_next() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir_all(cache.path().join(".fetch-dead/downloads")).unwrap();
        // There is no such package, and nothing is downloaded for none.
        let package = Package { name: "no-such-package".into(), version: "0".into() };
        unpack_packages(&[package], cache.path(), &cache.path().join("kernel")).unwrap_err();
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_cache_keeps_two_kernels() {
        let cache = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH;
        for (n, name) in ["oldest", "old", "new", "mine"].into_iter().enumerate() {
            fs::create_dir(cache.path().join(name)).unwrap();
            // The one just unpacked has its package's time, whatever that is.
            let time = old + std::time::Duration::from_secs(if name == "mine" { 0 } else { n as u64 + 1 });
            fs::File::open(cache.path().join(name)).unwrap().set_modified(time).unwrap();
        }
        forget_old(cache.path(), &cache.path().join("mine"));
        assert_eq!(cached(cache.path()), ["mine", "new"].map(|name| cache.path().join(name)));
    }
}
