//! Look-ups of names that are under way. Each holds a thread of the host until the system's resolver has ended, also
//! when the guest has given it up.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Look-ups that one instance may have under way, and all instances of a host: fewer than there are threads for files.
const OF_INSTANCE_MAX: usize = 16;
const OF_HOST_MAX: usize = 128;

/// How long the system's resolver may go on with a look-up that was given up.
const ABANDONED_MAX: Duration = Duration::from_secs(30);

/// The look-ups of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Lookups {
    of_host: Arc<Semaphore>,
    of_instance: Arc<Semaphore>,
}

/// One look-up.
#[derive(Debug)]
pub(crate) struct LookingUp {
    counted: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

/// Where all look-ups of a host are counted.
pub(crate) fn of_host() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(OF_HOST_MAX))
}

impl Lookups {
    pub(crate) fn new(of_host: &Arc<Semaphore>) -> Lookups {
        Lookups { of_host: of_host.clone(), of_instance: Arc::new(Semaphore::new(OF_INSTANCE_MAX)) }
    }

    /// `None` while there are as many as there may be.
    pub(crate) fn begin(&self) -> Option<LookingUp> {
        let of_instance = self.of_instance.clone().try_acquire_owned().ok()?;
        let of_host = self.of_host.clone().try_acquire_owned().ok()?;
        Some(LookingUp { counted: Some((of_instance, of_host)) })
    }
}

impl LookingUp {
    /// The resolver has answered.
    pub(crate) fn finish(mut self) {
        self.counted = None;
    }
}

impl Drop for LookingUp {
    fn drop(&mut self) {
        let Some(counted) = self.counted.take() else { return };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(ABANDONED_MAX).await;
                drop(counted);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn look_ups_are_bounded_and_those_given_up_count_for_a_while() {
        let of_host = of_host();
        let lookups = Lookups::new(&of_host);
        let all: Vec<_> = std::iter::from_fn(|| lookups.begin()).collect();
        assert_eq!(all.len(), OF_INSTANCE_MAX);
        all.into_iter().for_each(LookingUp::finish);
        drop(std::iter::from_fn(|| lookups.begin()).collect::<Vec<_>>());
        assert!(lookups.begin().is_none());

        let of_host = self::of_host();
        let many: Vec<_> = (0..100).map(|_| Lookups::new(&of_host)).collect();
        let all: Vec<_> = many.iter().filter_map(Lookups::begin).collect();
        assert_eq!(all.len(), 100);
        let more: Vec<_> = many.iter().filter_map(Lookups::begin).collect();
        assert_eq!(more.len(), OF_HOST_MAX - 100);
    }
}
