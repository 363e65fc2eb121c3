//! What goes in and out: streams, terminals, passed descriptors, readiness.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

use crate::site::{Site, finish, shell, until};
use crate::trials;

pub fn tests() -> Vec<Trial> {
    trials![
        streams_are_the_caller_s,
        a_terminal_goes_to_the_console_socket,
        run_shows_the_terminal,
        a_broken_output_doesn_t_end_the_container,
        who_can_t_be_waited_for_is_destroyed,
        a_terminal_needs_somebody_to_hold_it,
        an_image_can_t_slip_a_device_in_as_terminal,
        descriptors_are_preserved_and_no_others,
        who_waits_to_begin_holds_nothing_of_the_machine_s,
        listening_sockets_are_passed_on,
        readiness_is_passed_on_and_nothing_else,
        readiness_that_nobody_takes_is_a_warning,
        the_session_keyring_is_the_container_s_own,
        the_pid_descriptor_is_sent,
        home_is_looked_up,
    ]
}

fn streams_are_the_caller_s() {
    let site = shell("cat; echo err >&2");
    let mut command = site.command(&["run", &site.id]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"through");
    assert!(String::from_utf8_lossy(&output.stderr).ends_with("err\n"), "{output:?}");
    // `create` hands its streams on to a program that runs when it has long gone.
    let site = shell("echo late");
    let output = site.create(&[]);
    site.ok(&["start", &site.id]);
    until("it speaks", || std::fs::read_to_string(&output).unwrap().ends_with("late\n"));
}

/// Accepts one connection and takes the descriptor that comes over it.
pub fn receive(listener: &UnixListener) -> OwnedFd {
    let (stream, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.next().expect("a terminal was sent")
}

fn a_terminal_goes_to_the_console_socket() {
    let script = "tty; stty size; readlink /proc/self/fd/0; stat -c %t:%T /dev/console; stat -c %u /dev/pts/0; \
                  echo to-console > /dev/console; read line; echo got $line";
    let site = shell(script).change(|c| {
        c["process"]["terminal"] = true.into();
        c["process"]["consoleSize"] = json!({"height": 33, "width": 99});
        c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        for side in ["uidMappings", "gidMappings"] {
            c["linux"][side] = json!([{"containerID": 0, "hostID": 1_000_000, "size": 65536}]);
        }
    });
    // A path that is longer than a socket's may be.
    let directory = site.directory.join("x".repeat(120));
    std::fs::create_dir(&directory).unwrap();
    let socket = directory.join("console.sock");
    let handle = std::fs::File::open(&directory).unwrap();
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/console.sock", handle.as_raw_fd())).unwrap();
    let accepting = std::thread::spawn(move || receive(&listener));
    site.create(&["--console-socket", socket.to_str().unwrap()]);
    let mut terminal = std::fs::File::from(accepting.join().unwrap());
    site.ok(&["start", &site.id]);
    terminal.write_all(b"typed\n").unwrap();
    let mut text = String::new();
    let mut buffer = [0; 1024];
    // EIO: the last one who had it open has gone.
    while let Ok(n @ 1..) = terminal.read(&mut buffer) {
        text += &String::from_utf8_lossy(&buffer[..n]);
    }
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| *line != "typed").collect();
    assert_eq!(lines, ["/dev/pts/0", "33 99", "/dev/pts/0", "88:0", "1000", "to-console", "got typed"], "{text:?}");
    site.wait_for("stopped");
}

fn run_shows_the_terminal() {
    let site = shell("tty; read line; echo got $line; exit 5").change(|c| c["process"]["terminal"] = true.into());
    let mut command = site.command(&["run", &site.id]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"typed\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    // No terminal shows it, so lines end as in a file.
    assert!(text.contains("/dev/pts/0\n") && text.ends_with("got typed\n") && !text.contains('\r'), "{text:?}");
    assert_eq!(output.status.code(), Some(5));
    site.assert_gone();
    // More than any buffer on the way holds.
    let site = shell("i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done");
    let site = site.change(|c| c["process"]["terminal"] = true.into());
    let done = finish(site.command(&["run", &site.id]));
    assert_eq!((done.status, done.stdout.matches("0123456789").count()), (0, 20_000));
}

fn a_broken_output_doesn_t_end_the_container() {
    // More than any buffer on the way holds.
    let script = "i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done; touch /tmp/whole; exit 7";
    let site = shell(script).change(|c| {
        c["process"]["terminal"] = true.into();
        c["root"]["readonly"] = false.into();
    });
    let whole = crate::site::place().rootfs().join("tmp/whole");
    let mut child = site.command(&["run", &site.id]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), stderr.matches("warning: write to standard output").count()),
        (Some(7), 1),
        "{stderr}"
    );
    site.assert_gone();
    std::fs::remove_file(whole).expect("the container has come to its end");
}

fn who_can_t_be_waited_for_is_destroyed() {
    let site = shell("sleep 60").change(|c| c["process"]["terminal"] = true.into());
    let run = |more: &[&str]| {
        let mut command = site.command(&[&["run"], more, &[site.id.as_str()]].concat());
        // A directory, which can't be read.
        command.stdin(std::fs::File::open("/").unwrap());
        let done = finish(command);
        assert!(done.status == 1 && done.stderr.contains("read standard input"), "{done:?}");
    };
    run(&[]);
    site.assert_gone();
    // Unless it is to be kept, as it is then.
    run(&["--keep"]);
    assert_eq!(site.status(), "running");
}

fn a_terminal_needs_somebody_to_hold_it() {
    let site = shell("true").change(|c| c["process"]["terminal"] = true.into());
    for arguments in [&["create"][..], &["run", "--detach"]] {
        let error = site.fails(&[arguments, &[site.id.as_str()]].concat());
        assert!(error.contains("--console-socket"), "{error}");
        site.assert_gone();
    }
    let error = site.fails(&["create", "--console-socket", "/absent/socket", &site.id]);
    assert!(error.contains("connect to the socket /absent/socket: no such file or directory (ENOENT)"), "{error}");
    site.assert_gone();
}

fn an_image_can_t_slip_a_device_in_as_terminal() {
    // Without a devpts of its own, /dev/pts would be whatever the image has there.
    let site = shell("true").change(|c| {
        c["process"]["terminal"] = true.into();
        c["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev/pts");
        c["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/dev/pts/ptmx", "type": "bind", "source": "/dev/zero", "options": ["bind"],
        }));
    });
    let error = site.fails(&["run", &site.id]);
    assert!(error.contains("no devpts is mounted there"), "{error}");
    site.assert_gone();
}

fn descriptors_are_preserved_and_no_others() {
    let script = "for n in 3 4 5 6 7; do (eval \"cat <&$n\") 2>/dev/null || { [ -h /proc/1/fd/$n ] && echo path $n || echo none $n; }; done";
    let site = shell(script);
    let file = |text: &str| {
        let path = site.directory.join(text);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        std::fs::File::open(path).unwrap()
    };
    let run = |preserved: &str| {
        let files = [file("three"), file("four"), file("five")];
        let mut command = site.command(&["run", "--preserve-fds", preserved, &site.id]);
        crate::sys::pass_descriptors(&mut command, files.iter().map(AsRawFd::as_raw_fd).collect());
        finish(command)
    };
    let done = run("2");
    assert_eq!(done.stdout, "three\nfour\nnone 5\nnone 6\nnone 7\n", "{done:?}");
    assert_eq!(run("3").stdout, "three\nfour\nfive\nnone 6\nnone 7\n");
    // Those of them that the caller has; nothing of the runtime's own takes the place of another.
    let done = run("4000000000");
    assert_eq!(done.stdout, "three\nfour\nfive\nnone 6\nnone 7\n", "{done:?}");
    let done = site.run(&["--debug", "run", "--preserve-fds", "1", &site.id]);
    assert!(done.stderr.contains("preserved-fd 0 (of 1) is present: descriptor 3 isn't open"), "{done:?}");
    site.assert_gone();
}

/// Somebody in the container may be allowed to look into it: a directory of the machine's would be a way out.
fn who_waits_to_begin_holds_nothing_of_the_machine_s() {
    for (terminal, preserved) in [(false, "0"), (true, "0"), (false, "7")] {
        let mut site = shell("sleep 1000").change(|c| c["process"]["terminal"] = terminal.into());
        let listener = UnixListener::bind(site.directory.join("console")).unwrap();
        let socket = site.directory.join("console");
        let arguments = ["--preserve-fds", preserved, "--console-socket", socket.to_str().unwrap()];
        // Between the one that is passed on and the streams there is room for others.
        site.before = ["sh", "-c", "exec \"$0\" \"$@\" 9</dev/zero"].map(str::to_owned).to_vec();
        site.before.push(crate::site::runtime().to_str().unwrap().to_owned());
        site.create(if terminal { &arguments } else { &arguments[..2] });
        site.before.clear();
        let pid = site.state()["pid"].as_i64().unwrap();
        // It says that it is there, and closes a moment later at most.
        let held = || -> Vec<String> {
            let all = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            let foreign = all.filter(|fd| fd.file_name().to_str().unwrap().parse::<u32>().unwrap() > 2);
            foreign.filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.to_str()?.to_owned())).collect()
        };
        let is_harmless = |what: &String| {
            ["pipe:", "socket:", "anon_inode:", "/dev/zero"].iter().any(|kind| what.starts_with(kind))
                || what.contains("/pts/")
        };
        until("all is closed", || held().iter().all(is_harmless));
        drop(listener);
        site.ok(&["delete", "--force", &site.id]);
    }
}

fn listening_sockets_are_passed_on() {
    let site =
        shell("echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; readlink /proc/self/fd/3; readlink /proc/self/fd/4");
    let listener = UnixListener::bind(site.directory.join("socket")).unwrap();
    let run = |more: &str| {
        let mut command = site.command(&["run", "--preserve-fds", more, &site.id]);
        command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "web");
        crate::sys::pass_descriptors(&mut command, vec![listener.as_raw_fd(), listener.as_raw_fd()]);
        finish(command)
    };
    // Those that are to be preserved besides come after them.
    for (more, passed) in [("0", 1), ("1", 2)] {
        let done = run(more);
        let lines: Vec<&str> = done.stdout.lines().collect();
        assert_eq!(lines[0], "1 1 web", "{done:?}");
        assert!(lines[1..].iter().all(|line| line.starts_with("socket:")) && lines.len() == 1 + passed, "{done:?}");
    }
}

fn readiness_is_passed_on_and_nothing_else() {
    // Busybox can't write to a datagram socket, so this test's own hand does, through the container's directory.
    let site = shell("sleep 60").change(|c| c["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/run"));
    let outer_path = site.directory.join("outer");
    let outer = UnixDatagram::bind(&outer_path).unwrap();
    outer.set_nonblocking(true).unwrap();
    let mut command = site.command(&["create", &site.id]);
    assert!(command.env("NOTIFY_SOCKET", &outer_path).status().unwrap().success());
    let mut start = site.plain_command(&["start", &site.id]).env("NOTIFY_SOCKET", &outer_path).spawn().unwrap();
    let pid = site.state()["pid"].as_i64().unwrap();
    let environment = || std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
    until("the program runs", || environment().contains("NOTIFY_SOCKET=/run/notify/notify.sock"));
    let inner = format!("/proc/{pid}/root/run/notify/notify.sock");
    let container = UnixDatagram::unbound().unwrap();
    container.send_to(b"MAINPID=1\nFDSTORE=1", &inner).unwrap();
    container.send_to(b"STATUS=soon", &inner).unwrap();
    assert!(start.try_wait().unwrap().is_none());
    container.send_to(b"STATUS=now\nREADY=1\nMAINPID=1", &inner).unwrap();
    assert!(start.wait().unwrap().success());
    let mut buffer = [0; 256];
    let n = outer.recv(&mut buffer).unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer[..n]), format!("MAINPID={pid}\nREADY=1\n"));
    assert!(outer.recv(&mut buffer).is_err(), "more was passed on");
    // One that ends without being ready holds nobody up.
    let site = shell("exit 0");
    let mut command = site.command(&["run", "--detach", &site.id]);
    assert!(command.env("NOTIFY_SOCKET", &outer_path).status().unwrap().success());
}

fn readiness_that_nobody_takes_is_a_warning() {
    for arguments in [&["run"][..], &["run", "--detach"]] {
        let site = shell("until [ -e /dev/shm/said ]; do sleep 0.1; done; exit 7");
        let mut command = site.command(&[arguments, &[site.id.as_str()]].concat());
        command.env("NOTIFY_SOCKET", "/nonexistent");
        let running = std::thread::spawn(move || finish(command));
        // The configuration has been read by then, which whoever asks for the state writes anew.
        let record = site.directory.join("state").join(&site.id).join("state.json");
        until("it is there", || record.exists());
        site.wait_for("running");
        let root = format!("/proc/{}/root", site.state()["pid"]);
        UnixDatagram::unbound().unwrap().send_to(b"READY=1", format!("{root}/run/notify/notify.sock")).unwrap();
        std::fs::write(format!("{root}/dev/shm/said"), "").unwrap();
        let done = running.join().unwrap();
        let expected = if arguments.len() == 1 { 7 } else { 0 };
        assert!(done.status == expected && done.stderr.contains("warning: notify /nonexistent: "), "{done:?}");
    }
}

fn the_session_keyring_is_the_container_s_own() {
    // Only who possesses it sees it.
    crate::sys::join_private_keyring(c"garboard-cli-tests");
    let sees = |more: &[&str]| {
        let site = shell("cat /proc/keys").change(|c| c["linux"]["maskedPaths"] = json!([]));
        site.ok(&[&["run"], more, &[site.id.as_str()]].concat()).contains(" garboard-cli-tests: ")
    };
    assert!(sees(&["--no-new-keyring"]));
    assert!(!sees(&[]));
}

fn the_pid_descriptor_is_sent() {
    let site = shell("sleep 1000");
    let path = site.directory.join("pidfd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let receive_from = |site: &Site, arguments: &[&str]| {
        std::thread::scope(|scope| {
            let accepting = scope.spawn(|| receive(&listener));
            site.ok(arguments);
            let pidfd = accepting.join().unwrap();
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
            let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).expect(&info).trim().to_owned();
            pid.parse::<i64>().unwrap()
        })
    };
    let receive = |arguments: &[&str]| receive_from(&site, arguments);
    let socket = path.to_str().unwrap();
    let pid = receive(&["run", "--detach", "--pidfd-socket", socket, &site.id]);
    assert_eq!(pid, site.state()["pid"].as_i64().unwrap());
    let second =
        receive(&["exec", "--detach", "--pidfd-socket", socket, "--pid-file", "pid", &site.id, "/bin/sleep", "9"]);
    assert_eq!(second.to_string(), std::fs::read_to_string(site.directory.join("pid")).unwrap());
    // Or where an annotation says.
    let annotated = shell("sleep 1000").change(|c| c["annotations"] = json!({"run.oci.pidfd_receiver": socket}));
    let pid = receive_from(&annotated, &["run", "--detach", &annotated.id]);
    assert_eq!(pid, annotated.state()["pid"].as_i64().unwrap());
    let absent = shell("true");
    assert!(
        absent
            .fails(&["create", "--pidfd-socket", "/absent", &absent.id])
            .contains("/absent: no such file or directory (ENOENT)")
    );
    absent.assert_gone();
}

fn home_is_looked_up() {
    let rootfs = crate::site::place().rootfs();
    std::fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv/web:/bin/sh\n").unwrap();
    for (uid, env, home) in
        [(0, "A=1", "/root"), (33, "A=1", "/srv/web"), (44, "A=1", "/"), (33, "HOME=/said", "/said")]
    {
        let site = shell("echo $HOME; sleep 60").change(|c| {
            c["process"]["user"] = json!({"uid": uid, "gid": 0});
            c["process"]["env"] = json!(["PATH=/bin", env]);
        });
        let output = site.create(&[]);
        site.ok(&["start", &site.id]);
        until("it speaks", || std::fs::read_to_string(&output).unwrap() == format!("{home}\n"));
        assert_eq!(site.ok(&["exec", &site.id, "/bin/sh", "-c", "echo $HOME"]), format!("{home}\n"));
    }
    assert!(std::fs::read_to_string(rootfs.join("etc/passwd")).is_ok());
}
