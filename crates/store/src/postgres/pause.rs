//! Queues are paused and resumed.

use async_trait::async_trait;

use super::operation::Write;
use super::session::Db;
use super::tx::Tx;

pub(super) struct Pause {
    pub(super) queue: String,
    pub(super) paused: bool,
}

#[async_trait(?Send)]
impl Write for Pause {
    type Answer = bool;

    async fn apply(&self, tx: &Tx<'_>) -> Db<bool> {
        let changed = if self.paused {
            tx.execute(
                "INSERT INTO queues (queue, paused) VALUES ($1, true)
                 ON CONFLICT (queue) DO UPDATE SET paused = true WHERE NOT queues.paused",
                &[&self.queue],
            )
            .await?
        } else {
            tx.execute("UPDATE queues SET paused = false WHERE queue = $1 AND paused", &[&self.queue]).await?
        };
        if changed > 0 && !self.paused {
            tx.awake(&self.queue);
        }
        Ok(changed > 0)
    }
}
