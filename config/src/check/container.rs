//! One container.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Draft, Machine, isolation, logging, mounts, pods, ports, require, resources, supervision, value};
use crate::container::{Container, Dependency, Id, IdRange, Limit, NetworkMode, Resources};
use crate::errors::quote;
use crate::keys::{ContainerKeys, DependsOn, HostOrPrivate, StorageKeys};
use crate::problems::{Problems, Span};
use crate::read::{At, Field, Switch, Table, Word};
use crate::syntax::AnyHostName;

/// Ids of each container: as many as 16-bit programs and distributions expect.
const IDS: u32 = 65_536;
/// As in Compose.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// As in Podman.
const DEFAULT_PIDS: u64 = 2048;

/// The container that `keys` declare; `index` is its place in the order of declaration.
pub(super) fn draft(
    name: At<String>,
    mut keys: ContainerKeys,
    index: usize,
    machine: &Machine<'_>,
    taken: &mut ports::Taken,
    problems: &mut Problems,
) -> Draft {
    let missing = format!("`image` of the container {} is missing", quote(&name.value));
    require(&keys, "image", &name.span, &missing, "add: image = \"path/to/image\"", problems);
    let ids = (!keys.given("userns_mode")).then(|| range(index));
    check_ids(&keys, ids, problems);
    refuse_terminal(&keys, problems);
    pods::check_member(&keys, problems);
    let pod = keys.pod.take().map(|field| At { span: field.span, value: field.value.0 });
    let sound = problems.count();
    let supervision = supervision::supervision(&mut keys, problems);
    let unsupervised = problems.count() > sound;
    // One that can't be read is not held against `ports` as well.
    let unconnected = keys.given("network_mode") && keys.network_mode.is_none();
    let unknown_network = if unconnected { NetworkMode::Host } else { NetworkMode::None };
    let network = value(keys.network_mode.clone()).unwrap_or(unknown_network);
    let host_ipc = matches!(value(keys.ipc.clone()), Some(HostOrPrivate::Host));
    let isolation = isolation::isolation(&keys, network, host_ipc, problems);
    let cpu = resources::cpu(&keys, problems);
    let memory = resources::memory(&keys, problems);
    let host_uts = keys.uts.is_some();
    for field in [&keys.hostname, &keys.domainname].into_iter().flatten().filter(|_| host_uts) {
        problems
            .error(&field.key, "a container with uts = \"host\" has the machine's names")
            .help("leave it out, or leave out `uts`; the machine's host name is `hostname` in [system]");
    }
    if let (Some(size), true) = (&keys.shm_size, host_ipc) {
        problems
            .error(&size.key, "a container with ipc = \"host\" has the machine's /dev/shm")
            .help("leave it out, or leave out `ipc`");
    }
    let kept_log = logging::kept(keys.logging, problems);
    let ports = ports::ports(keys.ports, (network, keys.network_mode.is_some()), &name.value, taken, problems);
    let mounts = mounts::mounts(keys.volumes, keys.tmpfs, machine.volumes, ids, problems);
    let devices = mounts::devices(keys.devices, problems);
    let (mounts, devices) = mounts::apart(mounts, devices, problems);
    let hosts = extra_hosts(keys.extra_hosts, problems);
    let restart = keys.restart.as_ref().map(|field| field.span.clone());
    let (depends_on, places) = depends_on(keys.depends_on, &name, problems);
    let resources = Resources {
        memory: memory.limit,
        memory_and_swap: memory.with_swap,
        memory_reservation: memory.reservation,
        cpu,
        cpu_shares: keys.cpu_shares.map(|field| field.value.unsigned()),
        cpuset: keys.cpuset.map(|field| field.value.0),
        pids: resources::pids(keys.pids_limit, Limit::At(DEFAULT_PIDS), problems),
        io: resources::io(value(keys.blkio_config).unwrap_or_default(), problems),
    };
    let container = Container {
        image: value(keys.image).map(|image| image.0).unwrap_or_default(),
        command: value(keys.command).map(|words| words.0),
        entrypoint: value(keys.entrypoint).map(|words| words.0),
        environment: pairs(keys.environment),
        working_dir: value(keys.working_dir).map(|path| path.0),
        user: value(keys.user).map(|user| user.0),
        group_add: value(keys.group_add)
            .map(|list| list.0.into_iter().map(|id| id.value.0).collect())
            .unwrap_or_default(),
        hostname: (!host_uts).then(|| value(keys.hostname).map_or_else(|| name.value.clone(), |name| name.0)),
        domainname: value(keys.domainname).map(|name| name.0),
        network,
        ports,
        extra_hosts: hosts,
        mounts,
        devices,
        read_only: keys.read_only.as_ref().is_some_and(|field| field.value.0),
        rootfs_size: root_size(keys.storage_opt, keys.read_only.as_ref(), problems),
        shm_size: positive(keys.shm_size, problems),
        restart: value(keys.restart).map(|policy| policy.0).unwrap_or_default(),
        depends_on,
        supervision,
        stop_signal: value(keys.stop_signal).map(|signal| signal.0),
        stop_grace_period: value(keys.stop_grace_period).map_or(DEFAULT_GRACE, |period| period.0),
        init: keys.init.is_some_and(|field| field.value.0),
        ids,
        host_pid: keys.pid.is_some(),
        host_ipc,
        host_uts,
        host_cgroup: matches!(value(keys.cgroup), Some(HostOrPrivate::Host)),
        cap_add: isolation.cap_add,
        cap_drop: isolation.cap_drop,
        no_new_privileges: isolation.no_new_privileges,
        seccomp: isolation.seccomp,
        sysctls: isolation.sysctls,
        resources,
        ulimits: resources::ulimits(keys.ulimits, machine.most_files, problems),
        oom_score_adj: keys.oom_score_adj.and_then(|field| i32::try_from(field.value.get()).ok()),
        kept_log: kept_log.as_ref().map(|kept| kept.value),
        labels: entries(value(keys.labels).map(|labels| labels.0)).into_iter().collect(),
        weakened: Vec::new(),
        pod: None,
        name: name.value,
    };
    let container = Container { weakened: isolation::weakened(&container), ..container };
    let sysctls = isolation.sysctl_places;
    Draft { container, name: name.span, depends_on: places, restart, kept_log, unsupervised, sysctls, unconnected, pod }
}

/// The ids of the container declared at `index`: the machine's own stay below all of them, and no two ranges touch.
fn range(index: usize) -> IdRange {
    let place = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
    IdRange { base: place.saturating_mul(IDS), size: IDS }
}

/// Numbers of users and groups must be ones that the container has.
fn check_ids(keys: &ContainerKeys, ids: Option<IdRange>, problems: &mut Problems) {
    let user = keys.user.iter().flat_map(|field| {
        let user = &field.value.0;
        [Some(&user.user), user.group.as_ref()].into_iter().flatten().map(|id| (&field.span, id))
    });
    let groups = keys.group_add.iter().flat_map(|field| field.value.0.iter().map(|id| (&id.span, &id.value.0)));
    for (span, id) in user.chain(groups) {
        if let (Id::Number(number), Some(ids)) = (id, ids) {
            check_id(*number, ids, span, problems);
        }
    }
}

/// Notes an id that is beyond the container's range.
pub(super) fn check_id(number: u32, ids: IdRange, span: &Span, problems: &mut Problems) {
    if number >= ids.size {
        problems
            .error(span, format!("a container has the ids 0 to {}, not {number}", ids.size - 1))
            .help("choose a smaller one; on the machine they are mapped to a range of the container's own");
    }
}

fn refuse_terminal(keys: &ContainerKeys, problems: &mut Problems) {
    for field in [&keys.stdin_open, &keys.tty].into_iter().flatten().filter(|field| field.value.0) {
        problems
            .error(&field.span, "a container has no terminal: nobody sits in front of an appliance")
            .help("leave it out; what the container prints goes to its log");
    }
}

fn pairs(field: Option<Field<crate::read::Pairs>>) -> Vec<(String, String)> {
    entries(value(field))
}

fn entries(pairs: Option<crate::read::Pairs>) -> Vec<(String, String)> {
    pairs.map(|pairs| pairs.0.into_iter().map(|(name, value)| (name.value, value.value)).collect()).unwrap_or_default()
}

/// A size for which 0 would mean "no limit".
fn positive(field: Option<Field<crate::syntax::Bytes>>, problems: &mut Problems) -> Option<u64> {
    let field = field?;
    if field.value.0 == 0 {
        problems
            .error(&field.span, "the size can't be 0")
            .help("write a size such as \"64m\", or leave it out for the default");
    }
    Some(field.value.0)
}

/// The size of what can be written to the root, which must be writable.
fn root_size(
    options: Option<Field<StorageKeys>>,
    read_only: Option<&Field<Switch>>,
    problems: &mut Problems,
) -> Option<u64> {
    let size = value(options)?.size;
    if let (Some(size), Some(read_only)) = (&size, read_only.filter(|field| field.value.0)) {
        problems
            .error(&size.key, "nothing can be written to a read-only root, so it needs no size")
            .help("leave out one or the other")
            .related(&read_only.key, "read-only by this");
    }
    positive(size, problems)
}

fn extra_hosts(field: Option<Field<crate::keys::Hosts>>, problems: &mut Problems) -> Vec<(String, std::net::IpAddr)> {
    let mut hosts = Vec::new();
    for (name, address) in value(field).map(|hosts| hosts.0).unwrap_or_default() {
        match AnyHostName::parse(&name.value) {
            Ok(host) => hosts.push((host.0, address)),
            Err(fault) => fault.report(&name.span, problems),
        }
    }
    hosts
}

/// The dependencies, with their places. Whether they exist is for later, when all containers are known.
fn depends_on(
    field: Option<Field<DependsOn>>,
    name: &At<String>,
    problems: &mut Problems,
) -> (Vec<Dependency>, Vec<Span>) {
    let mut seen: BTreeMap<String, Span> = BTreeMap::new();
    let (mut dependencies, mut places) = (Vec::new(), Vec::new());
    for (other, condition) in value(field).map(|depends| depends.0).unwrap_or_default() {
        if other.value == name.value {
            problems.error(&other.span, "a container can't depend on itself").help("leave it out");
        } else if let Some(first) = seen.get(&other.value) {
            problems
                .error(&other.span, format!("{} is given twice", quote(&other.value)))
                .help("leave out one of them")
                .related(first, "first given here");
        } else {
            seen.insert(other.value.clone(), other.span.clone());
            dependencies.push(Dependency { container: other.value, condition });
            places.push(other.span);
        }
    }
    (dependencies, places)
}
