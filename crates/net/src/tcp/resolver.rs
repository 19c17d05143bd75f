//! Names to addresses, away from the loop: a look-up may block for seconds.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::{Endpoint, LinkId, LoopWaker};

/// The answer to one look-up.
pub(super) type Resolved = (LinkId, Result<Vec<SocketAddr>, String>);

/// Looks names up on one thread, which starts with the first name and ends with the resolver.
pub(super) struct Resolver {
    questions: Option<Sender<(LinkId, Endpoint)>>,
    answers: Receiver<Resolved>,
    answer: Sender<Resolved>,
    waker: LoopWaker,
}

impl Resolver {
    pub(super) fn new(waker: LoopWaker) -> Self {
        let (answer, answers) = channel();
        Self { questions: None, answers, answer, waker }
    }

    /// The address, when the endpoint is one literally. Otherwise the answer comes through [`Self::next`].
    pub(super) fn resolve(&mut self, link: LinkId, endpoint: &Endpoint) -> Option<SocketAddr> {
        if let Ok(address) = endpoint.0.parse() {
            return Some(address);
        }
        let mut question = (link, endpoint.clone());
        if let Some(questions) = &self.questions {
            match questions.send(question) {
                Ok(()) => return None,
                Err(error) => question = error.0,
            }
        }
        let (questions, receiver) = channel();
        let (answer, waker) = (self.answer.clone(), self.waker.clone());
        let spawned = thread::Builder::new()
            .name("ringraft-resolve".to_owned())
            .spawn(move || look_up_all(&receiver, &answer, &waker));
        match spawned {
            Ok(_) => {
                // The thread lives as long as this sender, so the question arrives.
                let _ = questions.send(question);
                self.questions = Some(questions);
            }
            Err(error) => {
                let _ = self.answer.send((link, Err(format!("cannot start the resolver thread: {error}"))));
                self.waker.wake();
            }
        }
        None
    }

    /// The next answer, if one is there.
    pub(super) fn next(&mut self) -> Option<Resolved> {
        self.answers.try_recv().ok()
    }
}

fn look_up_all(questions: &Receiver<(LinkId, Endpoint)>, answer: &Sender<Resolved>, waker: &LoopWaker) {
    while let Ok((link, endpoint)) = questions.recv() {
        let resolved = match endpoint.0.to_socket_addrs() {
            Ok(addresses) => {
                let addresses: Vec<SocketAddr> = addresses.collect();
                if addresses.is_empty() { Err(format!("{endpoint} has no address")) } else { Ok(addresses) }
            }
            Err(error) => Err(format!("cannot resolve {endpoint}: {error}; write it as host:port")),
        };
        if answer.send((link, resolved)).is_err() {
            return;
        }
        waker.wake();
    }
}
