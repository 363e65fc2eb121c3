//! Where a container's image is.

use serde_json::{Value, json};

use crate::errors::quote;
use crate::read::{Fault, Word, nearest};

/// A path, with its kind in front or not. Whether it exists isn't known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageName(pub(crate) String);

/// The kinds that can be named, as skopeo names them.
const KINDS: [&str; 3] = ["oci", "oci-archive", "docker-archive"];
/// The kinds of skopeo's that reach for something other than a file.
const ELSEWHERE: [&str; 5] = ["docker", "docker-daemon", "containers-storage", "http", "https"];
const FETCH: &str = "fetch the image to a file first, such as: skopeo copy docker://nginx:1.27 oci:images/nginx:1.27";

impl Word for ImageName {
    const EXPECTED: &'static str = "the path of an image";

    fn parse(text: &str) -> Result<Self, Fault> {
        if text.trim().is_empty() {
            return Err(Fault::new("the image's path is empty")
                .help("write \"path/to/layout\" or \"oci-archive:path/to/file.tar\""));
        }
        if text.chars().any(char::is_control) {
            return Err(Fault::new("the image's path holds a control character"));
        }
        let Some((kind, rest)) = text.split_once(':') else {
            return Ok(Self(text.to_owned()));
        };
        if ELSEWHERE.contains(&kind) || rest.starts_with("//") {
            return Err(Fault::new(format!("images are read from files only, not from {}", quote(text))).help(FETCH));
        }
        if KINDS.contains(&kind) && (rest.is_empty() || rest.starts_with(':')) {
            return Err(
                Fault::new(format!("{} names no path", quote(text))).help(format!("write \"{kind}:path/to/image\""))
            );
        }
        // A kind with a typing error would be taken for a directory of that name; but `nginx:1.27` is a directory with a tag.
        if !KINDS.contains(&kind)
            && rest.contains('/')
            && let Some(meant) = nearest(kind, KINDS)
        {
            return Err(
                Fault::new(format!("{} isn't a kind of image", quote(kind))).help(format!("did you mean `{meant}:`?"))
            );
        }
        Ok(Self(text.to_owned()))
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images() {
        for text in [
            "images/nginx",
            "images/nginx:1.27",
            "nginx:1.27",
            "oci:images/nginx",
            "oci:images/nginx:1.27",
            "oci-archive:x.tar",
            "docker-archive:x.tar:nginx:latest",
            "/abs/x.tar",
        ] {
            assert_eq!(ImageName::parse(text), Ok(ImageName(text.into())));
        }
        for text in
            ["", " ", "docker://nginx", "https://x/y", "oci:", "oci::tag", "oci-archve:images/x.tar", "a\nb", "foo://x"]
        {
            assert!(ImageName::parse(text).is_err(), "{text:?}");
        }
    }
}
