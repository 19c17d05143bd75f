//! Messages of a world on their way.

use ringraft_core::{Input, RaftError, RaftRequest, RaftResponse, ReplyToken, Status, Ticket};

use super::{Asked, NodeName, World, WorldError};
use crate::script::format;
use crate::script::network::{Body, Filter, Kind, Link, Message, What};

impl World {
    /// Delivers messages of one link. Gives how many moved.
    ///
    /// # Errors
    /// The nodes never existed.
    pub fn deliver(&mut self, link: Link, filter: Filter) -> Result<usize, WorldError> {
        let messages = self.network.take(link, filter);
        let count = messages.len();
        for message in messages {
            self.deliver_message(link, message)?;
        }
        Ok(count)
    }

    pub(super) fn deliver_message(&mut self, link: Link, message: Message) -> Result<(), WorldError> {
        let Message { kind, ticket, run, body } = message;
        let (from, to) = (link.from, link.to);
        if !self.is_running(to) {
            self.note(|| format!("{from}->{to} #{} {kind} is lost: {to} is down", ticket.0));
            return Ok(());
        }
        match body {
            Body::Request(request) => {
                self.note(|| format!("{to} gets #{} {kind} from {from}", ticket.0));
                let asked = Asked { asker: from, ticket, run, what: kind.what, injected: false };
                self.request(from, to, asked, request)
            }
            Body::Response(result) if self.host(to)?.run == run => {
                self.note(|| format!("{to} gets #{} {kind} from {from}", ticket.0));
                self.step(to, Input::Response { from: format::peer_of(from), ticket, result })
            }
            Body::Response(_) => {
                self.note(|| format!("{from}->{to} #{} {kind} is lost: {to} was started again", ticket.0));
                Ok(())
            }
        }
    }

    pub(super) fn request(
        &mut self,
        from: NodeName,
        to: NodeName,
        asked: Asked,
        request: RaftRequest,
    ) -> Result<(), WorldError> {
        self.last_token += 1;
        self.asked.insert(self.last_token, asked);
        let reply = ReplyToken(self.last_token);
        self.step(to, Input::Request { from: format::peer_of(from), reply, request })
    }

    /// Delivers messages that are under way now, link by link; what that causes stays queued. Gives how many moved.
    ///
    /// # Errors
    /// The nodes never existed.
    pub fn deliver_from(&mut self, links: &[Link], filter: Filter) -> Result<usize, WorldError> {
        let now: Vec<_> = links.iter().map(|link| (*link, self.network.take(*link, filter))).collect();
        let mut count = 0;
        for (link, messages) in now {
            count += messages.len();
            for message in messages {
                self.deliver_message(link, message)?;
            }
        }
        Ok(count)
    }

    /// What waits at the sender for a write before it enters this link.
    pub fn waiting(&self, link: Link) -> impl Iterator<Item = Kind> {
        let waiting = self.hosts.get(&link.from).map(|h| h.waiting.iter()).into_iter().flatten();
        waiting.filter(move |w| w.queued && w.link == link).map(|w| w.message.kind)
    }

    /// Loses messages of one link. Gives how many.
    pub fn drop_messages(&mut self, link: Link, filter: Filter) -> usize {
        let messages = self.network.take(link, filter);
        for m in &messages {
            self.note(|| format!("{link} #{} {} is lost", m.ticket.0, m.kind));
        }
        messages.len()
    }

    /// Duplicates messages of one link: a copy of each stands behind it. Gives how many.
    pub fn duplicate(&mut self, link: Link, filter: Filter) -> usize {
        let copies = self.network.duplicate(link, filter);
        for message in &copies {
            self.note(|| format!("{link} #{} {} twice", message.ticket.0, message.kind));
        }
        copies.len()
    }

    /// The connection breaks: messages of one link are lost and those who asked learn of it. Gives how many.
    ///
    /// # Errors
    /// The nodes never existed.
    pub fn break_connection(&mut self, link: Link, filter: Filter) -> Result<usize, WorldError> {
        let messages = self.network.take(link, filter);
        let count = messages.len();
        for Message { kind, ticket, run, .. } in messages {
            let (asker, other) = if kind.reply { (link.to, link.from) } else { (link.from, link.to) };
            self.note(|| format!("{link} #{} {kind} is lost, {asker} gets an error", ticket.0));
            if self.is_running(asker) && self.host(asker)?.run == run {
                let result = Err(Status::new(RaftError::HostDown, "connection lost"));
                self.step(asker, Input::Response { from: format::peer_of(other), ticket, result })?;
            }
        }
        Ok(count)
    }

    /// Delivers everything that is not held between these nodes (all when empty) until nothing moves.
    ///
    /// # Errors
    /// It does not come to rest.
    pub fn stabilize(&mut self, among: &[NodeName]) -> Result<(), WorldError> {
        let within = |l: &Link| among.is_empty() || (among.contains(&l.from) && among.contains(&l.to));
        for _ in 0..20_000 {
            let mut moved = 0;
            for link in self.network.busy_links().into_iter().filter(|l| within(l)) {
                moved += self.deliver(link, Filter::default())?;
            }
            if moved == 0 {
                return Ok(());
            }
        }
        Err(WorldError::Endless("the exchange of messages".to_owned()))
    }

    /// Gives a node a made-up request; the answer goes nowhere.
    ///
    /// # Errors
    /// The receiver is not running.
    pub fn inject_request(
        &mut self,
        from: NodeName,
        to: NodeName,
        request: RaftRequest,
    ) -> Result<(), WorldError> {
        self.node(to)?;
        let asked =
            Asked { asker: from, ticket: Ticket(0), run: 0, what: What::of(&request), injected: true };
        self.request(from, to, asked, request)
    }

    /// Gives a node a made-up answer to the request of this ticket.
    ///
    /// # Errors
    /// The receiver is not running.
    pub fn inject_response(
        &mut self,
        from: NodeName,
        to: NodeName,
        ticket: Ticket,
        result: Result<RaftResponse, Status>,
    ) -> Result<(), WorldError> {
        self.step(to, Input::Response { from: format::peer_of(from), ticket, result })
    }
}
