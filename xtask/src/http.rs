//! Just enough HTTP/1.1 to ask an agent on loopback: one connection, JSON both ways.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::failure::Failure;

const WAIT_MAX: Duration = Duration::from_secs(30);
const BODY_BYTES_MAX: u64 = 64 << 20;
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// Where an agent answers, and the token that it wants.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    address: SocketAddr,
    token: String,
}

impl Agent {
    /// `url` is `http://127.0.0.1:PORT`; anything that is not loopback is refused, for the token
    /// would travel in the clear.
    pub(crate) fn new(url: &str, token_file: &Path) -> Result<Self, Failure> {
        let bad = || {
            Failure::new(format!("`{url}` is no loopback address of an agent"))
                .next("give it as `http://127.0.0.1:PORT`")
        };
        let authority = url.strip_prefix("http://").ok_or_else(bad)?.trim_end_matches('/');
        let authority = authority.replace("localhost", "127.0.0.1");
        let address: SocketAddr = authority.parse().map_err(|_| bad())?;
        let loopback = match address.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        };
        if !loopback {
            return Err(bad());
        }
        let token = std::fs::read_to_string(token_file).map_err(|error| {
            Failure::new(format!("reading the agent's token `{}`", token_file.display()))
                .because(error)
        })?;
        Ok(Self { address, token: token.trim().to_owned() })
    }

    /// Where it answers: `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The token that it wants.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Opens a connection that serves any number of requests.
    pub(crate) fn connect(&self) -> Result<Connection, Failure> {
        let connecting =
            |error| Failure::new(format!("connecting to {}", self.address)).because(error);
        let stream = TcpStream::connect_timeout(&self.address, WAIT_MAX).map_err(connecting)?;
        stream.set_read_timeout(Some(WAIT_MAX)).map_err(connecting)?;
        stream.set_write_timeout(Some(WAIT_MAX)).map_err(connecting)?;
        stream.set_nodelay(true).map_err(connecting)?;
        Ok(Connection { stream: BufReader::new(stream), agent: self.clone() })
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    agent: Agent,
}

impl Connection {
    /// Posts JSON and gives the answer's; a status other than 200 is a failure that shows it.
    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Result<Value, Failure> {
        let body = body.to_string();
        let head = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        self.ask("POST", path, &format!("{head}\r\n{body}"))
    }

    /// The name of the first model that the agent serves.
    pub(crate) fn first_model(&mut self) -> Result<String, Failure> {
        let answer = self.ask("GET", "/v1/models", "\r\n")?;
        let name = answer.pointer("/data/0/id").and_then(Value::as_str);
        name.map(str::to_owned).ok_or_else(|| Failure::new("the agent serves no model"))
    }

    /// Sends a request whose head goes on with `rest`.
    fn ask(&mut self, method: &str, path: &str, rest: &str) -> Result<Value, Failure> {
        let asking = |error| Failure::new(format!("asking `{path}`")).because(error);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n{rest}",
            self.agent.address, self.agent.token
        );
        self.stream.get_mut().write_all(request.as_bytes()).map_err(asking)?;
        let (status, answer) = answer(&mut self.stream).map_err(asking)?;
        if status != 200 {
            let text = String::from_utf8_lossy(&answer);
            return Err(Failure::new(format!("`{path}` answered {status}: {}", text.trim())));
        }
        serde_json::from_slice(&answer)
            .map_err(|error| Failure::new(format!("reading the answer of `{path}`")).because(error))
    }
}

/// Status and body of an answer that gives its length.
fn answer(from: &mut impl BufRead) -> io::Result<(u16, Vec<u8>)> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = from.take(HEAD_BYTES_MAX);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let status = line.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| bad("no HTTP status line"))?;
    let mut length = None;
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(bad("the answer's head does not end"));
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse::<u64>().ok();
            }
            Some(_) => {}
            None => break,
        }
    }
    let length = length.ok_or_else(|| bad("the answer gives no content-length"))?;
    if length > BODY_BYTES_MAX {
        return Err(bad("the answer is too long"));
    }
    let mut body = Vec::new();
    from.take(length).read_to_end(&mut body)?;
    if body.len() as u64 == length { Ok((status, body)) } else { Err(bad("the answer is cut off")) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Agent, answer};

    #[test]
    fn an_answer_is_read_to_its_length_and_no_further() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\n{}HTTP/1.1";
        assert_eq!(answer(&mut bytes.as_slice()).unwrap(), (200, b"{}".to_vec()));
    }

    #[test]
    fn answers_that_are_cut_off_or_endless_are_refused() {
        for bytes in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n",
            "nothing\r\n\r\n",
        ] {
            assert!(answer(&mut bytes.as_bytes()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn only_loopback_gets_the_token() {
        for url in ["http://10.0.0.1:80", "https://127.0.0.1:80", "http://127.0.0.1"] {
            let failure = Agent::new(url, Path::new("/dev/null")).unwrap_err();
            assert!(failure.to_string().contains("loopback"), "{failure}");
        }
        assert!(Agent::new("http://localhost:7411", Path::new("/dev/null")).is_ok());
    }
}
