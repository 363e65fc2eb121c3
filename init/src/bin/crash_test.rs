//! `garboard-init` that signals make crash, for tests in machines: see the table in `src/event_loop/signals.rs`.

fn main() {
    garboard_init::pid1::run(true);
}
