//! Records one call into a guest. A frame is bounded in calls and in bytes:
//! beyond that, calls are counted.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Call, Frame, Sink, read, shape};
use crate::context::Context;
use crate::memory::{Guest, view};
use crate::shared::Process;
use crate::state::VmState;

/// Host calls of one frame.
const CALLS_MAX: usize = 1000;
/// What they may hold of the guest's memory, in bytes.
const FRAME_MAX: usize = 128 << 10;

/// A frame under way; lies in the state of its VM.
pub(crate) struct Recorder {
    frame: Frame,
    began: Instant,
    /// What recording itself took.
    spent: Duration,
    held: usize,
}

/// A host call under way: its place in the frame, unless that is full.
pub(crate) struct Open {
    at: Option<usize>,
    began: Instant,
}

impl Recorder {
    /// The host is about to call `callback` for `context` with these parameters.
    pub(crate) fn begin(
        context: &Rc<Context>,
        callback: &'static str,
        parameters: &[u32],
        thread: &Arc<str>,
        process: &Process,
    ) -> Box<Self> {
        let numbers: Vec<i64> = parameters.iter().skip(1).copied().map(i64::from).collect();
        let stream = context.stream().map(|stream| stream.exchange.number(|| process.next_stream_number()));
        Box::new(Self {
            frame: Frame {
                time: SystemTime::now(),
                thread: Arc::clone(thread),
                origin: Arc::clone(&context.origin),
                context: context.id,
                kind: context.kind(),
                stream,
                callback,
                arguments: read::fields(&[], Some(shape::of_callback(callback)), &numbers, false),
                returned: Cow::Borrowed(""),
                took: Duration::ZERO,
                calls: Vec::new(),
                left_out: 0,
            },
            began: Instant::now(),
            spent: Duration::ZERO,
            held: 0,
        })
    }

    pub(crate) fn has_calls(&self) -> bool {
        !self.frame.calls.is_empty()
    }

    /// It has returned this; none: it trapped.
    pub(crate) fn end(mut self, returned: Option<&dyn Answer>, sink: &Sink) {
        self.frame.took = self.began.elapsed().saturating_sub(self.spent);
        self.frame.returned = match returned.map(Answer::number) {
            None => "trapped".into(),
            Some(None) => "".into(),
            Some(Some(number)) => shape::returned(self.frame.callback, number),
        };
        sink(self.frame);
    }
}

/// A host function is about to run.
pub(crate) fn open(guest: &mut Guest<'_>, name: &'static str, numbers: &[i64]) -> Open {
    let began = Instant::now();
    let (memory, state) = view(guest);
    let context = state.context().id;
    let at = state.recorder.as_mut().and_then(|recorder| {
        if recorder.frame.calls.len() >= CALLS_MAX || recorder.held >= FRAME_MAX {
            recorder.frame.left_out += 1;
            return None;
        }
        let arguments = read::fields(memory, shape::of_call(name), numbers, false);
        recorder.held += read::weight(&arguments) + std::mem::size_of::<Call>();
        recorder.frame.calls.push(Call {
            name,
            context,
            arguments,
            status: Cow::Borrowed(""),
            returned: Vec::new(),
            took: Duration::ZERO,
        });
        Some(recorder.frame.calls.len() - 1)
    });
    spend(state, began);
    Open { at, began: Instant::now() }
}

/// It has answered this; none: it trapped.
pub(crate) fn close(guest: &mut Guest<'_>, open: &Open, numbers: &[i64], result: Option<u32>) {
    let now = Instant::now();
    let (memory, state) = view(guest);
    if let Some(recorder) = &mut state.recorder
        && let Some(call) = open.at.and_then(|at| recorder.frame.calls.get_mut(at))
    {
        call.took = now - open.began;
        match result {
            Some(number) => {
                if number == 0 {
                    call.returned = read::fields(memory, shape::of_call(call.name), numbers, true);
                    recorder.held += read::weight(&call.returned);
                }
                call.status = shape::status(call.name, number);
            }
            None => call.status = "trapped".into(),
        }
    }
    spend(state, now);
}

fn spend(state: &mut VmState, since: Instant) {
    if let Some(recorder) = &mut state.recorder {
        recorder.spent += since.elapsed();
    }
}

/// The parameters of a callback.
pub(crate) trait Numbers {
    fn numbers(&self) -> Vec<u32>;
}

impl Numbers for () {
    fn numbers(&self) -> Vec<u32> {
        Vec::new()
    }
}

impl Numbers for u32 {
    fn numbers(&self) -> Vec<u32> {
        vec![*self]
    }
}

macro_rules! numbers {
    ($($name:ident: $ty:ty),*) => {
        impl Numbers for ($($ty,)*) {
            fn numbers(&self) -> Vec<u32> {
                let ($($name,)*) = *self;
                vec![$($name),*]
            }
        }
    };
}

numbers!(a: u32, b: u32);
numbers!(a: u32, b: u32, c: u32);
numbers!(a: u32, b: u32, c: u32, d: u32, e: u32);

/// What a callback returns.
pub(crate) trait Answer {
    fn number(&self) -> Option<u32>;
}

impl Answer for () {
    fn number(&self) -> Option<u32> {
        None
    }
}

impl Answer for u32 {
    fn number(&self) -> Option<u32> {
        Some(*self)
    }
}
