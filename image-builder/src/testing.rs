//! What several tests need.

use garboard_config::Appliance;
use garboard_runtime::launch::{Launch, Root, RootSource};

/// The appliance that `text` declares, which must be valid.
pub fn appliance(text: &str) -> Appliance {
    garboard_config::parse("appliance.toml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A launch with a program and nothing else in it.
pub fn launch() -> Launch {
    let mut launch =
        Launch::bare(Root { source: RootSource::Directory("/".to_owned()), readonly: true, ..Root::default() });
    launch.process.args = vec!["/bin/true".to_owned()];
    launch
}
