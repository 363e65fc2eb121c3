fn main() {
    let path = std::env::args().nth(1).unwrap();
    match garboard_config::parse_bytes(&path, &std::fs::read(&path).unwrap()) {
        Ok(appliance) => println!("{appliance:#?}"),
        Err(errors) => print!("{errors}"),
    }
}
