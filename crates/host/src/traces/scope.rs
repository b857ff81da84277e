//! A place in a trace, under which spans begin.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method, Uri};
use wasmhost_engine::services::{CallTrace, NewJob, Sending};

use super::context::{TRACEPARENT, TRACESTATE, new_span};
use super::{Base, Context, Facts, Kind, Span, Traces, outgoing};

/// See the module.
pub(crate) struct Scope {
    traces: Arc<Traces>,
    /// Its span is that under which others begin.
    pub(super) context: Context,
    /// The span above it; 0 where there is none.
    parent: u64,
    /// The span above it is another program's.
    is_remote: bool,
    pub(crate) base: Base,
}

/// A span under way. It is over when this is dropped.
pub(crate) struct Open {
    scope: Arc<Scope>,
    id: u64,
    parent: u64,
    is_remote: bool,
    pub(crate) name: String,
    kind: Kind,
    start: Instant,
    /// Where it isn't over only when it is dropped.
    end: Option<Instant>,
    pub(crate) facts: Facts,
}

impl Scope {
    /// The first of a call. Its own span is a new one, if it is recorded: what comes next belongs to it.
    pub(super) fn first(traces: Arc<Traces>, context: Context, parent: u64) -> Scope {
        let context = if context.is_sampled() { context.at(new_span()) } else { context };
        Scope { traces, context, parent, is_remote: parent != 0, base: Base::now() }
    }

    /// Whether anything is recorded.
    pub(crate) fn is_recorded(&self) -> bool {
        self.context.is_sampled()
    }

    /// The scope's own span, which began with it, if it is recorded.
    pub(crate) fn own(self: &Arc<Self>, name: impl Into<String>, kind: Kind) -> Option<Open> {
        self.is_recorded().then(|| Open {
            scope: self.clone(),
            id: self.context.span,
            parent: self.parent,
            is_remote: self.is_remote,
            name: name.into(),
            kind,
            start: self.base.instant(),
            end: None,
            facts: Facts::default(),
        })
    }

    /// A span within it that began then, if it is recorded.
    pub(crate) fn begin(
        self: &Arc<Self>,
        name: impl FnOnce() -> String,
        kind: Kind,
        start: Instant,
    ) -> Option<Open> {
        self.is_recorded().then(|| Open {
            scope: self.clone(),
            id: new_span(),
            parent: self.context.span,
            is_remote: false,
            name: name(),
            kind,
            start,
            end: None,
            facts: Facts::default(),
        })
    }

    /// A span beside its own, which began then and ends where that begins, if it is recorded. It is under the same parent,
    /// or under its own where that is the first.
    pub(crate) fn beside(self: &Arc<Self>, name: String, kind: Kind, start_ns: u64) {
        if self.is_recorded() {
            self.traces.record(Span {
                trace: self.context.trace,
                id: new_span(),
                parent: if self.parent == 0 { self.context.span } else { self.parent },
                is_remote: self.is_remote,
                flags: self.context.flags(),
                state: self.context.state.clone(),
                name,
                kind,
                start_ns: start_ns.min(self.base.ns(self.base.instant())),
                end_ns: self.base.ns(self.base.instant()),
                facts: Facts::default(),
            });
        }
    }

    /// The place under a span within it.
    pub(crate) fn under(&self, open: &Open) -> Arc<Scope> {
        Arc::new(Scope {
            traces: self.traces.clone(),
            context: self.context.at(open.id),
            parent: self.context.span,
            is_remote: false,
            base: self.base,
        })
    }

    /// Puts the trace on a request's headers.
    pub(crate) fn put_on(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.context.header());
        match &self.context.state {
            Some(state) => drop(headers.insert(TRACESTATE, state.clone())),
            None => drop(headers.remove(TRACESTATE)),
        }
    }

    /// Puts the trace into a job's metadata.
    pub(crate) fn put_into(&self, metadata: &mut Vec<(String, String)>) {
        metadata.retain(|(name, _)| {
            ![TRACEPARENT, TRACESTATE].iter().any(|ours| name.eq_ignore_ascii_case(ours.as_str()))
        });
        metadata.extend(self.pairs());
    }

    /// The trace as names and values.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (String, String)> + use<> {
        let state = self.context.state_text().map(|state| (TRACESTATE.as_str().to_owned(), state.to_owned()));
        std::iter::once((TRACEPARENT.as_str().to_owned(), self.context.string())).chain(state)
    }
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.context.string())
    }
}

impl CallTrace for Scope {
    fn request(&self, method: &Method, uri: &Uri, headers: &mut HeaderMap) -> Option<Box<dyn Sending>> {
        let sent = outgoing::request(self, method, uri, headers)?;
        Some(Box::new(sent))
    }

    fn enqueue(&self, queue: &str, jobs: &mut [NewJob]) -> Option<Box<dyn Sending>> {
        let sent = outgoing::jobs(self, queue, jobs.iter_mut().map(|job| &mut job.metadata));
        sent.map(|sent| Box::new(sent) as Box<dyn Sending>)
    }

    fn variables(&self) -> Vec<(String, String)> {
        self.pairs().map(|(name, value)| (name.to_ascii_uppercase(), value)).collect()
    }
}

impl Scope {
    /// As [`Scope::begin`], for those who have no share in it.
    pub(super) fn begin_now(&self, name: String, kind: Kind, parent: u64) -> Open {
        let scope = Scope {
            traces: self.traces.clone(),
            context: self.context.clone(),
            parent: self.parent,
            is_remote: self.is_remote,
            base: self.base,
        };
        Open {
            scope: Arc::new(scope),
            id: new_span(),
            parent,
            is_remote: false,
            name,
            kind,
            start: Instant::now(),
            end: None,
            facts: Facts::default(),
        }
    }
}

impl Open {
    pub(super) fn context(&self) -> Context {
        self.scope.context.at(self.id)
    }

    /// It is over as of then.
    pub(super) fn end_at(mut self, end: Instant) {
        self.end = Some(end);
    }

    /// Something has happened, now.
    pub(crate) fn event(&mut self, name: impl Into<std::borrow::Cow<'static, str>>) {
        let now = self.scope.base.ns(Instant::now());
        self.facts.event(now, name);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let (base, context) = (self.scope.base, &self.scope.context);
        self.scope.traces.record(Span {
            trace: context.trace,
            id: self.id,
            parent: self.parent,
            is_remote: self.is_remote,
            flags: context.flags(),
            state: context.state.clone(),
            name: std::mem::take(&mut self.name),
            kind: self.kind,
            start_ns: base.ns(self.start),
            end_ns: base.ns(self.end.unwrap_or_else(Instant::now)),
            facts: std::mem::take(&mut self.facts),
        });
    }
}
