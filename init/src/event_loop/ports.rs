//! The status ports: opening them, serving them in bounded pieces, telling subscribers.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use garboard_runtime::plan::status_socket;
use rustix::net::SocketFlags;

use super::Supervisor;
use super::sources::{Ready, Source};
use crate::clock::{cpu_us, now_ms};
use crate::logs::Piece;
use crate::status::ports::Room;
use crate::status::protocol::{self, Answer, Line};
use crate::status::{PORT_NAME, Port, Rights, find};
use crate::sys::vsock;

/// Requests answered for one port in one turn of the loop.
const REQUESTS_PER_TURN: usize = 8;
/// Connections accepted from one listener in one turn.
const ACCEPTED_PER_TURN: usize = 4;
/// The number of the vsock listener; a container's socket has the container's.
pub(super) const VSOCK: u32 = u32::MAX;

/// A socket on which ports are opened.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) fd: OwnedFd,
    /// Nothing is accepted until its container may make work again.
    paused: bool,
}

impl Supervisor {
    /// Opens the virtio port once it is there; until then, called for each device that comes.
    pub(super) fn look_for_port(&mut self) {
        if self.ports.lasting().is_some() {
            return;
        }
        let Some(path) = find(Path::new("/sys/class/virtio-ports"), PORT_NAME) else { return };
        match Port::open(&path) {
            Ok(port) => drop(self.use_port(port)),
            Err(e) => log::warn!("open {}: {e}", path.display()),
        }
    }

    /// Serves the machine's own port, on which everything may be asked.
    pub(super) fn use_port(&mut self, port: Port) -> u32 {
        self.common_dirty = true;
        self.add_port(port, Rights::Full, true)
    }

    fn add_port(&mut self, port: Port, rights: Rights, lasting: bool) -> u32 {
        let number = self.ports.add(port, rights, lasting);
        if let Some(entry) = self.ports.get_mut(number) {
            self.sources.add_edges(&entry.port, Source::Port(number));
        }
        number
    }

    /// Listens on the declared vsock port, once its modules are loaded.
    pub(super) fn listen_on_vsock(&mut self) {
        let Some(port) = self.plan.status_vsock.filter(|_| !self.listeners.contains_key(&VSOCK)) else { return };
        match vsock::listen(port) {
            Ok(fd) => self.use_listener(VSOCK, fd),
            Err(e) => self.note(format!("listen on vsock port {port} for status requests: {e}")),
        }
        self.common_dirty = true;
    }

    /// Makes the sockets of containers that may read the status: before their first launch, which mounts them.
    pub(super) fn listen_for_containers(&mut self) {
        let readers: Vec<(usize, String)> = self
            .plan
            .containers
            .iter()
            .enumerate()
            .filter(|(_, c)| c.reads_status)
            .map(|(i, c)| (i, c.name.clone()))
            .collect();
        for (index, name) in readers {
            let path = status_socket(&self.run_dir().to_string_lossy(), &name);
            match u32::try_from(index)
                .map_err(io::Error::other)
                .and_then(|number| Ok((number, listen_at(Path::new(&path))?)))
            {
                Ok((number, fd)) => self.use_listener(number, fd),
                Err(e) => self.note(format!("make {path}, on which {name} reads the status: {e}")),
            }
            self.dirty.push(index);
        }
    }

    pub(super) fn use_listener(&mut self, number: u32, fd: OwnedFd) {
        self.sources.add_readable(&fd, Source::Listener(number));
        self.listeners.insert(number, Listener { fd, paused: false });
    }

    /// Accepts a bounded number of connections.
    pub(super) fn accept(&mut self, number: u32) {
        let container = usize::try_from(number).ok().filter(|_| number != VSOCK);
        for _ in 0..ACCEPTED_PER_TURN {
            let begun = cpu_us();
            let group = container.map_or(Rights::Read, Rights::Container);
            let throttled = self.ports.meter.throttled(group, now_ms());
            let Some(listener) = self.listeners.get_mut(&number) else { return };
            if throttled {
                listener.paused = true;
                self.sources.remove(&listener.fd);
                return;
            }
            let accepted = match container {
                Some(_) => {
                    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                    rustix::net::accept_with(&listener.fd, flags).map(|fd| (fd, group)).map_err(io::Error::from)
                }
                None => vsock::accept(listener.fd.as_fd())
                    .map(|(fd, peer)| (fd, if peer == vsock::HOST { Rights::Full } else { group })),
            };
            let (fd, rights) = match accepted {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // For want of descriptors or memory it would be ready, and fail, again and again: the rest of a window is waited for.
                Err(_) => {
                    self.ports.meter.exhaust(group);
                    continue;
                }
            };
            // Closed again at once when those that are there may do more.
            let room = self.ports.room_for(rights);
            if let Room::InPlaceOf(oldest) = room {
                self.close_port(oldest);
            }
            if room != Room::None {
                self.add_port(Port::on(fd), rights, false);
            }
            self.ports.meter.count(group, cpu_us().saturating_sub(begun));
        }
    }

    /// Something happened at a port.
    pub(super) fn port_ready(&mut self, number: u32, ready: Ready) {
        if ready.unplugged && self.ports.get_mut(number).is_some_and(|entry| entry.lasting) {
            self.lose_port(number);
            return;
        }
        if let Some(entry) = self.ports.get_mut(number) {
            entry.port.unblock();
            if entry.lasting && ready.hung_up {
                entry.port.hang_up();
                self.common_dirty |= entry.subscription.any();
                (entry.subscription, entry.told) = Default::default();
                if entry.waits.take().is_some() {
                    self.forget_previous(number);
                }
            } else if ready.gone {
                entry.port.hang_up();
            }
        }
        self.serve_port(number);
    }

    /// The virtio port's device is gone for good; another may come, or be there already.
    fn lose_port(&mut self, number: u32) {
        self.close_port(number);
        self.common_dirty = true;
        self.look_for_port();
    }

    fn close_port(&mut self, number: u32) {
        if let Some(entry) = self.ports.take(number) {
            self.sources.remove(&entry.port);
            self.forget_previous(number);
        }
    }

    /// Closes connections whose other ends take nothing of what they have asked for.
    pub(super) fn close_stalled(&mut self, now: u64) {
        for number in self.ports.stalled(now) {
            self.close_port(number);
        }
    }

    /// Reads and answers requests, a bounded number.
    pub(super) fn serve_port(&mut self, number: u32) {
        let Some(mut entry) = self.ports.take(number) else { return };
        if entry.lasting {
            entry.port.greet();
        }
        entry.port.write();
        let mut more = true;
        // What ends the machine is said to be done when that is kept: in the next turn.
        let mut held = false;
        for _ in 0..REQUESTS_PER_TURN {
            if held
                || entry.waits.is_some()
                || self.ports.owed().too_much(entry.rights)
                || self.ports.meter.throttled(entry.rights, now_ms())
            {
                break;
            }
            let begun = cpu_us();
            match entry.port.request() {
                Some(Ok(line)) => {
                    let goal = self.state.common().goal;
                    if let Some(reply) = self.answer(number, &line, &mut entry) {
                        entry.port.reply(&reply);
                        held = goal != self.state.common().goal;
                        if !held {
                            entry.port.write();
                        }
                    }
                }
                Some(Err(())) => {
                    let message = format!("a request has at most {} bytes", protocol::LONGEST_REQUEST);
                    entry.port.reply(&protocol::encode(None, Answer::Error { message }));
                    entry.port.write();
                }
                None => more = entry.port.read(&mut self.buffer),
            }
            self.ports.meter.count(entry.rights, cpu_us().saturating_sub(begun));
            if !more {
                break;
            }
        }
        // While a reply waits for its reader, the next edge continues.
        entry.again = more && (held || !entry.port.busy()) && entry.waits.is_none();
        let done = entry.port.is_done() && !entry.subscription.any() && entry.waits.is_none();
        if entry.lasting || !(entry.port.is_gone() || done) {
            self.ports.put(number, entry);
        } else {
            self.sources.remove(&entry.port);
            self.forget_previous(number);
        }
    }

    /// What is left over from the turn before: requests, and listeners that waited for their turn. Whether there were any requests.
    pub(super) fn serve_again(&mut self, now: u64) -> bool {
        // Before those that are there: they ask again and again, and who waits to come in may be one who may ask for more.
        let paused: Vec<u32> = self.listeners.iter().filter(|(_, l)| l.paused).map(|(number, _)| *number).collect();
        for number in paused {
            if !self.ports.meter.throttled(group_of(number), now)
                && let Some(listener) = self.listeners.get_mut(&number)
            {
                listener.paused = false;
                self.sources.add_readable(&listener.fd, Source::Listener(number));
                self.accept(number);
            }
        }
        let left = self.ports.again(now);
        for number in &left {
            self.serve_port(*number);
        }
        !left.is_empty()
    }

    /// When a port or listener that made too much work has its next turn.
    pub(super) fn ports_due(&self) -> Option<u64> {
        let paused = self.listeners.iter().filter(|(_, l)| l.paused).map(|(number, _)| group_of(*number));
        self.ports.due(paused)
    }

    /// Tells subscribers of events what there is room for, and writes what waits.
    pub(super) fn tell_subscribers(&mut self) {
        let journal = &self.journal;
        self.ports.tell_events(journal.last(), |told, count| journal.after(told, count));
        let mut gone = Vec::new();
        for (number, entry) in self.ports.iter_mut() {
            entry.port.write();
            if entry.port.is_idle() && entry.told != entry.subscription.events {
                entry.told = entry.subscription.events;
                self.common_dirty |= entry.lasting;
            }
            if entry.port.is_gone() && !entry.lasting {
                gone.push(*number);
            }
        }
        for number in gone {
            self.close_port(number);
        }
    }
}

/// A line that a container printed, as subscribers get it.
pub(super) fn log_line(name: &str, piece: Piece<'_>, time_ms: u64) -> Vec<u8> {
    let text = String::from_utf8_lossy(piece.text).into_owned();
    let line = Line { time_ms, text, continues: piece.continues, earlier: None };
    protocol::encode(None, Answer::Log { container: Some(name), line })
}

/// Whose work it is to accept connections there.
fn group_of(listener: u32) -> Rights {
    usize::try_from(listener).ok().filter(|_| listener != VSOCK).map_or(Rights::Read, Rights::Container)
}

/// A socket in a directory of its own. Whoever can reach it may connect: only one container sees it, whose ids are strangers here.
fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    if let Err(e) = fs::remove_file(path)
        && e.kind() != io::ErrorKind::NotFound
    {
        return Err(e);
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener.into())
}
