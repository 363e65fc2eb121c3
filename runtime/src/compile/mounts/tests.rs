use super::*;
use crate::compile::Bundle;

fn mounts<'a>(base: &'a Base<'a>, in_user_namespace: bool) -> Mounts<'a> {
    Mounts {
        base,
        root: Some("/bundle/rootfs"),
        in_user_namespace,
        container_ids: IdMap::default(),
        label: None,
        propagation: Propagation::Private,
    }
}

fn one(json: &str) -> Result<Mount, Error> {
    let base = Base { bundle: Some(Bundle { path: "/bundle", id: "c" }), volumes: &[] };
    let mounts = mounts(&base, true);
    mounts.mount(&serde_json::from_str(json).unwrap(), &[])
}

#[test]
fn destinations_are_cleaned_and_begin_at_the_root() {
    assert_eq!(
        (clean("a/./b//c/.."), clean("../../x"), clean("/"), clean("/dev/")),
        ("/a/b".into(), "/x".into(), "/".into(), "/dev".into())
    );
    assert_eq!(one(r#"{"destination":"data","type":"tmpfs"}"#).unwrap().target, "/data");
}

#[test]
fn a_relative_source_lies_in_the_bundle() {
    let mount = one(r#"{"destination":"/x","source":"files/x","options":["rbind"]}"#).unwrap();
    assert_eq!(
        mount.source,
        MountSource::Bind {
            path: "/bundle/files/x".to_owned(),
            recursive: true,
            idmap: IdMapping::None,
            links: EndLinks::Followed,
            create: None
        }
    );
}

#[test]
fn unknown_options_are_the_filesystem_s() {
    let mount =
        one(r#"{"destination":"/x","type":"tmpfs","source":"shm","options":["size=4k","sync","ro","mode=700"]}"#);
    let MountSource::Filesystem { fstype, device, options, .. } = mount.unwrap().source else { panic!() };
    assert_eq!((fstype.as_str(), device.as_deref()), ("tmpfs", Some("shm")));
    assert_eq!(options, ["sync", "size=4k", "mode=700"]);
}

#[test]
fn options_that_a_bind_mount_has_not_are_named() {
    let entry = |json: &str| serde_json::from_str::<SpecMount>(json).unwrap();
    let typo = entry(r#"{"destination":"/x","source":"/y","options":["bind","ro","nosuuid","mode=1"]}"#);
    let other = entry(r#"{"destination":"/z","type":"tmpfs","options":["mode=1"]}"#);
    let warnings = warnings(&[typo.clone(), other], "/bundle/rootfs");
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].contains("mounts[/x]") && warnings[0].contains("nosuuid"), "{warnings:?}");
    // An appliance's mounts are written by nobody but its own build: there it is a mistake.
    let base = Base { bundle: None, volumes: &[] };
    let mounts = mounts(&base, false);
    assert!(mounts.mount(&typo, &[]).unwrap_err().to_string().contains("nosuuid"));
}

#[test]
fn mappings_of_its_own_are_kept() {
    let mount = one(r#"{"destination":"/x","source":"/y","options":["bind","ridmap"],
            "uidMappings":[{"containerID":0,"hostID":1000,"size":1}],"gidMappings":[{"containerID":0,"hostID":1000,"size":1}]}"#);
    let MountSource::Bind { idmap: IdMapping::Own { ids, recursive: true }, .. } = mount.unwrap().source else {
        panic!()
    };
    assert_eq!((ids.uids[0].inside, ids.uids[0].outside), (0, 1000));
}

#[test]
fn mappings_may_be_given_by_the_option() {
    let of = |more: &str, option: &str| {
        let mount = format!(r#"{{"destination":"/x","source":"/y","options":["bind","{option}"]{more}}}"#);
        one(&mount).map(|mount| mount.source)
    };
    let own = |source| match source {
        MountSource::Bind { idmap: IdMapping::Own { ids, recursive }, .. } => (ids.uids[0].outside, recursive),
        other => panic!("{other:?}"),
    };
    assert_eq!(own(of("", "idmap=uids=0-7-1;gids=0-8-1").unwrap()), (7, false));
    assert_eq!(own(of("", "ridmap=uids=0-7-1;gids=0-8-1").unwrap()), (7, true));
    let properties = r#","uidMappings":[{"containerID":0,"hostID":9,"size":1}],"gidMappings":[{"containerID":0,"hostID":9,"size":1}]"#;
    assert_eq!(
        own(of(properties, "idmap=uids=0-7-1;gids=0-8-1").unwrap()),
        (9, false),
        "the specification's own come first"
    );
    assert!(of("", "idmap=uids=0-7-1").unwrap_err().to_string().contains("mounts[/x]"));
}

#[test]
fn existing_mounts_change() {
    let source = |json: &str| one(json).unwrap().source;
    let remount = source(r#"{"destination":"/","options":["remount","ro","size=1m"]}"#);
    assert_eq!(remount, MountSource::Existing { options: Some(vec!["size=1m".to_owned()]) });
    let bind = source(r#"{"destination":"/","type":"none","options":["remount","bind","ro"]}"#);
    assert_eq!(bind, MountSource::Existing { options: None });
    assert_eq!(source(r#"{"destination":"/","options":["rshared"]}"#), MountSource::Existing { options: None });
}

#[test]
fn what_makes_no_sense_is_an_error_with_its_destination() {
    for (json, word) in [
        (r#"{"destination":"/x","options":["bind"]}"#, "source"),
        (r#"{"destination":"/x","type":"none"}"#, "type"),
        (r#"{"destination":"/x","type":"tmpfs","options":["idmap"]}"#, "idmap"),
        (r#"{"destination":"/x","type":"tmpfs","options":["dest-nofollow"]}"#, "for bind mounts"),
        (r#"{"destination":"/x","source":"/y","options":["bind","copy-symlink","src-nofollow"]}"#, "neither"),
        (r#"{"destination":"/x","source":"/y","options":["bind","dest-nofollow","copy-symlink"]}"#, "neither"),
        (r#"{"destination":"/x","type":"proc","options":["tmpcopyup"]}"#, "tmpcopyup"),
        (r#"{"destination":"/x","type":"tmpfs","options":["remount","tmpcopyup"]}"#, "tmpcopyup"),
        (
            r#"{"destination":"/x","type":"tmpfs","uidMappings":[{"containerID":0,"hostID":1,"size":1}],
                "gidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
            "mappings are for bind mounts",
        ),
        (
            r#"{"destination":"/x","source":"/y","options":["bind"],"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
            "gid",
        ),
    ] {
        let error = one(json).unwrap_err().to_string();
        assert!(error.contains("mounts[/x]") && error.contains(word), "{error}");
    }
}

#[test]
fn what_is_in_the_root_has_its_place_there() {
    let place = |path: &str| in_root("/bundle/./rootfs/", path);
    assert_eq!(place("/bundle/rootfs//a/../b").as_deref(), Some("/b"));
    assert_eq!(place("/bundle/rootfs").as_deref(), Some("/"));
    assert_eq!((place("/bundle/rootfs-more/b"), place("/bundle"), place("/")), (None, None, None));
    assert_eq!(in_root("/", "/b"), None);
    let target = one(r#"{"destination":"/bundle/rootfs/b","type":"tmpfs"}"#).unwrap().target;
    assert_eq!(target, "/b");
}

#[test]
fn a_source_in_the_root_is_meant_with_what_is_mounted_there() {
    let base = Base { bundle: Some(Bundle { path: "/bundle", id: "c" }), volumes: &[] };
    let last = |first: &str, more: &str| {
        let bind = format!(r#"{{"destination":"/x","source":"rootfs/a/b","options":["rbind"{more}]}}"#);
        let list: Vec<SpecMount> = [first, &bind].map(|json| serde_json::from_str(json).unwrap()).to_vec();
        mounts(&base, true).all(&list).unwrap().pop().unwrap().source
    };
    let inside = MountSource::Inside { path: "/a/b".to_owned(), recursive: true };
    for target in ["/a", "/a/b", "/"] {
        assert_eq!(last(&format!(r#"{{"destination":"{target}","type":"tmpfs"}}"#), ""), inside, "{target}");
    }
    // On which nothing is mounted, or not yet; and what must be mapped outside.
    for (target, more) in [("/a/b/c", ""), ("/ab", ""), ("/x", ""), ("/a", r#","idmap""#)] {
        let source = last(&format!(r#"{{"destination":"{target}","type":"tmpfs"}}"#), more);
        assert!(
            matches!(&source, MountSource::Bind { path, .. } if path == "/bundle/rootfs/a/b"),
            "{target}: {source:?}"
        );
    }
    let existing = last(r#"{"destination":"/","options":["rshared"]}"#, "");
    assert!(matches!(existing, MountSource::Bind { .. }), "{existing:?}");
}

#[test]
fn nothing_is_shared_with_the_machine_unless_the_root_is() {
    const PRIVATE: u64 = libc::MS_PRIVATE | libc::MS_REC;
    const SLAVE: u64 = libc::MS_SLAVE | libc::MS_REC;
    const SHARED: u64 = libc::MS_SHARED | libc::MS_REC;
    let base = Base { bundle: Some(Bundle { path: "/bundle", id: "c" }), volumes: &[] };
    let changes = |user: bool, root: Propagation, words: &str| {
        let json = format!(r#"{{"destination":"/x","source":"/y","options":["rbind"{words}]}}"#);
        let mounts = Mounts { propagation: root, ..mounts(&base, user) };
        let mount = mounts.mount(&serde_json::from_str(&json).unwrap(), &[]).unwrap();
        mount.flags.propagation.into_iter().map(u64::from).collect::<Vec<_>>()
    };
    assert!(changes(false, Propagation::Private, "").is_empty());
    assert_eq!(changes(false, Propagation::Slave, ""), [SLAVE]);
    assert_eq!(changes(false, Propagation::Private, r#","rprivate""#), [PRIVATE]);
    assert_eq!(changes(false, Propagation::Private, r#","rshared""#), [SLAVE, SHARED]);
    assert_eq!(
        changes(false, Propagation::Private, r#","private","shared""#),
        [SLAVE, libc::MS_PRIVATE, libc::MS_SHARED]
    );
    assert_eq!(changes(false, Propagation::Shared, r#","rshared""#), [SHARED]);
    assert_eq!(changes(true, Propagation::Shared, r#","rshared""#), [SLAVE, SHARED]);
}

#[test]
fn a_label_is_of_the_kind_that_the_annotation_says() {
    let with = |linux: &str, kind: &str| {
        let linux: Linux = serde_json::from_str(linux).unwrap();
        label(&linux, Some(&[(LABEL_KIND.to_owned(), kind.to_owned())].into()))
    };
    let labelled = r#"{"mountLabel":"system_u:object_r:container_file_t:s0:c1,c2"}"#;
    for (kind, option) in [("", "context="), ("context", "context="), ("rootcontext", "rootcontext=")] {
        let expected = format!("{option}system_u:object_r:container_file_t:s0:c1,c2");
        assert_eq!(with(labelled, kind), Ok(Some(expected)));
    }
    assert_eq!(with("{}", "fscontext"), Ok(None));
    let error = with(labelled, "size=1").unwrap_err().to_string();
    assert!(
        error.contains("annotations[run.oci.mount_context_type]: \"size=1\" is none of context, fscontext"),
        "{error}"
    );
}
