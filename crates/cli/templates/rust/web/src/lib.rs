//! The web process: it is called for each request.

use wasmhost_guest::http::{Request, Response};

wasmhost_guest::http!(answer);

fn answer(request: Request) -> Response {
    match request.path() {
        "/" => Response::text(greeting(request.query_value("name").as_deref())),
        _ => Response::text("There is nothing here.\n").status(404),
    }
}

fn greeting(name: Option<&str>) -> String {
    format!("Hello, {}!\n", name.unwrap_or("world"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_greeted() {
        assert_eq!(greeting(Some("Ada")), "Hello, Ada!\n");
        assert_eq!(greeting(None), "Hello, world!\n");
    }
}
