//! HTTP/1.1 on std alone: a client for what tests ask of peers by themselves, and the parts that a server needs.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A request or an answer, whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// `POST / HTTP/1.1`, or `HTTP/1.1 200 OK`.
    pub(crate) start: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The value of the first header of this name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// The path of a request, without its query.
    pub(crate) fn path(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default()
    }

    /// Reads one from `input`; `None` at its end.
    pub(crate) fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut message = Self::default();
        if !read_line(input, &mut message.start)? {
            return Ok(None);
        }
        loop {
            let mut line = String::new();
            if !read_line(input, &mut line)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            message.headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let chunked = message.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let len = message.header("content-length").map(|value| value.parse().unwrap_or(usize::MAX));
        match len {
            _ if chunked => message.body = read_chunks(input)?,
            Some(len) => {
                input.take(len as u64).read_to_end(&mut message.body)?;
                if message.body.len() < len {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            // A request without a length has no body; an answer has one up to its end.
            None if message.start.starts_with("HTTP/") && !matches!(message.status(), 204 | 304) => {
                input.read_to_end(&mut message.body)?;
            }
            None => {}
        }
        Ok(Some(message))
    }

    /// Writes it with the length of its body, whatever its headers said of that.
    pub(crate) fn write(&self, output: &mut impl Write) -> io::Result<()> {
        let mut head = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            if !name.eq_ignore_ascii_case("content-length") && !name.eq_ignore_ascii_case("transfer-encoding") {
                head += &format!("{name}: {value}\r\n");
            }
        }
        head += &format!("Content-Length: {}\r\n\r\n", self.body.len());
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        output.write_all(&bytes)?;
        output.flush()
    }
}

fn read_line(input: &mut impl BufRead, line: &mut String) -> io::Result<bool> {
    let read = input.read_line(line)?;
    line.truncate(line.trim_end().len());
    Ok(read > 0)
}

fn read_chunks(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        read_line(input, &mut line)?;
        let size = u64::from_str_radix(line.split(';').next().unwrap_or_default(), 16);
        let size = size.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        input.take(size).read_to_end(&mut body)?;
        let mut end = String::new();
        read_line(input, &mut end)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Sends one request to `url` (`http://127.0.0.1:PORT/…`), on a connection of its own.
pub(crate) fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Message> {
    let rest = url.strip_prefix("http://").ok_or(io::ErrorKind::InvalidInput)?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut request = Message { start: format!("{method} /{path} HTTP/1.1"), ..Message::default() };
    request.headers = [("Host", host), ("Connection", "close")]
        .iter()
        .chain(headers)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    request.body = body.to_vec();
    forward(&request, host)
}

/// Sends `request` as it is to `host`, on a connection of its own.
pub(crate) fn forward(request: &Message, host: &str) -> io::Result<Message> {
    let mut connection = TcpStream::connect(host)?;
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    request.write(&mut connection)?;
    Message::read(&mut BufReader::new(connection))?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
