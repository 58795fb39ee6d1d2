//! `/api/v1/stream`: the CloudEvents that go upstream, as server-sent events.
//!
//! A listener that comes back with `Last-Event-ID` gets what it missed from the journal first, and
//! so does one that fell behind the live events. Ids are those of the events: whoever drops ids it
//! has seen has each event once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::domain::ids::EventId;
use crate::port::Committed;
use crate::uplink::cloudevents::{Sender, kind};

use super::Api;
use super::problem::Problem;

/// A comment goes out when nothing else has for this long, so that a dead listener is noticed.
const BEAT: Duration = Duration::from_secs(15);
/// Rows of the journal read at a time.
const PAGE_ROWS: usize = 200;

struct Listener {
    api: Api,
    live: Receiver<Arc<Committed>>,
    sender: Sender,
    /// Newest journal row that was sent or is older than the listener.
    row: u64,
    /// Whether the journal holds rows above `row` that the live events will not bring.
    behind: bool,
    ready: VecDeque<Arc<Committed>>,
    _slot: OwnedSemaphorePermit,
}

pub(super) async fn stream(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let slot = Arc::clone(&api.streams)
        .try_acquire_owned()
        .map_err(|_| Problem::unavailable("too many listeners"))?;
    // Listening begins before the journal is looked at, so that nothing falls between.
    let live = api.state.announcements.events.subscribe();
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let seen = seen.and_then(|id| EventId::parse(id).ok());
    let missed = match seen {
        Some(id) => api.readers.state(move |reader| reader.event(id)).await?,
        None => None,
    };
    let newest = *api.state.announcements.journal.borrow();
    let gateway = api.setting().config.gateway.clone();
    let listener = Listener {
        live,
        sender: Sender { site: gateway.site, gateway: gateway.id },
        row: missed.as_ref().map_or(newest, |event| event.row),
        behind: missed.is_some(),
        ready: VecDeque::new(),
        api,
        _slot: slot,
    };
    let hello = futures_util::stream::once(async {
        Ok::<_, std::convert::Infallible>(Bytes::from_static(b": wheeltap\n\n"))
    });
    let events = futures_util::stream::unfold(listener, |mut listener| async move {
        let bytes = listener.next().await?;
        Some((Ok(bytes), listener))
    });
    let body = Body::from_stream(futures_util::StreamExt::chain(hello, events));
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], body).into_response())
}

impl Listener {
    /// The next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(committed) = self.ready.pop_front() {
                self.row = self.row.max(committed.row);
                match self.event(&committed) {
                    Some(bytes) => return Some(bytes),
                    None => continue,
                }
            }
            if self.behind {
                let (row, api) = (self.row, self.api.clone());
                let page = api
                    .readers
                    .state(move |reader| reader.journal_after(row, PAGE_ROWS))
                    .await
                    .ok()?;
                self.behind = page.len() == PAGE_ROWS;
                self.ready.extend(page.into_iter().map(Arc::new));
                continue;
            }
            let stop = self.api.stop.clone();
            let next = tokio::select! {
                next = tokio::time::timeout(BEAT, self.live.recv()) => next,
                () = stop.cancelled() => return None,
            };
            match next {
                Err(_) => return Some(Bytes::from_static(b": beat\n\n")),
                // What the journal brought already is not sent again.
                Ok(Ok(committed)) if committed.durable && committed.row <= self.row => {}
                Ok(Ok(committed)) => self.ready.push_back(committed),
                Ok(Err(RecvError::Lagged(_))) => self.behind = true,
                Ok(Err(RecvError::Closed)) => return None,
            }
        }
    }

    fn event(&self, committed: &Committed) -> Option<Bytes> {
        let json = self.sender.json(committed, self.api.now())?;
        let kind = kind(&committed.event.body)?;
        // JSON of serde holds no line ends, so one `data:` line takes it.
        let mut text = format!("id: {}\nevent: wheeltap.{kind}\ndata: ", committed.event.id);
        text.push_str(&String::from_utf8_lossy(&json));
        text.push_str("\n\n");
        Some(Bytes::from(text))
    }
}
