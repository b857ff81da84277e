//! Queues that are named and that no type works. Jobs on them are kept, and never done: mostly a slip of the pen.

use std::collections::BTreeSet;
use std::fmt;

use crate::formation::{Formation, Trigger};
use crate::spelling::nearest;

/// A queue that something names, and nothing works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnworkedQueue {
    /// The keys that name it: `process.web.enqueue`, `queues.clikcs`.
    pub named_by: Vec<String>,
    /// Its name.
    pub queue: String,
    /// The queue that was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for UnworkedQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.named_by.is_empty() {
            write!(f, "{}: ", self.named_by.join(", "))?;
        }
        write!(f, "no process type works the queue {:?}, so that its jobs wait", self.queue)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean {nearest:?}?"),
            None => Ok(()),
        }
    }
}

impl Formation {
    /// The queues that the formation names and that none of its types works, by name.
    pub fn unworked_queues(&self) -> Vec<UnworkedQueue> {
        let grants = self.processes.iter().flat_map(|process| {
            process.grants.enqueue.iter().map(|queue| (queue, format!("process.{}.enqueue", process.name)))
        });
        let tables = self.queues.keys().map(|queue| (queue, format!("queues.{queue}")));
        let mut unworked: Vec<UnworkedQueue> = Vec::new();
        for (queue, key) in grants.chain(tables) {
            match unworked.iter_mut().find(|known| known.queue == *queue) {
                Some(known) => known.named_by.push(key),
                None => {
                    unworked.extend(
                        self.unworked_queue(queue)
                            .map(|found| UnworkedQueue { named_by: vec![key], ..found }),
                    );
                }
            }
        }
        unworked.sort_by(|one, next| one.queue.cmp(&next.queue));
        unworked
    }

    fn unworked_queue(&self, queue: &str) -> Option<UnworkedQueue> {
        let worked = self.processes.iter().filter_map(|process| match &process.trigger {
            Some(Trigger::Queue { queues }) => Some(queues),
            _ => None,
        });
        UnworkedQueue::find(queue, worked.flatten().map(|(queue, _)| queue.as_str()))
    }
}

impl UnworkedQueue {
    /// Says so where this queue isn't among those that some type works.
    pub fn find<'a>(queue: &str, worked: impl IntoIterator<Item = &'a str>) -> Option<UnworkedQueue> {
        let worked: BTreeSet<&str> = worked.into_iter().collect();
        if worked.contains(queue) {
            return None;
        }
        let nearest = nearest(queue, worked).map(str::to_owned);
        Some(UnworkedQueue { named_by: vec![], queue: queue.to_owned(), nearest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_without_a_worker_is_told_with_the_one_that_was_meant() {
        let found =
            |queue: &str| UnworkedQueue::find(queue, ["clicks", "mail"]).map(|unworked| unworked.to_string());
        assert_eq!(found("clicks"), None);
        let told = found("clikcs").unwrap();
        assert_eq!(
            told,
            "no process type works the queue \"clikcs\", so that its jobs wait; did you mean \"clicks\"?"
        );
        assert!(found("reports").unwrap().ends_with("jobs wait"));
        assert!(UnworkedQueue::find("mail", []).is_some());
    }
}
