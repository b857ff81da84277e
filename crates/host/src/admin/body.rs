//! The bodies of requests.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};

use super::ApiError;

/// Reads a body that is one object. A body is JSON, whatever the content type says.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    read::<Object<T>>(body).map(|object| object.0)
}

/// Reads a body that is one object or an array of them. True where it is an array.
pub(super) fn decode_many<T: DeserializeOwned>(body: &[u8]) -> Result<(Vec<T>, bool), ApiError> {
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    match is_array {
        true => {
            let objects: Vec<Object<T>> = read(body)?;
            Ok((objects.into_iter().map(|object| object.0).collect(), true))
        }
        false => Ok((vec![decode(body)?], false)),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|err| ApiError::bad(format!("the body is not as expected: {err}")))
}

/// A struct that was an object. serde also takes an array of a struct's fields in their order: `["mail"]` would be a
/// queue, and `[]` nothing at all, which means all jobs where it says which.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::{BackupRequest, EnqueueRequest, RestartRequest, ScaleRequest, SweepRequest};
    use super::*;

    fn is_refused<T: DeserializeOwned>(body: &str) -> bool {
        decode::<T>(body.as_bytes()).is_err()
    }

    #[test]
    fn an_array_of_the_fields_is_no_object() {
        assert!(!is_refused::<SweepRequest>("{}") && !is_refused::<SweepRequest>(r#" {"queue": "mail"} "#));
        for body in
            ["[]", r#"["mail"]"#, r#"["mail", [], null]"#, "null", "", "1", r#""mail""#, "{} {}", "[{}]"]
        {
            assert!(is_refused::<SweepRequest>(body), "{body}");
            assert!(is_refused::<EnqueueRequest>(body), "{body}");
        }
        assert!(is_refused::<BackupRequest>(r#"["/tmp/backup.db"]"#));
        assert!(is_refused::<RestartRequest>(r#"["web", null]"#));
        assert!(is_refused::<ScaleRequest>("[[], null, null]"));
    }

    #[test]
    fn many_are_an_array_of_objects() {
        let many =
            |body: &str| decode_many::<EnqueueRequest>(body.as_bytes()).map(|(all, many)| (all.len(), many));
        assert!(matches!(many("[{}, {}]"), Ok((2, true))));
        assert!(matches!(many("{}"), Ok((1, false))));
        assert!(many("[[]]").is_err() && many(r#"[["payload"]]"#).is_err() && many("[null]").is_err());
    }
}
