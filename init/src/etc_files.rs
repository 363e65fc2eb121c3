//! The `/etc` files that PID 1 writes for containers, in a tmpfs. The plan's mounts bind them.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use garboard_runtime::plan::{Etc, Network};

/// Writes one container's files beneath `run`. Files that the plan doesn't name are left out.
pub fn write(run: &Path, name: &str, etc: &Etc) -> io::Result<()> {
    if etc.hosts.is_none() && etc.hostname.is_none() {
        return Ok(());
    }
    let dir = run.join("etc").join(name);
    fs::create_dir_all(&dir)?;
    if let Some(hosts) = &etc.hosts {
        fs::write(dir.join("hosts"), hosts)?;
    }
    if let Some(hostname) = &etc.hostname {
        fs::write(dir.join("hostname"), hostname)?;
    }
    Ok(())
}

/// Makes `resolv.conf` beneath `run`, so that it can be bound before the network is there. It is changed in place later: a
/// bind mount shows the file, not its name. One that exists is left alone.
pub fn prepare_resolv_conf(run: &Path, network: &Network) -> io::Result<()> {
    let path = run.join("resolv.conf");
    if path.exists() {
        return Ok(());
    }
    fs::create_dir_all(run)?;
    write_resolv_conf(run, &network.dns)
}

/// Writes `resolv.conf` beneath `run`, in place, and so that who reads it meanwhile finds no empty one, which would send it to itself. See
/// resolv.conf(5): the resolver looks at three name servers at most.
pub fn write_resolv_conf(run: &Path, servers: &[String]) -> io::Result<()> {
    let lines: String = servers.iter().take(3).map(|server| format!("nameserver {server}\n")).collect();
    let path = run.join("resolv.conf");
    if fs::read(&path).is_ok_and(|now| now == lines.as_bytes()) {
        return Ok(());
    }
    let mut file = fs::File::options().write(true).create(true).truncate(false).open(&path)?;
    file.write_all(lines.as_bytes())?;
    file.set_len(u64::try_from(lines.len()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use garboard_runtime::plan::Addressing;

    #[test]
    fn writes_what_the_plan_names() {
        let dir = tempfile::tempdir().unwrap();
        let etc = Etc { hosts: Some("127.0.0.1 localhost\n".into()), hostname: None, resolv_conf: true };
        write(dir.path(), "web", &etc).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("etc/web/hosts")).unwrap(), "127.0.0.1 localhost\n");
        assert!(!dir.path().join("etc/web/hostname").exists());

        let network = Network { address: Addressing::None, interface: None, dns: vec!["192.0.2.1".into()] };
        prepare_resolv_conf(dir.path(), &network).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("resolv.conf")).unwrap(), "nameserver 192.0.2.1\n");
        fs::write(dir.path().join("resolv.conf"), "by DHCP\n").unwrap();
        prepare_resolv_conf(dir.path(), &network).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("resolv.conf")).unwrap(), "by DHCP\n");
        write_resolv_conf(dir.path(), &["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"].map(str::to_owned))
            .unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("resolv.conf")).unwrap().lines().count(), 3);
    }
}
