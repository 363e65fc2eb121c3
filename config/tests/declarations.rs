//! What right declarations mean.

use std::collections::BTreeMap;
use std::time::Duration;

use garboard_config::*;

/// The appliance of `text` with a name and a first container in front.
fn appliance(text: &str) -> Appliance {
    match parse("appliance.toml", &format!("name = \"demo\"\n{text}")) {
        Ok(appliance) => appliance,
        Err(errors) => panic!("{errors}"),
    }
}

/// The container with these keys, alone.
fn container(keys: &str) -> Container {
    appliance(&format!("[volumes.data]\n[containers.web]\nimage = \"x\"\n{keys}")).containers.remove(0)
}

#[test]
fn defaults_are_safe_and_composes() {
    let appliance = appliance("[containers.web]\nimage = \"images/web\"");
    assert_eq!(appliance.hostname, "demo");
    assert_eq!(
        appliance.system,
        System {
            memory_mb: 512,
            sysctls: vec![],
            log_budget: 8 << 20,
            compression: Compression::None,
            watchdog: None,
            status_vsock: None
        }
    );
    assert_eq!(appliance.kernel, Kernel::default());
    assert_eq!(appliance.console, Console { logs: true, status: true, access: ConsoleAccess::Off });
    assert_eq!(appliance.network, Network { address: Address::Dhcp, interface: None, dns: vec![] });
    assert_eq!(appliance.data, Data { size: None, required: false });
    assert!(!appliance.needs_data());
    let web = &appliance.containers[0];
    let expected = Container {
        name: "web".into(),
        image: "images/web".into(),
        command: None,
        entrypoint: None,
        environment: vec![],
        working_dir: None,
        user: None,
        group_add: vec![],
        hostname: Some("web".into()),
        domainname: None,
        network: NetworkMode::None,
        ports: vec![],
        extra_hosts: vec![],
        mounts: vec![],
        devices: vec![],
        read_only: false,
        rootfs_size: None,
        shm_size: None,
        restart: Restart::No,
        depends_on: vec![],
        supervision: Supervision {
            notify: false,
            start_timeout: Duration::from_secs(60),
            watchdog: None,
            health: Some(HealthCheck::default()),
            on_failure: OnFailure::Ignore,
            reads_status: false,
        },
        stop_signal: None,
        stop_grace_period: Duration::from_secs(10),
        init: false,
        ids: Some(IdRange { base: 65_536, size: 65_536 }),
        host_pid: false,
        host_ipc: false,
        host_uts: false,
        host_cgroup: false,
        cap_add: vec![],
        cap_drop: vec![],
        no_new_privileges: true,
        seccomp: Seccomp::Default,
        sysctls: vec![],
        resources: Resources {
            memory: None,
            memory_and_swap: None,
            memory_reservation: None,
            cpu: None,
            cpu_shares: None,
            cpuset: None,
            pids: Limit::At(2048),
            io: Io::default(),
        },
        ulimits: vec![],
        oom_score_adj: None,
        kept_log: None,
        labels: BTreeMap::new(),
        pod: None,
        weakened: vec![],
    };
    assert_eq!(web, &expected);
}

#[test]
fn a_table_or_a_list_means_the_same() {
    for (one, other) in [
        (
            "environment = { A = \"1\", B = 2, C = true, D = 0.5 }",
            "environment = [\"A=1\", \"B=2\", \"C=true\", \"D=0.5\"]",
        ),
        ("labels = { a = 1 }", "labels = [\"a=1\"]"),
        ("labels = { a = \"\" }", "labels = [\"a\"]"),
        ("sysctls = { \"net.core.somaxconn\" = 1 }", "sysctls = [\"net.core.somaxconn=1\"]"),
        ("command = \"a 'b c' d\\\\ e\"", "command = [\"a\", \"b c\", \"d e\"]"),
        ("entrypoint = \"\"", "entrypoint = []"),
        ("tmpfs = \"/run\"", "tmpfs = [\"/run\"]"),
        (
            "tmpfs = \"/run:size=1m,mode=0700\"",
            "volumes = [{ type = \"tmpfs\", target = \"/run\", tmpfs = { size = \"1m\", mode = 0o700 } }]",
        ),
        ("volumes = [\"data:/x:ro\"]", "volumes = [{ source = \"data\", target = \"/x\", read_only = true }]"),
        (
            "devices = [\"/dev/fuse:/dev/f:rw\"]",
            "devices = [{ source = \"/dev/fuse\", target = \"/dev/f\", permissions = \"wr\" }]",
        ),
        ("extra_hosts = { db = \"10.0.0.2\" }", "extra_hosts = [\"db:10.0.0.2\"]"),
        ("extra_hosts = { db = \"[::1]\" }", "extra_hosts = [\"db=[::1]\"]"),
        (
            "extra_hosts = { \"my-database-cluster.cluster-c9akciq32abc.ap-southeast-1.rds.example.org\" = \"10.0.0.2\" }",
            "extra_hosts = [\"my-database-cluster.cluster-c9akciq32abc.ap-southeast-1.rds.example.org=10.0.0.2\"]",
        ),
        ("ulimits = { nofile = 5 }", "ulimits = { nofile = { soft = 5, hard = \"5\" } }"),
        ("cpus = 0.5", "cpu_quota = \"50ms\"\ncpu_period = 100000"),
        ("cpus = \"2\"", "cpus = 2"),
        ("mem_limit = 1048576", "mem_limit = \"1M\""),
        ("stop_signal = 10", "stop_signal = \"usr1\""),
        ("user = 5", "user = \"5\""),
        ("stop_grace_period = \"1m30s\"", "stop_grace_period = \"90s\""),
        ("security_opt = [\"no-new-privileges\"]", ""),
        ("restart = \"no\"", ""),
        ("ipc = \"private\"", ""),
        (
            "network_mode = \"host\"\nports = [\"80:80\", \"1-3/udp\"]",
            "network_mode = \"host\"\nports = [{ target = 80, published = \"80\" }, { target = \"1-3\", protocol = \"udp\" }]",
        ),
    ] {
        assert_eq!(container(one), container(other), "{one}\n{other}");
    }
}

#[test]
fn nothing_of_a_command_is_lost_as_a_comment() {
    for command in ["a '#b' c", "a b#c", r"a \#b", "a \"# b\" c", "a ''#b", "a", ""] {
        let web = container(&format!("command = '''{command}'''"));
        let left: usize = web.command.unwrap().iter().map(|word| word.matches('#').count()).sum();
        assert_eq!(left, command.matches('#').count(), "{command}");
    }
    for command in ["a #b", "#", "a\n# it's\nb", "a #", "a \\\n#b"] {
        let text = format!("name = \"demo\"\n[containers.web]\nimage = \"x\"\ncommand = '''{command}'''");
        let errors = parse("x", &text).expect_err(command);
        assert!(errors.iter().all(|error| error.help.as_deref().unwrap().contains("quotes")), "{errors}");
    }
}

#[test]
fn empty_and_absent_commands_differ() {
    assert_eq!(container("command = []").command, Some(vec![]));
    assert_eq!(container("").command, None);
}

#[test]
fn containers_come_after_what_they_depend_on_else_as_declared() {
    let appliance = appliance(
        r#"
        [containers.z]
        image = "x"
        depends_on = ["b", "a"]
        [containers.m]
        image = "x"
        [containers.b]
        image = "x"
        depends_on = { a = { condition = "service_completed_successfully" } }
        [containers.a]
        image = "x"
        [containers.c]
        image = "x"
        "#,
    );
    let names: Vec<_> = appliance.containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, ["m", "a", "b", "z", "c"]);
    assert_eq!(appliance.position("z"), Some(3));
    for (index, container) in appliance.containers.iter().enumerate() {
        for dependency in &container.depends_on {
            assert!(appliance.position(&dependency.container).unwrap() < index);
        }
    }
    let b = &appliance.containers[2];
    assert_eq!(b.depends_on, [Dependency { container: "a".into(), condition: Condition::Completed }]);
}

#[test]
fn id_ranges_are_disjoint_and_stay_when_dependencies_change() {
    let text = |depends: &str| {
        format!(
            "[containers.a]\nimage = \"x\"\n{depends}\n[containers.b]\nimage = \"x\"\nuserns_mode = \"host\"\n[containers.c]\nimage = \"x\"\n"
        )
    };
    let bases = |appliance: Appliance| -> BTreeMap<String, Option<u32>> {
        appliance.containers.into_iter().map(|container| (container.name, container.ids.map(|ids| ids.base))).collect()
    };
    let before = bases(appliance(&text("")));
    assert_eq!(before, bases(appliance(&text("depends_on = [\"c\"]"))));
    let expected = [("a".to_owned(), Some(65_536)), ("b".to_owned(), None), ("c".to_owned(), Some(3 * 65_536))];
    assert_eq!(before, BTreeMap::from(expected));
}

#[test]
fn what_weakens_isolation_is_told_in_the_declarations_words() {
    let text = r#"
        userns_mode = "host"
        network_mode = "host"
        pid = "host"
        ipc = "host"
        uts = "host"
        cgroup = "host"
        cap_add = ["NET_ADMIN", "sys_time"]
        devices = ["/dev/fuse"]
        security_opt = ["no-new-privileges:false", "seccomp=profile.json"]
        pids_limit = -1
    "#;
    let web = container(text);
    let expected = [
        "userns_mode = \"host\"",
        "network_mode = \"host\"",
        "pid = \"host\"",
        "ipc = \"host\"",
        "uts = \"host\"",
        "cgroup = \"host\"",
        "security_opt = [\"no-new-privileges:false\"]",
        "security_opt = [\"seccomp=profile.json\"]",
        "cap_add = [\"NET_ADMIN\", \"SYS_TIME\"]",
        "devices = [\"/dev/fuse\"]",
        "pids_limit = -1",
    ];
    assert_eq!(web.weakened, expected);
    assert_eq!(web.hostname, None);
    // Each of these words is itself a declaration that weakens, and nothing else does.
    for words in expected.iter().filter(|words| !words.contains("SYS_TIME")) {
        assert_eq!(container(words).weakened, [*words]);
    }
}

#[test]
fn a_directory_is_mounted_before_what_lies_in_it() {
    let web = container("volumes = [\"data:/a/b/c\"]\ntmpfs = [\"/a/b\", \"/z\", \"/a\"]");
    let targets: Vec<_> = web.mounts.iter().map(|mount| mount.target.as_str()).collect();
    assert_eq!(targets, ["/z", "/a", "/a/b", "/a/b/c"]);
}

#[test]
fn users_keep_their_spelling() {
    for text in ["www-data", "1000", "www-data:1000", "0:0"] {
        assert_eq!(container(&format!("user = \"{text}\"")).user.unwrap().to_string(), text);
    }
    // The machine's own ids reach further than a container's.
    assert!(container("userns_mode = \"host\"\nuser = 70000").user.is_some());
}

#[test]
fn networks() {
    let network = |text: &str| appliance(&format!("[network]\n{text}\n[containers.web]\nimage = \"x\"")).network;
    assert_eq!(network("address = \"none\"").address, Address::None);
    assert_eq!(network("address = [\"dhcp\"]").address, Address::Dhcp);
    let fixed = network(
        "address = [\"192.0.2.7/24\", \"2001:db8::7/64\"]\ngateway = [\"192.0.2.1\", \"fe80::1\"]\ndns = \"9.9.9.9\"",
    );
    let Address::Static { addresses, gateways } = fixed.address else { panic!("{fixed:?}") };
    assert_eq!(addresses.iter().map(Cidr::to_string).collect::<Vec<_>>(), ["192.0.2.7/24", "2001:db8::7/64"]);
    assert_eq!(gateways.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1", "fe80::1"]);
    let one = network("address = \"192.0.2.7/24\"\ngateway = \"192.0.2.1\"").address;
    assert!(matches!(one, Address::Static { gateways, .. } if gateways.len() == 1));
    assert_eq!(fixed.dns, ["9.9.9.9".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn a_gateway_is_on_the_link_of_an_address_that_is_a_network_of_its_own() {
    let accepted = |address: &str, gateway: &str| {
        let network = format!("[network]\naddress = [{address}]\ngateway = \"{gateway}\"");
        parse("x", &format!("name = \"demo\"\n{network}\n[containers.web]\nimage = \"x\"")).is_ok()
    };
    assert!(accepted("\"192.0.2.7/32\"", "198.51.100.1"));
    assert!(!accepted("\"192.0.2.7/31\"", "198.51.100.1"));
    assert!(accepted("\"192.0.2.6/31\"", "192.0.2.7"), "a network of two has no broadcast");
    // PID 1 makes no route to a gateway of IPv6 that no network of the machine has.
    assert!(!accepted("\"2001:db8::7/128\"", "2001:db8::1"));
    assert!(!accepted("\"192.0.2.7/32\"", "2001:db8::1"));
    assert!(!accepted("\"192.0.2.7/32\"", "255.255.255.255"));
}

#[test]
fn open_files_are_as_many_as_the_machine_lets_them_be() {
    let accepted = |nr_open: &str, nofile: u64| {
        let system = format!("[system.sysctls]\n{nr_open}\n[containers.web]\nimage = \"x\"");
        parse("x", &format!("name = \"demo\"\n{system}\nulimits = {{ nofile = {nofile} }}")).is_ok()
    };
    assert!(accepted("", 1_048_576) && !accepted("", 1_048_577));
    assert!(accepted("\"fs.nr_open\" = 2000000", 2_000_000) && !accepted("\"fs.nr_open\" = 2000000", 2_000_001));
    assert!(!accepted("\"fs.nr_open\" = 5000", 5001));
}

#[test]
fn what_is_given_to_a_program_is_no_longer_than_the_kernel_takes() {
    // Lines are shorter than that, so that it takes some.
    let text = |length: usize| format!("\"\"\"{}\"\"\"", "x\n".repeat(length / 2) + &"y".repeat(length % 2));
    let accepted = |keys: &str| {
        parse("x", &format!("name = \"demo\"\n[containers.web]\nimage = \"x\"\n{keys}")).map(|_| ()).is_ok()
    };
    const MOST: usize = 131_071;
    for (before, after, more) in [
        ("command = [", "]", 0),
        ("environment = { A = ", " }", 2),
        ("environment = [", "]", 0),
        ("healthcheck = { test = ", " }", 0),
        ("healthcheck = { test = [\"CMD\", \"x\", ", "] }", 0),
    ] {
        let keys = |length: usize| format!("{before}{}{after}", text(length - more).replacen('\n', "=", 1));
        assert!(accepted(&keys(MOST)), "{before}");
        assert!(!accepted(&keys(MOST + 1)), "{before}");
    }
    let word = |length: usize| format!("entrypoint = \"\"\"sh -c '{}'\"\"\"", "x\n".repeat(length / 2));
    assert!(accepted(&word(MOST)) && !accepted(&word(MOST + 1)));
}

#[test]
fn an_address_knows_its_network() {
    let cidr = |text: &str, prefix| Cidr { address: text.parse().unwrap(), prefix };
    for (cidr, other, expected) in [
        (cidr("192.0.2.7", 24), "192.0.2.255", true),
        (cidr("192.0.2.7", 24), "192.0.3.7", false),
        (cidr("192.0.2.7", 32), "192.0.2.7", true),
        (cidr("192.0.2.7", 32), "192.0.2.6", false),
        (cidr("192.0.2.7", 0), "8.8.8.8", true),
        (cidr("2001:db8::7", 64), "2001:db8::1", true),
        (cidr("2001:db8::7", 64), "2001:db8:1::1", false),
        (cidr("2001:db8::7", 0), "::1", true),
        (cidr("192.0.2.7", 24), "::1", false),
    ] {
        assert_eq!(cidr.contains(other.parse().unwrap()), expected, "{cidr} {other}");
    }
}

#[test]
fn the_machines_tables() {
    let appliance = appliance(
        r#"
        [system]
        memory = "1g"
        hostname = "host.example.org"
        sysctls = ["vm.swappiness=1"]
        compression = "zstd"
        [kernel]
        image = "k/vmlinuz"
        cmdline = "quiet panic=1"
        [data]
        size = "1g"
        required = true
        [volumes.kept]
        [volumes.fast]
        kind = "tmpfs"
        size = "16m"
        [containers.web]
        image = "x"
        "#,
    );
    assert_eq!((appliance.system.memory_mb, appliance.hostname.as_str()), (1024, "host.example.org"));
    assert_eq!(appliance.system.sysctls, [("vm.swappiness".to_owned(), "1".to_owned())]);
    assert_eq!(appliance.system.compression, Compression::Zstd);
    assert_eq!(appliance.kernel.cmdline, ["quiet", "panic=1"]);
    assert_eq!(appliance.data, Data { size: Some(1 << 30), required: true });
    assert_eq!(appliance.volumes["fast"], Volume::Tmpfs { size: Some(16 << 20) });
    assert!(appliance.needs_data());
}

#[test]
fn a_declared_data_partition_is_there_without_volumes() {
    let needs = |data: &str| appliance(&format!("[data]\n{data}\n[containers.web]\nimage = \"x\"")).needs_data();
    assert!(needs("size = \"64m\"") && needs("required = true"));
    assert!(!needs("") && !needs("required = false"));
}

#[test]
fn io_settings_are_gathered_by_device() {
    let web = container(
        r#"
        [containers.web.blkio_config]
        weight = 100
        weight_device = [{ path = "/dev/vdb", weight = 200 }]
        device_read_bps = [{ path = "/dev/vda", rate = "1m" }, { path = "/dev/vdb", rate = "2m" }]
        device_write_iops = [{ path = "/dev/vda", rate = 7 }]
        "#,
    );
    let b = IoDevice { path: "/dev/vdb".into(), weight: Some(200), read_bps: Some(2 << 20), ..IoDevice::default() };
    let a = IoDevice { path: "/dev/vda".into(), read_bps: Some(1 << 20), write_iops: Some(7), ..IoDevice::default() };
    assert_eq!(web.resources.io, Io { weight: Some(100), devices: vec![b, a] });
}

#[test]
fn a_container_is_watched_as_compose_says() {
    let plain = container("healthcheck = { test = [\"CMD\", \"curl\", \"-f\", \"http://localhost\"] }").supervision;
    let health = plain.health.unwrap();
    assert_eq!(health.test, Some(HealthTest::Exec(["curl", "-f", "http://localhost"].map(str::to_owned).to_vec())));
    assert_eq!(HealthCheck { test: None, ..health }, HealthCheck::default(), "the rest is the image's to say");
    assert!(container("").supervision.health.unwrap().is_undeclared());
    let all = "interval = \"1m\", timeout = \"2s\", retries = 5, start_period = \"0s\", start_interval = \"1s\", on_unhealthy = \"ignore\"";
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let expected = HealthCheck {
        test: None,
        interval: seconds(60),
        timeout: seconds(2),
        retries: Some(5),
        start_period: seconds(0),
        start_interval: seconds(1),
        restart: false,
    };
    assert_eq!(container(&format!("healthcheck = {{ {all} }}")).supervision.health, Some(expected));
    let test = |keys: &str| {
        container(&format!("healthcheck = {{ {keys} }}")).supervision.health.map(|health| health.test.unwrap())
    };
    let shell = |script: &str| Some(HealthTest::Exec(["/bin/sh", "-c", script].map(str::to_owned).to_vec()));
    assert_eq!(test("test = \"exit 1 || true\""), shell("exit 1 || true"));
    assert_eq!(test("test = [\"CMD-SHELL\", \"a; b\"]"), shell("a; b"));
    assert_eq!(test("tcp = 6379"), Some(HealthTest::Tcp(6379)));
    assert_eq!(test("http = \"http://localhost/x?y\""), Some(HealthTest::Http { port: 80, path: "/x?y".into() }));
    assert_eq!(test("test = [\"NONE\"]"), None);
    assert_eq!(test("tcp = 1, disable = true"), None);
    assert_eq!(test("disable = true"), None);
}

#[test]
fn readiness_watchdog_and_failure() {
    let own = container(
        "notify = true\nstart_timeout = \"5s\"\nwatchdog = \"500ms\"\non_failure = \"reboot\"\nstatus = \"read\"",
    );
    let expected = Supervision {
        notify: true,
        start_timeout: Duration::from_secs(5),
        watchdog: Some(Duration::from_millis(500)),
        health: Some(HealthCheck::default()),
        on_failure: OnFailure::Reboot,
        reads_status: true,
    };
    assert_eq!(own.supervision, expected);
}

#[test]
fn the_console_is_for_whom_it_says() {
    let console = |keys: &str| appliance(&format!("[console]\n{keys}\n[containers.web]\nimage = \"x\"")).console.access;
    const HASH: &str = "$argon2id$v=19$m=4096,t=3,p=1$c29tZXNhbHRieXRlcw$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    assert_eq!(console(""), ConsoleAccess::Off);
    assert_eq!(console("access = \"status\""), ConsoleAccess::Status);
    let control = console(&format!("access = \"control\"\npassphrase_hash = \"{HASH}\""));
    assert_eq!(control, ConsoleAccess::Control(HASH.to_owned()));
}

#[test]
fn the_containers_of_a_pod_share_ids_and_a_name() {
    let text = "[containers.web]\nimage = \"x\"\npod = \"shop\"\n[containers.other]\nimage = \"x\"\n\
                [containers.php]\nimage = \"x\"\npod = \"shop\"\ndepends_on = [\"web\", \"other\"]\n";
    let containers = appliance(text).containers;
    let of = |name: &str| containers.iter().find(|container| container.name == name).unwrap();
    assert_eq!((&of("web").pod, &of("web").hostname), (&Some("shop".into()), &Some("shop".into())));
    assert_eq!((of("php").ids, &of("php").hostname), (of("web").ids, &Some("shop".into())));
    assert_ne!(of("other").ids, of("web").ids);
}

#[test]
fn a_watchdog_waits_whole_seconds() {
    let watchdog = |text: &str| {
        let text = format!("name = \"x\"\n[system]\nwatchdog = \"{text}\"\n[containers.web]\nimage = \"x\"");
        parse("x.toml", &text).ok().map(|appliance| appliance.system.watchdog)
    };
    assert_eq!((watchdog("30s"), watchdog("10m")), (Some(Some(30)), Some(Some(600))));
    assert_eq!((watchdog("500ms"), watchdog("1500ms"), watchdog("11m")), (None, None, None));
}

#[test]
fn a_kept_log_is_compose_s_logging_and_needs_the_data_partition() {
    assert_eq!(container("").kept_log, None);
    assert_eq!(container("logging = {}").kept_log, Some(KeptLog { file_size: 4 << 20, files: 4 }));
    let said = container("logging = { driver = \"local\", options = { max-size = \"64k\", max-file = \"100\" } }");
    assert_eq!(said.kept_log, Some(KeptLog { file_size: 64 << 10, files: 100 }));
    assert_eq!(said.kept_log.unwrap().total(), 6_400 << 10);
    let alone = |keys: &str| appliance(&format!("[containers.web]\nimage = \"x\"\n{keys}")).needs_data();
    assert!(alone("logging = {}") && !alone(""));
}

#[test]
fn kept_logs_fill_the_data_partition_and_no_more() {
    let text = |size: &str, files: u32| {
        let logging = format!("logging = {{ options = {{ max-size = \"8m\", max-file = {files} }} }}\n");
        let two = ["a", "b"].map(|name| format!("[containers.{name}]\nimage = \"x\"\n{logging}")).concat();
        format!("name = \"demo\"\n{size}{two}")
    };
    assert!(parse("x", &text("", 4)).is_ok(), "the partition has 64 MiB when nothing is declared");
    assert!(parse("x", &text("", 5)).is_err());
    assert!(parse("x", &text("[data]\nsize = \"80m\"\n", 5)).is_ok());
    assert!(parse("x", &text("[data]\nsize = \"79m\"\n", 5)).is_err());
}
