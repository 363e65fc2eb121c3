//! `garboard-init`: process 1 of an appliance.

fn main() {
    garboard_init::pid1::run(false);
}
