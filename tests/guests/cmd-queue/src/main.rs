//! A command that puts jobs on the queue that its first argument names, and prints for each what came of it: its id, and
//! whether it is `new` or was `known`; or why it was refused (`denied`, `full`, `invalid`, `unavailable`), and the reason.
//!
//! | second argument | jobs |
//! | --- | --- |
//! | `lines` | each line of standard input, as it comes |
//! | `key KEY` | one, with this unique key |
//! | `later MS` | one, after so many milliseconds |
//! | `many COUNT` | so many, all at once |
//! | `bytes COUNT` | one with so many zero bytes |

use std::error::Error;
use std::time::Duration;
use std::{env, io};

use wasmhost_guest::queue::{self, NewJob, Receipt};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let one = |queue: &str, job: NewJob| tell(queue::enqueue(queue, job).map(|receipt| vec![receipt]));
    match arguments[..] {
        [queue, "lines"] => io::stdin().lines().try_for_each(|line| {
            one(queue, NewJob::new(line?));
            Ok::<(), io::Error>(())
        })?,
        [queue, "key", key] => one(queue, NewJob::new("keyed").unique_key(key)),
        [queue, "later", ms] => one(queue, NewJob::new("later").delay(Duration::from_millis(ms.parse()?))),
        [queue, "many", count] => {
            let jobs: Vec<String> = (0..count.parse()?).map(|n: u32| format!("write:{n}")).collect();
            tell(queue::enqueue_many(queue, jobs));
        }
        [queue, "bytes", count] => one(queue, NewJob::new(vec![0; count.parse()?])),
        _ => return Err(format!("nothing this command does: {arguments:?}").into()),
    }
    Ok(())
}

fn tell(enqueued: Result<Vec<Receipt>, queue::Error>) {
    match enqueued {
        Ok(receipts) => receipts.iter().for_each(|Receipt { id, created, .. }| {
            println!("{id} {}", if *created { "new" } else { "known" });
        }),
        Err(error) => {
            let what = match error {
                queue::Error::Denied(_) => "denied",
                queue::Error::Full(_) => "full",
                queue::Error::Invalid(_) => "invalid",
                queue::Error::Unavailable(_) => "unavailable",
            };
            println!("{what}: {error}");
        }
    }
}
