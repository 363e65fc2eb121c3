//! The machine's network, and what a container is told of names.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use garboard_qemu::{Image, Vm, scaled, secs};
use support::{Project, fixture};

/// What an emulated machine may need from its start until its containers run.
const BOOT: Duration = secs(120);
/// How long an emulated service may take to answer.
const ANSWER: Duration = secs(30);

const CONTAINERS: &str = r#"
[containers.web]
image = "BUSYBOX"
command = ["sh", "-c", '''
echo page by httpd > /tmp/index.html
echo "resolv: $(cat /etc/resolv.conf)"
exec httpd -f -p 8080 -h /tmp
''']
network_mode = "host"
ports = ["8080:8080"]
restart = "always"

[containers.alone]
image = "BUSYBOX"
hostname = "hermit"
extra_hosts = ["db=192.0.2.7", "db6=2001:db8::7"]
command = ["sh", "-c", '''
echo "interfaces: $(ls /sys/class/net)"
echo "routes: $(tail -n +2 /proc/net/route)"
httpd -p 80 -h /etc && wget -q -O /dev/null http://127.0.0.1/hosts && echo "loopback: yes" || echo "loopback: no"
wget -q -O - http://10.0.2.15:8080/ >/dev/null 2>&1 && echo "uplink: yes" || echo "uplink: no"
echo "name: $(hostname) $(cat /etc/hostname)"
echo "resolv: $(cat /etc/resolv.conf 2>&-)"
tr "\t" " " < /etc/hosts
exec sleep 1000000
''']
restart = "always"

# The control for what `alone` can't do.
[containers.beside]
image = "BUSYBOX"
network_mode = "host"
command = ["sh", "-c", '''
while ! wget -q -O - http://10.0.2.15:8080/ >/dev/null 2>&1; do sleep 1; done
echo "uplink: yes"
echo "gateways:" $(awk '$2 == "00000000" { print $3 }' /proc/net/route) \
    $(awk '$1 ~ /^0+$/ && $2 == "00" && $5 !~ /^0+$/ { print $5 }' /proc/net/ipv6_route)
echo "routers:" $(cat /proc/sys/net/ipv6/conf/eth0/accept_ra /proc/sys/net/ipv6/conf/eth0/autoconf)
echo "interfaces:" $(ls /sys/class/net)
exec sleep 1000000
''']
restart = "always"
"#;

fn boot(network: &str) -> (Project, Vm) {
    let containers = CONTAINERS.replace("BUSYBOX", &fixture("oci", "busybox"));
    let project = Project::new(&format!("name = \"net\"\n{network}\n{containers}"));
    let image = Image::load(project.build_without_disk()).unwrap();
    let vm = Vm::boot(&image).unwrap();
    vm.wait_ready(BOOT).unwrap();
    (project, vm)
}

/// The page of the web server, fetched from outside the machine.
fn page(vm: &Vm) -> String {
    let deadline = Instant::now() + scaled(ANSWER);
    loop {
        let fetched = TcpStream::connect(vm.address(8080).unwrap()).and_then(|mut stream| {
            stream.set_read_timeout(Some(ANSWER))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut page = String::new();
            stream.read_to_string(&mut page).map(|_| page)
        });
        match fetched {
            Ok(page) if !page.is_empty() => return page,
            other => assert!(Instant::now() < deadline, "no page: {other:?}\n{}", vm.console().tail(40)),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn assert_logged(vm: &Vm, container: &str, lines: &[&str]) {
    let log = vm.logs(container, 100).unwrap();
    for line in lines {
        assert!(log.iter().any(|logged| logged == line), "{line} in {log:#?}");
    }
}

#[test]
fn a_fixed_address_is_reached_from_outside() {
    let network = "[network]\naddress = [\"10.0.2.15/24\", \"2001:db8::15/64\"]\ngateway = [\"10.0.2.2\", \"2001:db8::2\"]\n\
                   dns = [\"10.0.2.3\", \"192.0.2.53\"]";
    let (_project, vm) = boot(network);
    assert!(page(&vm).contains("page by httpd"));
    let status = vm.status().unwrap().network;
    assert_eq!((status.state.as_str(), status.uplink.as_deref()), ("up", Some("eth0")), "{status:?}");
    assert_eq!(status.addresses, ["10.0.2.15/24", "2001:db8::15/64"]);
    // Name servers that the declaration names are there from the first moment on.
    assert_logged(&vm, "web", &["resolv: nameserver 10.0.2.3", "nameserver 192.0.2.53"]);

    vm.wait_console("beside | interfaces:", ANSWER).unwrap();
    // What a router says gives it nothing besides what is declared.
    assert_logged(&vm, "beside", &["uplink: yes", "routers: 0 0", "interfaces: eth0 lo"]);
    let log = vm.logs("beside", 100).unwrap();
    let both =
        |line: &String| line.starts_with("gateways: 0202000A ") && line.contains("20010db8000000000000000000000002");
    assert!(log.iter().any(both), "{log:#?}");
    vm.wait_console("alone  | uplink: no", ANSWER).unwrap();
    vm.wait_console("2001:db8::7 db6", ANSWER).unwrap();
    let lines = ["interfaces: lo", "routes: ", "loopback: yes", "name: hermit hermit", "resolv: "];
    assert_logged(&vm, "alone", &lines);
    let hosts = ["127.0.0.1 localhost", "127.0.1.1 hermit", "192.0.2.7 db", "2001:db8::7 db6"];
    assert_logged(&vm, "alone", &hosts);
    vm.power_off(secs(60)).unwrap();
}

/// Takes the devices of two drivers away, and gives them back once somebody has connected to port 7000.
const PLUGGER: &str = r#"
[containers.plugger]
image = "BUSYBOX"
command = ["sh", "-c", '''
nc -l -p 7000 </dev/null
mount -t sysfs none /mnt
for driver in virtio_net virtio_console; do
    cd /mnt/bus/virtio/drivers/$driver
    for device in virtio*; do echo $device > unbind; sleep 1; echo $device > bind; done
done
echo back
exec sleep 1000000
''']
network_mode = "host"
ports = ["7000:7000"]
userns_mode = "host"
cap_add = ["SYS_ADMIN"]
security_opt = ["seccomp=unconfined"]
restart = "always"
tmpfs = ["/mnt"]
"#;

/// A card that comes again has forgotten its address, and what was open of a port that comes again is dead.
#[test]
fn a_card_and_a_port_that_come_again_are_used_again() {
    let network = "[network]\naddress = \"10.0.2.15/24\"\ngateway = \"10.0.2.2\"";
    let (_project, vm) = boot(&format!("{network}\n{}", PLUGGER.replace("BUSYBOX", &fixture("oci", "busybox"))));
    assert!(page(&vm).contains("page by httpd"));
    drop(TcpStream::connect(vm.address(7000).unwrap()).unwrap());
    vm.wait_console("plugger | back", ANSWER).unwrap();
    assert!(page(&vm).contains("page by httpd"));
    vm.wait_status("address", ANSWER, |status| Ok(status.network.addresses == ["10.0.2.15/24"])).unwrap();
    vm.power_off(secs(60)).unwrap();
}

/// Without a network declaration the address comes by DHCP, and nobody waits for it.
#[test]
fn an_address_is_leased_when_none_is_declared() {
    let (_project, vm) = boot("");
    assert!(page(&vm).contains("page by httpd"));
    vm.wait_status("lease", ANSWER, |status| Ok(status.network.addresses == ["10.0.2.15/24"])).unwrap();
    // The control for a fixed address.
    vm.wait_console("beside | routers: 1 1", ANSWER).unwrap();
    vm.power_off(secs(60)).unwrap();
}

/// No network at all: the containers run, and the status tells.
#[test]
fn a_missing_card_is_survived_and_told() {
    let project = Project::new(&format!(
        "name = \"net\"\n[containers.one]\nimage = \"{}\"\nnetwork_mode = \"host\"\ncommand = [\"sleep\", \"1000000\"]\nrestart = \"always\"\n",
        fixture("oci", "busybox")
    ));
    let image = Image::load(project.build_without_disk()).unwrap();
    let vm = Vm::builder(&image).without_network().boot().unwrap();
    vm.wait_ready(BOOT).unwrap();
    let network = "reason why there is no network";
    vm.wait_status(network, ANSWER, |status| Ok(!status.network.detail.is_empty())).unwrap();
    let network = vm.status().unwrap().network;
    assert!(network.uplink.is_none() && network.addresses.is_empty(), "{network:?}");
    assert!(["none", "failed"].contains(&network.state.as_str()), "{network:?}");
    vm.power_off(secs(60)).unwrap();
}
