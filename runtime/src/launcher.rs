//! The launcher's side of a start.

use crate::failure::Failure;
use crate::launch::Launch;
use crate::start::{Site, Started, Stdio};

pub(crate) fn start(launch: &Launch, name: &str, site: &Site<'_>, stdio: Stdio<'_>) -> Result<Started, Failure> {
    let _ = (launch, name, site, stdio);
    Err(Failure::check("not written yet"))
}
