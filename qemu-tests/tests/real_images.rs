//! Container images that this project's code did not write, booted: nginx put together by umoci and redis by buildah, from
//! Debian packages (see `fixtures/build`).

mod support;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use garboard_qemu::{Exit, Image, Vm, scaled, secs};
use support::{Project, fixture, fixtures};

/// What an emulated machine may need from its start until its containers run.
const BOOT: Duration = secs(120);
/// How long an emulated service may take to answer.
const ANSWER: Duration = secs(30);
/// The page that the nginx image brings along.
const PAGE: &str = "Served by nginx from Debian packages.";
/// Resident memory that PID 1 may have, in bytes.
const PID1_LIMIT: u64 = 3 << 20;

fn bake(declaration: &str) -> (Project, Image) {
    let project = Project::new(declaration);
    let image = Image::load(project.build_without_disk()).unwrap();
    (project, image)
}

/// Tries until `attempt` succeeds: a port is forwarded long before somebody listens on it.
fn within<T>(timeout: Duration, mut attempt: impl FnMut() -> io::Result<T>) -> T {
    let deadline = Instant::now() + scaled(timeout);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if Instant::now() > deadline => panic!("no answer in {timeout:?}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(scaled(ANSWER)))?;
    Ok(stream)
}

/// The response to a GET, headers and all.
fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = connect(address)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: fixture\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    if response.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(response) }
}

/// Boots nginx from one form of its image and fetches its page, as a client outside the machine.
fn serves(reference: &str) {
    let (_project, image) = bake(&format!(
        r#"
        name = "nginx"
        [containers.web]
        image = "{reference}"
        network_mode = "host"
        ports = ["80:80"]
        restart = "unless-stopped"
        "#
    ));
    let vm = Vm::boot(&image).unwrap();
    vm.wait_healthy("web", BOOT).unwrap();
    let address = vm.address(80).unwrap();
    let response = within(ANSWER, || get(address, "/"));
    assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    assert!(response.contains(PAGE), "{response}");
    assert!(within(ANSWER, || get(address, "/absent")).starts_with("HTTP/1.1 404"), "any path is served");
    // Its log goes to /dev/stdout by name, which a container without root's rights over the machine must be able to open.
    let line = "\"GET / HTTP/1.0\" 200";
    vm.wait_console(line, ANSWER).unwrap();
    assert!(vm.logs("web", 100).unwrap().iter().any(|logged| logged.contains(line)));

    vm.wait_as_declared("web", BOOT).unwrap();
    let status = vm.status().unwrap();
    assert_eq!(status.container("web").unwrap().restarts, 0, "{}", status.table());
    vm.power_off(secs(60)).unwrap();
}

#[test]
fn nginx_serves_from_an_oci_layout() {
    serves(&fixture("oci", "nginx"));
}

#[test]
fn nginx_serves_from_an_oci_archive() {
    serves(&fixture("oci-archive", "nginx.oci.tar"));
}

#[test]
fn nginx_serves_from_a_docker_archive() {
    serves(&fixture("docker-archive", "nginx.docker.tar"));
}

/// All forms of one image hold the same layers, so each by itself makes the same system image, to the last byte. Then one boot
/// tells of all: the check inside knows what each property must be.
#[test]
fn layers_come_out_as_they_went_in() {
    let built = ["nginx", "nginx-zstd", "nginx-plain"].map(|form| {
        // Under one name, which the plan keeps.
        let image = "image = \"oci:image\"";
        let project =
            Project::new(&format!("name = \"layers\"\n[containers.one]\n{image}\ncommand = [\"fixture-check\"]\n"));
        std::os::unix::fs::symlink(fixtures().join(form), project.path("image")).unwrap();
        let image = Image::load(project.build_without_disk()).unwrap();
        (project, image)
    });
    let hashes = built.each_ref().map(|(_, image)| image.root_hash.as_str());
    assert!(!hashes[0].is_empty() && hashes == [hashes[0]; 3], "{hashes:?}");
    let system = built.each_ref().map(|(_, image)| fs::read(image.system.as_ref().unwrap()).unwrap());
    assert!(system[0] == system[1] && system[0] == system[2], "the forms' system images differ");

    let vm = Vm::boot(&built[2].1).unwrap();
    vm.wait_status("end of the check", BOOT, |status| Ok(status.containers.iter().all(|one| one.exit.is_some())))
        .unwrap();
    let log = vm.logs("one", 100).unwrap();
    let status = vm.status().unwrap();
    assert_eq!(status.container("one").unwrap().exit, Some(Exit::Code(0)), "{}", log.join("\n"));
    assert!(log.iter().any(|line| line == "fixture: 36 right, 0 wrong"), "{}", log.join("\n"));
}

/// A client of redis that speaks its inline protocol.
struct Redis(BufReader<TcpStream>);

impl Redis {
    fn connect(address: SocketAddr) -> Self {
        within(ANSWER, || {
            let mut redis = Self(BufReader::new(connect(address)?));
            match redis.call("PING")?.as_str() {
                "+PONG" => Ok(redis),
                other => Err(io::Error::other(other.to_owned())),
            }
        })
    }

    /// The reply's first line; of a bulk string its content.
    fn call(&mut self, command: &str) -> io::Result<String> {
        write!(self.0.get_mut(), "{command}\r\n")?;
        let reply = self.line()?;
        if reply.starts_with('$') && reply != "$-1" { self.line() } else { Ok(reply) }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

fn bake_redis() -> (Project, Image) {
    bake(&format!(
        r#"
        name = "redis"
        [volumes.keep]
        [containers.store]
        image = "{}"
        network_mode = "host"
        ports = ["6379:6379"]
        volumes = ["keep:/data"]
        restart = "unless-stopped"
        "#,
        fixture("oci", "redis")
    ))
}

/// Redis runs as its image's own user and writes to a volume that belongs to that user, as the directory in the image does.
#[test]
fn redis_keeps_its_data_across_a_power_off() {
    let (project, image) = bake_redis();
    let boot = || {
        let vm = Vm::builder(&image).state(project.path("state")).boot().unwrap();
        vm.wait_healthy("store", BOOT).unwrap();
        let redis = Redis::connect(vm.address(6379).unwrap());
        (vm, redis)
    };
    let (vm, mut redis) = boot();
    assert_eq!(redis.call("GET kept").unwrap(), "$-1", "the data disk is not fresh");
    assert_eq!(redis.call("SET kept tomorrow").unwrap(), "+OK");
    assert_eq!(vm.status().unwrap().data.state, "mounted");
    vm.power_off(secs(60)).unwrap();

    let (vm, mut redis) = boot();
    assert_eq!(redis.call("GET kept").unwrap(), "tomorrow");
    vm.power_off(secs(60)).unwrap();

    // The control: without the disk that was written to, nothing is known.
    let vm = Vm::boot(&image).unwrap();
    vm.wait_healthy("store", BOOT).unwrap();
    assert_eq!(Redis::connect(vm.address(6379).unwrap()).call("GET kept").unwrap(), "$-1");
}

/// The machine restarts itself, and what redis had acknowledged and synced is there.
#[test]
fn redis_keeps_its_data_across_a_reboot() {
    let (_project, image) = bake_redis();
    let vm = Vm::builder(&image).reboot().boot().unwrap();
    vm.wait_healthy("store", BOOT).unwrap();
    assert_eq!(Redis::connect(vm.address(6379).unwrap()).call("SET kept tomorrow").unwrap(), "+OK");
    vm.request("reboot", &serde_json::Map::new()).unwrap();
    let deadline = Instant::now() + scaled(BOOT);
    while vm.reboots() == 0 {
        assert!(Instant::now() < deadline, "no reboot: {}", vm.console().tail(40));
        std::thread::sleep(Duration::from_millis(100));
    }
    vm.wait_healthy("store", BOOT).unwrap();
    assert_eq!(Redis::connect(vm.address(6379).unwrap()).call("GET kept").unwrap(), "tomorrow");
}

/// What redis synced survives a power cut, and the filesystem needs no person to repair it.
#[test]
fn redis_keeps_what_it_synced_across_a_power_cut() {
    let (project, image) = bake_redis();
    let boot = || {
        let vm = Vm::builder(&image).state(project.path("state")).boot().unwrap();
        vm.wait_healthy("store", BOOT).unwrap();
        vm
    };
    let vm = boot();
    let mut redis = Redis::connect(vm.address(6379).unwrap());
    assert_eq!(redis.call("CONFIG SET appendfsync always").unwrap(), "+OK");
    assert_eq!(redis.call("SET kept tomorrow").unwrap(), "+OK");
    vm.hard_stop();
    drop(vm);

    let vm = boot();
    assert_eq!(Redis::connect(vm.address(6379).unwrap()).call("GET kept").unwrap(), "tomorrow");
}

/// Both together, sharing their lowest layer, and PID 1 stays small.
#[test]
fn nginx_and_redis_run_side_by_side() {
    let (_project, image) = bake(&format!(
        r#"
        name = "both"
        [volumes.keep]
        [containers.store]
        image = "{}"
        network_mode = "host"
        ports = ["6379:6379"]
        volumes = ["keep:/data"]
        restart = "unless-stopped"
        [containers.web]
        image = "{}"
        network_mode = "host"
        ports = ["80:80"]
        depends_on = ["store"]
        restart = "unless-stopped"
        "#,
        fixture("docker-archive", "redis.docker.tar"),
        fixture("oci-archive", "nginx.oci.tar"),
    ));
    let vm = Vm::boot(&image).unwrap();
    vm.wait_ready(BOOT).unwrap();
    let (web, store) = (vm.address(80).unwrap(), vm.address(6379).unwrap());
    assert!(within(ANSWER, || get(web, "/")).contains(PAGE));
    assert_eq!(Redis::connect(store).call("SET a b").unwrap(), "+OK");
    let rss = vm.status().unwrap().pid1_rss_bytes;
    println!("PID 1: {rss} bytes resident");
    assert!((1..=PID1_LIMIT).contains(&rss), "PID 1 has {rss} bytes resident");
    vm.power_off(secs(60)).unwrap();
}
