//! Bodies of the admin API: a JSON object of known fields, or nothing.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{ApiError, BODY_BYTES_MAX};

/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A body, read whole.
pub(super) struct Whole(pub(super) Bytes);

/// A body that is one JSON object. There is no query beside it.
pub(super) struct Given<T>(pub(super) T);

/// No body, or an empty one: `null` and `{}` are as good as none. There is no query either.
pub(super) struct Nothing;

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        read(request.into_body()).await.map(Whole)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Given<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        refuse_query(&request)?;
        decode(&read(request.into_body()).await?).map(Given)
    }
}

impl<S: Send + Sync> FromRequest<S> for Nothing {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        refuse_query(&request)?;
        let body = read(request.into_body()).await?;
        match body.trim_ascii() {
            b"" | b"null" => Ok(Nothing),
            body => {
                let Empty {} = decode(body)?;
                Ok(Nothing)
            }
        }
    }
}

/// An object without fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

fn refuse_query(request: &Request) -> Result<(), ApiError> {
    match request.uri().query() {
        None | Some("") => Ok(()),
        Some(_) => {
            Err(ApiError::bad("this request takes no query (the part behind \"?\"): leave it out".into()))
        }
    }
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    let too_long = || {
        let message = format!(
            "the body is longer than the {} MiB that a request may have: send it in parts",
            BODY_BYTES_MAX >> 20
        );
        ApiError::too_long(message, BODY_BYTES_MAX)
    };
    // A body that says its length is refused before it is read.
    if hyper::body::Body::size_hint(&body).lower() > BODY_BYTES_MAX as u64 {
        return Err(too_long());
    }
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(err)) if is_length_limit(&err) => Err(too_long()),
        Ok(Err(err)) => Err(ApiError::bad(format!("the body can't be read: {err}"))),
        Err(_) => Err(ApiError::late(format!(
            "the body didn't come whole within {} s: send it again",
            BODY_TIMEOUT.as_secs()
        ))),
    }
}

fn is_length_limit(err: &axum::Error) -> bool {
    std::error::Error::source(err).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

/// Bodies are JSON, whatever the content type says.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map(|Object(value)| value).map_err(unexpected)
}

/// Reads a body that is one object or an array of them. True where it is an array.
pub(super) fn decode_one_or_more<T: DeserializeOwned>(body: &[u8]) -> Result<(Vec<T>, bool), ApiError> {
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if !is_array {
        return Ok((vec![decode(body)?], false));
    }
    let objects: Vec<Object<T>> = serde_json::from_slice(body).map_err(unexpected)?;
    Ok((objects.into_iter().map(|Object(value)| value).collect(), true))
}

fn unexpected(err: serde_json::Error) -> ApiError {
    ApiError::bad(format!("the body is not as expected: {err}"))
}

/// A list of objects inside of one.
pub(super) fn objects<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let objects = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|Object(value)| value).collect())
}

/// A value that is written as an object. By itself serde takes an array for a struct too, its fields in order, so that
/// `[]` would be a request of defaults.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfFields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfFields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }

        deserializer.deserialize_map(OfFields(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::{EnqueueRequest, RestartRequest, ScaleRequest, ScaleTo, SweepRequest};
    use super::*;

    #[track_caller]
    fn refused<T: DeserializeOwned>(body: &str, why: &str) {
        let message = decode::<T>(body.as_bytes()).map(drop).unwrap_err().message;
        assert!(message.contains(why), "{body}: {message}");
    }

    #[test]
    fn only_objects_of_known_fields_are_requests() {
        let given: ScaleRequest =
            decode(br#"{"changes": [{"process": "web", "to": {"count": 2}}]}"#).unwrap();
        assert_eq!(given.changes[0].to, ScaleTo::Count(2));
        refused::<ScaleRequest>("[]", "expected an object");
        refused::<ScaleRequest>("[[], null, 5]", "expected an object");
        refused::<ScaleRequest>("null", "expected an object");
        refused::<ScaleRequest>("\"web=2\"", "expected an object");
        refused::<ScaleRequest>("", "EOF");
        refused::<ScaleRequest>(r#"{"changes": [["web", {"count": 2}]]}"#, "expected an object");
        refused::<ScaleRequest>(r#"{"change": []}"#, "unknown field `change`");
        refused::<ScaleRequest>(r#"{"changes": [], "changes": []}"#, "duplicate field");
        refused::<RestartRequest>(r#"["web"]"#, "expected an object");
        for body in ["[]", r#"["mail"]"#, r#"["mail", [], null]"#, "null", "1", r#""mail""#, "{} {}", "[{}]"]
        {
            assert!(decode::<SweepRequest>(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn one_or_more_are_an_object_or_an_array_of_them() {
        let read = |body: &str| {
            decode_one_or_more::<EnqueueRequest>(body.as_bytes()).map(|(all, is_array)| (all.len(), is_array))
        };
        assert!(matches!(read("[{}, {}]"), Ok((2, true))));
        assert!(matches!(read(" {}"), Ok((1, false))));
        assert!(read("[[]]").is_err() && read(r#"[["payload"]]"#).is_err() && read("[null]").is_err());
    }
}
