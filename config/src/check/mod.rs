//! From the keys of a file to an [`Appliance`]: what one value alone can't show to be wrong.

mod container;
mod isolation;
mod logging;
mod machine;
mod mounts;
mod network;
mod order;
mod pods;
mod ports;
mod resources;
mod supervision;

use std::collections::BTreeMap;

use crate::appliance::{Appliance, Volume};
use crate::container::{Container, KeptLog};
use crate::errors::quote;
use crate::keys::ApplianceKeys;
use crate::problems::{Problems, Span};
use crate::read::{At, Field, Table, Word, nearest};
use crate::syntax::{ContainerName, VolumeName, cgroup_fault};

/// More containers than one machine runs; bounds the id ranges as well.
pub(crate) const MAX_CONTAINERS: usize = 4096;

/// What containers need to know of the machine.
struct Machine<'a> {
    /// The declared volumes.
    volumes: &'a BTreeMap<String, Volume>,
    /// The kernel's limit of open files, `fs.nr_open`.
    most_files: u64,
}

/// A container with what is needed to check it against the others.
struct Draft {
    container: Container,
    name: Span,
    /// The names in `depends_on`, in the order of [`Container::depends_on`].
    depends_on: Vec<Span>,
    /// The value of `restart`.
    restart: Option<Span>,
    /// What is kept of its log, at its key.
    kept_log: Option<At<KeptLog>>,
    /// What it says about how it is watched is wrong, and told already.
    unsupervised: bool,
    /// The names in `sysctls`, in the order of [`Container::sysctls`].
    sysctls: Vec<Span>,
    /// Its network mode can't be read, and that is told already.
    unconnected: bool,
    /// The value of `pod`.
    pod: Option<At<String>>,
}

/// The appliance that `keys` declare. If anything is wrong, `problems` say so and the result means nothing.
pub(crate) fn appliance(keys: ApplianceKeys, problems: &mut Problems) -> Appliance {
    require(&keys, "name", &(0..0), "`name` of the appliance is missing", "add: name = \"my-appliance\"", problems);
    let no_containers = match &keys.containers {
        Some(field) => field.value.0.is_empty().then(|| field.key.clone()),
        None => (!keys.given("containers")).then_some(0..0),
    };
    if let Some(place) = no_containers {
        problems
            .error(&place, "the appliance has no containers")
            .help("declare at least one: a table [containers.NAME] with the key `image`");
    }
    let name = value(keys.name).map(|name| name.0).unwrap_or_default();
    let volumes = volumes(value(keys.volumes).map(|named| named.0).unwrap_or_default(), problems);
    let data = machine::data(value(keys.data), problems);
    let (hostname, system) = machine::system(value(keys.system), &name, problems);
    let declared = value(keys.containers).map(|named| named.0).unwrap_or_default();
    let machine = Machine { volumes: &volumes, most_files: machine::most_files(&system) };
    let mut drafts = containers(declared, &machine, problems);
    pods::unite(&mut drafts, problems);
    logging::check_room(&drafts, &data, problems);
    Appliance {
        name,
        hostname,
        system,
        kernel: machine::kernel(value(keys.kernel), problems),
        console: machine::console(value(keys.console), problems),
        network: network::network(value(keys.network), problems),
        data,
        volumes,
        containers: order::sorted(drafts, problems),
    }
}

fn containers(
    declared: Vec<(At<String>, At<crate::keys::ContainerKeys>)>,
    machine: &Machine<'_>,
    problems: &mut Problems,
) -> Vec<Draft> {
    if let Some((name, _)) = declared.get(MAX_CONTAINERS) {
        problems.error(&name.span, format!("there are {} containers; the most is {MAX_CONTAINERS}", declared.len()));
        return Vec::new();
    }
    let mut drafts = Vec::with_capacity(declared.len());
    let mut taken = ports::Taken::new();
    for (index, (name, keys)) in declared.into_iter().enumerate() {
        check_name::<ContainerName>(&name, problems);
        if let Some(fault) = cgroup_fault(&name.value) {
            fault.report(&name.span, problems);
        }
        drafts.push(container::draft(name, keys.value, index, machine, &mut taken, problems));
    }
    drafts
}

fn volumes(
    declared: Vec<(At<String>, At<crate::keys::VolumeKeys>)>,
    problems: &mut Problems,
) -> BTreeMap<String, Volume> {
    let mut volumes = BTreeMap::new();
    for (name, keys) in declared {
        check_name::<VolumeName>(&name, problems);
        volumes.insert(name.value, machine::volume(keys.value, problems));
    }
    volumes
}

fn check_name<T: Word>(name: &At<String>, problems: &mut Problems) {
    if let Err(fault) = T::parse(&name.value) {
        fault.report(&name.span, problems);
    }
}

/// A key's value without its places.
fn value<T>(field: Option<Field<T>>) -> Option<T> {
    field.map(|field| field.value)
}

/// Notes the lack of a key that can't be left out.
fn require<T: Table>(keys: &T, key: &str, place: &Span, message: &str, help: &str, problems: &mut Problems) {
    if !keys.given(key) {
        problems.error(place, message).help(help);
    }
}

/// Notes a name that names nothing declared.
fn undeclared<'a>(
    what: &str,
    name: &str,
    declared: impl IntoIterator<Item = &'a str>,
    place: &Span,
    problems: &mut Problems,
) {
    let full = problems.is_full();
    let problem = problems.error(place, format!("there is no {what} {}", quote(name)));
    if full {
        return;
    }
    match nearest(name, declared) {
        Some(meant) => problem.help(format!("did you mean `{meant}`?")),
        None => problem.help(format!("declare it in a table [{what}s.NAME]")),
    };
}
