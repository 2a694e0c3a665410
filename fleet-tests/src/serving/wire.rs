//! One kept-alive HTTP/1.1 connection that looks at no more of an answer than it must: what a load generator does costs
//! the same processor as the server.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

/// Longest wait for any part of an answer.
const WAIT: Duration = Duration::from_secs(30);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// TCP on loopback.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// An open stream.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Connects; every read and write waits a bounded time.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn open(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, WAIT)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(WAIT))?;
                stream.set_write_timeout(Some(WAIT))?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(WAIT))?;
                stream.set_write_timeout(Some(WAIT))?;
                Ok(Self::Unix(stream))
            }
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn open(address: &Address) -> io::Result<Self> {
        Ok(Self { stream: Stream::open(address)?, buffer: Vec::new() })
    }

    /// Sends a request and reads its whole answer: status and body.
    ///
    /// # Errors
    /// The connection broke, or what came is no HTTP answer with a length.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        let head = self.head()?;
        let (status, length) = self.buffer.get(..head).and_then(parsed).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "an answer without status or length")
        })?;
        if length > BODY_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that is too long"));
        }
        let end = head + 4 + length;
        let there = self.buffer.len();
        if there < end {
            self.buffer.resize(end, 0);
            self.stream.read_exact(self.buffer.get_mut(there..).unwrap_or_default())?;
        }
        Ok((status, self.buffer.get(head + 4..end).unwrap_or_default()))
    }

    /// Reads until the head is there, and says where it ends.
    fn head(&mut self) -> io::Result<usize> {
        let mut piece = [0; 16 * 1024];
        loop {
            let looked = self.buffer.len().saturating_sub(3);
            let count = self.stream.read(&mut piece)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(piece.get(..count).unwrap_or_default());
            let fresh = self.buffer.get(looked..).unwrap_or_default();
            if let Some(at) = fresh.windows(4).position(|four| four == b"\r\n\r\n") {
                return Ok(looked + at);
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a head without end"));
            }
        }
    }
}

/// Status and length of the body.
fn parsed(head: &[u8]) -> Option<(u16, usize)> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })?;
    Some((status, length))
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// What a client makes of `answers`, sent in these pieces for one request each.
    fn asked(answers: &'static [&'static [&'static [u8]]]) -> Vec<io::Result<(u16, Vec<u8>)>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            for answer in answers {
                assert!(stream.read(&mut request).unwrap() > 0);
                for piece in *answer {
                    stream.write_all(piece).unwrap();
                    stream.flush().unwrap();
                }
            }
        });
        let mut connection = Connection::open(&address).unwrap();
        let request = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
        let seen = answers
            .iter()
            .map(|_| connection.ask(request).map(|(status, body)| (status, body.to_vec())));
        let seen = seen.collect();
        drop(connection);
        server.join().unwrap();
        seen
    }

    #[test]
    fn answers_are_read_to_their_end_however_they_come() {
        let seen = asked(&[
            &[b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"],
            &[b"HTTP/1.1 429 Busy\r\ncontent-", b"length: 5\r\n\r", b"\nab", b"cde"],
            &[b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
        ]);
        let seen: Vec<_> = seen.into_iter().map(Result::unwrap).collect();
        let expected = [(200, b"ab".to_vec()), (429, b"abcde".to_vec()), (200, Vec::new())];
        assert_eq!(seen, expected);
    }

    #[test]
    fn an_answer_that_ends_early_or_has_no_length_is_an_error() {
        assert!(asked(&[&[b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"]])[0].is_err());
        assert!(asked(&[&[b"HTTP/1.1 200 OK\r\n\r\n"]])[0].is_err());
    }
}
