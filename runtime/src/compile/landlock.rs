//! Annotations `org.garboard.landlock.*` → Landlock rules (landlock(7)). No other part of a spec can say them.
//!
//! | annotation | value | effect |
//! |---|---|---|
//! | `org.garboard.landlock.read` | absolute paths separated by `:` | only these trees may be read and executed |
//! | `org.garboard.landlock.write` | the same | only these may be changed; they may also be read |
//! | `org.garboard.landlock.bind` | ports separated by `,` | only these TCP ports may be bound |
//! | `org.garboard.landlock.connect` | the same | only these may be connected to |
//! | `org.garboard.landlock.scope` | `abstract-sockets`, `signals`, separated by `,` | none to processes outside |
//!
//! Either of `read` and `write` makes files handled: what neither names can't be opened. An empty value names nothing.

use std::collections::HashMap;

use crate::launch::Landlock;
use crate::spec::Error;

const PREFIX: &str = "org.garboard.landlock.";

/// The rules in `annotations`; `None`: there are none.
pub(super) fn annotations(annotations: Option<&HashMap<String, String>>) -> Result<Option<Landlock>, Error> {
    let mut rules = Landlock::default();
    for (name, value) in annotations.into_iter().flatten() {
        let Some(kind) = name.strip_prefix(PREFIX) else { continue };
        match kind {
            "read" => rules.read = Some(paths(name, value)?),
            "write" => rules.write = Some(paths(name, value)?),
            "bind" => rules.bind = Some(ports(name, value)?),
            "connect" => rules.connect = Some(ports(name, value)?),
            "scope" => scope(name, value, &mut rules)?,
            _ => return Err(wrong(name, "no such rule: read, write, bind, connect, scope")),
        }
    }
    Ok(Some(rules).filter(|rules| *rules != Landlock::default()))
}

fn wrong(name: &str, why: impl Into<String>) -> Error {
    Error::new(format!("annotations[{name}]"), why)
}

fn paths(name: &str, value: &str) -> Result<Vec<String>, Error> {
    let one = |path: &str| {
        if path.starts_with('/') && !path.split('/').any(|part| part == "..") && !path.contains('\0') {
            Ok(path.to_owned())
        } else {
            Err(wrong(name, format!("{path:?} isn't an absolute path without '..'")))
        }
    };
    value.split(':').filter(|path| !path.is_empty()).map(one).collect()
}

fn ports(name: &str, value: &str) -> Result<Vec<u16>, Error> {
    let one = |port: &str| port.trim().parse().map_err(|_| wrong(name, format!("{port:?} is no port")));
    value.split(',').filter(|port| !port.trim().is_empty()).map(one).collect()
}

fn scope(name: &str, value: &str, rules: &mut Landlock) -> Result<(), Error> {
    for scope in value.split(',').map(str::trim).filter(|scope| !scope.is_empty()) {
        match scope {
            "abstract-sockets" => rules.scope_abstract_sockets = true,
            "signals" => rules.scope_signals = true,
            other => return Err(wrong(name, format!("{other:?} is neither abstract-sockets nor signals"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Option<Landlock>, Error> {
        annotations(Some(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()))
    }

    #[test]
    fn annotations_are_rules() {
        let made = of(&[
            ("org.garboard.landlock.read", "/usr:/etc"),
            ("org.garboard.landlock.bind", "80, 443"),
            ("org.garboard.landlock.connect", ""),
            ("org.garboard.landlock.scope", "signals"),
            ("com.example.other", "x"),
        ]);
        let rules = Landlock {
            read: Some(vec!["/usr".to_owned(), "/etc".to_owned()]),
            bind: Some(vec![80, 443]),
            connect: Some(Vec::new()),
            scope_signals: true,
            ..Landlock::default()
        };
        assert_eq!(made.unwrap(), Some(rules));
        assert_eq!(of(&[("com.example.other", "x")]).unwrap(), None);
    }

    #[test]
    fn a_rule_that_cannot_be_is_named() {
        for (name, value) in
            [("reed", "/"), ("read", "usr"), ("write", "/../x"), ("bind", "70000"), ("scope", "everything")]
        {
            let name = format!("org.garboard.landlock.{name}");
            assert!(of(&[(&name, value)]).unwrap_err().to_string().contains(&name));
        }
    }
}
