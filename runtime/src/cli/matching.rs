//! Containers by a regular expression, for the commands that take one.

use super::log;
use crate::container::store::Store;
use crate::container::{Error, Result};

/// Does the same to every container whose id `pattern` matches anywhere. One that can't be done keeps none of the others from it.
pub(super) fn each(store: &Store, pattern: &str, act: impl Fn(&str) -> Result<()>) -> Result<u8> {
    let regex = regex_lite::Regex::new(pattern)
        .map_err(|error| Error::new(format!("{pattern:?} is no regular expression: {error}")))?;
    let mut failed = 0;
    for id in store.ids()?.iter().filter(|id| regex.is_match(id)) {
        if let Err(error) = act(id) {
            log::error(&error.to_string());
            failed = super::FAILED;
        }
    }
    Ok(failed)
}
