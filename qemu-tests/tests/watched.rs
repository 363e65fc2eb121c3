//! Containers that say how they are, that are asked, that share a pod, and that the machine can't do without; with real images.

mod support;

use garboard_qemu::{Ending, Image, Vm, secs};
use support::{BOOT, Project, fixture};

fn bake(declaration: &str) -> (Project, Image) {
    let declaration =
        declaration.replace("BUSYBOX", &fixture("oci", "busybox")).replace("REDIS", &fixture("oci", "redis"));
    let project = Project::new(&declaration);
    let image = Image::load(project.build_without_disk()).unwrap();
    (project, image)
}

/// Redis notifies as its manual says for systemd, and is asked by its own client. `app` begins when it is healthy.
#[test]
fn redis_says_when_it_is_ready_and_is_asked_whether_it_works() {
    let (_project, image) = bake(
        r#"
        name = "watched"

        [containers.redis]
        image = "REDIS"
        command = ["--supervised", "systemd", "--save", "", "--appendonly", "no", "--dir", "/tmp"]
        notify = true
        start_timeout = "60s"
        healthcheck = { test = ["CMD", "redis-cli", "ping"], interval = "2s", timeout = "20s" }
        pod = "shop"
        restart = "always"

        [containers.port]
        image = "BUSYBOX"
        command = ["sh", "-c", "mkdir -p /tmp/w; echo well >/tmp/w/health; exec httpd -f -p 8080 -h /tmp/w"]
        healthcheck = { http = "http://localhost:8080/health", interval = "1s" }

        [containers.ill]
        image = "BUSYBOX"
        command = ["sleep", "1000000"]
        healthcheck = { tcp = 9, interval = "1s", retries = 2, on_unhealthy = "ignore" }

        [containers.app]
        image = "BUSYBOX"
        command = ["sh", "-c", "echo on $(hostname); echo PING | nc 127.0.0.1 6379; exec sleep 1000000"]
        depends_on = { redis = { condition = "service_healthy" }, port = { condition = "service_healthy" } }

        [containers.neighbour]
        image = "BUSYBOX"
        command = ["sh", "-c", "hostname; until echo PING | nc 127.0.0.1 6379 | grep PONG; do sleep 1; done; ls -l /run/garboard/status.sock; exec sleep 1000000"]
        pod = "shop"
        status = "read"
        "#,
    );
    let vm = Vm::boot(&image).unwrap();
    let health = |name: &'static str, health: &'static str| {
        vm.wait_status(&format!("{name} is {health}"), BOOT, |status| {
            Ok(status.container(name).is_some_and(|container| container.health == health))
        })
        .unwrap()
    };
    health("redis", "healthy");
    health("port", "healthy");
    health("ill", "unhealthy");
    // Its own network: nobody answers there. A pod's is its containers' alone.
    vm.wait_console("app       | on app", secs(60)).unwrap();
    vm.wait_console("neighbour | shop", secs(60)).unwrap();
    vm.wait_console("neighbour | +PONG", secs(60)).unwrap();
    vm.wait_console("srw-rw-rw-", secs(60)).unwrap();
    let console = vm.console().transcript();
    for said in ["redis is healthy", "ill is unhealthy: "] {
        assert!(vm.console().contains(said), "{said}: {console}");
    }
    assert!(!console.lines().any(|line| line.starts_with("app") && line.contains("PONG")), "{console}");
    let status = vm.status().unwrap();
    assert!(!status.ready, "one is unhealthy: {}", status.table());
    assert_eq!(status.container("ill").unwrap().restarts, 0);
    vm.power_off(secs(60)).unwrap();
}

#[test]
fn readiness_that_never_comes_is_told_and_nobody_waits_for_it_for_ever() {
    let (_project, image) = bake(
        r#"
        name = "silent"
        [containers.silent]
        image = "BUSYBOX"
        command = ["sleep", "1000000"]
        notify = true
        start_timeout = "3s"

        [containers.next]
        image = "BUSYBOX"
        command = ["echo", "never"]
        depends_on = ["silent"]
        "#,
    );
    let vm = Vm::boot(&image).unwrap();
    vm.wait_status("both have failed", BOOT, |status| {
        Ok(status.containers.iter().all(|container| container.state == "failed"))
    })
    .unwrap();
    let status = vm.status().unwrap();
    assert!(status.container("silent").unwrap().detail.contains("within 3 s"), "{}", status.table());
    assert!(status.container("next").unwrap().detail.contains("waits for silent to be started"), "{}", status.table());
    assert!(!vm.console().contains("next   | never"));
    vm.power_off(secs(60)).unwrap();
}

#[test]
fn a_machine_that_is_nothing_without_a_container_goes_with_it() {
    let (_project, image) = bake(
        r#"
        name = "critical"
        [containers.other]
        image = "BUSYBOX"
        command = ["sh", "-c", "trap 'echo in order; exit 0' TERM; while :; do sleep 1; done"]

        [containers.critical]
        image = "BUSYBOX"
        command = ["sh", "-c", "sleep 2; exit 3"]
        restart = "on-failure:1"
        on_failure = "reboot"
        "#,
    );
    let vm = Vm::boot(&image).unwrap();
    assert_eq!(vm.wait_exit(BOOT).unwrap(), Ending::Reboot);
    for said in ["starting over (critical was given up, and its declaration wants that)", "other    | in order"] {
        assert!(vm.console().contains(said), "{said}: {}", vm.console().transcript());
    }
}
