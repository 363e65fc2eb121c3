//! Container runtime as a library: a finished [`launch::Launch`] becomes a running, isolated child of the caller.
//!
//! Two halves. What *decides* (OCI image configuration → runtime spec → [`launch::Launch`], seccomp → BPF) stands behind
//! the `compile` feature and runs on the developer's machine. What *obeys* ([`launch`], `start`, `sys`) is all that PID 1
//! links.

pub mod launch;
pub mod plan;
