//! Questions to the store: a few read-only connections, each used by one blocking thread at a time.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tracing::warn;

use crate::store::{RingReader, StateReader, StoreError};

use super::problem::Problem;

/// Questions at a time; SQLite answers each within milliseconds, so the others wait.
pub(super) const READERS_MAX: usize = 4;

/// The connections that are not in use.
pub(super) struct Readers {
    dir: PathBuf,
    state: Arc<Mutex<Vec<StateReader>>>,
    ring: Arc<Mutex<Vec<RingReader>>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(dir: PathBuf) -> Self {
        let turns = Arc::new(Semaphore::new(READERS_MAX));
        Self { dir, state: Arc::default(), ring: Arc::default(), turns }
    }

    /// Asks `state.db`.
    pub(super) async fn state<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut StateReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let dir = self.dir.clone();
        self.ask(&self.state, move || StateReader::open(&dir), ask).await
    }

    /// Asks `ring.db`.
    pub(super) async fn ring<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut RingReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let dir = self.dir.clone();
        self.ask(&self.ring, move || RingReader::open(&dir), ask).await
    }

    async fn ask<R: Send + 'static, T: Send + 'static>(
        &self,
        idle: &Arc<Mutex<Vec<R>>>,
        open: impl FnOnce() -> Result<R, StoreError> + Send + 'static,
        ask: impl FnOnce(&mut R) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.expect("never closed");
        let idle = Arc::clone(idle);
        let work = move || {
            let _turn = turn;
            let ready = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut reader = match ready {
                Some(reader) => reader,
                None => open()?,
            };
            let answer = ask(&mut reader)?;
            // A connection that failed is not used again: its file may have been replaced.
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            Ok(answer)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let error: StoreError = error;
                warn!(%error, "a question to the store failed");
                Err(Problem::unavailable(format!("the store cannot answer: {error}")))
            }
            Err(_) => Err(Problem::unavailable("the question to the store was cut off")),
        }
    }
}
