//! Input that must be refused at build time, each with one clear sentence. Every case begins with input that is accepted, so
//! that it can't pass by failing for another reason.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Project, copy_tree, fixtures, flip_bit};

fn one_container(image: &str) -> String {
    format!("name = \"bad\"\n[containers.one]\nimage = \"{image}\"\ncommand = [\"true\"]\n")
}

/// A project whose image is a copy of a test image that the test may damage.
fn with_image(transport: &str, name: &str) -> (Project, PathBuf) {
    let project = Project::new(&one_container(&format!("{transport}:image")));
    let from = fixtures().join(name);
    let image = project.path("image");
    if from.is_dir() {
        copy_tree(&from, &image)
    } else {
        fs::copy(from, &image).map(drop).unwrap()
    }
    project.build();
    fs::remove_dir_all(project.path("out")).unwrap();
    (project, image)
}

/// The largest blob of a layout: its one layer.
fn layer(layout: &Path) -> PathBuf {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    blobs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

fn truncate_by_half(path: &Path) {
    let length = fs::metadata(path).unwrap().len();
    fs::File::options().write(true).open(path).unwrap().set_len(length / 2).unwrap();
}

#[test]
fn truncated_oci_archive() {
    let (project, image) = with_image("oci-archive", "busybox.oci.tar");
    truncate_by_half(&image);
    project.refused(&["image"]);
}

#[test]
fn truncated_docker_archive() {
    let (project, image) = with_image("docker-archive", "busybox.docker.tar");
    truncate_by_half(&image);
    project.refused(&["image"]);
}

#[test]
fn archive_that_is_no_archive() {
    let (project, image) = with_image("oci-archive", "busybox.oci.tar");
    fs::write(image, "not a tar archive\n").unwrap();
    project.refused(&["image"]);
}

#[test]
fn layer_with_a_wrong_digest() {
    for name in ["busybox", "busybox-zstd", "busybox-plain"] {
        let (project, image) = with_image("oci", name);
        let layer = layer(&image);
        let middle = fs::metadata(&layer).unwrap().len() as usize / 2;
        flip_bit(&layer, middle);
        project.refused(&["sha256:"]);
    }
}

#[test]
fn manifest_with_a_wrong_digest() {
    let (project, image) = with_image("oci", "busybox");
    let index: serde_json::Value = serde_json::from_slice(&fs::read(image.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let manifest = image.join("blobs").join(digest.replace(':', "/"));
    let mut bytes = fs::read(&manifest).unwrap();
    // White space: still the same JSON, no longer the same digest.
    bytes.push(b'\n');
    fs::write(manifest, bytes).unwrap();
    project.refused(&["sha256:"]);
}

#[test]
fn layer_that_is_absent() {
    let (project, image) = with_image("oci", "busybox");
    fs::remove_file(layer(&image)).unwrap();
    project.refused(&["sha256:"]);
}

#[test]
fn image_that_is_absent() {
    let (project, image) = with_image("oci", "busybox");
    fs::remove_dir_all(&image).unwrap();
    project.refused(&["image"]);
}

#[test]
fn unknown_key() {
    let (project, _) = with_image("oci", "busybox");
    let declaration = format!("{}restrat = \"always\"\n", one_container("oci:image"));
    fs::write(project.path("appliance.toml"), declaration).unwrap();
    project.refused(&["appliance.toml:5:1", "restrat", "restart"]);
}

#[test]
fn missing_kernel() {
    let (project, _) = with_image("oci", "busybox");
    let declaration =
        format!("{}[kernel]\nimage = \"no/vmlinuz\"\nmodules = \"no/modules\"\n", one_container("oci:image"));
    fs::write(project.path("appliance.toml"), declaration).unwrap();
    project.refused(&["no/vmlinuz"]);
}

#[test]
fn missing_module() {
    let (project, _) = with_image("oci", "busybox");
    // Debian's own kernel, as the first build unpacked it, with a module directory that has none of what it needs.
    let kernel = project.build().join("vmlinuz");
    fs::rename(&kernel, project.path("vmlinuz")).unwrap();
    fs::remove_dir_all(project.path("out")).unwrap();
    fs::create_dir(project.path("modules")).unwrap();
    for name in ["modules.dep", "modules.builtin", "modules.order", "modules.alias"] {
        fs::write(project.path("modules").join(name), "").unwrap();
    }
    let declaration = format!("{}[kernel]\nimage = \"vmlinuz\"\nmodules = \"modules\"\n", one_container("oci:image"));
    fs::write(project.path("appliance.toml"), declaration).unwrap();
    project.refused(&["erofs"]);
}
