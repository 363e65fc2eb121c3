//! A web server of one page: what this process sees of its container.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// A request line and its headers are read up to this many bytes; the rest is not of interest.
const MAX_REQUEST: u64 = 16 << 10;
/// A client that says nothing for this long is let go.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves for ever, one connection after another.
pub fn serve(address: &str) -> Result<ExitCode, String> {
    let listener = TcpListener::bind(address).map_err(|e| format!("listen on {address}: {e}"))?;
    println!("listening on {address}");
    let mut served = 0u64;
    for stream in listener.incoming() {
        served += 1;
        // A client that went away is its own business, not a reason to stop serving.
        if let Err(error) = stream.and_then(|stream| answer(stream, served)) {
            eprintln!("request {served}: {error}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(mut stream: TcpStream, served: u64) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    skip_request(&stream)?;
    let body = page(served, &std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    stream.write_all(response(&body).as_bytes())
}

/// Reads up to the empty line that ends a request's head (RFC 9112, section 2.1).
fn skip_request(stream: &TcpStream) -> io::Result<()> {
    for line in BufReader::new(io::Read::take(stream, MAX_REQUEST)).lines() {
        if line?.is_empty() {
            break;
        }
    }
    Ok(())
}

fn response(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The page: a greeting, then the lines of `/proc/self/status` that show the isolation.
fn page(served: u64, status: &str) -> String {
    let mut text = format!("Hello from Garboard, answer number {served}\n\n");
    for line in status.lines() {
        let wanted = ["Pid:", "Uid:", "CapEff:", "NoNewPrivs:", "Seccomp:"].iter().any(|key| line.starts_with(key));
        if wanted {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn page_shows_only_the_isolation() {
        let text = page(3, "Name:\tx\nPid:\t1\nUid:\t0\t0\t0\t0\nVmRSS:\t1 kB\nSeccomp:\t2\n");
        assert_eq!(text, "Hello from Garboard, answer number 3\n\nPid:\t1\nUid:\t0\t0\t0\t0\nSeccomp:\t2\n");
    }

    #[test]
    fn a_request_gets_a_whole_response() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || answer(listener.accept().unwrap().0, 1));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        server.join().unwrap().unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert!(body.starts_with("Hello from Garboard, answer number 1\n"), "{body}");
    }
}
