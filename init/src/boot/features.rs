//! The kernel feature check.

use serde::{Deserialize, Serialize};

/// What a feature's presence or absence means for this appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Present.
    Ok,
    /// Absent; the appliance runs without it, as the detail says.
    Degraded,
    /// Absent; the appliance can't run.
    Missing,
}

/// One line of the feature table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// Short name, also used in a plan's `needs`.
    pub name: String,
    /// The kernel option that provides it.
    pub config: String,
    /// What its presence or absence means.
    pub verdict: Verdict,
    /// What was found, and what it means when it is not `Ok`.
    pub detail: String,
}
