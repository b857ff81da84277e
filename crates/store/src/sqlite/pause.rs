//! Queues are paused and resumed.

use super::operation::Write;
use super::writer::Tx;

pub(super) struct Pause {
    pub(super) queue: String,
    pub(super) paused: bool,
}

impl Write for Pause {
    type Answer = bool;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<bool> {
        let changed = if self.paused {
            tx.sql(
                "INSERT INTO queues (queue, paused) VALUES (?1, 1)
                 ON CONFLICT (queue) DO UPDATE SET paused = 1 WHERE paused = 0",
            )?
            .execute([&self.queue])?
        } else {
            tx.sql("UPDATE queues SET paused = 0 WHERE queue = ?1 AND paused = 1")?.execute([&self.queue])?
        };
        if changed > 0 && !self.paused {
            tx.awake();
        }
        Ok(changed > 0)
    }
}
