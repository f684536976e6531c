//! Requests that plugins make, as values: whoever drives the host carries them
//! out and hands the answer back.

use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;

use crate::context::{CallResponse, Context};
use crate::headers::HeaderList;
use crate::vm::{Vm, length};

/// A request that a plugin makes; whoever drives the worker carries it out.
pub struct Callout {
    pub cluster: String,
    pub headers: HeaderList,
    pub body: Bytes,
    /// None: no limit.
    pub timeout: Option<Duration>,
    pub answer: CalloutAnswer,
}

/// How a callout ended.
#[derive(Debug)]
pub enum CalloutResult {
    Response(CallResponse),
    /// The answer was cut, or is too large to keep.
    Reset,
}

/// Where the answer to a callout goes.
pub struct CalloutAnswer {
    pub(crate) vm: Weak<Vm>,
    pub(crate) root: Rc<Context>,
    pub(crate) token: u32,
}

impl CalloutAnswer {
    /// Nobody waits any more: the root context is gone or its VM has failed.
    pub fn is_cancelled(&self) -> bool {
        let pending = self.root.root().is_some_and(|(_, root)| root.calls.borrow().contains(&self.token));
        !pending || self.vm.upgrade().is_none_or(|vm| vm.is_failed())
    }

    /// Calls the plugin back.
    pub fn deliver(self, result: CalloutResult) {
        let Some(vm) = self.vm.upgrade() else { return };
        let Some((_, root)) = self.root.root() else { return };
        if !root.calls.borrow_mut().remove(&self.token) {
            return;
        }
        let (mut headers, mut body, mut trailers) = (0, 0, 0);
        match result {
            CalloutResult::Response(response) => {
                headers = length(response.headers.len());
                body = length(response.body.len());
                trailers = response.trailers.as_ref().map_or(0, |trailers| length(trailers.len()));
                root.call_response.replace(Some(response));
            }
            CalloutResult::Reset => {
                const BROKEN_CONNECTION: u32 = 11;
                root.status.replace((BROKEN_CONNECTION, "reset".into()));
            }
        }
        let export = vm.exports.on_http_call_response.as_ref();
        let params = (self.root.id, self.token, headers, body, trailers);
        vm.call(&self.root, "proxy_on_http_call_response", export, params);
        root.call_response.replace(None);
        root.status.borrow_mut().1 = "".into();
        vm.after_call();
    }
}
