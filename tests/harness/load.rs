//! Clients that send requests until they are told to stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::http::{Answer, Client, Failed, Request};
use super::{Formation, eventually};

/// Threads that send requests, each with a client of its own, until they are told to stop or one fails.
pub(crate) struct Load {
    stopping: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    /// `threads` clients send what `request` says for each number, and `check` judges what comes of it. `Ok(false)`
    /// ends the client.
    pub(crate) fn start(
        address: SocketAddr,
        threads: u64,
        request: impl Fn(u64) -> Request + Send + Sync + 'static,
        check: impl Fn(u64, Result<Answer, Failed>) -> Result<bool, String> + Send + Sync + 'static,
    ) -> Load {
        let stopping = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let (request, check, next) = (Arc::new(request), Arc::new(check), Arc::new(AtomicU64::new(0)));
        let threads = (0..threads)
            .map(|_| {
                let (stopping, answered) = (stopping.clone(), answered.clone());
                let (request, check, next) = (request.clone(), check.clone(), next.clone());
                std::thread::spawn(move || {
                    let mut client = Client::new(address);
                    while !stopping.load(Relaxed) {
                        let number = next.fetch_add(1, Relaxed);
                        let request = request(number);
                        if !check(number, client.send(&request))? {
                            break;
                        }
                        answered.fetch_add(1, Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        Load { stopping, answered, threads }
    }

    /// GETs that all have to be answered with 200.
    pub(crate) fn get(address: SocketAddr, threads: u64, target: &'static str) -> Load {
        let check = move |_, answer| match answer {
            Ok(Answer { status: 200, .. }) => Ok(true),
            other => Err(format!("GET {target}: {other:?}")),
        };
        Load::start(address, threads, move |_| Request::get(target), check)
    }

    /// Waits until so many more requests have been answered. A client that failed ends the wait.
    #[track_caller]
    pub(crate) fn wait_for(&self, more: u64) {
        let enough = self.answered() + more;
        eventually(&format!("{more} more requests are answered"), || {
            let ended = self.threads.iter().any(JoinHandle::is_finished);
            (self.answered() >= enough || ended).then_some(())
        });
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Stops, and says how many were answered. None may have failed.
    #[track_caller]
    pub(crate) fn stop(self) -> u64 {
        self.stopping.store(true, Relaxed);
        self.ended()
    }

    /// Waits until the clients have ended by themselves. None may have failed.
    #[track_caller]
    pub(crate) fn ended(self) -> u64 {
        let ended: Vec<_> = self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let failed: Vec<_> = ended.into_iter().filter_map(Result::err).collect();
        assert!(failed.is_empty(), "after {} answers: {failed:#?}", self.answered.load(Relaxed));
        self.answered.load(Relaxed)
    }
}

/// Customers of examples/shop, and what they were promised.
#[derive(Clone, Default)]
pub(crate) struct Shop {
    /// The items that were ordered, by the order's id.
    accepted: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Shop {
    /// `threads` customers order something different each time. Who is refused the connection goes home.
    pub(crate) fn orders(&self, address: SocketAddr, threads: u64, may_close: bool) -> Load {
        let shop = self.clone();
        let request =
            |number| Request::post("/orders", format!("item=tea-{number}&quantity={}", number % 9 + 1));
        Load::start(address, threads, request, move |number, answer| match answer {
            Ok(answer) if answer.status == 202 => {
                let text = answer.text();
                let id = text.trim().strip_prefix("order ").ok_or_else(|| format!("no order in {text:?}"))?;
                let order = format!("{} x tea-{number}", number % 9 + 1);
                match shop.accepted.lock().unwrap().insert(id.to_owned(), order) {
                    None => Ok(true),
                    Some(other) => Err(format!("order {id} was given to two, also to {other:?}")),
                }
            }
            // The host has gone, or is going.
            Err(Failed::Refused(_)) if may_close => Ok(false),
            other => Err(format!("order {number}: {other:?}")),
        })
    }

    /// Notes an order that was accepted.
    pub(crate) fn accept(&self, id: &str, order: String) {
        let before = self.accepted.lock().unwrap().insert(id.to_owned(), order);
        assert!(before.is_none(), "order {id} was given to two, also to {before:?}");
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }

    /// Waits until each accepted order has its receipt, and compares them. No order has two, since a receipt is named
    /// after its order.
    #[track_caller]
    pub(crate) fn has_all_receipts(&self, formation: &Formation) {
        for (id, order) in self.accepted.lock().unwrap().iter() {
            let receipt = eventually(&format!("the receipt of order {id}"), || {
                let text = formation.read(&format!("data/receipts/{id}.txt"));
                (!text.is_empty()).then_some(text)
            });
            assert_eq!(receipt, format!("order {id}\n{order}\nthank you\n"));
        }
    }
}
