//! System calls without a safe wrapper elsewhere, each behind a safe function.
#![allow(unsafe_code)]

pub mod signal;
