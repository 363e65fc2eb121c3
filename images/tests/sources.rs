//! Every kind of source, as written by skopeo from one layout, gives the same image.

mod common;

use std::path::Path;

use common::*;
use garboard_images::{Limits, source};
use serde_json::{Value, json};

/// A layout with three layers. None is zstd: skopeo has no Docker form of those.
fn sample(dir: &Path) {
    let layers = [
        gzipped(&tarball(&[dir_entry("etc"), file("etc/passwd", "root:x:0:0::/:\n"), file("big", vec![3; 200_000])])),
        gzipped(&tarball(&[file("etc/.wh.passwd", ""), file("etc/group", "root:x:0:\n")])),
        plain(&tarball(&[file("top", "top")])),
    ];
    write_layout(&dir.join("layout"), &layers);
}

fn dir_entry(name: &str) -> Entry {
    dir(name)
}

/// The image's bytes, and its configuration.
fn bake_from(dir: &Path, reference: &str) -> (Vec<u8>, Vec<u8>) {
    let image = source::open(reference, dir).unwrap_or_else(|e| panic!("{reference}: {e}"));
    let scratch = tempfile::tempdir().unwrap();
    let mut store = garboard_images::store::Store::new(scratch.path()).unwrap();
    let mut read = 0;
    for n in 0..image.layers.len() {
        store.add_layer(&image, n, &mut |bytes| read += bytes).unwrap_or_else(|e| panic!("{reference}: {e}"));
    }
    assert_eq!(read, image.layers.iter().map(|layer| layer.size).sum::<u64>(), "{reference}");
    let path = scratch.path().join("system.erofs");
    store.finish(&mut std::fs::File::create_new(&path).unwrap()).unwrap();
    (std::fs::read(path).unwrap(), image.config_json)
}

fn skopeo(dir: &Path, from: &str, to: &str) {
    let (from, to) = (from.replace("DIR", dir.to_str().unwrap()), to.replace("DIR", dir.to_str().unwrap()));
    run("skopeo", &["--insecure-policy", "copy", "-q", &from, &to]);
}

#[test]
fn all_kinds_give_the_same_image() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    sample(at);
    let (wanted, config) = bake_from(at, "layout");
    skopeo(at, "oci:DIR/layout:latest", "oci:DIR/copied:v1");
    skopeo(at, "oci:DIR/layout:latest", "oci-archive:DIR/archive.tar:v1");
    skopeo(at, "oci:DIR/layout:latest", "docker-archive:DIR/docker.tar:example.org/thing:1.0");
    run("gzip", &["-k", at.join("docker.tar").to_str().unwrap()]);
    run("gzip", &["-k", at.join("archive.tar").to_str().unwrap()]);
    for reference in [
        "oci:layout:latest",
        "layout:latest",
        "copied:v1",
        "copied",
        "archive.tar",
        "archive.tar:v1",
        "oci-archive:archive.tar:v1",
        "archive.tar.gz",
        "docker.tar",
        "docker.tar:example.org/thing:1.0",
        "docker-archive:docker.tar",
        "docker-archive:docker.tar.gz:example.org/thing:1.0",
        &format!("oci-archive:{}", at.join("archive.tar").display()),
    ] {
        let (found, found_config) = bake_from(at, reference);
        assert!(found == wanted, "{reference}");
        // skopeo writes Docker's form of the configuration into Docker archives.
        if !reference.contains("docker") {
            assert_eq!(found_config, config, "{reference}");
        }
    }
}

/// By any compression that `skopeo` or a person puts on an archive, or with its name.
#[test]
fn archives_are_compressed_in_known_ways_only() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    sample(at);
    let (wanted, _) = bake_from(at, "layout");
    skopeo(at, "oci:DIR/layout:latest", "oci-archive:DIR/archive.tar:v1");
    let plain = std::fs::read(at.join("archive.tar")).unwrap();
    // As written by pzstd: a skippable frame before the one that counts.
    let skippable =
        [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..], &zstd::encode_all(&plain[..], 1).unwrap()].concat();
    std::fs::write(at.join("skippable.tar.zst"), skippable).unwrap();
    assert!(bake_from(at, "oci-archive:skippable.tar.zst").0 == wanted);
    for (program, name) in [("xz", "archive.tar.xz"), ("bzip2", "archive.tar.bz2")] {
        run(program, &["-k", at.join("archive.tar").to_str().unwrap()]);
        let error = source::open(&format!("oci-archive:{name}"), at).err().unwrap().to_string();
        assert!(error.contains(name) && error.contains(&format!("compressed by {program}, ")), "{error}");
    }
}

/// The older form that `docker save` wrote: a directory per layer, some of them links to others, an id for the image.
#[test]
fn docker_archives_of_the_older_form() {
    let dir = tempfile::tempdir().unwrap();
    let tars = [tarball(&[file("a", "a")]), tarball(&[file("b", "b")])];
    let diff_ids: Vec<_> = [0, 1, 0].iter().map(|&n| garboard_images::Digest::of(&tars[n]).to_string()).collect();
    let config =
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } })
            .to_string();
    let config_name = format!("{}.json", garboard_images::Digest::of(config.as_bytes()).hex());
    let manifest = |config: &str| {
        json!([{ "Config": config, "RepoTags": ["x:1"], "Layers": ["l1/layer.tar", "l2/layer.tar", "l3/layer.tar"] }])
            .to_string()
    };
    let write = |name: &str, entries: &[Entry]| std::fs::write(dir.path().join(name), tarball(entries)).unwrap();
    let common = [
        common::dir("l1"),
        file("l1/VERSION", "1.0"),
        file("l1/layer.tar", &tars[0]),
        file("l2/layer.tar", &tars[1]),
        symlink("l3/layer.tar", "../l1/layer.tar"),
    ];
    let archive = |more: &[Entry]| [&common[..], more].concat();
    write("old.tar", &archive(&[file(&config_name, &config), file("manifest.json", manifest(&config_name))]));
    let baked = bake_reference(
        tempfile::tempdir().unwrap(),
        dir.path().join("old.tar").to_str().unwrap(),
        &Limits::default(),
        None,
    )
    .unwrap();
    // The lowest layer is the topmost one again.
    assert_eq!(baked.lowers.len(), 2);
    assert_eq!(baked.top()[&b"a"[..]].data, b"a");

    let refused = |entries: &[Entry], what: &str| {
        write("bad.tar", entries);
        let error = bake_reference(
            tempfile::tempdir().unwrap(),
            dir.path().join("bad.tar").to_str().unwrap(),
            &Limits::default(),
            None,
        );
        let text = error.err().expect("it was accepted").to_string();
        assert!(text.contains(what), "{what}: {text}");
    };
    refused(
        &archive(&[file(&config_name, config.clone() + " "), file("manifest.json", manifest(&config_name))]),
        "expected sha256",
    );
    refused(&archive(&[file("manifest.json", manifest(&config_name))]), "it has no file");
    refused(&archive(&[file(&config_name, &config)]), "neither an OCI archive");
    refused(&archive(&[file("manifest.json", manifest("../../etc/passwd"))]), "it has no file");
    refused(
        &[file("manifest.json", manifest("c")), file("c", &config), symlink("l1/layer.tar", "layer.tar")],
        "more than 16 links",
    );
    // A layer that isn't the one the configuration names.
    let swapped =
        [file("l2/layer.tar", &tars[0]), file(&config_name, &config), file("manifest.json", manifest(&config_name))];
    refused(&archive(&swapped), "expected sha256");
    // Cut off.
    let whole = std::fs::read(dir.path().join("old.tar")).unwrap();
    for cut in [100, 600, 3000, whole.len() - 1024 - 600] {
        std::fs::write(dir.path().join("cut.tar"), &whole[..cut]).unwrap();
        assert!(source::open("cut.tar", dir.path()).is_err(), "{cut}");
    }
    std::fs::write(dir.path().join("cut.tar.gz"), &gzip(&whole)[..1000.min(gzip(&whole).len() - 9)]).unwrap();
    assert!(source::open("cut.tar.gz", dir.path()).is_err());
}

/// Rewrites a layout's index.
fn edit_index(layout: &Path, edit: impl FnOnce(&mut Value)) {
    let path = layout.join("index.json");
    let mut index = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut index);
    std::fs::write(path, index.to_string()).unwrap();
}

#[test]
fn platforms_and_tags() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    sample(dir.path());
    let open = |reference: &str| source::open(reference, dir.path());
    let digest = open("layout").unwrap().digest;
    let text = open("layout:none").unwrap_err().to_string();
    assert!(text.contains("no tag `none`") && text.contains("latest"), "{text}");

    // An index within the index, of which ours is one entry; attestations lie beside it.
    edit_index(&layout, |index| {
        let mut ours = index["manifests"][0].clone();
        ours["platform"] = json!({ "os": "linux", "architecture": "amd64" });
        let mut arm = put_blob(&layout, b"{}");
        arm["mediaType"] = ours["mediaType"].clone();
        arm["platform"] = json!({ "os": "linux", "architecture": "arm64" });
        let mut newer = arm.clone();
        newer["platform"] = json!({ "os": "linux", "architecture": "amd64", "variant": "v3" });
        let mut attestation = arm.clone();
        attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
        let put_index = |manifests: Value, tag: &str| {
            let inner = json!({ "schemaVersion": 2, "manifests": manifests });
            let mut entry = put_blob(&layout, inner.to_string().as_bytes());
            entry["mediaType"] = "application/vnd.oci.image.index.v1+json".into();
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
            entry
        };
        let several = put_index(json!([attestation, arm, newer, ours]), "several");
        let other = put_index(json!([arm]), "arm");
        index["manifests"] = json!([several, other]);
    });
    assert_eq!(open("layout:several").unwrap().digest, digest);
    let text = open("layout:arm").unwrap_err().to_string();
    assert!(text.contains("linux/arm64"), "{text}");
    let text = open("layout").unwrap_err().to_string();
    assert!(text.contains("several images") && text.contains("arm"), "{text}");

    edit_index(&layout, |index| index["manifests"] = json!([]));
    assert!(open("layout").unwrap_err().to_string().contains("empty"));
    std::fs::write(layout.join("index.json"), "[".repeat(100_000)).unwrap();
    assert!(open("layout").unwrap_err().to_string().contains("malformed index"));
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    sample(dir.path());
    let manifest_path =
        |index: &Value| layout.join("blobs/sha256").join(&index["manifests"][0]["digest"].as_str().unwrap()[7..]);
    let replace = |edit: &dyn Fn(&mut Value, &mut Value)| {
        edit_index(&layout, |index| {
            let mut manifest: Value = serde_json::from_slice(&std::fs::read(manifest_path(index)).unwrap()).unwrap();
            let config_name = &manifest["config"]["digest"].as_str().unwrap()[7..];
            let mut config: Value =
                serde_json::from_slice(&std::fs::read(layout.join("blobs/sha256").join(config_name)).unwrap()).unwrap();
            edit(&mut manifest, &mut config);
            let config = put_blob(&layout, config.to_string().as_bytes());
            manifest["config"]["digest"] = config["digest"].clone();
            manifest["config"]["size"] = config["size"].clone();
            let entry = put_blob(&layout, manifest.to_string().as_bytes());
            index["manifests"][0]["digest"] = entry["digest"].clone();
            index["manifests"][0]["size"] = entry["size"].clone();
        });
        source::open("layout", dir.path()).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(replace(&|_, _| {}), Ok(()), "control");
    let refused = |what: &str, edit: &dyn Fn(&mut Value, &mut Value)| {
        sample(dir.path());
        let text = replace(edit).unwrap_err();
        assert!(text.contains(what), "{what}: {text}");
    };
    refused("linux/arm64", &|_, config| config["architecture"] = "arm64".into());
    refused("windows/amd64", &|_, config| config["os"] = "windows".into());
    refused("not a sha256 digest", &|_, config| config["rootfs"]["diff_ids"] = json!(["sha256:00"]));
    refused("sha512", &|_, config| config["rootfs"]["diff_ids"] = json!(["sha512:00"]));
    refused("0 diff ids", &|_, config| config["rootfs"]["diff_ids"] = json!([]));
    refused("malformed configuration", &|_, config| *config = json!([]));
    refused("the limit `layers`", &|manifest, _| {
        let layer = manifest["layers"][0].clone();
        manifest["layers"] = std::iter::repeat_n(layer, 501).collect();
    });
    sample(dir.path());
    let encrypted = replace(&|manifest, _| {
        manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted".into()
    });
    assert!(encrypted.unwrap_err().contains("no tar"));
}

/// The same layer above different ones: its directories without an entry look like what they cover, for each image.
#[test]
fn one_layer_over_different_ones() {
    let dir = tempfile::tempdir().unwrap();
    let upper = gzipped(&tarball(&[file("data/file", "f")]));
    for (name, mode) in [("one", 0o700), ("two", 0o755), ("three", 0o700)] {
        let lower = gzipped(&tarball(&[common::dir("data").mode(mode).owner(9, 9), file(name, "")]));
        write_layout(&dir.path().join(name), &[lower, upper.clone()]);
    }
    let mut store = garboard_images::store::Store::new(dir.path()).unwrap();
    let images = ["one", "two", "three"].map(|name| source::open(name, dir.path()).unwrap());
    let tops =
        images.each_ref().map(|image| (0..2).map(|n| store.add_layer(image, n, &mut |_| {}).unwrap()).last().unwrap());
    assert_ne!(tops[0], tops[1]);
    assert_eq!(tops[0], tops[2]);
    let modes = images.each_ref().map(|image| {
        let seen = store.view(image).unwrap().metadata("/data").unwrap().unwrap();
        (seen.mode, seen.uid)
    });
    assert_eq!(modes, [(0o700, 9), (0o755, 9), (0o700, 9)]);
    // A layer whose lower ones aren't there is an error.
    let mut empty = garboard_images::store::Store::new(dir.path()).unwrap();
    assert!(empty.add_layer(&images[0], 1, &mut |_| {}).unwrap_err().to_string().contains("not added"));
    assert!(empty.view(&images[0]).is_err());
}

/// Every layer is compared once with all below it, name by name: the square of their number is a second, the cube would be hours.
#[test]
fn many_layers_of_deep_directories_take_little_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut layers = vec![plain(&tarball(&[common::dir("d").mode(0o700).owner(9, 9)]))];
    layers.extend((0..80).map(|n| plain(&tarball(&[file("d/".repeat(500) + &format!("f{n}"), "")]))));
    write_layout(&dir.path().join("layout"), &layers);
    let image = source::open("layout", dir.path()).unwrap();
    let mut store = garboard_images::store::Store::new(dir.path()).unwrap();
    let started = std::time::Instant::now();
    for n in 0..image.layers.len() {
        store.add_layer(&image, n, &mut |_| {}).unwrap();
        assert!(started.elapsed().as_secs() < 60, "layer {n}");
    }
    assert_eq!(store.lowers(&image).unwrap().len(), 81);
    let view = store.view(&image).unwrap();
    assert!(view.metadata(&("d/".repeat(500) + "f0")).unwrap().is_some());
    assert_eq!(view.metadata("d").unwrap().map(|seen| (seen.mode, seen.uid)), Some((0o700, 9)));
}

/// What is hidden by upper layers isn't there: names, and a whole directory.
#[test]
fn the_view_knows_an_empty_directory() {
    let dir = tempfile::tempdir().unwrap();
    let layers = [
        tarball(&[file("one/a", ""), file("one/b", ""), file("two/a", ""), file("three/a", ""), common::dir("four")]),
        tarball(&[
            file("one/.wh.a", ""),
            file("one/.wh.b", ""),
            file("two/.wh..wh..opq", ""),
            file("three/.wh.a", ""),
            file("three/b", ""),
        ]),
    ];
    write_layout(&dir.path().join("layout"), &layers.map(|tar| plain(&tar)));
    let image = source::open("layout", dir.path()).unwrap();
    let mut store = garboard_images::store::Store::new(dir.path()).unwrap();
    (0..2).for_each(|n| drop(store.add_layer(&image, n, &mut |_| {}).unwrap()));
    let view = store.view(&image).unwrap();
    let found = ["/one", "/two", "/three", "/four"].map(|path| view.has_entries(path).unwrap());
    assert_eq!(found, [false, false, true, false]);
}

#[test]
fn the_view_resolves_links_inside_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let layers = [
        tarball(&[
            file("usr/etc/passwd", "lower"),
            symlink("etc", "/usr/etc"),
            symlink("loop", "loop"),
            entry(b'6', "fifo"),
        ]),
        tarball(&[
            file("usr/etc/passwd", "upper").owner(7, 8),
            symlink("up", "../../../usr"),
            symlink("abs", "/etc/passwd"),
        ]),
    ];
    write_layout(&dir.path().join("layout"), &layers.map(|tar| plain(&tar)));
    let image = source::open("layout", dir.path()).unwrap();
    let mut store = garboard_images::store::Store::new(dir.path()).unwrap();
    (0..2).for_each(|n| drop(store.add_layer(&image, n, &mut |_| {}).unwrap()));
    let view = store.view(&image).unwrap();
    for path in ["/etc/passwd", "etc/passwd", "/abs", "/up/etc/passwd", "/etc/../../etc/./passwd", "//usr//etc/passwd"]
    {
        assert_eq!(view.read(path, 100).unwrap().as_deref(), Some(&b"upper"[..]), "{path}");
    }
    assert_eq!(view.metadata("/abs").unwrap().map(|seen| (seen.uid, seen.gid, seen.size)), Some((7, 8, 5)));
    for path in ["/none", "/etc/passwd/x", "/abs/..", "/fifo/x"] {
        assert_eq!(view.read(path, 100).ok().flatten(), None, "{path}");
    }
    assert!(view.read("/etc/passwd", 4).unwrap_err().to_string().contains("more than the 4"));
    assert!(view.read("/etc", 100).is_err());
    assert!(view.read("/fifo", 100).is_err());
    assert!(["/", "/etc", "/up"].iter().all(|path| view.has_entries(path).unwrap()));
    assert!(!["/none", "/etc/passwd", "/abs", "/fifo"].iter().any(|path| view.has_entries(path).unwrap()));
    assert!(view.metadata("/loop").unwrap_err().to_string().contains("40 symbolic links"));
}
