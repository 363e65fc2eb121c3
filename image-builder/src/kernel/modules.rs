//! From the modules that an appliance wants to the ones it must carry, in an order in which they load.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::modinfo::{self, Modinfo, normal};
use super::select::Wanted;

/// Where modules lie that come before the kernel's own of the same name (depmod.d(5), `search`).
const UPDATES: &str = "updates";
/// Symbolic links to where the kernel was made.
const OUTSIDE: [&str; 2] = ["build", "source"];

/// The modules of one kernel.
#[derive(Debug, Default)]
pub struct Tree {
    directory: PathBuf,
    files: BTreeMap<String, PathBuf>,
    /// Names and aliases of what is built into the kernel.
    built_in: BTreeSet<String>,
    /// Who serves which alias, once somebody has asked.
    providers: OnceCell<BTreeMap<String, BTreeSet<String>>>,
    /// A kernel without modules: whatever is wanted has to be built in, and PID 1 finds out.
    monolithic: bool,
}

/// A module to carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with `_`.
    pub name: String,
    /// Its unpacked bytes.
    pub bytes: Vec<u8>,
    /// Patterns of the devices that call for it; empty: always loaded.
    pub aliases: Vec<String>,
    /// Files that it asks for once it is loaded.
    pub firmware: Vec<String>,
}

impl Module {
    /// Whether this one is loaded whenever `later`, which comes after it, would be.
    fn is_loaded_before(&self, later: &Self) -> bool {
        let for_all = || !later.aliases.is_empty() && later.aliases.iter().all(|alias| self.aliases.contains(alias));
        self.name == later.name && (self.aliases.is_empty() || for_all())
    }
}

/// When a module is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Always,
    Device(BTreeSet<String>),
}

impl Condition {
    fn or(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Device(mine), Self::Device(theirs)) => mine.extend(theirs.iter().cloned()),
            _ => *self = Self::Always,
        }
    }
}

impl Tree {
    /// Looks for modules in a directory such as `/lib/modules/6.12.1-amd64`.
    pub fn scan(directory: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let collected = collect(directory, &mut BTreeSet::new(), &mut files);
        collected.with_context(|| format!("look for modules in {}", directory.display()))?;
        let list = read_if_there(&directory.join("modules.builtin"))?;
        let mut built_in: BTreeSet<String> = list.lines().filter_map(|line| module_name(Path::new(line))).collect();
        // `MODULE.alias=ALIAS`, each with a zero byte behind it.
        let described = read_if_there(&directory.join("modules.builtin.modinfo"))?;
        built_in.extend(described.split('\0').filter_map(|text| Some(normal(text.split_once(".alias=")?.1))));
        if files.is_empty() && built_in.is_empty() {
            bail!(
                "no kernel modules in {}: expected a directory such as /lib/modules/6.12.1-amd64",
                directory.display()
            );
        }
        Ok(Self { directory: directory.to_owned(), files, built_in, ..Self::default() })
    }

    /// A kernel that comes without modules.
    pub fn monolithic() -> Self {
        Self { monolithic: true, ..Self::default() }
    }

    /// The wanted modules and what they depend on, each after its own dependencies, without those that are in `loaded` for all
    /// the same devices and those built into the kernel. All must be made for the kernel `release`.
    pub fn select(&self, wanted: &[Wanted], loaded: &[Module], release: &str) -> Result<Vec<Module>> {
        if self.monolithic {
            return Ok(Vec::new());
        }
        let mut selection = Selection { tree: self, release, order: Vec::new(), found: BTreeMap::new() };
        for one in wanted {
            let name = normal(&one.name);
            if one.optional && !self.built_in.contains(&name) && !self.files.contains_key(&name) {
                continue;
            }
            selection.add(&name, &one.reason, None, one.only_for_devices, &mut Vec::new())?;
        }
        let Selection { order, mut found, .. } = selection;
        let modules = order.into_iter().filter_map(|name| found.remove(&name).map(|found| found.into_module(name)));
        // One whose device was not there is not loaded, and what now needs it may not ask for that device.
        Ok(modules.filter(|module| !loaded.iter().any(|earlier| earlier.is_loaded_before(module))).collect())
    }

    /// Where the module of that name lies.
    pub fn file(&self, name: &str) -> Option<&Path> {
        self.files.get(&normal(name)).map(PathBuf::as_path)
    }

    /// The modules that fulfil a wish (`softdep`), which may name one or what several can do, as `crypto-crc32c`. What is built in
    /// needs none.
    fn fulfil(&self, wish: &str) -> Vec<&str> {
        if self.built_in.contains(wish) {
            return Vec::new();
        }
        if let Some((name, _)) = self.files.get_key_value(wish) {
            return vec![name];
        }
        self.providers
            .get_or_init(|| self.find_providers())
            .get(wish)
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect()
    }

    /// Who serves which alias, but for devices. Modules that some processors have a use for only (`cpu:…`) serve nobody here: the
    /// others do the same on all of them.
    fn find_providers(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut providers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, aliases) in self.all_aliases() {
            if !aliases.iter().any(|alias| alias.starts_with("cpu:")) {
                for alias in aliases.iter().filter(|alias| !alias.contains(':')) {
                    providers.entry(normal(alias)).or_default().insert(module.clone());
                }
            }
        }
        providers
    }

    /// Each module's aliases, as depmod wrote them down, or as the modules themselves say: that takes seconds where they are compressed.
    fn all_aliases(&self) -> BTreeMap<String, Vec<String>> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let Ok(list) = fs::read_to_string(self.directory.join("modules.alias")) else {
            // One that can't be read is told of when it is wanted.
            let aliases = |file| Some(modinfo::parse(&modinfo::read(file).ok()?).ok()?.aliases);
            return self.files.iter().filter_map(|(name, file)| Some((name.clone(), aliases(file)?))).collect();
        };
        let pairs = list.lines().filter_map(|line| line.strip_prefix("alias ")?.rsplit_once(' '));
        for (alias, module) in pairs.filter(|(_, module)| self.files.contains_key(&normal(module))) {
            all.entry(normal(module)).or_default().push(alias.to_owned());
        }
        all
    }

    fn missing(&self, name: &str, reason: &str) -> anyhow::Error {
        anyhow::anyhow!(
            "module {name} ({reason}) is neither in {} nor built into that kernel: use a kernel that has it",
            self.directory.display()
        )
    }
}

/// A selection being made.
struct Selection<'a> {
    tree: &'a Tree,
    release: &'a str,
    order: Vec<String>,
    found: BTreeMap<String, Found>,
}

struct Found {
    bytes: Vec<u8>,
    info: Modinfo,
    condition: Condition,
}

impl Found {
    fn into_module(self, name: String) -> Module {
        let aliases = match self.condition {
            Condition::Always => Vec::new(),
            Condition::Device(aliases) => aliases.into_iter().collect(),
        };
        Module { name, bytes: self.bytes, aliases, firmware: self.info.firmware }
    }
}

impl Selection<'_> {
    /// Adds a module behind what it depends on. A dependency is loaded whenever one of its dependents is.
    fn add(
        &mut self,
        name: &str,
        reason: &str,
        condition: Option<&Condition>,
        only_for_devices: bool,
        path: &mut Vec<String>,
    ) -> Result<()> {
        if self.tree.built_in.contains(name) {
            return Ok(());
        }
        if path.iter().any(|above| above == name) {
            bail!("kernel modules depend on each other in a circle: {} → {name}", path.join(" → "));
        }
        let info = self.load(name, reason)?;
        let condition = match condition {
            Some(condition) => condition.clone(),
            None if only_for_devices => Condition::Device(info.aliases.iter().cloned().collect()),
            None => Condition::Always,
        };
        if let Some(found) = self.found.get_mut(name) {
            found.condition.or(&condition);
        }
        path.push(name.to_owned());
        for dependency in &info.depends {
            self.add(dependency, &format!("needed by {name}"), Some(&condition), false, path)?;
        }
        for wish in info.soft_before.iter().flat_map(|wish| self.tree.fulfil(wish)) {
            // Who serves a wish may have the same one itself.
            if path.iter().any(|above| above == wish) {
                continue;
            }
            self.add(wish, &format!("wanted by {name}"), Some(&condition), false, path)?;
        }
        path.pop();
        if !self.order.iter().any(|ordered| ordered == name) {
            self.order.push(name.to_owned());
        }
        Ok(())
    }

    /// Reads a module, once.
    fn load(&mut self, name: &str, reason: &str) -> Result<Modinfo> {
        if let Some(found) = self.found.get(name) {
            return Ok(found.info.clone());
        }
        let file = self.tree.files.get(name).ok_or_else(|| self.tree.missing(name, reason))?;
        let bytes = modinfo::read(file)?;
        let info = modinfo::parse(&bytes).with_context(|| format!("read module {}", file.display()))?;
        let made_for = info.vermagic.split(' ').next().unwrap_or_default();
        if made_for != self.release {
            bail!("module {} was made for kernel {made_for}, not for {}", file.display(), self.release);
        }
        let info = Modinfo { aliases: info.aliases.into_iter().filter(|alias| is_listable(alias)).collect(), ..info };
        // Nothing has asked for it yet: the first who does sets the condition.
        let condition = Condition::Device(BTreeSet::new());
        self.found.insert(name.to_owned(), Found { bytes, info: info.clone(), condition });
        Ok(info)
    }
}

/// Finds modules below `directory`, each directory once, whatever links lead to it. Of modules with one name the first counts, in
/// an order that the file system has no part in.
fn collect(
    directory: &Path,
    seen: &mut BTreeSet<(u64, u64)>,
    files: &mut BTreeMap<String, PathBuf>,
) -> std::io::Result<()> {
    let at = fs::metadata(directory)?;
    let top = seen.is_empty();
    if !seen.insert((at.dev(), at.ino())) {
        return Ok(());
    }
    let mut paths = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| !(top || path.is_symlink()) || !OUTSIDE.iter().any(|name| path.ends_with(name)));
    paths.sort_by_key(|path| (!path.ends_with(UPDATES), path.clone()));
    for path in paths {
        if path.is_dir() {
            collect(&path, seen, files)?;
        } else if let Some(name) = module_name(&path) {
            files.entry(name).or_insert(path);
        }
    }
    Ok(())
}

/// A file's text; none, if there is no file.
fn read_if_there(path: &Path) -> Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Whether the order file, which separates with these, can hold an alias. Only device tree aliases have commas, and x86 has
/// no device tree.
fn is_listable(alias: &str) -> bool {
    !alias.contains([',', '\t', '\n'])
}

/// The module's name by its file: `drivers/md/dm-mod.ko.xz` is `dm_mod`.
fn module_name(path: &Path) -> Option<String> {
    let (name, extension) = path.file_name()?.to_str()?.split_once(".ko")?;
    matches!(extension, "" | ".xz" | ".zst" | ".gz").then(|| normal(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fake;

    const RELEASE: &str = "6.12.1-test";

    /// A tree in which `disk` needs `bus` and `core`, `verity` needs `core`, and `crc` is built in.
    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        fake::module(dir.path(), "core-lib", RELEASE, &[]);
        fake::module(dir.path(), "bus", RELEASE, &["alias=pci:bus*"]);
        fake::module(dir.path(), "disk", RELEASE, &["depends=bus,core-lib", "alias=disk:1*", "alias=of:N*C,x"]);
        fake::module(dir.path(), "verity", RELEASE, &["depends=core-lib,crc", "softdep=pre: fast absent"]);
        fake::module(dir.path(), "fast", RELEASE, &[]);
        fs::write(dir.path().join("modules.builtin"), "kernel/lib/crc.ko\n").unwrap();
        let tree = Tree::scan(dir.path()).unwrap();
        (dir, tree)
    }

    fn summary(modules: &[Module]) -> Vec<(&str, Vec<&str>)> {
        modules.iter().map(|m| (m.name.as_str(), m.aliases.iter().map(String::as_str).collect())).collect()
    }

    #[test]
    fn dependencies_come_first_and_share_the_condition() {
        let (_dir, tree) = tree();
        let modules = tree.select(&[Wanted::device("disk", "x")], &[], RELEASE).unwrap();
        assert_eq!(
            summary(&modules),
            [("bus", vec!["disk:1*"]), ("core_lib", vec!["disk:1*"]), ("disk", vec!["disk:1*"])]
        );
    }

    #[test]
    fn always_beats_a_device() {
        let (_dir, tree) = tree();
        let wanted = [Wanted::device("disk", "x"), Wanted::always("verity", "y")];
        let modules = tree.select(&wanted, &[], RELEASE).unwrap();
        assert_eq!(
            summary(&modules),
            [
                ("bus", vec!["disk:1*"]),
                ("core_lib", vec![]),
                ("disk", vec!["disk:1*"]),
                ("fast", vec![]),
                ("verity", vec![])
            ]
        );
    }

    #[test]
    fn what_is_loaded_or_built_in_is_left_out() {
        let (_dir, tree) = tree();
        let first = tree.select(&[Wanted::always("core-lib", "x")], &[], RELEASE).unwrap();
        let second =
            tree.select(&[Wanted::always("verity", "y"), Wanted::always("crc", "z")], &first, RELEASE).unwrap();
        assert_eq!(summary(&second), [("fast", vec![]), ("verity", vec![])]);
    }

    /// The first stage carries `disk` and `bus` for machines that have the disk. Who asks for `bus` by name, or for what needs it
    /// and serves another device, can't count on that.
    #[test]
    fn what_was_loaded_for_a_device_only_is_carried_again() {
        let (dir, _) = tree();
        fake::module(dir.path(), "net", RELEASE, &["depends=bus", "alias=net:1*"]);
        let tree = Tree::scan(dir.path()).unwrap();
        let first = tree.select(&[Wanted::device("disk", "x")], &[], RELEASE).unwrap();
        let again = |wanted| tree.select(&[wanted], &first, RELEASE).unwrap();
        assert_eq!(summary(&again(Wanted::always("bus", "y"))), [("bus", vec![])]);
        assert_eq!(summary(&again(Wanted::device("net", "y"))), [("bus", vec!["net:1*"]), ("net", vec!["net:1*"])]);
        assert!(again(Wanted::device("disk", "y")).is_empty());
    }

    #[test]
    fn a_missing_module_is_named_with_its_reason_unless_optional() {
        let (_dir, tree) = tree();
        let error = tree.select(&[Wanted::always("erofs", "the system image's filesystem")], &[], RELEASE).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("module erofs (the system image's filesystem) is neither in "), "{text}");
        assert!(tree.select(&[Wanted::device("nvme", "x").if_present()], &[], RELEASE).unwrap().is_empty());
        assert!(Tree::monolithic().select(&[Wanted::always("erofs", "x")], &[], RELEASE).unwrap().is_empty());
    }

    #[test]
    fn circles_and_foreign_modules_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fake::module(dir.path(), "a", RELEASE, &["depends=b"]);
        fake::module(dir.path(), "b", RELEASE, &["depends=a"]);
        fake::module(dir.path(), "old", "5.10.0", &[]);
        let tree = Tree::scan(dir.path()).unwrap();
        let error = tree.select(&[Wanted::always("a", "x")], &[], RELEASE).unwrap_err().to_string();
        assert!(error.contains("a → b → a"), "{error}");
        let error = tree.select(&[Wanted::always("old", "x")], &[], RELEASE).unwrap_err().to_string();
        assert!(error.contains("was made for kernel 5.10.0, not for 6.12.1-test"), "{error}");
    }

    /// As in Debian's Linux 6.1: who needs `crc32c` asks for it by what it does.
    #[test]
    fn a_wish_is_fulfilled_by_whoever_can_on_every_processor() {
        let dir = tempfile::tempdir().unwrap();
        fake::module(dir.path(), "erofs", RELEASE, &["softdep=pre: crypto-crc32c built-in-too"]);
        fake::module(dir.path(), "crc32c_generic", RELEASE, &["alias=crypto-crc32c", "alias=crc32c"]);
        fake::module(dir.path(), "crc32c-intel", RELEASE, &["alias=crypto-crc32c", "alias=cpu:type:x86,*"]);
        fake::module(dir.path(), "other", RELEASE, &["alias=built_in_too"]);
        fs::write(dir.path().join("modules.builtin.modinfo"), "x.license=GPL\0x.alias=built_in-too\0").unwrap();
        let wanted = [Wanted::always("erofs", "x")];
        let selected = || Tree::scan(dir.path()).unwrap().select(&wanted, &[], RELEASE).unwrap();
        assert_eq!(summary(&selected()), [("crc32c_generic", vec![]), ("erofs", vec![])]);
        // The same by depmod's list, which may name what is no longer there.
        let list = "# Aliases\nalias crypto-crc32c crc32c_generic\nalias crypto-crc32c crc32c_intel\n\
            alias cpu:type:x86,* crc32c_intel\nalias crypto-crc32c gone\n";
        fs::write(dir.path().join("modules.alias"), list).unwrap();
        assert_eq!(summary(&selected()), [("crc32c_generic", vec![]), ("erofs", vec![])]);
    }

    #[test]
    fn of_two_modules_with_one_name_an_update_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        for place in ["extra", "kernel/a", "kernel/b", "updates"] {
            fs::create_dir_all(dir.path().join(place)).unwrap();
        }
        for (place, name) in [("updates", "disk"), ("extra", "disk"), ("kernel/b", "net"), ("kernel/a", "net")] {
            fake::module(&dir.path().join(place), name, RELEASE, &[]);
        }
        let tree = Tree::scan(dir.path()).unwrap();
        assert_eq!(tree.file("disk").unwrap(), dir.path().join("updates/disk.ko"));
        assert_eq!(tree.file("net").unwrap(), dir.path().join("kernel/a/net.ko"));
    }

    #[test]
    fn links_are_followed_once_and_not_to_the_kernels_source() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, elsewhere) = (dir.path().join("tree"), dir.path().join("elsewhere"));
        for made in [&tree, &elsewhere] {
            fs::create_dir(made).unwrap();
        }
        fake::module(&elsewhere, "disk", RELEASE, &[]);
        std::os::unix::fs::symlink(&elsewhere, tree.join("build")).unwrap();
        fake::module(&tree, "net", RELEASE, &[]);
        assert_eq!(Tree::scan(&tree).unwrap().file("disk"), None);
        std::os::unix::fs::symlink(&elsewhere, tree.join("extra")).unwrap();
        std::os::unix::fs::symlink(&tree, elsewhere.join("round")).unwrap();
        assert_eq!(Tree::scan(&tree).unwrap().file("disk").unwrap(), tree.join("extra/disk.ko"));
    }

    #[test]
    fn an_empty_directory_is_no_module_tree() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Tree::scan(dir.path()).unwrap_err().to_string().starts_with("no kernel modules in "));
    }
}
