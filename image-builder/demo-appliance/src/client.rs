//! Calls the web server once a second.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
/// So many calls may fail in a row before this container gives up and leaves it to its restart policy.
const MAX_FAILURES: u32 = 5;
/// No page is longer, in bytes.
const MAX_PAGE: u64 = 64 << 10;

/// Polls until too many calls fail in a row.
pub fn poll(address: &str) -> Result<ExitCode, String> {
    let server: SocketAddr = address.parse().map_err(|e| format!("address {address:?}: {e}"))?;
    let mut failures = 0;
    loop {
        match get(server) {
            Ok(page) => {
                failures = 0;
                println!("web says: {}", first_line_of_body(&page));
            }
            Err(error) => {
                failures += 1;
                eprintln!("web does not answer ({failures} of {MAX_FAILURES}): {error}");
                if failures == MAX_FAILURES {
                    return Err(format!("{address} failed {MAX_FAILURES} times in a row"));
                }
            }
        }
        std::thread::sleep(EVERY);
    }
}

fn get(server: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut page = String::new();
    stream.take(MAX_PAGE).read_to_string(&mut page)?;
    Ok(page)
}

fn first_line_of_body(page: &str) -> &str {
    page.split_once("\r\n\r\n").map_or("", |(_, body)| body).lines().next().unwrap_or("(nothing)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_first_line_after_the_head() {
        assert_eq!(first_line_of_body("HTTP/1.1 200 OK\r\nA: b\r\n\r\none\ntwo\n"), "one");
        assert_eq!(first_line_of_body("HTTP/1.1 200 OK\r\n\r\n"), "(nothing)");
        assert_eq!(first_line_of_body("junk"), "(nothing)");
    }
}
