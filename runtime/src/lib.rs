//! Container runtime as a library: a finished [`launch::Launch`] becomes a running, isolated child of the caller.
//!
//! Two halves. What *decides* (OCI image configuration → runtime spec → [`launch::Launch`], seccomp → BPF) stands behind
//! the `compile` feature and runs on the developer's machine. What *obeys* ([`launch`], `start`, `sys`) is all that PID 1
//! links.

// A panic in here would be PID 1's.
macro_rules! obey {
    ($($(#[$attribute:meta])* $visibility:vis mod $name:ident;)*) => {$(
        $(#[$attribute])*
        #[cfg_attr(
            not(test),
            deny(
                clippy::unwrap_used,
                clippy::expect_used,
                clippy::panic,
                clippy::indexing_slicing,
                clippy::string_slice,
                clippy::arithmetic_side_effects
            )
        )]
        $visibility mod $name;
    )*};
}

obey! {
    pub mod affinity;
    pub mod cgroup;
    mod check;
    mod child;
    pub mod descriptor;
    mod device;
    pub mod device_filter;
    mod device_rule;
    pub mod failure;
    mod filesystem;
    pub mod fill;
    mod hint;
    pub mod hook;
    pub mod launch;
    mod launcher;
    pub mod plan;
    pub mod report;
    pub mod shared;
    mod small_file;
    pub mod start;
    mod sys;
    mod userns;
    pub mod volumes;
}

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "compile")]
pub mod compile;
#[cfg(feature = "cli")]
pub mod container;
#[cfg(feature = "compile")]
pub mod spec;
