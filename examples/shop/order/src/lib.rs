//! An order, as it lies on the queue: the web process writes it, and the worker reads it.
//!
//! Jobs outlive a deploy: a worker may be given an order that an older web process took. So a field that is added later
//! has a `#[serde(default)]`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The payload of a job, as JSON: `{"item": "tea", "quantity": 2}`.
#[derive(Serialize, Deserialize)]
pub struct Order {
    pub item: String,
    pub quantity: u32,
}

/// As the receipt has it: `2 x tea`.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.quantity, self.item)
    }
}
