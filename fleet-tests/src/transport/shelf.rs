//! A server of one folder of objects, with single ranges, on loopback.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::Context as _;

const LINE_BYTES_MAX: u64 = 8 * 1024;

/// A running server; it ends with the process.
#[derive(Debug)]
pub struct Shelf {
    /// Its address, to which `/sha256/<hex>` is added.
    pub url: String,
    requests: Arc<AtomicU64>,
}

impl Shelf {
    /// Serves the files of `objects` under `/sha256/`.
    pub fn open(objects: &Path) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening on loopback")?;
        let url = format!("http://{}", listener.local_addr()?);
        let requests = Arc::new(AtomicU64::new(0));
        let (objects, counter) = (objects.to_owned(), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (objects, counter) = (objects.clone(), Arc::clone(&counter));
                // A client that hangs up is none of our business.
                thread::spawn(move || drop(serve(stream, &objects, &counter)));
            }
        });
        Ok(Self { url, requests })
    }

    /// Requests since the last call.
    pub fn requests(&self) -> u64 {
        self.requests.swap(0, Ordering::Relaxed)
    }
}

fn serve(stream: TcpStream, objects: &Path, counter: &AtomicU64) -> io::Result<()> {
    let mut answer = stream.try_clone()?;
    let mut lines = BufReader::new(stream);
    loop {
        let Some(asked) = request(&mut lines)? else { return Ok(()) };
        counter.fetch_add(1, Ordering::Relaxed);
        let Some(mut file) = asked.file(objects) else {
            answer.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        };
        let length = file.metadata()?.len();
        let (status, from, end) = match asked.range {
            Some((from, end)) => ("206 Partial Content", from, end.unwrap_or(length).min(length)),
            None => ("200 OK", 0, length),
        };
        write!(
            answer,
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\netag: \"{}\"\r\ncontent-range: bytes {from}-{}/{length}\r\n\r\n",
            end.saturating_sub(from),
            asked.name,
            end.saturating_sub(1)
        )?;
        file.seek(SeekFrom::Start(from))?;
        io::copy(&mut file.take(end.saturating_sub(from)), &mut answer)?;
    }
}

struct Asked {
    name: String,
    /// First byte, and the byte after the last if one is named.
    range: Option<(u64, Option<u64>)>,
}

impl Asked {
    fn file(&self, objects: &Path) -> Option<File> {
        let hex = self.name.bytes().all(|b| b.is_ascii_hexdigit()) && self.name.len() == 64;
        let path: PathBuf = objects.join(&self.name);
        hex.then(|| File::open(path).ok()).flatten()
    }
}

fn request(lines: &mut BufReader<TcpStream>) -> io::Result<Option<Asked>> {
    let Some(first) = line(lines)? else { return Ok(None) };
    let name = first.split(' ').nth(1).and_then(|path| path.rsplit('/').next());
    let mut asked = Asked { name: name.unwrap_or_default().to_owned(), range: None };
    while let Some(header) = line(lines)?.filter(|header| !header.is_empty()) {
        let header = header.to_ascii_lowercase();
        if let Some((from, last)) =
            header.strip_prefix("range: bytes=").and_then(|range| range.split_once('-'))
        {
            let last = last.parse::<u64>().ok().map(|last| last + 1);
            asked.range = from.parse().ok().map(|from| (from, last));
        }
    }
    Ok(Some(asked))
}

fn line(lines: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut text = String::new();
    let count = lines.by_ref().take(LINE_BYTES_MAX).read_line(&mut text)?;
    Ok((count > 0).then(|| text.trim_end().to_owned()))
}
