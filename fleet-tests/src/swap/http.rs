//! An HTTP client that forgives nothing: one request, one response, no second try. It closes a connection when the
//! server said that it closes, and never looks whether the server did so without a word.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// Longest wait for any part of a response. A release that hangs at its start keeps everybody waiting for some time.
const WAIT: Duration = Duration::from_secs(120);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where the local API is.
#[derive(Clone, Debug)]
pub enum Address {
    /// TCP, with the machine's token.
    Tcp(SocketAddr, String),
    /// The Unix socket.
    Unix(PathBuf),
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// The header that says who asks.
    authorization: String,
    closes: bool,
}

/// What the client wants done with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// Kept for the next request.
    Keep,
    /// Closed.
    Close,
}

/// A response.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Value,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// Connects.
    pub fn open(address: &Address) -> anyhow::Result<Self> {
        let (stream, authorization) = match address {
            Address::Tcp(address, token) => {
                let stream = TcpStream::connect_timeout(address, WAIT)
                    .with_context(|| format!("connecting to {address}"))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(WAIT))?;
                (Stream::Tcp(stream), format!("Authorization: Bearer {token}\r\n"))
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .with_context(|| format!("connecting to {}", path.display()))?;
                stream.set_read_timeout(Some(WAIT))?;
                (Stream::Unix(stream), String::new())
            }
        };
        Ok(Self { stream, authorization, closes: false })
    }

    /// Whether the server said that it closes this connection.
    pub const fn closes(&self) -> bool {
        self.closes
    }

    /// Sends one request and reads its response.
    pub fn ask(
        &mut self,
        path: &str,
        body: &Value,
        afterwards: Afterwards,
    ) -> anyhow::Result<Response> {
        let body = body.to_string();
        let close = match afterwards {
            Afterwards::Keep => "",
            Afterwards::Close => "Connection: close\r\n",
        };
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\n{}{close}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.authorization,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).context("sending the request")?;
        self.response()
    }

    fn response(&mut self) -> anyhow::Result<Response> {
        let mut bytes = Vec::new();
        let mut piece = [0; 16 * 1024];
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            ensure!(bytes.len() < HEAD_BYTES_MAX, "the head of the response does not end");
            let count = self.stream.read(&mut piece).context("waiting for the response")?;
            ensure!(count > 0, "the connection closed after {} bytes of a response", bytes.len());
            bytes.extend(piece.get(..count).unwrap_or_default());
        };
        let head = String::from_utf8(bytes.get(..end).unwrap_or_default().to_vec())?;
        let mut body = bytes.split_off(end + 4);
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.with_context(|| format!("no status in {head:?}"))?;
        let header = |name: &str| {
            head.lines().skip(1).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        self.closes = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let length: usize = header("content-length").unwrap_or("0").parse()?;
        ensure!(length <= BODY_BYTES_MAX, "a body of {length} bytes");
        let Some(more) = length.checked_sub(body.len()) else {
            bail!("{} bytes come after the response", body.len() - length);
        };
        let mut rest = vec![0; more];
        self.stream.read_exact(&mut rest).context("reading the body")?;
        body.extend(rest);
        let body = serde_json::from_slice(&body).with_context(|| {
            format!("a body that is not JSON: {:?}", String::from_utf8_lossy(&body))
        })?;
        Ok(Response { status, body })
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
        }
    }
}
