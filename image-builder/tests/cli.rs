//! The command line as a person or a script uses it: the built program, from outside.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{GARBOARD, Project, garboard, text};

#[test]
fn help_begins_with_examples_and_ends_with_exit_statuses() {
    let commands = ["new", "check", "build", "run", "status", "logs", "events", "attach", "inspect", "schema"];
    for command in std::iter::once(None).chain(commands.map(Some)) {
        let arguments: Vec<&str> = command.into_iter().chain(["--help"]).collect();
        let output = garboard(&arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        let help = text(&output.stdout);
        let place = |what: &str| help.find(what).unwrap_or_else(|| panic!("no {what} in {help}"));
        assert!(place("Examples:") < place("Usage:"), "{help}");
        // The last paragraph; `run` has more to say in it.
        let (_, last) = help.trim_end().rsplit_once("\n\n").unwrap();
        assert!(
            last.starts_with("Exit status: 0 ") && last.contains(" 1 ") && last.contains("2 wrong usage."),
            "{help}"
        );
    }
}

#[test]
fn wrong_usage_is_exit_status_2() {
    for arguments in [&[][..], &["bake"], &["build", "--modules", "x"], &["inspect"]] {
        let output = garboard(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("Usage:"), "{arguments:?}");
    }
}

#[test]
fn asking_a_machine_that_does_not_run_says_how_to_start_it() {
    let project = Project::empty();
    fs::create_dir(project.path("out")).unwrap();
    for command in [&["status"][..], &["logs", "web"], &["events"], &["attach"]] {
        project.refused(command, &["no machine of out is running", "garboard run"]);
    }
    project.refused(&["status", "--socket", "nowhere"], &["connect to nowhere"]);
}

/// Who follows and isn't read any more (`| grep -m1`) ends, and leaves the port to the next one.
#[test]
fn what_follows_ends_when_nobody_reads_it() {
    for command in [&["events"][..], &["logs", "web"]] {
        let project = Project::empty();
        let listener = UnixListener::bind(project.path("status")).unwrap();
        let mut child = Command::new(GARBOARD)
            .args(command)
            .args(["--follow", "--socket"])
            .arg(project.path("status"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        // The machine: it answers what is asked, and says nothing of its own. Here the asking ends with the program.
        let deadline = Instant::now() + Duration::from_secs(10);
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for line in BufReader::new(&stream).lines().map_while(Result::ok).filter(|line| !line.is_empty()) {
            let request: serde_json::Value = serde_json::from_str(&line).unwrap();
            let reply = serde_json::json!({"id": request["id"], "type": "ok", "newest": 0});
            writeln!(&stream, "{reply}").unwrap();
        }
        let ended = Instant::now() < deadline;
        if !ended {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        assert!(ended && status.success(), "{command:?}: {status}");
    }
}

/// What steers a terminal that hears C1 is escaped in JSON, too, and means what the machine said.
#[test]
fn json_of_a_machine_steers_no_terminal() {
    let said = serde_json::json!({"text": "\u{1b}[2J\u{9b}31m\u{7f}\u{202e}ship \u{8239}", "number": 1});
    for command in [&["status"][..], &["logs", "web"], &["events"]] {
        let project = Project::empty();
        let listener = UnixListener::bind(project.path("status")).unwrap();
        let reply = serde_json::json!({"type": "ok", "snapshot": said, "lines": [said], "events": [said]});
        let machine = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            for line in BufReader::new(&stream).lines().map_while(Result::ok).filter(|line| !line.is_empty()) {
                let request: serde_json::Value = serde_json::from_str(&line).unwrap();
                let mut reply = reply.clone();
                reply["id"] = request["id"].clone();
                // The program may have gone.
                let _ = writeln!(&stream, "{reply}");
            }
        });
        let output = project.garboard(&[command, &["--json", "--socket", "status"]].concat());
        machine.join().unwrap();
        let printed = text(&output.stdout);
        assert!(!printed.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{printed:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), said, "{command:?}");
        assert!(printed.contains("ship \u{8239}"), "{printed:?}");
    }
}

#[test]
fn new_writes_a_declaration_that_check_explains() {
    let project = Project::empty();
    let output = project.garboard(&["new"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // All that is wrong with the scaffold is that nobody has fetched its image yet.
    project.told(&["check"], &["images/nginx", "web"]);
}

#[test]
fn new_overwrites_nothing() {
    let project = Project::with("# mine\n");
    project.refused(&["new"], &["appliance.toml exists already"]);
    project.refused(&["new", "--demo"], &["appliance.toml exists already"]);
    assert_eq!(fs::read_to_string(project.path("appliance.toml")).unwrap(), "# mine\n");
    assert!(!project.path("images").exists());
}

#[test]
fn the_demo_checks_and_is_the_same_each_time() {
    let (one, two) = (Project::demo(), Project::demo());
    let output = one.garboard(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "appliance.toml: right, 3 containers\n");
    assert_eq!(one.files("."), two.files("."));
}

#[test]
fn errors_of_a_declaration_come_all_at_once_and_as_json() {
    let project = Project::demo();
    project.replace("pids_limit", "pid_limit");
    project.replace("cpus = 0.5", "cpus = \"many\"");
    let output = project.garboard(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    for part in ["appliance.toml:", "pid_limit", "pids_limit", "cpus", "2 errors"] {
        assert!(message.contains(part), "no {part} in {message}");
    }
    let output = project.garboard(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().all(|error| error["line"].as_u64() > Some(1) && error["column"].as_u64() > Some(0)));
}

#[test]
fn a_missing_declaration_says_how_to_get_one() {
    for command in ["check", "build"] {
        Project::empty().refused(&[command], &["read appliance.toml", "garboard new", "No such file"]);
    }
}

#[test]
fn a_missing_image_is_named() {
    for command in ["check", "build"] {
        let project = Project::demo();
        fs::remove_dir_all(project.path("images")).unwrap();
        project.told(&[command], &["images/demo"]);
    }
}

/// The containers' faults show with their images at hand only, and come all at once, at their places, from both commands.
#[test]
fn check_finds_what_build_refuses_all_at_once_and_where() {
    let project = Project::demo();
    let declaration = "name = \"x\"\n\n\
        [containers.a]\nimage = \"images/demo\"\nuser = \"stranger\"\n\
        [containers.b]\nimage = \"images/demo\"\nsecurity_opt = [\"seccomp=absent.json\"]\n\
        [containers.c]\nimage = \"images/demo\"\ngroup_add = [\"outsiders\"]\n\
        [containers.d]\nimage = \"images/demo\"\nentrypoint = []\n\
        [containers.e]\nimage = \"images/absent\"\n";
    fs::write(project.path("appliance.toml"), declaration).unwrap();
    project.told(&["check"], &["container e", "images/absent", "appliance.toml:16:9"]);
    project.replace("images/absent", "images/demo");
    let words = ["container a", "\"stranger\"", "absent.json", "\"outsiders\"", "names no program", "4 errors"];
    project.told(&["check"], &words);
    project.told(&["build"], &words);
    assert!(!project.path("out/image.json").exists());
    let output = project.garboard(&["check", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let places: Vec<_> =
        report["errors"].as_array().unwrap().iter().map(|e| (e["line"].as_u64(), e["column"].as_u64())).collect();
    assert_eq!(places, [(Some(5), Some(8)), (Some(8), Some(16)), (Some(11), Some(13)), (Some(14), Some(14))]);
    // The same without its faults, with what the defaults make of it.
    for fault in [
        "user = \"stranger\"",
        "security_opt = [\"seccomp=absent.json\"]",
        "group_add = [\"outsiders\"]",
        "entrypoint = []",
    ] {
        project.replace(fault, "");
    }
    assert_eq!(text(&project.garboard(&["check"]).stdout), "appliance.toml: right, 5 containers\n");
}

#[test]
fn an_altered_image_is_refused() {
    let project = Project::demo();
    let index = fs::read_to_string(project.path("images/demo/index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    let manifest = project.path("images/demo/blobs").join(manifest);
    let mut bytes = fs::read(&manifest).unwrap();
    let end = bytes.len() - 1;
    bytes[end] = b' ';
    fs::write(manifest, bytes).unwrap();
    project.told(&["check"], &["images/demo", "sha256:"]);
}

/// Not to one whose image has a name that is part of the other's.
#[test]
fn a_broken_layer_is_told_of_the_container_that_has_it() {
    let project = Project::demo();
    fs::rename(project.path("images/demo"), project.path("demo")).unwrap();
    let mut files = project.files("demo");
    let layer = files.values_mut().max_by_key(|bytes| bytes.len()).unwrap();
    layer[0] ^= 1;
    for (name, bytes) in files {
        let path = project.path("broken/demo").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let declaration = "name = \"x\"\n[containers.a]\nimage = \"demo\"\n[containers.b]\nimage = \"broken/demo\"\n";
    fs::write(project.path("appliance.toml"), declaration).unwrap();
    project.told(&["check"], &["container b: image broken/demo", "appliance.toml:5:9"]);
}

#[test]
fn a_broken_archive_is_refused() {
    let project = Project::demo();
    fs::write(project.path("images/demo.tar"), "this is no archive").unwrap();
    project.replace("image = \"images/demo\"", "image = \"oci-archive:images/demo.tar\"");
    project.told(&["check"], &["images/demo.tar"]);
}

#[test]
fn files_that_a_volume_of_the_image_hides_are_told() {
    let project = Project::demo();
    project.configure_image(|config| config["config"]["Volumes"] = serde_json::json!({ "/etc": {}, "/state": {} }));
    let warnings = |keys: &str| {
        let declaration = format!("name = \"x\"\n[volumes.v]\n[containers.a]\nimage = \"images/demo\"\n{keys}\n");
        fs::write(project.path("appliance.toml"), declaration).unwrap();
        let output = project.garboard(&["check"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let told = warnings("read_only = true");
    assert!(told.contains("container a: the image's files in /etc are hidden"), "{told}");
    assert!(!told.contains("files in /state"), "there are none: {told}");
    // What is written there goes to the root, or to the volume.
    for keys in ["", "read_only = true\nvolumes = [\"v:/etc\"]"] {
        assert!(!warnings(keys).contains("are hidden"), "{keys}");
    }
}

#[test]
fn a_kernel_that_is_none_is_refused() {
    let project = Project::demo();
    project.refused(&["build", "--kernel", "no/vmlinuz"], &["no/vmlinuz", "No such file"]);
    project.refused(&["build", "--kernel", "appliance.toml"], &["appliance.toml", "not an x86 kernel image"]);
    assert!(!project.path("out/image.json").exists());
    // The same by declaration, which `check` looks at too.
    project.append("[kernel]\nimage = \"no/vmlinuz\"\n");
    project.told(&["check"], &["no/vmlinuz"]);
}

#[test]
fn schema_is_json() {
    let output = garboard(&["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema["properties"]["containers"].is_object());
}

#[test]
fn inspect_refuses_what_is_no_image() {
    let project = Project::demo();
    project.refused(&["inspect", "appliance.toml"], &["neither a system image (EROFS)"]);
    project.refused(&["inspect", "."], &["image.json", "build's output directory"]);
    project.refused(&["inspect", "nothing"], &["nothing", "No such file"]);
}

#[test]
fn output_that_can_not_be_written_is_an_error_and_a_reader_that_left_is_none() {
    let project = Project::empty();
    let new = |directory: &str, output: Stdio| {
        let mut command = Command::new(GARBOARD);
        command.args(["new", directory]).current_dir(project.path(".")).stdout(output).stderr(Stdio::piped());
        command.output().unwrap()
    };
    let full = new("a", fs::File::options().write(true).open("/dev/full").unwrap().into());
    assert_eq!(full.status.code(), Some(1));
    assert_eq!(text(&full.stderr), "garboard: write to standard output: No space left on device (os error 28)\n");
    let (_, pipe) = std::io::pipe().unwrap();
    assert_eq!(new("b", pipe.into()).status.code(), Some(0));
}
