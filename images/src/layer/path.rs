//! Names of a layer's entries, checked.

/// Longest path, as `PATH_MAX` without its final zero.
pub(crate) const PATH_MAX: usize = 4095;
/// Longest name, `NAME_MAX`.
pub(crate) const NAME_MAX: usize = 255;

/// What an entry's last component says beyond naming a file (image specification, "Whiteouts").
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    /// An ordinary name.
    None,
    /// Hides this name of lower layers.
    Whiteout(&'a [u8]),
    /// Hides everything that lower layers have in the directory.
    Opaque,
}

/// Splits an entry's name. Leading slashes, empty and `.` components mean nothing, as every engine has it; `..` is refused,
/// wherever it stands.
pub(super) fn components(name: &[u8]) -> Result<Vec<&[u8]>, String> {
    if name.is_empty() {
        return Err("an empty name".into());
    }
    if name.len() > PATH_MAX {
        return Err(format!("a name of {} bytes; paths have at most {PATH_MAX}", name.len()));
    }
    if name.contains(&0) {
        return Err("a zero byte in the name".into());
    }
    let parts: Vec<_> = split(name).collect();
    for part in &parts {
        if *part == b".." {
            return Err("`..` in the name: it could leave the image".into());
        }
        if part.len() > NAME_MAX {
            return Err(format!("a component of {} bytes; names have at most {NAME_MAX}", part.len()));
        }
    }
    Ok(parts)
}

/// The components of a path that mean something; `..` among them.
pub(crate) fn split(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// Reads the whiteout prefix. Directories in the path must have been refused before if they carry it.
pub(super) fn mark(name: &[u8]) -> Result<Mark<'_>, String> {
    match name.strip_prefix(b".wh.") {
        None => Ok(Mark::None),
        Some(b".wh..opq") => Ok(Mark::Opaque),
        Some(b"" | b"." | b"..") => Err("a whiteout of no file".into()),
        Some(hidden) if hidden.starts_with(b".wh.") => Err("a reserved whiteout name".into()),
        Some(hidden) => Ok(Mark::Whiteout(hidden)),
    }
}

/// What AUFS kept for itself at the root of a layer, and old Docker images still carry: nothing of it is a file of the image.
pub(super) fn is_aufs_metadata(parts: &[&[u8]]) -> bool {
    matches!(parts.first(), Some(&(b".wh..wh.aufs" | b".wh..wh.orph" | b".wh..wh.plnk")))
}

/// Bytes for people: what isn't printable ASCII is escaped.
pub(crate) fn display(name: &[u8]) -> String {
    let shown = &name[..name.len().min(200)];
    let dots = if shown.len() < name.len() { "…" } else { "" };
    format!("{}{dots}", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let root: Vec<&[u8]> = Vec::new();
        assert_eq!(components(b"./").unwrap(), root);
        assert_eq!(components(b"/").unwrap(), root);
        assert_eq!(components(b"//etc/./x/").unwrap(), [&b"etc"[..], b"x"]);
        assert_eq!(components(b"caf\xe9/...").unwrap(), [&b"caf\xe9"[..], b"..."]);
        for bad in [&b""[..], b"..", b"../x", b"/..", b"a/../b", b"a/..", b"a\0b"] {
            assert!(components(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert!(components(&[b'x'; 255]).is_ok());
        assert!(components(&[b'x'; 256]).is_err());
        assert!(components(&b"x/".repeat(2048)).is_err());
    }

    #[test]
    fn whiteout_names() {
        assert_eq!(mark(b"wh.x"), Ok(Mark::None));
        assert_eq!(mark(b".wh.x"), Ok(Mark::Whiteout(b"x")));
        assert_eq!(mark(b".wh..x"), Ok(Mark::Whiteout(b".x")));
        assert_eq!(mark(b".wh...."), Ok(Mark::Whiteout(b"...")));
        assert_eq!(mark(b".wh..wh..opq"), Ok(Mark::Opaque));
        for bad in [&b".wh."[..], b".wh..", b".wh...", b".wh..wh.aufs", b".wh..wh..opq2", b".wh..wh."] {
            assert!(mark(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
