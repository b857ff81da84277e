//! The outlook of a pool: what calls that find no idle instance have to expect.

use super::{NoInstance, Outlook, Pool};

impl Pool {
    /// Whether there are to be any instances on this host.
    pub(crate) fn has_count(&self) -> bool {
        self.lock().line.outlook() != Outlook::NoCount
    }

    /// Says what calls that find no idle instance have to expect, and sends those that wait away where it's nothing.
    pub(crate) fn set_outlook(&self, outlook: Outlook) {
        let refused = match outlook {
            Outlook::Good | Outlook::NoCount => NoInstance::NoCount,
            Outlook::AllInBackoff => NoInstance::AllInBackoff,
        };
        let sent_away = self.lock().line.set_outlook(outlook);
        for waiting in sent_away {
            let _ = waiting.send(Err(refused));
        }
    }
}
