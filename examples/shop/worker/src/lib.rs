//! The shop's worker: it writes the receipt of each order.

use std::fs;

use shop_order::Order;
use wasmhost_guest::job::{Failure, Job, Json};

wasmhost_guest::job!(write_receipt);

/// A job may be done twice: if the host is killed after the receipt was written but before it knew, it gives the
/// job out again. So the receipt says only what the job says, and appears whole: the second one is the first.
///
/// An error of the file system is tried again later. A job whose payload isn't an order is buried, before
/// this is called.
fn write_receipt(job: Job, Json(order): Json<Order>) -> Result<(), Failure> {
    let receipt = format!("order {}\n{order}\nthank you\n", job.id);

    // In a name of this attempt's own: the one before it may not be quite dead.
    let draft = format!("/data/receipts/{}.{}.draft", job.id, job.attempt);
    fs::write(&draft, receipt)?;
    fs::rename(&draft, format!("/data/receipts/{}.txt", job.id))?;
    println!("order {}: {order}", job.id);
    Ok(())
}
