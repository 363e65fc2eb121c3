//! `checkpoint` and `restore` of a container whose root is made of layers, with a fake criu.

use std::fs;
use std::os::unix::fs::MetadataExt;

use libtest_mimic::Trial;

use crate::images::fake;
use crate::layers::{Bundle, DRIVERS, Who};
use crate::site::{shell, until};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![what_is_written_goes_with_the_images, layers_that_can_t_be_had_are_an_error]
}

/// A container that has written, and run on.
fn running(who: Who, driver: &str) -> (Bundle, String) {
    let script =
        "cd / && echo kept >new && rm layer && rm -r dir && mkdir dir && chmod 711 . && touch /tmp/ready && sleep 60";
    let mut bundle = Bundle::new(who, shell(script));
    let layer = bundle.layer();
    fs::write(layer.join("layer"), "").unwrap();
    fs::create_dir(layer.join("dir")).unwrap();
    fs::write(layer.join("dir/hidden"), "").unwrap();
    for path in ["layer", "dir", "dir/hidden"] {
        std::os::unix::fs::lchown(layer.join(path), Some(who.outside(0)), Some(who.outside(0))).unwrap();
    }
    bundle.annotate(Some(driver));
    let criu = fake(&bundle.site);
    let id = &bundle.site.id;
    bundle.site.ok(&["run", "--detach", id]);
    until("it has written", || bundle.site.run(&["exec", id, "/bin/sh", "-c", "test -e /tmp/ready"]).status == 0);
    (bundle, criu)
}

fn what_is_written_goes_with_the_images() {
    for who in [Who::Root, Who::RootMapped] {
        for driver in DRIVERS {
            let (bundle, criu) = running(who, driver);
            let (site, id) = (&bundle.site, bundle.site.id.as_str());
            let checkpoint = ["--criu", &criu, "checkpoint", "--leave-running", "--image-path", "images", id];
            if (who, driver) == (Who::RootMapped, "fuse-overlayfs") {
                let error = site.fails(&checkpoint);
                assert!(error.contains("org.garboard.layers.driver"), "{error}");
                assert_eq!(site.status(), "running");
                continue;
            }
            // Twice, as what the first has left isn't to come back.
            site.ok(&["exec", id, "/bin/touch", "/earlier"]);
            site.ok(&checkpoint);
            site.ok(&["exec", id, "/bin/rm", "/earlier"]);
            site.ok(&checkpoint);
            site.ok(&["exec", id, "/bin/touch", "/later"]);
            assert_eq!(fs::metadata(site.directory.join("images/layers")).unwrap().mode() & 0o777, 0o700);
            site.ok(&["delete", "--force", id]);
            bundle.assert_gone();
            // What criu has as the root.
            let root = bundle.place.display();
            let shown = site.directory.join("shown");
            let look = format!(
                "cd {root} && {{ cat new; ls -d earlier later layer; ls dir; stat -c '%a %u' .; stat -c %u new; }} >{0}.new 2>&1; \
                 mv {0}.new {0}; exec sleep 60",
                shown.display()
            );
            fs::write(site.directory.join("program"), look).unwrap();
            site.ok(&["--criu", &criu, "restore", "--detach", "--image-path", "images", id]);
            until("it has looked", || shown.exists());
            let owner = who.outside(0);
            let text = fs::read_to_string(&shown).unwrap();
            let lines: Vec<&str> = text.lines().filter(|line| !line.contains("No such file")).collect();
            assert_eq!(lines, ["kept", &format!("711 {owner}"), &owner.to_string()], "{who:?} {driver}: {text}");
            site.ok(&["delete", "--force", id]);
            bundle.assert_gone();
        }
    }
}

fn layers_that_can_t_be_had_are_an_error() {
    let (bundle, criu) = running(Who::Root, "overlay");
    let (site, id) = (&bundle.site, bundle.site.id.as_str());
    let images = site.directory.join("images");
    let checkpoint = ["--criu", &criu, "checkpoint", "--image-path", "images", id];
    fs::create_dir(&images).unwrap();
    // Where there is no room for them.
    fs::write(images.join("layers"), "").unwrap();
    let error = site.fails(&checkpoint);
    assert!(error.contains("images/layers: not a directory (ENOTDIR)"), "{error}");
    assert_eq!(site.status(), "running");
    fs::remove_file(images.join("layers")).unwrap();
    site.ok(&checkpoint);
    bundle.assert_gone();
    let restore = |why: &str| {
        let error = site.fails(&["--criu", &criu, "restore", "--image-path", "images", id]);
        assert!(error.contains(why), "{error}");
        bundle.assert_gone();
    };
    fs::write(images.join("layers/driver"), "aufs").unwrap();
    restore("there is no driver \"aufs\"");
    fs::write(images.join("layers/driver"), "overlay").unwrap();
    fs::rename(images.join("layers/upper"), images.join("upper")).unwrap();
    restore("layers/upper: no such file or directory (ENOENT)");
    fs::remove_dir_all(images.join("layers")).unwrap();
    restore("layers/driver: a root of layers");
}
