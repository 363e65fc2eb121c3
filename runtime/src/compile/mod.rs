//! An OCI runtime spec → the launch that PID 1 obeys. Whatever isn't supported is an error that names it.

use oci_spec::runtime::Spec;

use crate::launch::{CreateDir, Launch, Root};
use crate::spec::Error;

/// The launch of `spec` on `root`. `volumes` says how absent bind sources are made, by mount target.
pub fn launch(spec: &Spec, root: Root, volumes: &[(String, CreateDir)]) -> Result<Launch, Error> {
    let _ = (spec, root, volumes);
    Err(Error::new("spec", "not read yet"))
}
