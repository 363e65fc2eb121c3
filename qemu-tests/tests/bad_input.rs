//! Input that must be refused at build time, each with one clear sentence. Every case begins with input that is accepted, so
//! that it can't pass by failing for another reason.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Project, copy_tree, fixtures, flip_bit, judge};

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
    project.build_without_disk();
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
    project.refused(&["container one: image: ", "cut off"]);
}

#[test]
fn truncated_docker_archive() {
    let (project, image) = with_image("docker-archive", "busybox.docker.tar");
    truncate_by_half(&image);
    project.refused(&["container one: image: ", "cut off"]);
}

#[test]
fn archive_that_is_no_archive() {
    let (project, image) = with_image("oci-archive", "busybox.oci.tar");
    fs::write(image, "not a tar archive\n").unwrap();
    project.refused(&["container one: image: ", "too short for a tar archive"]);
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
    // As long as before, and JSON as before.
    let altered = fs::read_to_string(&manifest).unwrap().replacen("\"schemaVersion\":2", "\"schemaVersion\":3", 1);
    fs::write(manifest, altered).unwrap();
    project.refused(&["sha256:", "damaged"]);
}

#[test]
fn layer_that_is_absent() {
    let (project, image) = with_image("oci", "busybox");
    let layer = layer(&image);
    fs::remove_file(&layer).unwrap();
    project.refused(&[layer.file_name().unwrap().to_str().unwrap(), "No such file"]);
}

#[test]
fn image_that_is_absent() {
    let (project, image) = with_image("oci", "busybox");
    fs::remove_dir_all(&image).unwrap();
    project.refused(&["container one: ", "nothing is at `image`"]);
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
    project.refused(&["no/vmlinuz", "No such file"]);
}

/// A kernel whose modules lack the filesystem that the system image needs.
#[test]
fn missing_module() {
    let (project, _) = with_image("oci", "busybox");
    let (image, modules) = cached_kernel();
    copy_tree(&modules, &project.path("modules"));
    let declaration =
        format!("{}[kernel]\nimage = \"{}\"\nmodules = \"modules\"\n", one_container("oci:image"), image.display());
    fs::write(project.path("appliance.toml"), declaration).unwrap();
    project.build_without_disk();
    fs::remove_dir_all(project.path("out")).unwrap();

    fs::remove_dir_all(project.path("modules/kernel/fs/erofs")).unwrap();
    project.refused(&["module erofs", "neither in "]);
}

/// The distribution's kernel and its modules, as the build before has unpacked them.
fn cached_kernel() -> (PathBuf, PathBuf) {
    let find = |pattern: &str| {
        let kernels = support::cache().join("garboard/kernels");
        let found = judge("sh", ["-c", &format!("ls -d {}/*/{pattern} | tail -n 1", kernels.display())]);
        PathBuf::from(found.trim())
    };
    (find("boot/vmlinuz-*"), find("lib/modules/*"))
}
