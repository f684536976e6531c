//! Idle connections of one worker, and whose turn it is.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::session::Shared;
use super::{Conn, ConnectError, Session, Target};

/// Idle connections kept per endpoint and worker.
const MAX_IDLE: usize = 256;

/// One cluster as one worker uses it.
pub(crate) struct Local {
    pub(crate) target: Arc<Target>,
    next: Cell<usize>,
    idle: RefCell<Vec<Vec<Conn>>>,
    /// By endpoint, for clusters that speak HTTP/2.
    sessions: Vec<Shared>,
}

impl Local {
    fn take_idle(&self, endpoint: usize) -> Option<Conn> {
        let mut idle = self.idle.borrow_mut();
        let stack = idle.get_mut(endpoint)?;
        while let Some(mut conn) = stack.pop() {
            if conn.is_silent() {
                return Some(conn);
            }
        }
        None
    }

    /// Takes back a connection whose exchange is over.
    pub(crate) fn put_back(&self, mut conn: Conn) {
        conn.reused = true;
        if let Some(stack) = self.idle.borrow_mut().get_mut(conn.endpoint)
            && stack.len() < MAX_IDLE
        {
            stack.push(conn);
        }
    }

    /// The HTTP/2 connection to an endpoint, made when there is none.
    pub(super) async fn session(&self, endpoint: usize) -> Result<Session, ConnectError> {
        match self.sessions.get(endpoint) {
            Some(shared) => shared.session(&self.target, endpoint).await,
            None => Err(ConnectError::Failed("the cluster has no such endpoint".to_owned())),
        }
    }

    /// The endpoint whose turn it is, with an idle connection if there is one.
    pub(crate) fn lease(self: &Rc<Self>) -> Option<Lease> {
        let count = self.target.endpoints.len();
        if count == 0 {
            return None;
        }
        let endpoint = self.next.get() % count;
        self.next.set(endpoint + 1);
        Some(Lease { conn: self.take_idle(endpoint), endpoint, local: Rc::clone(self) })
    }
}

/// A turn at an endpoint.
pub(crate) struct Lease {
    pub(crate) conn: Option<Conn>,
    pub(crate) endpoint: usize,
    pub(crate) local: Rc<Local>,
}

/// All clusters of one worker.
pub(crate) struct Pool(HashMap<String, Rc<Local>>);

impl Pool {
    pub(crate) fn new(targets: &[Arc<Target>]) -> Self {
        let local = |target: &Arc<Target>| {
            let idle = target.endpoints.iter().map(|_| Vec::new()).collect();
            let sessions = target.endpoints.iter().map(|_| Shared::default()).collect();
            Rc::new(Local { target: Arc::clone(target), next: Cell::new(0), idle: RefCell::new(idle), sessions })
        };
        Self(targets.iter().map(|target| (target.config.name.clone(), local(target))).collect())
    }

    pub(crate) fn get(&self, cluster: &str) -> Option<&Rc<Local>> {
        self.0.get(cluster)
    }
}
