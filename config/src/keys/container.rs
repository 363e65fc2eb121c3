//! The keys of `[containers.NAME]`. Names and meanings are Compose's, <https://docs.docker.com/reference/compose-file/services/>.

use super::{
    BlkioKeys, DependsOn, DeviceKeys, HealthKeys, Hosts, LoggingKeys, PortKeys, ReadStatus, StorageKeys, UlimitKeys,
    VolumeMountKeys,
};
use crate::container::NetworkMode;
use crate::read::{Choice, Int, Labels, List, Named, OneOrMany, Pairs, ShortOrLong, Switch, Words, keys};
use crate::supervision::OnFailure;
use crate::syntax::{
    AbsolutePath, Bytes, BytesOrUnlimited, Capability, CpuSet, Cpus, DeviceEntry, HostName, IdEntry, ImageName, Micros,
    Period, PodName, PortShort, RestartPolicy, Rlim, SecurityOption, Signal, TmpfsEntry, UserEntry, VolumeShort,
};

keys! {
    /// `[containers.NAME]`
    pub(crate) struct ContainerKeys ("a container") requires ["image"] {
        /// The image: path of an OCI layout directory or an archive, from this file's directory, with a tag if it holds several.
        /// Its kind can be written in front: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:REF]`.
        image: ImageName,
        /// Replaces the image's command: a list, or a string that is split as a shell would. An empty list clears it. Nothing in it is
        /// replaced, unless the program is a shell.
        command: Words,
        /// Replaces the image's entrypoint and drops its command. An empty list clears it.
        entrypoint: Words,
        /// Environment variables: a table, or a list of "NAME=value" strings. Values are taken as they stand: `$NAME` isn't replaced,
        /// and Compose's `$$` is two dollar signs.
        environment: Pairs,
        /// Working directory. Default: the image's.
        working_dir: AbsolutePath,
        /// Who runs the program: "user", "user:group", by name or number. Default: the image's.
        user: UserEntry,
        /// Supplementary groups, by name or number.
        group_add: List<IdEntry>,
        /// Host name. Default: the container's name.
        hostname: HostName,
        /// NIS domain name.
        domainname: HostName,
        /// "none" (the default): loopback only. "host": the machine's network.
        network_mode: NetworkMode,
        /// Ports that the container listens on; needs network_mode = "host".
        ports: List<ShortOrLong<PortShort, PortKeys>>,
        /// Names for addresses, added to /etc/hosts: a list of "name=address" strings, or a table.
        extra_hosts: Hosts,
        /// Volumes to mount: "NAME:/path", "NAME:/path:ro", or tables.
        volumes: List<ShortOrLong<VolumeShort, VolumeMountKeys>>,
        /// Memory to mount: "/path" or "/path:size=16m,mode=755", one or a list. Programs can't be executed from it, as with Docker,
        /// unless `exec` is given.
        tmpfs: OneOrMany<TmpfsEntry>,
        /// Devices of the machine: "/dev/x", "/dev/x:/dev/y:rwm", or tables.
        devices: List<ShortOrLong<DeviceEntry, DeviceKeys>>,
        /// Mount the root read-only. Default: false, writes go to memory.
        read_only: Switch,
        /// Options for the container's own storage; not with read_only, as there is none then.
        storage_opt: StorageKeys,
        /// Size of /dev/shm.
        shm_size: Bytes,
        /// "no" (the default), "always", "on-failure", "on-failure:N" or "unless-stopped". A container that is started again begins
        /// with its image's files: what it wrote is kept in volumes only. "unless-stopped" is "always" until a person stops it; that
        /// outlives a boot if there is a data partition, which a volume that is kept or a `size` in [data] brings.
        restart: RestartPolicy,
        /// Containers that must have been started, healthy or completed before: a list of names, or a table with conditions.
        depends_on: DependsOn,
        /// Whether it works, asked again and again.
        healthcheck: HealthKeys,
        /// The program says itself when it is ready (sd_notify(3), `NOTIFY_SOCKET`), and counts as started only then. Default: false.
        notify: Switch,
        /// Time from its launch until it counts as started, or it is killed. Default: "60s".
        start_timeout: Period,
        /// The longest time between two signs of life (`WATCHDOG=1`), or it is killed. Needs `notify`.
        watchdog: Period,
        /// What follows when it has failed and its `restart` policy doesn't start it again: "ignore" (the default), "restart" (it is started
        /// all the same, ever more rarely), "reboot" or "poweroff". With "always" and "unless-stopped" it has failed only when it
        /// can't be started at all, as for want of what it depends on: write "on-failure:N" for a program that crashes.
        on_failure: OnFailure,
        /// "read": it gets a socket, /run/garboard/status.sock, on which it may ask for the appliance's status.
        status: ReadStatus,
        /// Name of a pod: its containers share their network, message queues and ids, have its name as host name, and start and stop
        /// together.
        pod: PodName,
        /// Signal that asks the container to stop. Default: the image's, else SIGTERM.
        stop_signal: Signal,
        /// Time from that signal to the kill. Default: "10s".
        stop_grace_period: Period,
        /// Run a tiny reaper of orphaned processes as the first process. Default: false.
        init: Switch,
        /// "host": see every process of the machine. Default: only its own.
        pid: HostOnly,
        /// "private" (the default) or "host": share shared memory and message queues with the machine.
        ipc: HostOrPrivate,
        /// "host": have the machine's host name. Default: its own.
        uts: HostOnly,
        /// "private" (the default) or "host": see the machine's control groups.
        cgroup: HostOrPrivate,
        /// "host": have the machine's user ids, so that root in the container is root of the machine. Default: ids of its own.
        userns_mode: HostOnly,
        /// Capabilities to add, such as "NET_ADMIN"; or "ALL". They count in the container's own user namespace: what the machine itself
        /// is asked for (its clock, its network) takes userns_mode = "host" as well.
        cap_add: List<Capability>,
        /// Capabilities to take away; or "ALL".
        cap_drop: List<Capability>,
        /// "no-new-privileges:true" (the default) or ":false", "seccomp=unconfined", "seccomp=FILE".
        security_opt: List<SecurityOption>,
        /// Only false: name what the container needs in `cap_add`, `devices` and `security_opt`.
        privileged: Switch,
        /// Sysctls of the container's own namespaces: a table, or a list of "name=value" strings.
        sysctls: Pairs,
        /// Memory limit.
        mem_limit: Bytes,
        /// Limit of memory and swap together, or -1 for any amount of swap.
        memswap_limit: BytesOrUnlimited,
        /// Memory that is taken away last.
        mem_reservation: Bytes,
        /// How many processors' time, such as 0.5.
        cpus: Cpus,
        /// Share of processor time against other containers. Default: 1024.
        cpu_shares: Int<2, 262_144>,
        /// Processor time per period, in microseconds.
        cpu_quota: Micros,
        /// That period, in microseconds. Default: 100000.
        cpu_period: Micros,
        /// Processors to run on, such as "0-3,5".
        cpuset: CpuSet,
        /// How many processes and threads at most, or -1 for no limit. Default: 2048.
        pids_limit: Int<-1, 4_194_304>,
        /// Shares and limits of disk I/O.
        blkio_config: BlkioKeys,
        /// Resource limits by name, such as nofile: a number, or a table with `soft` and `hard`. -1 is no limit, except for nofile, which is
        /// at most the machine's sysctl fs.nr_open, by default 1048576.
        ulimits: Named<ShortOrLong<Rlim, UlimitKeys>>,
        /// -1000 to 1000: how early it is killed when the machine is out of memory.
        oom_score_adj: Int<-1000, 1000>,
        /// What of the container's output is kept on the data partition, over restarts of the machine. Default: nothing; the log in memory
        /// is always there.
        logging: LoggingKeys,
        /// Labels: a table, or a list of "NAME=value" strings. The status and `garboard inspect` show them.
        labels: Labels,
        /// Only false: a container's input is empty.
        stdin_open: Switch,
        /// Only false: a container's output goes to the log.
        tty: Switch,
    }
    refused {
        "annotations" => "annotations aren't supported yet; leave them out",
        "args" => "it is called `command`, as in Compose",
        "attach" => "every container's output goes to the log; [console] `logs` says whether the console shows it",
        "build" => "images aren't built here; build it (docker buildx build --output type=oci,dest=app.tar) and write image = \"oci-archive:app.tar\"",
        "capabilities" => "capabilities are `cap_add` and `cap_drop`, as in Compose",
        "cgroup_parent" => "every container has its control group in the appliance's own tree; leave it out",
        "cmd" => "it is called `command`, as in Compose",
        "configs" => "configs aren't supported yet; put the file into the image",
        "container_name" => "a container's name is that of its table, [containers.NAME]",
        "cpu_count" => "it is for Windows; use `cpus`",
        "cpu_percent" => "it is for Windows; use `cpus`",
        "cpu_rt_period" => "real-time scheduling isn't supported; use `cpu_shares` or `cpuset`",
        "cpu_rt_runtime" => "real-time scheduling isn't supported; use `cpu_shares` or `cpuset`",
        "credential_spec" => "it is for Windows",
        "deploy" => "limits are `mem_limit`, `cpus` and `pids_limit` of the container; every container runs once",
        "develop" => "it has no meaning for an appliance",
        "device_cgroup_rules" => "rules for devices aren't supported yet; name the devices in `devices`",
        "dns" => "name servers are the machine's: `dns` in [network]",
        "dns_opt" => "resolver options aren't supported yet",
        "dns_search" => "resolver options aren't supported yet",
        "env" => "it is called `environment`, as in Compose",
        "env_file" => "one file declares the whole appliance: write the variables in `environment`",
        "expose" => "it would change nothing; leave it out",
        "extends" => "one file declares the whole appliance, without inheritance",
        "external_links" => "links aren't supported; use `extra_hosts`",
        "gpus" => "GPUs aren't supported yet; name the devices in `devices`",
        "health_check" => "it is called `healthcheck`, as in Compose",
        "isolation" => "it is for Windows",
        "label_file" => "one file declares the whole appliance: write the labels in `labels`",
        "links" => "links aren't supported; use `extra_hosts`",
        "mac_address" => "a container has no Ethernet interface of its own yet",
        "mem_swappiness" => "the kernel has no such setting per container any more (cgroup v2); use `memswap_limit`",
        "memory" => "it is called `mem_limit`, as in Compose",
        "models" => "models aren't supported",
        "network" => "it is called `network_mode`, as in Compose",
        "networks" => "networks between containers aren't supported yet; use network_mode = \"host\" or \"none\"",
        "oom_kill_disable" => "the kernel has no such setting any more (cgroup v2); use `oom_score_adj`",
        "platform" => "the image decides; leave it out",
        "post_start" => "hooks aren't supported yet",
        "pre_stop" => "hooks aren't supported yet; `stop_signal` and `stop_grace_period` say how it is stopped",
        "profiles" => "every declared container runs; leave it out",
        "provider" => "providers aren't supported",
        "pull_policy" => "images are baked in when the appliance is built; leave it out",
        "runtime" => "there is one runtime; leave it out",
        "scale" => "every container runs once; declare another one",
        "secrets" => "secrets aren't supported yet",
        "use_api_socket" => "there is no engine with a socket here",
        "volumes_from" => "name the same volumes in both containers",
        "workdir" => "it is called `working_dir`, as in Compose",
    }
}

/// `host` or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostOnly;

impl Choice for HostOnly {
    const WHAT: &'static str = "a possible value";
    const CHOICES: &'static [(&'static str, Self)] = &[("host", Self)];
    const REFUSED: &'static [(&'static str, &'static str)] = &[
        ("private", "that is the default; leave it out"),
        ("service:", "containers that share are declared by `pod`, with the same name in each"),
        ("container:", "containers that share are declared by `pod`, with the same name in each"),
    ];
}

/// `host` or `private`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostOrPrivate {
    Host,
    Private,
}

impl Choice for HostOrPrivate {
    const WHAT: &'static str = "a possible value";
    const CHOICES: &'static [(&'static str, Self)] = &[("private", Self::Private), ("host", Self::Host)];
    const REFUSED: &'static [(&'static str, &'static str)] = &[
        ("none", "a container always has its own; write \"private\" or leave it out"),
        ("shareable", "containers that share are declared by `pod`, with the same name in each"),
        ("service:", "containers that share are declared by `pod`, with the same name in each"),
        ("container:", "containers that share are declared by `pod`, with the same name in each"),
    ];
}

impl Choice for NetworkMode {
    const WHAT: &'static str = "a network mode";
    const CHOICES: &'static [(&'static str, Self)] = &[("none", Self::None), ("host", Self::Host)];
    const REFUSED: &'static [(&'static str, &'static str)] = &[
        ("bridge", BRIDGE),
        ("default", BRIDGE),
        ("slirp4netns", BRIDGE),
        ("pasta", BRIDGE),
        ("service:", "containers that share are declared by `pod`, with the same name in each"),
        ("container:", "containers that share are declared by `pod`, with the same name in each"),
    ];
}

const BRIDGE: &str = "networks between containers aren't supported yet: \"host\" gives the container the machine's network, \
                      \"none\" gives it nothing but loopback";
