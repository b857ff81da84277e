//! Puts jobs without a payload on the queue `default`: one for each request, or as many as it says; or on the queue `storm`,
//! without end.

use wasmhost_guest::http::{Request, Response};
use wasmhost_guest::queue::{self, NewJob};

wasmhost_guest::http!(handle);

/// Jobs that one `enqueue-many` takes.
const BATCH: u32 = 1_000;

fn handle(request: Request) -> Response {
    let answer = match request.path() {
        "/" => Ok(Response::text("ready\n")),
        "/one" => queue::enqueue("default", "").map(|_| Response::text("enqueued\n").status(201)),
        "/many" => many(&request),
        "/storm" => storm(),
        _ => Ok(Response::text("no such path\n").status(404)),
    };
    answer.unwrap_or_else(|error| Response::text(format!("{error}\n")).status(500))
}

fn storm() -> Result<Response, queue::Error> {
    loop {
        queue::enqueue_many("storm", (0..BATCH).map(|_| NewJob::new("")))?;
    }
}

fn many(request: &Request) -> Result<Response, queue::Error> {
    let number = |name| request.query_value(name).and_then(|value| value.parse::<i32>().ok());
    let Some(count) = number("count").and_then(|count| u32::try_from(count).ok()) else {
        return Ok(Response::text("how many? `?count=1000`\n").status(400));
    };
    let priority = number("priority").and_then(|priority| i16::try_from(priority).ok()).unwrap_or(0);
    let mut left = count;
    while left > 0 {
        let batch = left.min(BATCH);
        queue::enqueue_many("default", (0..batch).map(|_| NewJob::new("").priority(priority)))?;
        left -= batch;
    }
    Ok(Response::text("enqueued\n").status(201))
}
