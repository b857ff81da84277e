//! The description of the admin API as OpenAPI has it, made from the handlers and the types of their JSON. It is served at
//! `GET /v1/openapi.json`, and docs/openapi.json is a copy.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi, ToSchema};

use super::ApiError;
use super::api::{EnqueueRequest, EnqueueResponse, PROBLEM_MEDIA_TYPE, Problem};
use super::request::Nothing;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "wasmhost",
        description = "The admin API of a running host: on the unix socket `admin.sock` in its state directory and, where the formation has `[admin]`, by TCP for those who show its token.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        super::formation,
        super::overview::overview,
        super::scale,
        super::restart,
        super::stop,
        super::logs::logs,
        super::events::events,
        super::releases::deploy,
        super::releases::promote,
        super::releases::abort,
        super::releases::rollback,
        super::releases::list,
        super::releases::show,
        super::releases::source,
        super::enqueue::enqueue,
        super::jobs::queues,
        super::jobs::pause,
        super::jobs::resume,
        super::jobs::list,
        super::jobs::show,
        super::jobs::retry,
        super::jobs::cancel,
        super::jobs::discard,
        super::jobs::retry_all,
        super::jobs::cancel_all,
        super::jobs::discard_all,
        super::jobs::backup,
        super::schedules::schedules,
        super::schedules::history,
        super::schedules::tick,
        openapi,
    ),
    components(schemas(Problem)),
    modifiers(&Refusals, &Token),
)]
struct Document;

/// Each request may be refused.
struct Refusals;

impl Modify for Refusals {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let problem = Content::new(Some(Ref::from_schema_name("Problem")));
        let refusal = ResponseBuilder::new()
            .description("It is refused: the status and the body say why")
            .content(PROBLEM_MEDIA_TYPE, problem)
            .build();
        for item in document.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.post, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                operation.responses.responses.insert("default".to_owned(), RefOr::T(refusal.clone()));
            }
        }
    }
}

/// Where the API is served by TCP, each request shows the token. At the socket none does.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "The token of `[admin]`, where the API is served by TCP. The socket asks for none.",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
        let by_token = SecurityRequirement::new("token", Vec::<String>::new());
        document.security = Some(vec![by_token, SecurityRequirement::default()]);
    }
}

/// The body of a request that enqueues: a job, or up to 1,000.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum EnqueueBody {
    /// One.
    One(Box<EnqueueRequest>),
    /// Together, or none of them.
    Many(Vec<EnqueueRequest>),
}

/// The answer to it.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum EnqueueAnswer {
    /// To one.
    One(EnqueueResponse),
    /// To an array, in the same order.
    Many(Vec<EnqueueResponse>),
}

/// The document, as text that ends with a line's end.
pub fn openapi_document() -> String {
    let document = Document::openapi().to_pretty_json().unwrap_or_default();
    format!("{document}\n")
}

#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "host",
    operation_id = "get_openapi",
    summary = "This description.",
    responses((status = 200, description = "The description, as OpenAPI has it", body = Object))
)]
pub(super) async fn openapi(_: Nothing) -> Result<Response, ApiError> {
    Ok(([(header::CONTENT_TYPE, "application/json")], openapi_document()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `WASMHOST_WRITE_DOCS=1` writes it.
    #[test]
    fn the_docs_have_the_document_as_it_is() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        if std::env::var_os("WASMHOST_WRITE_DOCS").is_some() {
            std::fs::write(file, openapi_document()).unwrap();
        }
        let written = std::fs::read_to_string(file).unwrap();
        assert!(
            written == openapi_document(),
            "docs/openapi.json isn't the document any more: run this test with WASMHOST_WRITE_DOCS=1 and look at the difference"
        );
    }
}
