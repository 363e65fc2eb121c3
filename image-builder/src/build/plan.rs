//! The plan: what the declaration says about machine and containers, in PID 1's terms. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use garboard_config as config;
use garboard_runtime::launch::Launch;
use garboard_runtime::plan::{
    Access, Addressing, Condition, Console, Container, Data, Dependency, Etc, Fill, HealthCheck, KeptLog, MemoryVolume,
    Module, Network, OnFailure, PackedLaunch, Plan, PlanError, Pod, Restart, Supervision,
};
use sha2::{Digest, Sha256};

use super::volumes;
use crate::kernel::modules;

/// The limit of processes that nobody declared: a kernel that can't enforce it still runs the appliance.
const DEFAULT_PIDS: u64 = 2048;

/// What image and declaration together say about starting and stopping a container.
#[derive(Debug)]
pub struct Compiled {
    /// How to start it.
    pub launch: Launch,
    /// Signal that asks it to stop.
    pub stop_signal: u8,
    /// Ports that the image exposes, for people.
    pub exposed_ports: Vec<String>,
    /// How it is asked whether it works.
    pub health: Option<HealthCheck>,
    /// What has no effect and might be missed, in sentences that name the container.
    pub warnings: Vec<String>,
}

/// Where a stage two module lies in the system image.
pub fn module_path(name: &str) -> String {
    format!("/garboard/modules/{name}.ko")
}

/// Makes the plan. `compiled` has an entry for each container, in order.
///
/// `fills` says what new volumes are filled with, by name.
pub fn make(
    appliance: &config::Appliance,
    compiled: Vec<Compiled>,
    fills: &BTreeMap<String, Fill>,
    stage_two: &[modules::Module],
) -> Result<Plan, PlanError> {
    let containers = appliance.containers.iter().zip(compiled);
    Ok(Plan {
        appliance: appliance.name.clone(),
        hostname: appliance.hostname.clone(),
        modules: stage_two.iter().map(module).collect(),
        needs: needs(appliance),
        sysctls: appliance.system.sysctls.clone(),
        network: network(&appliance.network),
        data: appliance
            .needs_data()
            .then(|| Data { uuid: data_uuid(&appliance.name), required: appliance.data.required }),
        memory_volumes: memory_volumes(appliance),
        console: console(&appliance.console),
        log_budget: appliance.system.log_budget,
        watchdog_seconds: appliance.system.watchdog,
        status_vsock: appliance.system.status_vsock,
        pods: pods(appliance).into_iter().map(|name| Pod { name }).collect(),
        containers: containers
            .map(|(declared, compiled)| container(appliance, declared, compiled, fills))
            .collect::<Result<_, _>>()?,
    })
}

fn console(declared: &config::Console) -> Console {
    let access = match &declared.access {
        config::ConsoleAccess::Off => Access::Off,
        config::ConsoleAccess::Status => Access::Status,
        config::ConsoleAccess::Control(hash) => Access::Control(hash.clone()),
    };
    Console { logs: declared.logs, status: declared.status, access }
}

fn module(module: &modules::Module) -> Module {
    Module { path: module_path(&module.name), aliases: module.aliases.clone(), parameters: String::new() }
}

/// The data filesystem's UUID: of the appliance's name, so that the next build of it finds the same data. A version 8 UUID
/// (RFC 9562, section 5.8).
fn data_uuid(name: &str) -> [u8; 16] {
    let digest = Sha256::new().chain_update(b"garboard data\0").chain_update(name).finalize();
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// A filesystem for each declared volume in memory.
fn memory_volumes(appliance: &config::Appliance) -> Vec<MemoryVolume> {
    let sizes = appliance.volumes.iter().filter_map(|(name, volume)| match volume {
        config::Volume::Tmpfs { size } => Some((name, *size)),
        config::Volume::Data => None,
    });
    sizes.map(|(name, size)| MemoryVolume { path: volumes::filesystem(name), size }).collect()
}

fn network(network: &config::Network) -> Network {
    let address = match &network.address {
        config::Address::None => Addressing::None,
        config::Address::Dhcp => Addressing::Dhcp,
        config::Address::Static { addresses, gateways } => Addressing::Static {
            addresses: addresses.iter().map(ToString::to_string).collect(),
            gateways: gateways.iter().map(ToString::to_string).collect(),
        },
    };
    let dns = network.dns.iter().map(ToString::to_string).collect();
    Network { address, interface: network.interface.clone(), dns }
}

/// The cgroup controllers without which a declared limit would not hold.
fn needs(appliance: &config::Appliance) -> Vec<String> {
    let all = || appliance.containers.iter().map(|container| &container.resources);
    let memory = all().any(|r| r.memory.is_some() || r.memory_and_swap.is_some() || r.memory_reservation.is_some());
    let cpu = all().any(|r| r.cpu.is_some() || r.cpu_shares.is_some());
    let cpuset = all().any(|r| r.cpuset.is_some());
    let io = all().any(|r| r.io != config::Io::default());
    let pids = all().any(|r| !matches!(r.pids, config::Limit::Unlimited | config::Limit::At(DEFAULT_PIDS)));
    let named = [("memory", memory), ("cpu", cpu), ("cpuset", cpuset), ("io", io), ("pids", pids)];
    named.into_iter().filter(|(_, needed)| *needed).map(|(name, _)| name.to_owned()).collect()
}

fn container(
    appliance: &config::Appliance,
    declared: &config::Container,
    compiled: Compiled,
    fills: &BTreeMap<String, Fill>,
) -> Result<Container, PlanError> {
    let mut container = Container {
        name: declared.name.clone(),
        image: declared.image.clone(),
        launch: PackedLaunch::of(compiled.launch)?,
        weakened: declared.weakened.clone(),
        labels: declared.labels.clone().into_iter().collect(),
        ports: ports(declared, compiled.exposed_ports),
        restart: restart(declared.restart),
        depends_on: declared.depends_on.iter().filter_map(|dependency| edge(appliance, dependency)).collect(),
        supervision: supervision(&declared.supervision, compiled.health),
        reads_status: false,
        kept_log: declared.kept_log.map(|kept| KeptLog { file_size: kept.file_size, files: kept.files }),
        pod: declared.pod.as_ref().and_then(|pod| {
            let place = pods(appliance).iter().position(|name| name == pod);
            u32::try_from(place?).ok()
        }),
        stop_signal: compiled.stop_signal,
        stop_grace_ms: millis(declared.stop_grace_period),
        etc: etc(appliance, declared),
        fills: volumes::fills_of(declared, fills),
    };
    if declared.supervision.reads_status {
        container.let_read_status()?;
    }
    Ok(container)
}

/// What the declaration says first, and each once.
fn ports(declared: &config::Container, exposed: Vec<String>) -> Vec<String> {
    let mut ports: Vec<String> =
        declared.ports.iter().map(|port| format!("{}/{}", port.number, port.protocol)).collect();
    for port in exposed {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

fn restart(restart: config::Restart) -> Restart {
    match restart {
        config::Restart::No => Restart::No,
        config::Restart::Always => Restart::Always,
        config::Restart::OnFailure(most) => Restart::OnFailure(most),
        config::Restart::UnlessStopped => Restart::UnlessStopped,
    }
}

/// The names of the pods, in the order of their first containers.
fn pods(appliance: &config::Appliance) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for pod in appliance.containers.iter().filter_map(|container| container.pod.as_ref()) {
        if !names.contains(pod) {
            names.push(pod.clone());
        }
    }
    names
}

fn supervision(declared: &config::Supervision, health: Option<HealthCheck>) -> Supervision {
    Supervision {
        notify: declared.notify,
        start_timeout_ms: millis(declared.start_timeout),
        watchdog_ms: declared.watchdog.map(millis),
        health,
        on_failure: match declared.on_failure {
            config::OnFailure::Ignore => OnFailure::Ignore,
            config::OnFailure::Restart => OnFailure::Restart,
            config::OnFailure::Reboot => OnFailure::Reboot,
            config::OnFailure::PowerOff => OnFailure::PowerOff,
        },
    }
}

pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The containers are sorted, so what one depends on has a smaller index.
fn edge(appliance: &config::Appliance, dependency: &config::Dependency) -> Option<Dependency> {
    let container = u32::try_from(appliance.position(&dependency.container)?).ok()?;
    let condition = match dependency.condition {
        config::Condition::Started => Condition::Started,
        config::Condition::Healthy => Condition::Healthy,
        config::Condition::Completed => Condition::Completed,
    };
    Some(Dependency { container, condition })
}

/// The files in `/etc` that every container runtime provides; the launch mounts them. Name servers are of use on the
/// machine's network only.
///
/// Containers on the machine's network reach each other by name, as Compose's services do.
pub fn etc(appliance: &config::Appliance, declared: &config::Container) -> Etc {
    let on_machine = |container: &config::Container| container.network == config::NetworkMode::Host;
    let hostname = declared.hostname.as_deref().unwrap_or(&appliance.hostname);
    let mut hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    if hostname != "localhost" {
        hosts.push_str(&format!("127.0.1.1\t{hostname}\n"));
    }
    for (name, address) in &declared.extra_hosts {
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    // After what is declared, as the first line that has a name counts.
    let others = appliance.containers.iter().filter(|other| on_machine(other) && other.name != hostname);
    for other in others.filter(|_| on_machine(declared)) {
        hosts.push_str(&format!("127.0.0.1\t{}\n", other.name));
    }
    let resolv_conf = on_machine(declared);
    Etc { hosts: Some(hosts), hostname: Some(format!("{hostname}\n")), resolv_conf }
}

#[cfg(test)]
mod tests {
    use garboard_runtime::plan::HealthTest;

    use super::*;
    use crate::build::health;
    use crate::testing;

    fn plan(text: &str) -> Plan {
        let appliance = testing::appliance(text);
        let compiled = appliance.containers.iter().map(|container| Compiled {
            launch: testing::launch(),
            stop_signal: 15,
            exposed_ports: vec!["80/tcp".to_owned()],
            health: health::of(container, b"{}").unwrap(),
            warnings: Vec::new(),
        });
        make(&appliance, compiled.collect(), &BTreeMap::new(), &[]).unwrap()
    }

    #[test]
    fn dependencies_are_edges_to_earlier_containers() {
        let plan = plan(
            "name = \"x\"\n[containers.a]\nimage = \"i\"\ndepends_on = { z = { condition = \"service_completed_successfully\" } }\n\
             [containers.z]\nimage = \"i\"\n",
        );
        let names: Vec<&str> = plan.containers.iter().map(|container| container.name.as_str()).collect();
        assert_eq!(names, ["z", "a"]);
        assert_eq!(plan.containers[1].depends_on, [Dependency { container: 0, condition: Condition::Completed }]);
    }

    #[test]
    fn how_it_is_watched_is_kept() {
        let text = "name = \"x\"\n[containers.a]\nimage = \"i\"\nnotify = true\nwatchdog = \"2s\"\non_failure = \"reboot\"\n\
                    healthcheck = { tcp = 80, interval = \"3s\" }\n[containers.b]\nimage = \"i\"\n\
                    depends_on = { a = { condition = \"service_healthy\" } }\n";
        let plan = plan(text);
        let own = &plan.containers[0].supervision;
        assert_eq!((own.notify, own.watchdog_ms, own.on_failure), (true, Some(2000), OnFailure::Reboot));
        let health = own.health.as_ref().unwrap();
        assert_eq!((&health.test, health.interval_ms, health.retries), (&HealthTest::Tcp(80), 3000, 3));
        assert_eq!(plan.containers[1].depends_on, [Dependency { container: 0, condition: Condition::Healthy }]);
        assert_eq!(plan.containers[1].supervision, Supervision::default());
    }

    #[test]
    fn pods_are_numbered() {
        let text = "name = \"x\"\n[containers.a]\nimage = \"i\"\npod = \"q\"\n[containers.b]\nimage = \"i\"\n\
                    [containers.c]\nimage = \"i\"\npod = \"p\"\n[containers.d]\nimage = \"i\"\npod = \"q\"\n";
        let plan = plan(text);
        assert_eq!(plan.pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["q", "p"]);
        let pods: Vec<_> = plan.containers.iter().map(|container| container.pod).collect();
        assert_eq!(pods, [Some(0), None, Some(1), Some(0)]);
        assert_eq!(plan.containers[0].etc.hostname.as_deref(), Some("q\n"));
    }

    #[test]
    fn only_declared_limits_are_needed() {
        assert!(plan("name = \"x\"\n[containers.a]\nimage = \"i\"\n").needs.is_empty());
        let limited =
            plan("name = \"x\"\n[containers.a]\nimage = \"i\"\nmem_limit = \"8m\"\npids_limit = 9\ncpus = 1\n");
        assert_eq!(limited.needs, ["memory", "cpu", "pids"]);
    }

    #[test]
    fn data_is_there_when_a_volume_is_kept_and_found_again_by_the_name() {
        let without = "[containers.a]\nimage = \"i\"\n";
        let with = "[containers.a]\nimage = \"i\"\nvolumes = [\"v:/v\"]\n[volumes.v]\n";
        assert_eq!(plan(&format!("name = \"x\"\n{without}")).data, None);
        let uuid = |name: &str| plan(&format!("name = \"{name}\"\n{with}")).data.unwrap().uuid;
        assert_eq!(uuid("x"), uuid("x"));
        assert_ne!(uuid("x"), uuid("y"));
        assert_eq!((uuid("x")[6] >> 4, uuid("x")[8] >> 6), (8, 2), "version and variant");
    }

    #[test]
    fn each_volume_in_memory_has_a_filesystem_of_its_size() {
        let text = "name = \"x\"\n[containers.a]\nimage = \"i\"\n[volumes.kept]\n\
                    [volumes.l]\nkind = \"tmpfs\"\nsize = \"1m\"\n[volumes.u]\nkind = \"tmpfs\"\n";
        let of = |path: &str, size| MemoryVolume { path: path.to_owned(), size };
        let expected = [of("/run/garboard/volumes/l", Some(1 << 20)), of("/run/garboard/volumes/u", None)];
        assert_eq!(plan(text).memory_volumes, expected);
    }

    #[test]
    fn etc_names_the_container_and_its_extra_hosts() {
        let text = "name = \"x\"\n[containers.a]\nimage = \"i\"\nextra_hosts = [\"db=192.0.2.7\"]\n";
        let etc = &plan(text).containers[0].etc;
        assert_eq!(etc.hostname.as_deref(), Some("a\n"));
        assert!(etc.hosts.as_deref().unwrap().ends_with("127.0.1.1\ta\n192.0.2.7\tdb\n"));
        assert!(!etc.resolv_conf, "it has no network to look names up on");
    }

    #[test]
    fn containers_on_the_machine_s_network_know_each_other_by_name() {
        let text = "name = \"x\"\n[containers.alone]\nimage = \"i\"\n[containers.web]\nimage = \"i\"\nnetwork_mode = \"host\"\n\
                    [containers.proxy]\nimage = \"i\"\nnetwork_mode = \"host\"\nextra_hosts = [\"web=192.0.2.7\"]\n\
                    [containers.same]\nimage = \"i\"\nnetwork_mode = \"host\"\nuts = \"host\"\n";
        let plan = plan(text);
        let hosts = |index: usize| plan.containers[index].etc.hosts.as_deref().unwrap();
        assert!(!hosts(0).contains("web") && !hosts(0).contains("proxy"), "it can't reach them: {}", hosts(0));
        assert!(hosts(1).ends_with("127.0.1.1\tweb\n127.0.0.1\tproxy\n127.0.0.1\tsame\n"), "{}", hosts(1));
        assert!(hosts(2).contains("192.0.2.7\tweb\n127.0.0.1\tweb\n"), "what is declared comes first: {}", hosts(2));
        assert!(hosts(3).contains("127.0.0.1\tweb\n127.0.0.1\tproxy\n"), "{}", hosts(3));
    }

    #[test]
    fn labels_and_ports_are_kept() {
        let text = "name = \"x\"\n[containers.a]\nimage = \"i\"\nlabels = [\"b=2\", \"a=1\"]\nnetwork_mode = \"host\"\n\
            ports = [\"8443\", \"80\", \"53/udp\"]\n";
        let container = &plan(text).containers[0];
        assert_eq!(container.labels, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        assert_eq!(container.ports, ["80/tcp", "8443/tcp", "53/udp"], "the image's 80/tcp is one of them");
    }
}
