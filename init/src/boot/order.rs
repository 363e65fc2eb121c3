//! `/modules/order` of the initrd: which modules to load, in which order.
//!
//! Text, one line for each module: `PATH<TAB>ALIAS,ALIAS…<TAB>PARAMETERS`. No aliases: always load. Lines that are empty or
//! begin with `#` are skipped.

use garboard_runtime::plan::Module;

/// No order file is larger, in bytes.
pub const MAX_SIZE: usize = 1 << 20;
const MAX_MODULES: usize = 256;

/// The modules of an order file, or the first line that is not one.
pub fn parse(bytes: &[u8]) -> Result<Vec<Module>, String> {
    if bytes.len() > MAX_SIZE {
        return Err(format!("larger than {MAX_SIZE} bytes"));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8: {e}"))?;
    let lines: Vec<(usize, &str)> = text.lines().zip(1..).map(|(line, n)| (n, line)).collect();
    let mut modules = Vec::new();
    for (number, line) in lines {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fields = line.split('\t');
        let path = fields.next().filter(|path| path.starts_with('/'));
        let path = path.ok_or_else(|| format!("line {number} does not begin with an absolute path"))?;
        let aliases = fields.next().unwrap_or("").split(',').filter(|a| !a.is_empty()).map(str::to_owned).collect();
        let parameters = fields.next().unwrap_or("").to_owned();
        if fields.next().is_some() {
            return Err(format!("line {number} has more than three fields"));
        }
        if modules.len() >= MAX_MODULES {
            return Err(format!("more than {MAX_MODULES} modules"));
        }
        modules.push(Module { path: path.to_owned(), aliases, parameters });
    }
    Ok(modules)
}

/// The module's name by its file: `/modules/03-dm-mod.ko` is `dm_mod` (load order prefix and suffix dropped, `-` as `_`).
pub fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.strip_suffix(".ko").unwrap_or(file);
    let name = match stem.split_once('-') {
        Some((digits, rest)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => rest,
        _ => stem,
    };
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_become_modules_in_order() {
        let text = "# made by the builder\n/modules/00-virtio_mmio.ko\tacpi*:LNRO0005:*,of:N*\t\n\n/modules/01-dm-mod.ko\t\ta=1 b=2\n/modules/02-erofs.ko\n";
        let modules = parse(text.as_bytes()).unwrap();
        assert_eq!(modules.len(), 3);
        assert_eq!(modules[0].aliases, ["acpi*:LNRO0005:*", "of:N*"]);
        assert_eq!((modules[1].aliases.len(), modules[1].parameters.as_str()), (0, "a=1 b=2"));
        assert_eq!(modules[2].path, "/modules/02-erofs.ko");
    }

    #[test]
    fn faults_name_their_line() {
        assert_eq!(parse(b"/a.ko\nb.ko\n").unwrap_err(), "line 2 does not begin with an absolute path");
        assert_eq!(parse(b"/a.ko\t\t\tx").unwrap_err(), "line 1 has more than three fields");
        assert!(parse(&[0xff]).unwrap_err().starts_with("not UTF-8"));
        assert!(parse("/a.ko\n".repeat(MAX_MODULES + 1).as_bytes()).unwrap_err().contains("more than 256"));
        assert!(parse(&vec![b'\n'; MAX_SIZE + 1]).is_err());
    }

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(module_name("/modules/03-dm-mod.ko"), "dm_mod");
        assert_eq!(module_name("/garboard/modules/virtio_net.ko"), "virtio_net");
        assert_eq!(module_name("8021q"), "8021q");
        assert_eq!(module_name("dm-mod.ko"), "dm_mod");
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            if let Ok(modules) = parse(&bytes) {
                modules.iter().for_each(|m| { module_name(&m.path); });
            }
        }
    }
}
