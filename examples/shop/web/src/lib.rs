//! The shop's web process: it takes orders and shows what became of them.

use std::io::ErrorKind;
use std::{env, fs, io};

use shop_order::Order;
use wasmhost_guest::http::{Method, Request, Response, form_pairs};
use wasmhost_guest::queue::{self, NewJob};

const ORDER_BYTES_MAX: usize = 4096;

wasmhost_guest::http!(handle);

fn handle(request: Request) -> io::Result<Response> {
    match (request.method(), request.path()) {
        (Method::Get, "/") => Ok(help()),
        (Method::Post, "/orders") => Ok(order(request)),
        (Method::Get, "/report") => show("/data/report.txt"),
        (Method::Get, path) => match path.strip_prefix("/receipts/") {
            // An id is one file's name: nothing that leads to another folder.
            Some(id) if id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) => {
                show(&format!("/data/receipts/{id}.txt"))
            }
            _ => Ok(not_found()),
        },
        _ => Ok(not_found()),
    }
}

fn help() -> Response {
    let shop = env::var("SHOP_NAME").unwrap_or_else(|_| "the shop".to_string());
    Response::text(format!(
        "Welcome to {shop}.\n\n\
         POST /orders         item=tea&quantity=2\n\
         GET  /receipts/ID    the receipt of an order, once a worker wrote it\n\
         GET  /report         what the clock counted last\n"
    ))
}

/// Puts the order on the queue, and names it after its job: whoever does the job knows the order's id, however often
/// it is tried.
fn order(request: Request) -> Response {
    let body = match request.into_body().read_all(ORDER_BYTES_MAX) {
        Ok(body) => String::from_utf8_lossy(&body).into_owned(),
        Err(error) if error.kind() == ErrorKind::FileTooLarge => return bad_order(413, &error.to_string()),
        Err(error) => return bad_order(400, &error.to_string()),
    };
    let field = |wanted| form_pairs(&body).find(|(name, _)| name == wanted).map(|(_, value)| value);
    let (item, quantity) = (field("item").unwrap_or_default(), field("quantity").unwrap_or("1".to_string()));
    if item.is_empty() || item.contains(char::is_control) {
        return bad_order(400, "say what: item=tea&quantity=2");
    }
    let Ok(quantity @ 1..=1000) = quantity.parse::<u32>() else {
        return bad_order(400, "quantity is a number from 1 to 1000");
    };

    match queue::enqueue("default", NewJob::json(&Order { item, quantity })) {
        Ok(receipt) => Response::text(format!("order {}\n", receipt.id))
            .status(202)
            .header("location", format!("/receipts/{}", receipt.id)),
        Err(error @ queue::Error::Full(_)) => bad_order(503, &error.to_string()).header("retry-after", "1"),
        Err(error) => bad_order(500, &error.to_string()),
    }
}

fn show(file: &str) -> io::Result<Response> {
    match fs::read(file) {
        Ok(text) => Ok(Response::text(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(not_found()),
        Err(error) => Err(error),
    }
}

fn bad_order(status: u16, why: &str) -> Response {
    Response::text(format!("{why}\n")).status(status)
}

fn not_found() -> Response {
    Response::text("There is nothing here (yet).\n").status(404)
}
