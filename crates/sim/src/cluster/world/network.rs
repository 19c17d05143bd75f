//! The simulated network: connections that keep their order and break as a whole, or datagrams that do neither.

use std::collections::VecDeque;

use ringraft_net::{ConnectionClass, Endpoint, LinkId};
use ringraft_proto::Frame;

use super::World;
use super::event::Event;
use crate::checkers::Violation;
use crate::cluster::checks::broken;
use crate::cluster::clock::MS;
use crate::cluster::host::Arrival;
use crate::cluster::random::Random;
use crate::cluster::transport::{ConnectionId, decode};

/// One connection: the client's link, and the server's end.
pub(super) struct Connection {
    pub(super) client: usize,
    pub(super) link: LinkId,
    endpoint: Endpoint,
    class: ConnectionClass,
    pub(super) server: usize,
    /// Whether the ends still know the connection; each belongs to one life of its host.
    client_open: bool,
    server_open: bool,
    /// When the last frame of each direction arrives.
    last: [u64; 2],
    /// Frames that a cut or a full connection holds back, of each direction.
    held: [VecDeque<Frame>; 2],
    /// Frames that were sent and not read yet, of each direction.
    unread: [usize; 2],
    /// Nobody answers for an end that is gone: the other finds out in its own time.
    silent: bool,
}

#[derive(Default)]
pub(super) struct Network {
    connections: Vec<Connection>,
    /// How many cuts forbid the way from a host to another.
    cuts: [[u32; 8]; 8],
    /// Until when the way from a host to another is slow, and by how much a frame.
    clogs: [[(u64, u64); 8]; 8],
    /// When the last frame arrives that was slower than usual.
    pub(super) late_until: u64,
}

impl Network {
    /// The host and link that opened a connection.
    pub(super) fn client_of(&self, id: ConnectionId) -> (usize, LinkId) {
        let connection = &self.connections[id as usize];
        (connection.client, connection.link)
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[from][to] > 0
    }
}

impl World {
    /// A link tries to connect; it tries again when that does not work.
    pub(super) fn connect(
        &mut self,
        host: usize,
        life: u32,
        link: LinkId,
        endpoint: Endpoint,
        class: ConnectionClass,
    ) {
        if self.hosts[host].life != life || self.hosts[host].process.is_none() {
            return;
        }
        let Some(server) = self.hosts.iter().position(|h| h.endpoint == endpoint) else { return };
        let reachable = self.hosts[server].process.is_some()
            && !self.network.is_cut(host, server)
            && !self.network.is_cut(server, host);
        if !reachable {
            let pause = self.random.range(MS, self.plan.election_timeout_ms * MS / 4);
            self.after(pause, Event::Connect { host, life, link, endpoint, class });
            return;
        }
        let id = self.network.connections.len() as ConnectionId;
        self.network.connections.push(Connection {
            client: host,
            link,
            endpoint: endpoint.clone(),
            class,
            server,
            client_open: true,
            server_open: true,
            last: [self.now; 2],
            held: Default::default(),
            unread: [0; 2],
            silent: false,
        });
        if let (Some(client), Some(accepting)) = (self.transport(host), self.transport(server)) {
            client.connected(link, id);
            accepting.accepted(id);
        }
        self.hosts[host].arrivals.push_back(Arrival::Connected(link, endpoint, class));
        self.wake(host, 1);
    }

    /// Carries away what a host has flushed, and connects links that are new.
    pub(super) fn carry(&mut self, host: usize) -> Result<(), Violation> {
        let (now, life) = (self.now, self.hosts[host].life);
        let Some(transport) = self.transport(host) else { return Ok(()) };
        for (link, endpoint, class) in transport.take_fresh(now) {
            let delay = self.frame_delay();
            self.after(delay, Event::Connect { host, life, link, endpoint, class });
        }
        for (connection, is_request, frame) in transport.take_outgoing() {
            let frame = decode(&frame).map_err(|what| broken("codec", what))?;
            self.send(connection, usize::from(!is_request), frame);
        }
        Ok(())
    }

    fn frame_delay(&mut self) -> u64 {
        let (low, high) = self.plan.net.delay;
        self.random.range(low, high)
    }

    /// Takes note of a frame that is late.
    fn arrives(&mut self, at: u64) {
        if at > self.now + self.plan.net.delay.1 {
            self.network.late_until = self.network.late_until.max(at);
        }
    }

    fn send(&mut self, id: ConnectionId, direction: usize, frame: Frame) {
        let Some(connection) = self.network.connections.get(id as usize) else { return };
        let ends = [connection.client, connection.server];
        let (from, to) = (ends[direction], ends[1 - direction]);
        let cut = self.network.is_cut(from, to);
        if self.plan.net.datagrams {
            let (loss, duplication) = (self.plan.net.loss, self.plan.net.duplication);
            if cut || self.chaos && self.random.chance(loss) {
                self.count("datagram_lost");
                return;
            }
            if self.chaos && self.random.chance(duplication) {
                self.count("datagram_doubled");
                let delay = 2 * self.frame_delay();
                self.arrives(self.now + delay);
                self.after(delay, Event::Deliver(id, direction, Box::new(frame.clone())));
            }
            let at = self.now + self.frame_delay() + self.clog(from, to);
            self.arrives(at);
            let last = &mut self.network.connections[id as usize].last[direction];
            if at < *last {
                self.count("datagram_reordered");
            } else {
                *last = at;
            }
            self.at(at, Event::Deliver(id, direction, Box::new(frame)));
            return;
        }
        let at = self.now + self.frame_delay() + self.clog(from, to);
        let window = self.plan.net.window;
        let connection = &mut self.network.connections[id as usize];
        let full = connection.unread[direction] >= window;
        if cut || full || !connection.held[direction].is_empty() {
            connection.held[direction].push_back(frame);
            if full && !cut {
                self.mark("connection full");
            }
            return;
        }
        connection.unread[direction] += 1;
        let at = at.max(connection.last[direction]);
        connection.last[direction] = at;
        self.arrives(at);
        self.at(at, Event::Deliver(id, direction, Box::new(frame)));
    }

    /// By how much the way from a host to another is slower than usual now.
    fn clog(&mut self, from: usize, to: usize) -> u64 {
        let (until, delay) = self.network.clogs[from][to];
        if until <= self.now {
            return 0;
        }
        self.count("slow_frame");
        delay
    }

    /// The way from a host to another is slow for a while.
    pub(super) fn clog_way(&mut self, from: usize, to: usize, until: u64, delay: u64) {
        self.network.clogs[from][to] = (until, delay);
    }

    /// A host has read a frame of a connection: there is room for another.
    pub(super) fn frame_read(&mut self, id: ConnectionId, direction: usize) {
        // A stranger's is none of ours.
        let Some(connection) = self.network.connections.get_mut(id as usize) else { return };
        connection.unread[direction] = connection.unread[direction].saturating_sub(1);
        let ends = [connection.client, connection.server];
        if !connection.held[direction].is_empty()
            && !self.network.is_cut(ends[direction], ends[1 - direction])
        {
            self.release_frames(id, direction);
        }
    }

    /// Sends what a connection holds back, as far as it has room.
    fn release_frames(&mut self, id: ConnectionId, direction: usize) {
        let mut held = std::mem::take(&mut self.network.connections[id as usize].held[direction]);
        let window = self.plan.net.window;
        while self.network.connections[id as usize].unread[direction] < window
            && let Some(frame) = held.pop_front()
        {
            self.send(id, direction, frame);
        }
        self.network.connections[id as usize].held[direction] = held;
    }

    pub(super) fn deliver(&mut self, id: ConnectionId, direction: usize, frame: Frame) {
        let connection = &self.network.connections[id as usize];
        let (client, server, link) = (connection.client, connection.server, connection.link);
        let open = [connection.server_open, connection.client_open][direction];
        let silent = connection.silent;
        if !open {
            self.count("stale_frame");
            // The other end answers a frame for a connection that it does not know with a reset.
            let receiver = [server, client][direction];
            if self.hosts[receiver].process.is_some() && !silent {
                let delay = self.frame_delay();
                self.after(delay, Event::Close(id, direction == 0));
            }
            return;
        }
        match (direction, frame) {
            (0, Frame::Request(frame)) => {
                self.hosts[server].arrivals.push_back(Arrival::Request(id, frame));
                self.wake(server, 0);
            }
            (1, Frame::Response(frame)) => {
                self.frame_read(id, 1);
                let context = self.transport(client).and_then(|t| t.answered(link, frame.id));
                if let Some(context) = context {
                    let group = self.group_at(client, context.slot);
                    if let Some(group) = group {
                        self.heartbeats.remove(&(group, client, server));
                    }
                    self.note_answer(group, client, &context, Some(server));
                    self.hosts[client].arrivals.push_back(Arrival::Response(context, frame));
                    self.wake(client, 0);
                }
            }
            _ => {}
        }
    }

    /// One end of a connection learns that it is gone.
    pub(super) fn close(&mut self, id: ConnectionId, client_end: bool) {
        let connection = &mut self.network.connections[id as usize];
        let (client, server, link) = (connection.client, connection.server, connection.link);
        let end = if client_end { &mut connection.client_open } else { &mut connection.server_open };
        if !std::mem::replace(end, false) {
            return;
        }
        let (endpoint, class) = (connection.endpoint.clone(), connection.class);
        if !client_end {
            connection.held[1].clear();
            self.hosts[server].arrivals.retain(|a| !matches!(a, Arrival::Request(of, _) if *of == id));
            if let Some(transport) = self.transport(server) {
                transport.inbound_closed(id);
            }
            return;
        }
        connection.held[0].clear();
        let Some(transport) = self.transport(client) else { return };
        let failed = transport.disconnected(link);
        let life = self.hosts[client].life;
        let arrivals = failed.into_iter().map(|context| Arrival::Failed(context, "the connection broke"));
        self.hosts[client].arrivals.extend(arrivals);
        let pause = self.random.range(MS, self.plan.election_timeout_ms * MS / 8 + MS);
        self.after(pause, Event::Connect { host: client, life, link, endpoint, class });
        self.wake(client, 0);
    }

    /// Breaks connections; each end learns of it in its own time, so that stale bytes may still be read.
    pub(super) fn break_connections(&mut self, r: &mut Random, which: impl Fn(usize, usize) -> bool) {
        for id in 0..self.network.connections.len() {
            let connection = &self.network.connections[id];
            let open = connection.client_open || connection.server_open;
            if !open || !which(connection.client, connection.server) {
                continue;
            }
            for client_end in [true, false] {
                let delay =
                    if r.chance(300) { 0 } else { r.sized(1, self.plan.election_timeout_ms * MS / 2) };
                self.after(delay, Event::Close(id as ConnectionId, client_end));
            }
        }
    }

    /// One end of some connections is gone, and nobody tells the other for so long.
    pub(super) fn half_open(
        &mut self,
        r: &mut Random,
        away: u64,
        which: impl Fn(usize, usize) -> bool,
    ) -> bool {
        let mut any = false;
        for id in 0..self.network.connections.len() {
            let connection = &mut self.network.connections[id];
            let open = connection.client_open && connection.server_open;
            if !open || !which(connection.client, connection.server) || !r.chance(700) {
                continue;
            }
            any = true;
            connection.silent = true;
            let client_end = r.chance(500);
            self.after(0, Event::Close(id as ConnectionId, client_end));
            self.after(away, Event::Close(id as ConnectionId, !client_end));
        }
        any
    }

    /// The ends of a host that has crashed are gone at once; the others notice sooner or later.
    pub(super) fn drop_ends(&mut self, host: usize, r: &mut Random) {
        for id in 0..self.network.connections.len() {
            let (client, server) = (self.network.connections[id].client, self.network.connections[id].server);
            for (end, other, client_end) in [(client, server, true), (server, client, false)] {
                if end != host {
                    continue;
                }
                let connection = &mut self.network.connections[id];
                let open = if client_end { &mut connection.client_open } else { &mut connection.server_open };
                if std::mem::replace(open, false) && other != host {
                    let delay = r.sized(1, 2 * self.plan.election_timeout_ms * MS);
                    self.after(delay, Event::Close(id as ConnectionId, !client_end));
                }
            }
        }
    }

    /// Cuts some ways for a while. Connections hold what is sent meanwhile, and may break for it.
    pub(super) fn cut(&mut self, r: &mut Random, away: u64, which: impl Fn(usize, usize) -> bool) {
        let mut ways = Vec::new();
        for from in 0..self.plan.hosts {
            for to in 0..self.plan.hosts {
                if from != to && which(from, to) {
                    self.network.cuts[from][to] += 1;
                    ways.push((from, to));
                }
            }
        }
        if !self.plan.net.datagrams && r.chance(500) {
            let ways = ways.clone();
            self.break_connections(r, |a, b| ways.contains(&(a, b)) || ways.contains(&(b, a)));
        }
        self.after(away, Event::Heal(ways));
    }

    /// Cuts these ways for a while. Connections hold what is sent meanwhile.
    pub(super) fn cut_ways(&mut self, ways: Vec<(usize, usize)>, away: u64) {
        for (from, to) in &ways {
            self.network.cuts[*from][*to] += 1;
        }
        self.after(away, Event::Heal(ways));
    }

    pub(super) fn heal(&mut self, ways: &[(usize, usize)]) {
        for (from, to) in ways {
            let cuts = &mut self.network.cuts[*from][*to];
            *cuts = cuts.saturating_sub(1);
        }
        self.release_held();
    }

    /// Every cut ends.
    pub(super) fn heal_all(&mut self) {
        self.network.cuts = Default::default();
        self.network.clogs = Default::default();
        self.release_held();
    }

    fn release_held(&mut self) {
        for id in 0..self.network.connections.len() {
            for direction in 0..2 {
                let connection = &self.network.connections[id];
                let ends = [connection.client, connection.server];
                if self.network.is_cut(ends[direction], ends[1 - direction]) {
                    continue;
                }
                self.release_frames(id as ConnectionId, direction);
            }
        }
    }
}
