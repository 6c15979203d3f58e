//! Between an agent and whoever came to its machine to ask: standard input and output of a process there.

use super::connection::next_line;
use super::spool::copy;
use super::{Place, SOCKET, SPOOL};
use scalebeam_model::telemetry::agent::{Ask, PROTOCOL, Say, line, read};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Joins `input` and `output` to the agent in `dir` until either end closes. Where no agent lives there any
/// more, its spool is told as far as it goes.
///
/// # Errors
/// When there is neither an agent nor a spool.
pub fn attach(
    dir: &Path,
    version: &str,
    input: impl Read + Send + 'static,
    output: impl Write,
) -> io::Result<()> {
    let place = Place::open(dir)?;
    match UnixStream::connect(place.short(SOCKET)) {
        Ok(stream) => join(stream, input, output),
        Err(_) => tell_spool(&dir.join(SPOOL), version, input, output),
    }
}

fn join(
    mut stream: UnixStream,
    mut input: impl Read + Send + 'static,
    output: impl Write,
) -> io::Result<()> {
    let mut to = stream.try_clone()?;
    let thread = std::thread::Builder::new().name("input".to_owned());
    // It may wait for input for ever: the process ends without it.
    thread.spawn(move || {
        let _ = pump(&mut input, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    })?;
    pump(&mut stream, output)
}

/// As [`io::copy`], but nothing is held back.
fn pump(from: &mut impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let len = from.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..len).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        to.write_all(bytes)?;
        to.flush()?;
    }
}

/// What a spool holds of an agent that has ended, from the byte that is asked for.
fn tell_spool(
    spool: &Path,
    version: &str,
    input: impl Read,
    mut output: impl Write,
) -> io::Result<()> {
    let mut file = File::open(spool)?;
    let hello = Say::Hello { protocol: PROTOCOL, version: version.to_owned(), pid: None };
    output.write_all(line(&hello).as_bytes())?;
    output.flush()?;
    let mut lines = BufReader::new(input);
    while let Some(asked) = next_line(&mut lines)? {
        if let Some(Ask::From { byte }) = read(&asked) {
            copy(&mut file, byte, u64::MAX, &mut |bytes| output.write_all(bytes))?;
            return output.flush();
        }
    }
    Ok(())
}
