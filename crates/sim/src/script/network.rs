//! Messages that wait on their links. Nothing moves unless it is told to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::str::FromStr;

use ringraft_core::{AppendKind, RaftRequest, RaftResponse, Status, Ticket};

/// Number of a node; node N is the peer `127.0.0.1:(8080+N)`.
pub type NodeName = u32;

/// What a message asks, or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Would you vote for me?
    PreVote,
    /// Vote for me.
    Vote,
    /// The leader lives.
    Heartbeat,
    /// Do the logs match?
    Probe,
    /// Entries.
    Append,
    /// Campaign at once.
    TimeoutNow,
    /// Up to where must be applied before a read?
    ReadIndex,
}

impl What {
    pub(super) const ALL: [What; 7] = [
        What::PreVote,
        What::Vote,
        What::Heartbeat,
        What::Probe,
        What::Append,
        What::TimeoutNow,
        What::ReadIndex,
    ];

    /// What a request asks.
    pub fn of(request: &RaftRequest) -> What {
        match request {
            RaftRequest::RequestVote(r) if r.pre_vote => What::PreVote,
            RaftRequest::RequestVote(_) => What::Vote,
            RaftRequest::AppendEntries(r) => match r.kind {
                AppendKind::Heartbeat => What::Heartbeat,
                AppendKind::Probe => What::Probe,
                AppendKind::Entries => What::Append,
            },
            RaftRequest::TimeoutNow(_) => What::TimeoutNow,
            RaftRequest::ReadIndex(_) => What::ReadIndex,
        }
    }

    fn text(self) -> &'static str {
        match self {
            What::PreVote => "pre-vote",
            What::Vote => "vote",
            What::Heartbeat => "heartbeat",
            What::Probe => "probe",
            What::Append => "append",
            What::TimeoutNow => "timeout-now",
            What::ReadIndex => "read-index",
        }
    }
}

/// Kind of a message: what it is about, and whether it is the answer. Written `append`, `append-reply`, ….
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// What is asked.
    pub what: What,
    /// Whether this is the answer.
    pub reply: bool,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.what.text(), if self.reply { "-reply" } else { "" })
    }
}

/// Why a text is not a [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no kind of message; kinds are pre-vote, vote, heartbeat, probe, append, timeout-now, read-index, each also with -reply"
)]
pub struct InvalidKind(String);

impl FromStr for Kind {
    type Err = InvalidKind;

    fn from_str(text: &str) -> Result<Kind, InvalidKind> {
        let (name, reply) = text.strip_suffix("-reply").map_or((text, false), |name| (name, true));
        What::ALL
            .into_iter()
            .find(|w| w.text() == name)
            .map(|what| Kind { what, reply })
            .ok_or_else(|| InvalidKind(text.to_owned()))
    }
}

/// From whom to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Sender.
    pub from: NodeName,
    /// Receiver.
    pub to: NodeName,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}", self.from, self.to)
    }
}

/// What a message carries.
#[derive(Clone, Debug)]
pub enum Body {
    /// A request.
    Request(RaftRequest),
    /// The answer to a request, or its failure.
    Response(Result<RaftResponse, Status>),
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The request's ticket.
    pub ticket: Ticket,
    /// In which run of the asker's process the request was sent: an answer never reaches a later run, whose
    /// connections are others.
    pub run: u32,
    /// What it carries.
    pub body: Body,
}

/// Which messages of a link are meant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Leave out so many first.
    pub skip: usize,
    /// Take so many at most.
    pub count: Option<usize>,
    /// Take held ones, too.
    pub held: bool,
}

/// All links with their queues.
#[derive(Debug, Default)]
pub struct Network {
    queues: BTreeMap<Link, VecDeque<Message>>,
    held: BTreeSet<(Link, Option<Kind>)>,
    cut: BTreeSet<Link>,
    /// Nodes all of whose links are cut, also to nodes that come later.
    cut_nodes: BTreeSet<NodeName>,
}

impl Network {
    /// A message enters its link. Gives whether it got in; a cut link loses it.
    pub fn push(&mut self, link: Link, message: Message) -> bool {
        if self.is_cut(link) {
            return false;
        }
        self.queues.entry(link).or_default().push_back(message);
        true
    }

    /// Takes messages that match, in order.
    pub fn take(&mut self, link: Link, filter: Filter) -> Vec<Message> {
        let chosen = self.choose(link, filter);
        let Some(queue) = self.queues.get_mut(&link) else { return Vec::new() };
        let (mut taken, mut rest) = (Vec::new(), VecDeque::new());
        for (message, chosen) in queue.drain(..).zip(chosen) {
            if chosen {
                taken.push(message);
            } else {
                rest.push_back(message);
            }
        }
        *queue = rest;
        taken
    }

    /// Puts a copy behind every message that matches; gives the messages.
    pub fn duplicate(&mut self, link: Link, filter: Filter) -> Vec<Message> {
        let chosen = self.choose(link, filter);
        let Some(queue) = self.queues.get_mut(&link) else { return Vec::new() };
        let (mut copies, mut all) = (Vec::new(), VecDeque::new());
        for (message, chosen) in queue.drain(..).zip(chosen) {
            if chosen {
                all.push_back(message.clone());
                copies.push(message.clone());
            }
            all.push_back(message);
        }
        *queue = all;
        copies
    }

    /// For each message of a link whether it matches.
    fn choose(&self, link: Link, filter: Filter) -> Vec<bool> {
        let (mut seen, mut taken) = (0, 0);
        let choose = |message: &Message| {
            let held = !filter.held && self.is_held(link, message.kind);
            if held || filter.kind.is_some_and(|k| k != message.kind) {
                return false;
            }
            seen += 1;
            let chosen = seen > filter.skip && filter.count.is_none_or(|n| taken < n);
            taken += usize::from(chosen);
            chosen
        };
        self.queued(link).map(choose).collect()
    }

    /// Links that carry anything, in order.
    pub fn busy_links(&self) -> Vec<Link> {
        self.queues.iter().filter(|q| !q.1.is_empty()).map(|q| *q.0).collect()
    }

    /// What waits on a link.
    pub fn queued(&self, link: Link) -> impl Iterator<Item = &Message> {
        self.queues.get(&link).into_iter().flatten()
    }

    /// Messages of this link (and kind) stay until released.
    pub fn hold(&mut self, link: Link, kind: Option<Kind>) {
        self.held.insert((link, kind));
    }

    /// Undoes [`hold`](Self::hold); without a kind, for every kind of the link. Gives whether anything was held so.
    pub fn release(&mut self, link: Link, kind: Option<Kind>) -> bool {
        let before = self.held.len();
        self.held.retain(|h| h.0 != link || (kind.is_some() && h.1 != kind));
        self.held.len() < before
    }

    /// Whether messages of this kind stay on this link.
    pub fn is_held(&self, link: Link, kind: Kind) -> bool {
        self.held.contains(&(link, None)) || self.held.contains(&(link, Some(kind)))
    }

    /// Loses whatever enters this link from now on.
    pub fn cut(&mut self, link: Link) {
        self.cut.insert(link);
    }

    /// Loses whatever enters a link from or to this node from now on, also links to nodes that come later.
    pub fn cut_node(&mut self, name: NodeName) {
        self.cut_nodes.insert(name);
    }

    /// Undoes [`cut`](Self::cut).
    pub fn heal(&mut self, link: Link) {
        self.cut.remove(&link);
    }

    /// Undoes [`cut_node`](Self::cut_node), and [`cut`](Self::cut) for the links of this node. Gives whether any was.
    pub fn heal_node(&mut self, name: NodeName) -> bool {
        let before = self.cut.len();
        self.cut.retain(|link| link.from != name && link.to != name);
        self.cut_nodes.remove(&name) || self.cut.len() < before
    }

    /// Undoes everything that is cut.
    pub fn heal_all(&mut self) {
        self.cut.clear();
        self.cut_nodes.clear();
    }

    /// The node whose cut makes this link lose what enters it, if that is why.
    pub fn cut_by_node(&self, link: Link) -> Option<NodeName> {
        [link.from, link.to].into_iter().find(|name| self.cut_nodes.contains(name))
    }

    /// Whether this link loses what enters it.
    pub fn is_cut(&self, link: Link) -> bool {
        self.cut.contains(&link) || self.cut_by_node(link).is_some()
    }
}
