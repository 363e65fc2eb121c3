//! `linux.intelRdt` and `linux.netDevices` of a spec: what is done on the machine.

use oci_spec::runtime::{Linux, LinuxIntelRdt};

use crate::launch::{IntelRdt, Namespace, Namespaces, NetDevice};
use crate::spec::Error;

/// `IFNAMSIZ` of `linux/if.h`, less the terminating NUL.
const MAX_NAME: usize = 15;

pub(super) fn intel_rdt(rdt: &LinuxIntelRdt) -> Result<IntelRdt, Error> {
    let class = rdt.clos_id().clone().filter(|class| !class.is_empty());
    if let Some(class) = &class
        && class != "/"
        && (class.contains('/') || class.starts_with('.') || class.contains(['\0', '\n']) || class.len() > 255)
    {
        return Err(Error::new(
            "linux.intelRdt.closID",
            format!("{class:?} isn't one plain file name, and not \"/\", the root's"),
        ));
    }
    let cache = rdt.l3_cache_schema().as_deref().unwrap_or_default();
    let bandwidth = rdt.mem_bw_schema().as_deref().unwrap_or_default();
    if !bandwidth.is_empty() && (!bandwidth.starts_with("MB:") || bandwidth.contains('\n')) {
        return Err(Error::new(
            "linux.intelRdt.memBwSchema",
            format!("{bandwidth:?} isn't one line that begins with MB:"),
        ));
    }
    let lines = cache.lines().filter(|line| bandwidth.is_empty() || !line.starts_with("MB:"));
    let mut schemata: Vec<String> = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
    schemata.extend(Some(bandwidth).filter(|line| !line.is_empty()).map(str::to_owned));
    for line in rdt.schemata().iter().flatten() {
        if line.contains('\n') {
            return Err(Error::new("linux.intelRdt.schemata", format!("{line:?} is more than a line")));
        }
        schemata.push(line.clone());
    }
    let monitor = [rdt.enable_monitoring(), rdt.enable_cmt(), rdt.enable_mbm()].iter().any(|set| **set == Some(true));
    Ok(IntelRdt { class, name: None, monitor, schemata })
}

pub(super) fn net_devices(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<NetDevice>, Error> {
    let mut devices: Vec<NetDevice> = Vec::new();
    for (outside, device) in linux.net_devices().iter().flatten() {
        let field = format!("linux.netDevices[{outside}]");
        if namespaces.network == Namespace::Host {
            return Err(Error::new(field, "needs a network namespace of the container's own"));
        }
        let inside = device.name().clone().filter(|name| !name.is_empty()).unwrap_or_else(|| outside.clone());
        let plain = |name: &str| {
            !name.is_empty()
                && !matches!(name, "." | "..")
                && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
        };
        if !plain(outside) || outside.len() > MAX_NAME || outside.contains('%') {
            return Err(Error::new(field, "no name of an interface"));
        }
        let template = inside.strip_suffix("%d").unwrap_or(&inside);
        if !plain(&inside) || inside.len() > MAX_NAME || template.contains('%') {
            return Err(Error::new(format!("{field}.name"), format!("{inside:?} is no name of an interface")));
        }
        if inside == template && devices.iter().any(|other| other.inside == inside) {
            return Err(Error::new(format!("{field}.name"), format!("{inside:?} is given twice")));
        }
        devices.push(NetDevice { outside: outside.clone(), inside });
    }
    devices.sort_by(|a, b| a.outside.cmp(&b.outside));
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rdt(json: &str) -> Result<IntelRdt, Error> {
        intel_rdt(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn schemata_are_put_together_in_order() {
        let made = rdt(
            r#"{"closID":"gold","l3CacheSchema":"L3:0=7f0\nMB:0=1","memBwSchema":"MB:0=20","schemata":["L2:0=f"],"enableMonitoring":true}"#,
        );
        let schemata = ["L3:0=7f0", "MB:0=20", "L2:0=f"].map(str::to_owned).to_vec();
        assert_eq!(made.unwrap(), IntelRdt { class: Some("gold".to_owned()), name: None, monitor: true, schemata });
        assert_eq!(rdt(r#"{"l3CacheSchema":"L3:0=1\nMB:0=1"}"#).unwrap().schemata, ["L3:0=1", "MB:0=1"]);
        assert_eq!(rdt("{}").unwrap(), IntelRdt::default());
    }

    #[test]
    fn a_class_is_one_name_and_a_schema_one_line() {
        assert!(rdt(r#"{"closID":"../x"}"#).unwrap_err().to_string().contains("closID"));
        assert!(rdt(r#"{"memBwSchema":"L3:0=1"}"#).unwrap_err().to_string().contains("memBwSchema"));
        assert!(rdt(r#"{"schemata":["a\nb"]}"#).unwrap_err().to_string().contains("schemata"));
    }

    fn devices(json: &str, network: Namespace) -> Result<Vec<NetDevice>, Error> {
        let linux: Linux = serde_json::from_str(&format!(r#"{{"netDevices":{json}}}"#)).unwrap();
        net_devices(&linux, &Namespaces { network, ..Namespaces::default() })
    }

    #[test]
    fn interfaces_have_names() {
        let made = devices(r#"{"eth1":{"name":"net%d"},"eth0":{}}"#, Namespace::New).unwrap();
        let pair = |outside: &str, inside: &str| NetDevice { outside: outside.to_owned(), inside: inside.to_owned() };
        assert_eq!(made, [pair("eth0", "eth0"), pair("eth1", "net%d")]);
        assert!(devices(r#"{"eth0":{}}"#, Namespace::Host).is_err());
        for json in [
            r#"{"eth0":{"name":"a b"}}"#,
            r#"{"eth0":{"name":"a/b"}}"#,
            r#"{"eth0":{"name":"%s"}}"#,
            r#"{"eth0":{"name":"sixteen-letters-"}}"#,
            r#"{"eth0":{"name":"x"},"eth1":{"name":"x"}}"#,
            r#"{"..":{}}"#,
        ] {
            assert!(devices(json, Namespace::New).unwrap_err().to_string().contains("linux.netDevices["), "{json}");
        }
    }
}
