//! `GET /v1/openapi.json`: each answer of a host is as its description says, and each operation that is described is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::harness::{Formation, Host, PATIENCE, eventually, repository};

/// An answer, as it came.
struct Answer {
    status: u16,
    content_type: String,
    body: String,
}

/// The description, and what the host was asked.
struct Described {
    formation: Formation,
    document: Value,
    asked: BTreeSet<String>,
}

impl Described {
    fn new(formation: Formation) -> Described {
        let mut described = Described { formation, document: Value::Null, asked: BTreeSet::new() };
        described.document =
            serde_json::from_str(&described.send("GET", "/v1/openapi.json", "").body).unwrap();
        described
    }

    #[track_caller]
    fn send(&self, method: &str, target: &str, body: &str) -> Answer {
        let mut stream = UnixStream::connect(self.formation.path(".wasmhost/admin.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let request =
            format!("{method} {target} HTTP/1.0\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let content_type =
            head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            content_type: content_type.to_owned(),
            body: body.to_owned(),
        }
    }

    /// The operation of this method and path, by the path's template.
    fn operation(&self, method: &str, path: &str) -> &Value {
        let fits = |template: &str| {
            let (template, path): (Vec<_>, Vec<_>) =
                (template.split('/').collect(), path.split('/').collect());
            template.len() == path.len()
                && template.iter().zip(&path).all(|(part, given)| part.starts_with('{') || part == given)
        };
        let paths = self.document["paths"].as_object().unwrap();
        // A path without a template is meant before one with one.
        let mut found: Vec<_> = paths.iter().filter(|(template, _)| fits(template)).collect();
        found.sort_by_key(|(template, _)| template.matches('{').count());
        let found = found.iter().find_map(|(_, item)| item.get(method.to_lowercase()));
        found.unwrap_or_else(|| panic!("{method} {path} isn't described"))
    }

    /// Asks, and compares the answer with its description.
    #[track_caller]
    fn ask(&mut self, status: u16, method: &str, target: &str, body: &Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.send(method, target, &text);
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.body);
        let operation = self.operation(method, target.split('?').next().unwrap());
        let responses = &operation["responses"];
        let response =
            responses.get(status.to_string()).filter(|_| status < 400).unwrap_or(&responses["default"]);
        assert!(response.is_object(), "{method} {target}: {status} isn't described");
        if let Some(schema) = operation["requestBody"]["content"]["application/json"].get("schema")
            && status < 400
        {
            self.check(schema, body, &format!("the body of {method} {target}"));
        }
        let values: Vec<Value> = match answer.content_type.as_str() {
            "" => vec![],
            "application/x-ndjson" => {
                answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
            }
            _ => vec![serde_json::from_str(&answer.body).unwrap()],
        };
        for value in values {
            let schema = &response["content"][&answer.content_type]["schema"];
            assert!(schema.is_object(), "{method} {target}: {} isn't described", answer.content_type);
            self.check(schema, &value, &format!("{method} {target}"));
        }
        if status < 400 {
            self.asked.insert(operation["operationId"].as_str().unwrap().to_owned());
        }
    }

    #[track_caller]
    fn check(&self, schema: &Value, value: &Value, what: &str) {
        if let Err(why) = self.fits(schema, value) {
            panic!("{what}: {why}\nin {value:#}\nwith {schema:#}");
        }
    }

    /// Whether a value is as a schema says. A field that no schema names is a mistake, too.
    fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let mut fields = BTreeMap::new();
        self.is_valid(schema, value, &mut fields)?;
        let Some(object) = value.as_object().filter(|_| !fields.is_empty()) else { return Ok(()) };
        match object.keys().find(|name| !fields.contains_key(*name)) {
            Some(name) => Err(format!("the field `{name}` isn't described")),
            None => Ok(()),
        }
    }

    /// The same, and the fields that the schema names.
    fn is_valid(
        &self,
        schema: &Value,
        value: &Value,
        fields: &mut BTreeMap<String, Value>,
    ) -> Result<(), String> {
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.strip_prefix("#/components/schemas/").unwrap();
            let schema = &self.document["components"]["schemas"][name];
            assert!(schema.is_object(), "there is no schema {name}");
            return self.is_valid(schema, value, fields).map_err(|why| format!("{name}: {why}"));
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.is_valid(part, value, fields)?;
        }
        for any in ["oneOf", "anyOf"] {
            let Some(parts) = schema[any].as_array() else { continue };
            let tried: Vec<_> = parts
                .iter()
                .map(|part| {
                    let mut named = BTreeMap::new();
                    self.is_valid(part, value, &mut named).map(|()| named)
                })
                .collect();
            match tried.iter().find_map(|tried| tried.as_ref().ok()) {
                Some(named) => fields.extend(named.clone()),
                None => return Err(format!("it is none of {any}: {tried:?}")),
            }
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => vec![],
        };
        if !types.is_empty() && !types.iter().any(|name| is_of_type(value, name)) {
            return Err(format!("found {value}, expected {types:?}"));
        }
        if let Some(values) = schema["enum"].as_array()
            && !values.contains(value)
        {
            return Err(format!("found {value}, expected one of {values:?}"));
        }
        if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
            let prefix = schema["prefixItems"].as_array().map_or(0, Vec::len);
            for value in values.iter().skip(prefix).filter(|_| items.is_object()) {
                self.fits(items, value)?;
            }
        }
        let Some(object) = value.as_object() else { return Ok(()) };
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                return Err(format!("the field `{name}` is missing"));
            }
        }
        for (name, of_field) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(value) = object.get(name) {
                self.fits(of_field, value).map_err(|why| format!("{name}: {why}"))?;
            }
            fields.insert(name.clone(), Value::Null);
        }
        Ok(())
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

#[test]
fn each_answer_is_as_its_description_says() {
    let formation = Formation::web("").process("worker", "job-test", "queue = \"q\"\nattempts = 1").process(
        "clock",
        "tick-test",
        "schedule = \"@yearly\"",
    );
    let host = Host::run(&formation);
    host.get("/log?lines=1").ok();
    let mut api = Described::new(formation);
    api.ask(200, "GET", "/v1/openapi.json", &Value::Null);
    assert_eq!(api.document["openapi"].as_str().map(|version| &version[..2]), Some("3."));

    api.ask(201, "POST", "/v1/queues/q/jobs", &json!({ "payload": "ok", "metadata": [["tenant", "acme"]] }));
    api.ask(201, "POST", "/v1/queues/q/jobs", &json!([{ "payload": "bury:no" }, { "payload": "ok" }]));
    api.ask(
        201,
        "POST",
        "/v1/queues/later/jobs",
        &json!([{ "unique_key": "k", "unique_scope": { "for_ms": 60_000 } }]),
    );
    api.ask(200, "POST", "/v1/queues/later/jobs", &json!({ "unique_key": "k" }));
    api.ask(201, "POST", "/v1/queues/later/jobs", &json!({ "delay_ms": 3_600_000 }));
    eventually("a job is dead", || {
        let job: Value = serde_json::from_str(&api.send("GET", "/v1/jobs/2", "").body).unwrap();
        (job["state"] == "dead").then_some(())
    });
    // An instance that died is described, too.
    host.get("/trap");

    for target in [
        "/v1/formation",
        "/v1/overview?type=web",
        "/v1/queues",
        "/v1/jobs?limit=2",
        "/v1/jobs/2",
        "/v1/schedules",
        "/v1/releases",
        "/v1/releases/v1",
        "/v1/releases/live/source",
        "/v1/logs",
    ] {
        api.ask(200, "GET", target, &Value::Null);
    }
    api.ask(200, "POST", "/v1/jobs/2/retry", &Value::Null);
    api.ask(200, "POST", "/v1/jobs/5/cancel", &Value::Null);
    api.ask(200, "DELETE", "/v1/jobs/5", &Value::Null);
    for what in ["retry", "cancel", "discard"] {
        api.ask(
            200,
            "POST",
            &format!("/v1/jobs/{what}"),
            &json!({ "queue": "later", "states": ["dead", "available"] }),
        );
    }
    api.ask(200, "POST", "/v1/queues/q/pause", &Value::Null);
    api.ask(200, "POST", "/v1/queues/q/resume", &Value::Null);
    let copy = api.formation.path("copy.db").display().to_string();
    api.ask(200, "POST", "/v1/store/backup", &json!({ "file": copy }));
    api.ask(200, "POST", "/v1/schedules/clock/ticks", &Value::Null);
    api.ask(200, "GET", "/v1/schedules/clock/ticks", &Value::Null);
    api.ask(
        200,
        "POST",
        "/v1/scale",
        &json!({ "changes": [{ "process": "web", "to": { "more": 1 } }], "wait_s": 10.0 }),
    );
    api.ask(200, "POST", "/v1/restart", &json!({ "target": "web.1", "wait_s": 10.0 }));
    let text = api.formation.text();
    let next = text.replace("[process.web]\n", "[process.web]\nenv = { NEW = \"1\" }\n");
    std::fs::write(api.formation.file(), next).unwrap();
    let canary = json!({ "canary_percent": 50 });
    api.ask(200, "POST", "/v1/deploy", &canary);
    api.ask(200, "GET", "/v1/formation", &Value::Null);
    api.ask(200, "POST", "/v1/abort", &Value::Null);
    api.ask(200, "POST", "/v1/deploy", &canary);
    api.ask(200, "POST", "/v1/promote", &json!({}));
    api.ask(200, "POST", "/v1/rollback", &json!({ "timeout_s": 60.0 }));
    api.ask(200, "GET", "/v1/releases/2", &Value::Null);

    api.ask(404, "GET", "/v1/jobs/77", &Value::Null);
    api.ask(400, "POST", "/v1/scale", &json!({ "change": [] }));
    api.ask(409, "POST", "/v1/abort", &Value::Null);
    follow(&mut api, &host);
    api.ask(202, "POST", "/v1/stop", &Value::Null);

    let operations =
        api.document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap());
    let ids = operations.map(|(_, operation)| operation["operationId"].as_str().unwrap().to_owned());
    assert_eq!(ids.collect::<BTreeSet<_>>(), api.asked, "each operation is asked for");
    let copy = std::fs::read_to_string(repository().join("docs/openapi.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&copy).unwrap(), api.document, "the copy in the docs");
}

/// Events are a stream that doesn't end.
fn follow(api: &mut Described, host: &Host) {
    let mut stream = UnixStream::connect(api.formation.path(".wasmhost/admin.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.0\r\nhost: x\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.eq_ignore_ascii_case("content-type: text/event-stream")));
    assert!(lines.any(|line| line.starts_with("id: ")), "it follows");
    host.cli(["scale", "web=3"]).done();
    // How it ends is nothing to this test.
    host.cli(["tick", "clock"]);
    host.cli(["enqueue", "q", "ok"]).done();
    let schema =
        api.operation("GET", "/v1/events")["responses"]["200"]["content"]["text/event-stream"]["schema"]
            .clone();
    let mut kinds = BTreeSet::new();
    while kinds.len() < 4 {
        let line = lines.next().unwrap();
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let event: Value = serde_json::from_str(data).unwrap();
        api.check(&schema, &event, "an event");
        kinds.insert(event["kind"].as_str().unwrap().to_owned());
    }
    api.asked.insert("follow_events".to_owned());
}
