//! Who asks a real machine for its status from inside it: over vsock(7), and on the socket that a declared container has.

mod support;

use std::net::TcpStream;

use garboard_qemu::{Image, Vm, secs};
use support::{BOOT, Project, fixture};

/// Asks and tells of each request what kind of answer it got. The first argument says where.
const ASK: &str = r#"
$| = 1;
sub ask {
    my ($name, $request) = @_;
    my $reply;
    # Until the other one has printed something.
    do {
        syswrite S, "$request\n" or return print "$name unsent\n";
        # What was subscribed to comes in between.
        do { $reply = <S> // return print "$name closed\n" } while $reply =~ /"type":"(log|event|missed)"/;
    } while $reply =~ /"lines":\[\]/ && sleep 1;
    print "$name ", $reply =~ /"type":"(\w+)"/, "\n";
    $reply;
}
sub connected {
    $SIG{PIPE} = "IGNORE";
    my @kind = $ARGV[0] eq "vsock" ? (40, pack("S S L L x4", 40, 0, 1024, 1)) : (1, pack("S a*", 1, $ARGV[0]));
    until (socket(S, $kind[0], 1, 0) && connect(S, $kind[1])) { return print "connect: $!\n" if $!{EPERM} || $!{ENOENT}; sleep 1 }
    0;
}
connected and sleep;
print "hello\n";
ask(status => q({"request":"status"})) =~ /"appliance":"ports"/ and print "appliance ports\n";
ask(events => q({"request":"events"}));
ask(metrics => q({"request":"metrics"}));
ask(own => q({"request":"logs","container":"reader"})) =~ /"text":"hello"/ and print "log hello\n";
ask(other => q({"request":"logs","container":"secret"})) =~ /classified/ and print "secret leaked\n";
ask(follow => q({"request":"subscribe","logs":["secret"]}));
ask(poweroff => q({"request":"poweroff"}));
ask(reboot => q({"request":"reboot"}));
print "done\n";
# Until PID 1 crashes.
1 while <S>;
print "ended\n";
connected;
ask(again => q({"request":"events","since":0})) =~ /"kind":"crash"/ and print "told of the crash\n";
sleep;
"#;

const DECLARATION: &str = r#"
name = "ports"
[console]
logs = false
[system]
status_vsock = 1024
[kernel]
extra_modules = ["vsock_loopback"]

# Another machine's or this one's own programs: whoever is not the host may look.
[containers.peer]
image = "PERL"
user = "root"
entrypoint = ["perl", "-e", '''ASK''', "vsock"]
security_opt = ["seccomp=unconfined"]
restart = "always"

# Tries to pass for the host (CID 2), whose requests are all granted.
[containers.forger]
image = "PERL"
user = "root"
entrypoint = ["perl", "-e", '''
$| = 1;
socket S, 40, 1, 0 or print "socket: $!\n";
for $cid (2, 1) { print "bind $cid ", bind(S, pack("S S L L x4", 40, 0, 5000, $cid)) ? "done" : $!, "\n" }
sleep;
''']
security_opt = ["seccomp=unconfined"]
restart = "always"

# As containers are: without sockets of that kind.
[containers.usual]
image = "PERL"
user = "root"
entrypoint = ["perl", "-e", '''ASK''', "vsock"]
restart = "always"

[containers.reader]
image = "PERL"
user = "root"
entrypoint = ["perl", "-e", '''ASK''', "/run/garboard/status.sock"]
status = "read"
restart = "always"

[containers.secret]
image = "PERL"
user = "root"
entrypoint = ["perl", "-e", '''$| = 1; print "classified\n"; ASK''', "/run/garboard/status.sock"]
restart = "always"

# Crashes PID 1 once somebody has connected to port 7000.
[containers.saboteur]
image = "BUSYBOX"
command = ["sh", "-c", "nc -l -p 7000 </dev/null; kill -ABRT 1; exec sleep 1000000"]
network_mode = "host"
ports = ["7000"]
pid = "host"
userns_mode = "host"
cap_add = ["KILL"]
restart = "always"
"#;

/// What is common to all who may only look.
const LOOKS: [&str; 5] = ["hello", "status status", "appliance ports", "events events", "metrics metrics"];
const REFUSED: [&str; 2] = ["poweroff error", "reboot error"];

#[test]
fn who_is_inside_asks_and_changes_nothing() {
    let declaration = DECLARATION.replace("ASK", ASK).replace("PERL", &fixture("oci", "redis"));
    let project = Project::new(&declaration.replace("BUSYBOX", &fixture("oci", "busybox")));
    let image = Image::load(project.build_without_disk()).unwrap();
    let vm = Vm::boot(&image).unwrap();
    logged(&vm, "reader", &LOOKS);
    logged(&vm, "reader", &["own logs", "log hello", "other error", "follow error"]);
    logged(&vm, "reader", &REFUSED);
    // Who is no container of this machine may look at all.
    logged(&vm, "peer", &LOOKS);
    logged(&vm, "peer", &["own logs", "log hello", "other logs", "secret leaked", "follow subscribed"]);
    logged(&vm, "peer", &REFUSED);
    for name in ["reader", "peer"] {
        logged(&vm, name, &["done"]);
    }
    assert!(!vm.logs("reader", 100).unwrap().iter().any(|line| line.contains("leaked")));
    logged(&vm, "forger", &["bind 2 Cannot assign requested address", "bind 1 done"]);
    logged(&vm, "usual", &["connect: Operation not permitted"]);
    logged(&vm, "secret", &["classified", "connect: No such file or directory"]);

    // The sockets outlive a crash of PID 1.
    let words = "PID 1 crashed and goes on, nothing was lost: fatal signal 6 sent by process";
    vm.wait_status(words, secs(60), |_| {
        let _ = TcpStream::connect(vm.address(7000).unwrap());
        Ok(vm.console().contains(words))
    })
    .unwrap();
    for name in ["reader", "peer"] {
        logged(&vm, name, &["ended", "again events", "told of the crash"]);
    }
    vm.wait_ready(BOOT).unwrap();
    let status = vm.status().unwrap();
    assert!(status.containers.iter().all(|c| c.restarts == 0), "{}", status.table());
    // The control: on the machine's own port the same request is granted.
    vm.power_off(secs(60)).unwrap();
}

/// Waits until the container has logged these lines.
fn logged(vm: &Vm, container: &str, lines: &[&str]) {
    for line in lines {
        let what = format!("{line:?} of {container}");
        let waited = vm.wait_status(&what, BOOT, |_| Ok(vm.logs(container, 100)?.iter().any(|logged| logged == line)));
        assert!(waited.is_ok(), "{what} in {:#?}", vm.logs(container, 100));
    }
}
