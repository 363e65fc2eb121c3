//! Checkpoints by the real criu, on a machine whose kernel it knows.

#[path = "support/criu.rs"]
mod criu;
#[path = "support/guest.rs"]
mod guest;
#[path = "support/oci.rs"]
mod oci;
mod support;

use std::collections::BTreeMap;

use guest::Guest;
use oci::{boot, bundle, bundle_with};
use serde_json::{Value, json};

/// Before each script.
const PREPARE: &str = r#"
runtime=garboard-runtime
cd /bundle
# Until the container runs; until it has printed two numbers; the first and the last of those that it has printed.
runs() { for i in 1 2 3 4 5 6 7 8 9 10; do $runtime state $1 2>/dev/null | grep -q running && return; sleep 1; done; }
prints() { for i in 1 2 3 4 5 6 7 8 9 10; do [ $(grep -sv whole $1 | wc -l) -gt 1 ] && return; sleep 1; done; }
ends() { grep -v whole $1 | sed -n '1p;$p'; }
# Has it tell how much memory it has.
asks() { $runtime kill one USR1; for i in 1 2 3 4 5; do grep whole $1 && return; sleep 1; done; }
"#;

/// A machine on which criu works, with the program under test and a script that may use [`PREPARE`]'s functions.
fn guest(script: &str) -> Guest {
    let mut guest = Guest::new(&format!("{}{PREPARE}{script}", criu::PREPARE));
    criu::add(&mut guest);
    guest
}

const IMAGES: &str = r#"
# It counts. Its streams are pipes, of which others can take the places.
sleep 1000 | $runtime run --detach one 2>&1 | cat >/tmp/before &
until $runtime state one 2>/dev/null | grep -q running; do sleep 0.1; done
prints /tmp/before
echo limits $(cd /sys/fs/cgroup/one && cat memory.max pids.max)
$runtime checkpoint --image-path /tmp/images one
echo checkpoint $?
$runtime state one >/dev/null 2>&1
echo gone $?
sleep 1
sleep 1000 | $runtime restore --detach --image-path /tmp/images one 2>&1 | cat >/tmp/after &
for i in 1 2 3 4 5 6 7 8 9 10; do $runtime state one 2>/dev/null | grep -q running || sleep 1; done
prints /tmp/after
echo restored $($runtime state one | grep status)
echo before $(ends /tmp/before)
echo after $(ends /tmp/after)
echo restored:limits $(cd /sys/fs/cgroup/one && cat memory.max pids.max)
echo inside $(cat /sys/fs/cgroup/one/cgroup.procs | wc -l)
$runtime exec one /bin/busybox true
echo exec $?
$runtime delete --force one
echo deleted $?

# One with a terminal, that who runs it holds, and then who restores it. criu compares it with the machine's.
cd /terminal
mkdir /dev/pts
mount -t devpts devpts /dev/pts
mkfifo /tmp/keys
exec 7<>/tmp/keys
says() { for i in 1 2 3 4 5 6 7 8 9 10; do grep -sq "$1" $2 && return; sleep 1; done; }
$runtime run two </tmp/keys >/tmp/first 2>&1 &
held=$!
runs two
echo one >&7
says '^1 one' /tmp/first
$runtime checkpoint --pre-dump --image-path /tmp/memory two
echo terminal:memory $?
$runtime checkpoint --image-path /tmp/shown --parent-path ../memory two
echo terminal:checkpoint $?
$runtime delete --force two
wait $held
$runtime restore --image-path /tmp/shown two </tmp/keys >/tmp/second 2>&1 &
shown=$!
echo two >&7
says '^2 two' /tmp/second
echo end >&7
wait $shown
echo terminal:ended $?
echo terminal:said $(tr -d '\r' </tmp/second)

# One whose root is made of layers. What it writes after the checkpoint isn't in that.
cd /layered
mkdir /place
mount -t tmpfs place /place
chown -R 100000:100000 /bundle/rootfs
sleep 1000 | $runtime run --detach three 2>&1 | cat >/tmp/written &
prints /tmp/written
$runtime checkpoint --leave-running --image-path /tmp/layered three
echo layers:checkpoint $?
$runtime exec three /bin/busybox touch /later
$runtime delete --force three
# By another name, and so in another cgroup.
$runtime restore --detach --image-path /tmp/layered four </dev/null >/tmp/on 2>&1
before=$($runtime exec four /bin/busybox cat /open | wc -l)
echo layers:files $($runtime exec four /bin/busybox ls /) $($runtime exec four /bin/busybox cat /kept)
sleep 1
echo layers:grown $(($($runtime exec four /bin/busybox cat /open | wc -l) > before))
echo layers:cgroup $(cat /sys/fs/cgroup/four/cgroup.procs | wc -l) $(ls -d /sys/fs/cgroup/three 2>/dev/null)
$runtime delete --force four
echo layers:left $(ls /place | wc -l) $([ -s /tmp/layered/configured.log ] && echo logged)
"#;

/// Writes above its layers, removes what is in one, and goes on to write to a file that it holds open.
const WRITES: &str = "echo kept >/kept; /bin/busybox rm /gone; exec 8>/open; i=0; \
                      while :; do i=$((i + 1)); echo $i; echo $i >&8; read -t 0.2; done";

/// Numbers the lines that are typed; says last what its terminal is.
const TYPED: &str = "i=0; while read line; do i=$((i + 1)); echo $i $line; [ $line != end ] || break; done; \
                     /bin/busybox stty size; /bin/busybox tty; echo shown >/dev/console; exit 5";

#[test]
fn a_container_goes_on_from_its_images() {
    let mut guest = guest(IMAGES);
    let mut terminal = oci::config(&["/bin/busybox", "sh", "-c", TYPED]);
    terminal["root"]["path"] = "/bundle/rootfs".into();
    terminal["process"]["terminal"] = true.into();
    terminal["process"]["consoleSize"] = json!({"height": 33, "width": 99});
    let options = ["newinstance", "ptmxmode=0666", "mode=0620"];
    let devpts = json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": options});
    terminal["mounts"].as_array_mut().unwrap().push(devpts);
    guest.text("terminal/config.json", &terminal.to_string());
    let mut layered = oci::config(&["/bin/busybox", "sh", "-c", WRITES]);
    layered["root"] = json!({"path": "/place"});
    layered["annotations"] = json!({
        "org.garboard.layers": "/bundle/rootfs", "org.garboard.layers.driver": "overlay",
        "org.criu.config": "/layered/criu.conf",
    });
    guest.text("layered/criu.conf", "log-file configured.log\n");
    map_ids(&mut layered);
    guest.text("layered/config.json", &layered.to_string());
    guest.text("bundle/rootfs/gone", "");
    let count = "i=0; while :; do echo $i; i=$((i + 1)); sleep 0.2; done";
    bundle_with(&mut guest, &["/bin/busybox", "sh", "-c", count], |config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 50}});
    });
    let found = boot(guest);
    assert_eq!((found["limits"].as_str(), found["restored:limits"].as_str()), ("67108864 50", "67108864 50"));
    assert_eq!((found["checkpoint"].as_str(), found["gone"].as_str()), ("0", "1"));
    assert!(found["restored"].contains("running"), "{}", found["restored"]);
    let ends = |when: &str| -> Vec<u32> { found[when].split(' ').map(|number| number.parse().unwrap()).collect() };
    let (before, after) = (ends("before"), ends("after"));
    assert_eq!((before[0], after[0]), (0, before[1] + 1));
    assert!(after[1] > after[0]);
    // The shell, and perhaps its sleep.
    assert!(["1", "2"].contains(&found["inside"].as_str()), "{}", found["inside"]);
    assert_eq!((found["exec"].as_str(), found["deleted"].as_str()), ("0", "0"));
    assert_eq!((found["terminal:memory"].as_str(), found["terminal:checkpoint"].as_str()), ("0", "0"));
    assert_eq!(found["terminal:ended"], "5");
    // What is typed is shown, too.
    assert!(found["terminal:said"].ends_with("2 two end 3 end 33 99 /dev/pts/0 shown"), "{}", found["terminal:said"]);
    assert_eq!(
        (found["layers:checkpoint"].as_str(), found["layers:files"].as_str()),
        ("0", "bin dev kept open proc kept")
    );
    assert_eq!(found["layers:cgroup"], "1");
    assert_eq!((found["layers:grown"].as_str(), found["layers:left"].as_str()), ("1", "0 logged"));
}

/// Gives the container a user namespace with ids of its own.
fn map_ids(config: &mut Value) {
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    for field in ["uidMappings", "gidMappings"] {
        config["linux"][field] = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    }
}

/// Counts, without other processes, and has four million bytes that never change, whose number it tells when it is asked.
const COUNT: &str = "big=$(dd if=/dev/zero bs=1000 count=4000 2>/dev/null | tr '\\0' x); trap 'echo whole ${#big}' USR1; \
                     i=0; while :; do echo $i; i=$((i + 1)); read -t 0.2; done";

const PARENT: &str = r#"
sleep 1000 | $runtime run --detach one 2>&1 | cat >/tmp/before &
prints /tmp/before
$runtime checkpoint --pre-dump --image-path /tmp/first one
echo first $? $($runtime state one | grep status)
sleep 1
$runtime checkpoint --pre-dump --image-path /tmp/second --parent-path ../first one
echo second $? $($runtime state one | grep status)
sleep 1
$runtime checkpoint --image-path /tmp/images --parent-path ../second one
echo checkpoint $?
# Whole thousands of bytes of memory in each.
for images in first second images; do echo pages:$images $(($(cat /tmp/$images/pages-*.img | wc -c) / 1000)); done
echo parents $(readlink /tmp/second/parent) $(readlink /tmp/images/parent)
sleep 1000 | $runtime restore --detach --image-path /tmp/images one 2>&1 | cat >/tmp/after &
runs one
prints /tmp/after
echo restored $($runtime state one | grep status)
echo before $(ends /tmp/before)
echo after $(ends /tmp/after)
asks /tmp/after
$runtime delete --force one
echo deleted $?
# The control: without its parent there isn't enough to go on from.
mv /tmp/first /tmp/elsewhere
$runtime restore --detach --image-path /tmp/images one </dev/null >/tmp/said 2>&1
echo orphan $? $(cat /tmp/said)
$runtime state one >/dev/null 2>&1
echo left $?
"#;

#[test]
fn a_checkpoint_begins_from_an_earlier_one() {
    let mut guest = guest(PARENT);
    bundle(&mut guest, &["/bin/busybox", "sh", "-c", COUNT]);
    let found = boot(guest);
    for step in ["first", "second"] {
        assert!(found[step].starts_with("0 ") && found[step].contains("running"), "{}", found[step]);
    }
    assert_eq!((found["checkpoint"].as_str(), found["parents"].as_str()), ("0", "../first ../second"));
    let pages = |images: &str| found[&format!("pages:{images}")].parse::<u32>().unwrap();
    // What doesn't change was written once.
    assert!(pages("first") > 4000 && pages("second") < 2000 && pages("images") < 2000, "{found:?}");
    assert!(found["restored"].contains("running"), "{}", found["restored"]);
    went_on(&found);
    assert_eq!(found["deleted"], "0");
    assert!(found["orphan"].starts_with("1 ") && found["left"] == "1", "{}", found["orphan"]);
}

/// A container that [`COUNT`]s went on where it had been, with all its memory.
fn went_on(found: &BTreeMap<String, String>) {
    let ends = |when: &str| -> Vec<u32> { found[when].split(' ').map(|number| number.parse().unwrap()).collect() };
    let (before, after) = (ends("before"), ends("after"));
    assert_eq!((before[0], after[0]), (0, before[1] + 1));
    assert!(after[1] > after[0]);
    assert_eq!(found["whole"], "4000000");
}

const SERVER: &str = r#"
mkdir /tmp/images /tmp/pages
sleep 1000 | $runtime run --detach one 2>&1 | cat >/tmp/before &
prints /tmp/before
criu page-server --images-dir /tmp/pages --work-dir /tmp/pages --log-file server.log --address 127.0.0.1 --port 9999 &
server=$!
# Until it listens, by the port's number.
for i in $(seq 100); do grep -q ':270F 00000000:0000 0A' /proc/net/tcp && break; sleep 0.2; done
$runtime checkpoint --image-path /tmp/images --page-server 127.0.0.1:9999 one
echo checkpoint $?
wait $server
echo server $?
echo here $(ls /tmp/images | grep -c pages-)
echo there $(ls /tmp/pages | grep -c pages-)
# As whoever moves a container would.
mv /tmp/pages/*.img /tmp/images/
sleep 1000 | $runtime restore --detach --image-path /tmp/images one 2>&1 | cat >/tmp/after &
runs one
prints /tmp/after
echo before $(ends /tmp/before)
echo after $(ends /tmp/after)
asks /tmp/after
$runtime delete --force one
# Where nobody serves, it fails and goes on.
sleep 1000 | $runtime run --detach two 2>&1 | cat >/tmp/two &
prints /tmp/two
$runtime checkpoint --image-path /tmp/other --page-server 127.0.0.1:9998 two 2>/tmp/said
echo unserved $? $(cat /tmp/said)
before=$(tail -n 1 /tmp/two)
sleep 1
echo two $($runtime state two | grep -c running) $(($(tail -n 1 /tmp/two) > before))
$runtime delete --force two
"#;

#[test]
fn memory_goes_to_a_page_server() {
    let mut guest = guest(SERVER);
    bundle(&mut guest, &["/bin/busybox", "sh", "-c", COUNT]);
    let found = boot(guest);
    assert_eq!((found["checkpoint"].as_str(), found["server"].as_str()), ("0", "0"));
    assert_eq!(found["here"], "0");
    assert_ne!(found["there"], "0");
    went_on(&found);
    assert!(
        found["unserved"].starts_with("1 ") && found["unserved"].contains("Can't connect to server 127.0.0.1:9998"),
        "{}",
        found["unserved"]
    );
    assert_eq!(found["two"], "1 1");
}

const MAPPED: &str = r#"
# criu makes a directory in a container's root, as its root.
chown 100000:100000 /bundle/rootfs
sleep 1000 | $runtime run --detach one 2>&1 | cat >/tmp/before &
prints /tmp/before
owners() { stat -c %u /sys/fs/cgroup/one /sys/fs/cgroup/one/cgroup.procs /sys/fs/cgroup/one/pids.max; }
echo owners $(owners)
$runtime checkpoint --image-path /tmp/images one
echo checkpoint $?
sleep 1000 | $runtime restore --detach --image-path /tmp/images one 2>&1 | cat >/tmp/after &
runs one
prints /tmp/after
echo map $(cat /proc/$(cat /sys/fs/cgroup/one/cgroup.procs)/uid_map)
echo before $(ends /tmp/before)
echo after $(ends /tmp/after)
asks /tmp/after
echo restored:owners $(owners)
echo inside $($runtime exec one /bin/busybox id -u) $($runtime exec one /bin/busybox cat /proc/self/uid_map)
$runtime delete --force one
# The control: that directory can't be made.
chown 0:0 /bundle/rootfs
$runtime restore --detach --image-path /tmp/images one </dev/null >/tmp/said 2>&1
echo foreign $? $(cat /tmp/said)
$runtime state one >/dev/null 2>&1
echo left $?
"#;

#[test]
fn a_container_with_ids_of_its_own_goes_on_with_them() {
    let mut guest = guest(MAPPED);
    bundle_with(&mut guest, &["/bin/busybox", "sh", "-c", COUNT], |config| {
        map_ids(config);
        // It may use its cgroup, which it is given for that.
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}));
    });
    guest.directory("bundle/rootfs/sys/fs/cgroup");
    let found = boot(guest);
    assert_eq!(found["checkpoint"], "0");
    assert_eq!((found["owners"].as_str(), found["restored:owners"].as_str()), ("100000 100000 0", "100000 100000 0"));
    went_on(&found);
    assert_eq!((found["map"].as_str(), found["inside"].as_str()), ("0 100000 65536", "0 0 100000 65536"));
    assert!(
        found["foreign"].starts_with("1 ") && found["foreign"].contains("Permission denied"),
        "{}",
        found["foreign"]
    );
    assert_eq!(found["left"], "1");
}
