//! `kill`: a signal to the first process, or to all.

use super::args::Kill;
use super::matching;
use crate::container::store::Store;
use crate::container::{Error, Result, life};
use crate::spec::signal;

#[inline(never)]
pub(super) fn run(store: &Store, arguments: &Kill) -> Result<u8> {
    let signal = match arguments.signal.as_str() {
        // Whether it lives.
        "0" => 0,
        text => signal::parse(text).map_err(|_| Error::new(format!("{text:?} is no signal (see signal(7))")))?,
    };
    let kill = |id: &str| life::kill(&store.find(id)?, signal, arguments.all);
    if arguments.regex {
        return matching::each(store, &arguments.name.id, kill);
    }
    kill(&arguments.name.id)?;
    Ok(0)
}
