//! Values with forms of their own.

use std::net::IpAddr;

use serde_json::{Value, json};
use toml::de::DeValue;

use crate::container::Condition;
use crate::problems::Problems;
use crate::read::{At, Item, List, Named, Shape, Switch, Text, keys, wrong_type};
use crate::syntax::{ContainerName, HostAddress, host_entry};

keys! {
    /// One entry of `depends_on` in its long form.
    pub(crate) struct DependencyKeys ("a dependency") requires [] {
        /// What the other container must have reached. Default: "service_started".
        condition: Condition,
        /// Always true: every container of an appliance is started.
        required: Switch,
        /// Always false: a restart of the other container doesn't restart this one.
        restart: Switch,
    }
    refused {}
}

/// `depends_on`: a list of names, or a table by name.
#[derive(Debug)]
pub(crate) struct DependsOn(pub(crate) Vec<(At<String>, Condition)>);

impl Shape for DependsOn {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        match item.get_ref() {
            DeValue::Array(_) => {
                let list = List::<Text>::read(item, problems)?;
                let started = |name: At<Text>| (At { span: name.span, value: name.value.0 }, Condition::Started);
                Some(Self(list.0.into_iter().map(started).collect()))
            }
            DeValue::Table(_) => {
                let named = Named::<DependencyKeys>::read(item, problems)?;
                let entries = named.0.into_iter().map(|(name, keys)| (name, condition(keys.value, problems)));
                Some(Self(entries.collect()))
            }
            _ => {
                wrong_type(
                    item,
                    "a list of containers, or a table such as { db = { condition = \"service_started\" } }",
                    problems,
                );
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [List::<ContainerName>::schema(), Named::<DependencyKeys>::schema()] })
    }
}

fn condition(keys: DependencyKeys, problems: &mut Problems) -> Condition {
    if let Some(field) = keys.required.filter(|field| !field.value.0) {
        problems
            .error(&field.span, "a dependency can't be optional")
            .help("every container of an appliance is started, so there is nothing to do without; leave it out");
    }
    if let Some(field) = keys.restart.filter(|field| field.value.0) {
        problems.error(&field.span, "restarting with a dependency isn't supported yet").help("leave it out");
    }
    keys.condition.map(|field| field.value).unwrap_or_default()
}

/// `extra_hosts`: a list of `name=address` strings, or a table.
#[derive(Debug)]
pub(crate) struct Hosts(pub(crate) Vec<(At<String>, IpAddr)>);

impl Shape for Hosts {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        match item.get_ref() {
            DeValue::Array(_) => {
                let mut hosts = Vec::new();
                for At { span, value } in List::<Text>::read(item, problems)?.0 {
                    match host_entry(&value.0) {
                        Ok((name, address)) => hosts.push((At { span, value: name }, address)),
                        Err(fault) => fault.report(&span, problems),
                    }
                }
                Some(Self(hosts))
            }
            DeValue::Table(_) => {
                let named = Named::<HostAddress>::read(item, problems)?;
                Some(Self(named.0.into_iter().map(|(name, ip)| (name, ip.value.0)).collect()))
            }
            _ => {
                wrong_type(item, "a list of \"name=address\" strings, or a table", problems);
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "array", "items": { "type": "string", "pattern": "^[^=:]+[=:]" } },
            Named::<HostAddress>::schema(),
        ] })
    }
}
