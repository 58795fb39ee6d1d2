//! What sources have found out about devices, kept over restarts of a task and of the daemon.
//!
//! The engine writes each note as a record with its next commit; at a start, the open records are
//! handed back here. The book itself is only memory: whoever changes it tells the engine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::domain::record::{Record, RecordKind};
use crate::port::{EngineHandle, EngineStopped, Input, SourceNote};

/// Notes by id. Clones share the book.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<BTreeMap<String, Value>>>);

impl Notes {
    /// The notes among these records.
    pub fn from_records<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let notes = records
            .into_iter()
            .filter(|record| record.kind == RecordKind::SourceNote && record.open)
            .map(|record| (record.id.clone(), record.body.clone()));
        Self(Arc::new(Mutex::new(notes.collect())))
    }

    fn book(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        // One call replaces one note; there is no half of it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known about `id`.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Value> {
        self.book().get(id).cloned()
    }

    /// Notes what is known about `id` now, and tells the engine if that is new.
    ///
    /// # Errors
    /// [`EngineStopped`].
    pub async fn put(
        &self,
        engine: &EngineHandle,
        id: &str,
        body: Option<Value>,
    ) -> Result<(), EngineStopped> {
        let before = match &body {
            Some(body) => self.book().insert(id.to_owned(), body.clone()),
            None => self.book().remove(id),
        };
        if before == body {
            return Ok(());
        }
        engine.send(Input::Note(SourceNote { id: id.to_owned(), body })).await
    }
}
