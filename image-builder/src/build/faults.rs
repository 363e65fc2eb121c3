//! What is wrong with the images of a declaration, at the keys that it is about.

use garboard_config::{Container, Fault};
use garboard_runtime::spec;

/// A fault of the container, at the key that `error` names if the declaration has it, else at its image.
pub fn of_container(container: &Container, error: &anyhow::Error) -> Fault {
    let field = error.chain().find_map(|cause| cause.downcast_ref::<spec::Error>()).map(|error| error.field.as_str());
    let path = |key: &str| vec!["containers".to_owned(), container.name.clone(), key.to_owned()];
    let keys = field.map(keys_of).unwrap_or_default().into_iter().chain(["image"]);
    let message = format!("container {}: {}", container.name, crate::sentence(error));
    Fault { about: keys.map(path).collect(), message }
}

/// The keys that a field of the options or of the runtime spec comes from, the likeliest first.
fn keys_of(field: &str) -> Vec<&str> {
    match field {
        "process.user" => vec!["user", "group_add"],
        "command" | "process.args" => vec!["command", "entrypoint"],
        "process.cwd" => vec!["working_dir"],
        "mounts" => vec!["volumes", "tmpfs", "devices"],
        field if field.starts_with("linux.seccomp") => vec!["security_opt"],
        field => vec![field],
    }
}

/// A fault of the kernel that the declaration asks for.
pub fn of_kernel(error: &anyhow::Error) -> Fault {
    let path = |key: &str| vec!["kernel".to_owned(), key.to_owned()];
    let text = crate::sentence(error);
    let keys = if text.contains("extra_modules") {
        ["extra_modules", "image"]
    } else if text.contains("modules in ") {
        ["modules", "image"]
    } else {
        ["image", "modules"]
    };
    Fault { about: keys.map(path).to_vec(), message: text }
}

/// A fault of the system image's compression, which the kernel doesn't know.
pub fn of_compression(error: &anyhow::Error) -> Fault {
    let keys = [["system", "compression"], ["kernel", "image"]];
    Fault { about: keys.map(|key| key.map(str::to_owned).to_vec()).to_vec(), message: crate::sentence(error) }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::testing;

    #[test]
    fn a_fault_is_at_the_key_it_names_or_at_the_image() {
        let text = "name = \"x\"\n[containers.a]\nimage = \"i\"\nvolumes = [\"v:/v\"]\n[volumes.v]\n";
        let container = &testing::appliance(text).containers[0];
        let line = |field: &str| {
            let error = Err::<(), _>(spec::Error::new(field, "wrong")).context("outer").unwrap_err();
            let errors = garboard_config::place("x", text, vec![of_container(container, &error)]);
            errors.iter().next().unwrap().place.line
        };
        assert_eq!([line("mounts"), line("process.user"), line("linux.seccomp")], [4, 3, 3]);
    }

    #[test]
    fn a_kernel_s_fault_is_at_what_it_is_about() {
        let first = |text: &str| of_kernel(&anyhow::anyhow!(text.to_owned())).about[0].join(".");
        assert_eq!(
            first("use kernel vmlinuz: look for modules in nowhere: No such file or directory"),
            "kernel.modules"
        );
        assert_eq!(first("extra_modules: no module x in the kernel"), "kernel.extra_modules");
        assert_eq!(first("use kernel vmlinuz: no kernel"), "kernel.image");
    }
}
