//! A small HTTP client that shows exactly what came back.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// Longer than any answer takes on a busy machine.
const WAIT: Duration = Duration::from_secs(60);

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|reason| panic!("{reason}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// What an error says to a person, in either dialect.
    pub(crate) fn message(&self) -> String {
        let body = self.json();
        let error = &body["error"];
        let message = error.as_str().or_else(|| error["message"].as_str());
        message.unwrap_or_else(|| panic!("no message in {body}")).to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// One request on a connection of its own.
pub(crate) fn send(
    stream: &mut (impl Read + Write),
    request: &str,
    token: Option<&str>,
    body: &[u8],
) -> Response {
    send_with(stream, request, token, &[], body)
}

/// The same with more headers.
pub(crate) fn send_with(
    stream: &mut (impl Read + Write),
    request: &str,
    token: Option<&str>,
    headers: &[&str],
    body: &[u8],
) -> Response {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let authorization =
        token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: localhost\r\n{authorization}{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A body that is refused by its announced size need not be taken whole.
    drop(stream.write_all(body));
    receive(stream)
}

/// Reads one response, by its `Content-Length`.
pub(crate) fn receive(stream: &mut impl Read) -> Response {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let mut response = Response { status, head, body: bytes[end + 4..].to_vec() };
            let length: usize =
                response.header("content-length").map_or(0, |text| text.parse().unwrap());
            let more = length - response.body.len();
            let mut rest = vec![0; more];
            stream.read_exact(&mut rest).unwrap();
            response.body.extend(rest);
            return response;
        }
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "connection closed after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend(&piece[..count]);
    }
}
