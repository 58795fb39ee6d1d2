//! Carries out the engine's effects: delivers messages, with retries, and hands jobs to the worker.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::jobs::Jobs;
use crate::agents::{Delivery, Effect, Setting};
use crate::domain::event::Message;
use crate::domain::ids::EventId;
use crate::notify;
use crate::port::{EngineHandle, Input};

/// Effects that may wait for the carrier; the engine holds further ones.
pub const EFFECTS_MAX: usize = 128;
/// Messages under way at a time.
const UNDER_WAY_MAX: usize = 8;
/// How often a delivery is tried before it is given up.
const ATTEMPTS_MAX: u32 = 5;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Runs until the engine has gone or `stop` is cancelled. What is under way then is handed out
/// again at the next start.
///
/// # Errors
/// Never; the signature is the supervisor's.
pub async fn carry(
    effects: &mut mpsc::Receiver<Effect>,
    setting: watch::Receiver<Setting>,
    engine: EngineHandle,
    jobs: Jobs,
    stop: CancellationToken,
) -> Result<(), String> {
    let slots = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut under_way = JoinSet::new();
    loop {
        // Cancel-safe: an effect is received whole or not at all.
        let effect = tokio::select! {
            effect = effects.recv() => effect,
            () = stop.cancelled() => None,
        };
        while under_way.try_join_next().is_some() {}
        match effect {
            None => return Ok(()),
            Some(Effect::Run { job, spec }) => {
                if let Err((job, spec)) = jobs.offer(job, spec) {
                    // The engine asks again when it hears of the failure.
                    let result = Err("too many jobs are waiting".to_owned());
                    engine.send(Input::JobFinished { job, spec, result }).await.ok();
                }
            }
            Some(Effect::Notify { id, message }) => {
                let Ok(slot) = slots.clone().acquire_owned().await else { return Ok(()) };
                let (setting, engine) = (setting.clone(), engine.clone());
                under_way.spawn(async move {
                    let delivery = deliver(id, message, &setting).await;
                    drop(slot);
                    engine.send(Input::Delivered(delivery)).await.ok();
                });
            }
        }
    }
}

async fn deliver(id: EventId, message: Message, setting: &watch::Receiver<Setting>) -> Delivery {
    let mut pause = PAUSE_MIN;
    for attempt in 1..=ATTEMPTS_MAX {
        let config = setting.borrow().config.clone();
        match notify::deliver(id, &message, &config.notify).await {
            Ok(()) => return Delivery { id, attempts: attempt, result: Ok(()) },
            Err(error) if attempt == ATTEMPTS_MAX || !error.is_transient() => {
                return Delivery { id, attempts: attempt, result: Err(error.to_string()) };
            }
            Err(error) => {
                tracing::debug!(%error, attempt, "a delivery failed and is tried again");
                // Jitter over half the pause keeps many gateways from calling in step.
                tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
                pause = (pause * 4).min(PAUSE_MAX);
            }
        }
    }
    Delivery { id, attempts: ATTEMPTS_MAX, result: Err("given up".to_owned()) }
}
