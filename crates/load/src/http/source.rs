//! Where connections start from: this machine's own choice, or addresses that the user names.
//!
//! A pair of addresses has as many connections to one port as there are local ports, some 28,000 by
//! default. More sources, taken in turn, have that many each.

use mio::net::TcpStream;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The addresses that connections start from, in turn; none leaves it to the system.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    all: Vec<IpAddr>,
    next: AtomicUsize,
}

impl Sources {
    pub(crate) fn new(all: Vec<IpAddr>) -> Self {
        Self { all, next: AtomicUsize::new(0) }
    }

    /// Begins to connect to `to`.
    ///
    /// # Errors
    /// As the system says; also where no source is of `to`'s family.
    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        if self.all.is_empty() {
            return TcpStream::connect(to);
        }
        let fitting = || self.all.iter().filter(|from| from.is_ipv4() == to.is_ipv4());
        // Sources are few; to count them costs less than a list of each family would.
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % fitting().count().max(1);
        let from = fitting().nth(turn).ok_or_else(|| {
            let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
            io::Error::other(format!("no source address is of the target's family, {family}"))
        })?;
        bound::connect(*from, to)
    }

    /// The words of a failure to connect.
    pub(crate) fn explain(&self, error: &io::Error) -> String {
        let is_exhausted = error.kind() == io::ErrorKind::AddrNotAvailable;
        match (is_exhausted, self.all.is_empty()) {
            (false, _) => error.to_string(),
            (true, true) => format!("{error}: no local port is left, or the address is of no use"),
            (true, false) => {
                format!("{error}: a source is no address of this machine, or has no port left")
            }
        }
    }
}

#[cfg(unix)]
mod bound {
    use mio::net::TcpStream;
    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType, bind, connect as begin, socket};
    use std::io;
    use std::net::{IpAddr, SocketAddr};
    use std::os::fd::OwnedFd;

    pub(super) fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = socket(family, SocketType::STREAM, None)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        leave_port_to_connect(&fd);
        bind(&fd, &SocketAddr::new(from, 0))?;
        match begin(&fd, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(TcpStream::from_std(fd.into()))
    }

    /// A port that is chosen when the target is known may serve for other targets as well; one that
    /// `bind` chooses is taken from all.
    #[cfg(target_os = "linux")]
    fn leave_port_to_connect(fd: &OwnedFd) {
        let option = nix::sys::socket::sockopt::IpBindAddressNoPort;
        let _ = nix::sys::socket::setsockopt(fd, option, &true);
    }

    #[cfg(not(target_os = "linux"))]
    fn leave_port_to_connect(_: &OwnedFd) {}
}

#[cfg(not(unix))]
mod bound {
    use mio::net::TcpStream;
    use std::io;
    use std::net::{IpAddr, SocketAddr};

    pub(super) fn connect(_: IpAddr, _: SocketAddr) -> io::Result<TcpStream> {
        Err(io::Error::other("source addresses cannot be chosen on this system"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::TcpListener;

    #[test]
    #[cfg(target_os = "linux")]
    fn connections_start_from_the_sources_in_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sources =
            Sources::new(["127.0.0.2", "::1", "127.0.0.3"].map(|s| s.parse().unwrap()).to_vec());
        let to = listener.local_addr().unwrap();
        let held: Vec<_> = (0..4).map(|_| sources.connect(to).unwrap()).collect();
        let from = |_| listener.accept().unwrap().1.ip().to_string();
        let mut seen: Vec<String> = (0..held.len()).map(from).collect();
        seen.sort();
        assert_eq!(seen, ["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3"]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_port_is_taken_for_one_target_only() {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let sources = Sources::new(vec!["127.0.0.9".parse().unwrap()]);
        // Both ends of each connection are kept, so no port comes free again.
        let mut held = Vec::new();
        let mut ports = [BTreeSet::new(), BTreeSet::new()];
        for _ in 0..200 {
            for (listener, ports) in listeners.iter().zip(&mut ports) {
                let near = sources.connect(listener.local_addr().unwrap()).unwrap();
                let (far, from) = listener.accept().unwrap();
                assert!(ports.insert(from.port()), "one port twice for one target");
                held.push((near, far));
            }
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        let to: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let of = |text: &str| Sources::new(vec![text.parse().unwrap()]).connect(to).unwrap_err();
        assert!(of("::1").to_string().contains("family, IPv4"));
        let foreign = Sources::new(vec!["192.0.2.1".parse().unwrap()]);
        let said = foreign.explain(&foreign.connect(to).unwrap_err());
        assert!(said.contains("no address of this machine"), "{said}");
    }
}
