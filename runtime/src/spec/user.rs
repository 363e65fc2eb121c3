//! Users and groups by name or number, resolved in an image's `/etc/passwd` and `/etc/group`.
//!
//! Numbers are taken strictly: what isn't all digits is a name, and an unknown name is an error, never id 0.

use super::Error;

/// Ids that a container's program runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) additional_gids: Vec<u32>,
    /// Home directory, if the user has an entry.
    pub(crate) home: Option<String>,
}

/// One line of passwd(5) that is whole.
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// One line of group(5) that is whole.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Resolves `user[:group]` and more groups. An empty `spec` is root.
///
/// As Docker: without a group it is the user's own, and the groups that list the user are added; with one, only that.
pub(crate) fn resolve(spec: &str, more: &[String], passwd: &str, group: &str) -> Result<Identity, Error> {
    let (user_text, group_text) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (spec, None),
    };
    let user_text = if user_text.is_empty() { "0" } else { user_text };
    let entry = find_user(user_text, passwd);
    let uid = match (&entry, id(user_text)) {
        (Some(user), _) => user.uid,
        (None, Some(uid)) => uid,
        (None, None) => {
            return Err(Error::new(
                "user",
                format!("{user_text:?} is neither a number nor in the image's /etc/passwd"),
            ));
        }
    };
    let gid = match (group_text, &entry) {
        (Some(text), _) => find_group("user", text, group)?,
        (None, Some(user)) => user.gid,
        (None, None) => 0,
    };
    let mut additional_gids = Vec::new();
    if let (None, Some(user)) = (group_text, &entry) {
        let listed = |g: &Group<'_>| g.members.split(',').any(|member| member == user.name);
        additional_gids.extend(groups(group).filter(listed).map(|g| g.gid));
    }
    for text in more {
        additional_gids.push(find_group("group_add", text, group)?);
    }
    additional_gids.sort_unstable();
    additional_gids.dedup();
    let home = entry.map(|user| user.home.to_owned()).filter(|home| home.starts_with('/'));
    Ok(Identity { uid, gid, additional_gids, home })
}

fn find_user<'a>(text: &str, passwd: &'a str) -> Option<User<'a>> {
    let by_name = users(passwd).find(|user| user.name == text);
    by_name.or_else(|| id(text).and_then(|uid| users(passwd).find(|user| user.uid == uid)))
}

fn find_group(field: &str, text: &str, group: &str) -> Result<u32, Error> {
    let by_name = groups(group).find(|g| g.name == text).map(|g| g.gid);
    by_name
        .or_else(|| id(text))
        .ok_or_else(|| Error::new(field, format!("group {text:?} is neither a number nor in the image's /etc/group")))
}

/// A whole decimal id. `u32::MAX` is the kernel's "no change" and nobody's id.
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (id(fields.next()?)?, id(fields.next()?)?);
        let (_gecos, home) = (fields.next(), fields.next().unwrap_or(""));
        Some(User { name, uid, gid, home }).filter(|user| !user.name.is_empty())
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let gid = id(fields.next()?)?;
        Some(Group { name, gid, members: fields.next().unwrap_or("") }).filter(|g| !g.name.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:44::/var/www:\nbroken:x:abc:0\n1000:x:7:7::/odd:\n";
    const GROUP: &str = "root:x:0:\nwww:x:44:\naudio:x:29:other,www\nvideo:x:30:wwww\n";

    fn ids(spec: &str) -> Result<(u32, u32, Vec<u32>), Error> {
        resolve(spec, &[], PASSWD, GROUP).map(|i| (i.uid, i.gid, i.additional_gids))
    }

    #[test]
    fn names_and_numbers_as_docker_takes_them() {
        assert_eq!(ids(""), Ok((0, 0, vec![])));
        assert_eq!(ids("www"), Ok((33, 44, vec![29])));
        assert_eq!(ids("33"), Ok((33, 44, vec![29])));
        assert_eq!(ids("www:audio"), Ok((33, 29, vec![])));
        assert_eq!(ids("www:"), Ok((33, 44, vec![29])));
        assert_eq!(ids("5000"), Ok((5000, 0, vec![])));
        assert_eq!(ids("5000:6000"), Ok((5000, 6000, vec![])));
        assert_eq!(ids(":audio"), Ok((0, 29, vec![])));
        // A user may have digits for a name; the name is found first.
        assert_eq!(ids("1000"), Ok((7, 7, vec![])));
    }

    #[test]
    fn what_is_no_number_is_never_root() {
        for bad in ["1x", "0x0", "-1", "+0", " 0", "0 ", "4294967295", "4294967296", "١", "broken", "nobody", "0:1x"] {
            assert!(ids(bad).is_err(), "{bad:?} resolved to {:?}", ids(bad));
        }
        // How a lax parser falls for it: digits up to the first other character.
        let lax =
            |text: &str| text.bytes().take_while(u8::is_ascii_digit).fold(0_u32, |n, b| n * 10 + u32::from(b - b'0'));
        assert_eq!(lax("0x1"), 0);
    }

    #[test]
    fn more_groups_are_added() {
        let more = ["audio".to_owned(), "1234".to_owned()];
        assert_eq!(resolve("0", &more, PASSWD, GROUP).unwrap().additional_gids, [29, 1234]);
        assert!(resolve("0", &["nogroup".to_owned()], PASSWD, GROUP).is_err());
    }

    proptest! {
        #[test]
        fn hostile_files_and_names_give_an_id_or_an_error(spec in ".{0,40}", passwd in "(.{0,30}\n){0,8}", group in ".{0,200}") {
            let _ = resolve(&spec, &[], &passwd, &group);
        }

        #[test]
        fn only_root_s_own_names_are_root(spec in "[a-z0-9x+ -]{1,8}") {
            if let Ok(identity) = resolve(&spec, &[], PASSWD, GROUP)
                && identity.uid == 0 {
                prop_assert!(spec == "root" || spec.bytes().all(|b| b == b'0'));
            }
        }
    }
}
