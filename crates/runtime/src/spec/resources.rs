//! CRI's limits in the OCI runtime's form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Limits of a container as CRI gives them; 0 or empty is not set. Kept on disk, since the kubelet reads them back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Resources {
    pub(crate) cpu_period: i64,
    pub(crate) cpu_quota: i64,
    pub(crate) cpu_shares: i64,
    pub(crate) memory_limit: i64,
    pub(crate) memory_swap_limit: i64,
    pub(crate) oom_score_adj: i64,
    pub(crate) cpuset_cpus: String,
    pub(crate) cpuset_mems: String,
    pub(crate) hugepages: Vec<(String, u64)>,
    pub(crate) unified: BTreeMap<String, String>,
}

impl Resources {
    /// `linux.resources` without devices. `hugetlb` says whether this machine has that controller: a limit of 0 where
    /// there is none is already kept.
    pub(crate) fn oci(&self, pids_limit: Option<i64>, hugetlb: bool) -> Value {
        let mut resources = serde_json::Map::new();
        let mut cpu = serde_json::Map::new();
        for (name, value) in [
            ("shares", self.cpu_shares),
            ("quota", self.cpu_quota),
            ("period", self.cpu_period),
        ] {
            if value != 0 {
                cpu.insert(name.to_owned(), json!(value));
            }
        }
        for (name, value) in [("cpus", &self.cpuset_cpus), ("mems", &self.cpuset_mems)] {
            if !value.is_empty() {
                cpu.insert(name.to_owned(), json!(value));
            }
        }
        if !cpu.is_empty() {
            resources.insert("cpu".to_owned(), Value::Object(cpu));
        }
        let mut memory = serde_json::Map::new();
        for (name, value) in [
            ("limit", self.memory_limit),
            ("swap", self.memory_swap_limit),
        ] {
            if value != 0 {
                memory.insert(name.to_owned(), json!(value));
            }
        }
        if !memory.is_empty() {
            resources.insert("memory".to_owned(), Value::Object(memory));
        }
        if let Some(limit) = pids_limit.filter(|l| *l > 0) {
            resources.insert("pids".to_owned(), json!({ "limit": limit }));
        }
        if hugetlb && !self.hugepages.is_empty() {
            let limits: Vec<Value> = self
                .hugepages
                .iter()
                .map(|(size, limit)| json!({ "pageSize": size, "limit": limit }))
                .collect();
            resources.insert("hugepageLimits".to_owned(), Value::Array(limits));
        }
        if !self.unified.is_empty() {
            resources.insert("unified".to_owned(), json!(self.unified));
        }
        Value::Object(resources)
    }

    /// These with every value of `change` that is set.
    pub(crate) fn updated(&self, change: &Self) -> Self {
        let number = |old: i64, new: i64| if new == 0 { old } else { new };
        let text = |old: &String, new: &String| if new.is_empty() { old } else { new }.clone();
        Self {
            cpu_period: number(self.cpu_period, change.cpu_period),
            cpu_quota: number(self.cpu_quota, change.cpu_quota),
            cpu_shares: number(self.cpu_shares, change.cpu_shares),
            memory_limit: number(self.memory_limit, change.memory_limit),
            memory_swap_limit: number(self.memory_swap_limit, change.memory_swap_limit),
            oom_score_adj: number(self.oom_score_adj, change.oom_score_adj),
            cpuset_cpus: text(&self.cpuset_cpus, &change.cpuset_cpus),
            cpuset_mems: text(&self.cpuset_mems, &change.cpuset_mems),
            hugepages: if change.hugepages.is_empty() {
                self.hugepages.clone()
            } else {
                change.hugepages.clone()
            },
            unified: self
                .unified
                .iter()
                .chain(&change.unified)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_written() {
        let none = Resources::default();
        assert_eq!(none.oci(None, true), json!({}));
        let some = Resources {
            cpu_shares: 512,
            memory_limit: 1 << 20,
            hugepages: vec![("2MB".to_owned(), 0)],
            ..Resources::default()
        };
        assert_eq!(
            some.oci(Some(100), false),
            json!({"cpu": {"shares": 512}, "memory": {"limit": 1 << 20}, "pids": {"limit": 100}})
        );
        let more = some.updated(&Resources {
            memory_limit: 2 << 20,
            ..Resources::default()
        });
        assert_eq!((more.cpu_shares, more.memory_limit), (512, 2 << 20));
    }
}
