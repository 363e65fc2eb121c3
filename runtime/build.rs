//! Tells the linker where the command line begins: see `src/sys/entry.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if std::env::var_os("CARGO_FEATURE_CLI").is_some() && is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        println!("cargo::rustc-link-arg-bin=garboard-runtime=-Wl,--entry=start_protected");
    }
}
