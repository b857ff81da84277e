use proptest::prelude::*;

use super::*;

fn read(variables: &[(&str, &str)]) -> Result<(TelemetrySettings, Vec<String>), TelemetryError> {
    TelemetrySettings::read(&|name: &str| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

const HERE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");

/// The settings with an endpoint, of which nothing is told.
fn with(variables: &[(&str, &str)]) -> TelemetrySettings {
    let (settings, warnings) = read(&[&[HERE], variables].concat()).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    settings
}

fn uris(settings: &TelemetrySettings) -> (Option<String>, Option<String>) {
    let uri = |target: &Target| target.uri.to_string();
    let traces = settings.traces.as_ref().map(|traces| uri(&traces.target));
    (traces, settings.metrics.as_ref().map(|metrics| uri(&metrics.target)))
}

#[test]
fn nothing_is_sent_where_no_endpoint_is_named() {
    for variables in [
        &[][..],
        &[("OTEL_SERVICE_NAME", "shop"), ("OTEL_TRACES_EXPORTER", "otlp")],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "  ")],
        &[HERE, ("OTEL_SDK_DISABLED", "TRUE")],
        &[HERE, ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none")],
    ] {
        assert_eq!(read(variables).unwrap(), (TelemetrySettings::default(), vec![]), "{variables:?}");
    }
}

#[test]
fn an_endpoint_for_all_signals_gets_their_paths_and_a_signals_own_is_taken_as_it_is() {
    let some = |text: &str| Some(text.to_owned());
    let both = |base: &str| (some(&format!("{base}/v1/traces")), some(&format!("{base}/v1/metrics")));
    assert_eq!(uris(&with(&[])), both("http://localhost:4318"));
    for (endpoint, base) in [("https://x.example/otlp/", "https://x.example/otlp"), ("http://x", "http://x")]
    {
        let (settings, _) = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]).unwrap();
        assert_eq!(uris(&settings), both(base));
    }
    let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://y:1/in?key=1");
    assert_eq!(uris(&with(&[own])), (some("http://y:1/in?key=1"), both("http://localhost:4318").1));
    assert_eq!(uris(&read(&[own]).unwrap().0), (some("http://y:1/in?key=1"), None));
}

#[test]
fn defaults_are_those_of_the_specification() {
    let settings = with(&[]);
    let traces = settings.traces.unwrap();
    assert_eq!((traces.queue_max, traces.batch_max, traces.delay), (2048, 512, Duration::from_secs(5)));
    assert_eq!(
        (traces.target.timeout, traces.target.export_timeout),
        (Duration::from_secs(10), Duration::from_secs(30))
    );
    assert_eq!(traces.sampler, Sampler::default());
    assert_eq!(settings.metrics.unwrap().interval, Duration::from_secs(60));
}

#[test]
fn a_signals_own_variable_comes_before_the_one_for_all() {
    let settings = with(&[
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20a,x-b=c"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-d=e"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "700"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "250"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    ]);
    let (traces, metrics) = (settings.traces.unwrap(), settings.metrics.unwrap());
    assert_eq!(traces.target.headers["authorization"], "Bearer a");
    assert_eq!(traces.target.headers["x-b"], "c");
    assert_eq!(
        (metrics.target.headers.len(), &metrics.target.headers["x-d"]),
        (1, &HeaderValue::from_static("e"))
    );
    let ms = Duration::from_millis;
    assert_eq!((traces.target.timeout, metrics.target.timeout), (ms(700), ms(500)));
    assert_eq!(
        (traces.queue_max, traces.batch_max, traces.delay, metrics.interval),
        (100, 100, ms(10), ms(250))
    );
    assert_eq!(traces.sampler, Sampler::parse("traceidratio", Some("0.25")).unwrap().0);
}

#[test]
fn the_services_name_comes_before_the_attributes() {
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a, deployment.environment=pre%2Cprod");
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let environment = pair("deployment.environment", "pre,prod");
    assert_eq!(with(&[attributes]).resource, [pair("service.name", "a"), environment.clone()]);
    let named = with(&[attributes, ("OTEL_SERVICE_NAME", "b")]);
    assert_eq!(named.resource, [environment, pair("service.name", "b")]);
}

#[test]
fn what_cannot_be_used_is_an_error_that_names_the_variable() {
    for (name, value, part) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "found \"grpc\", and only \"http/protobuf\" is there"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "found \"http/json\""),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "localhost:4318", "expected a URL"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://x/secret", "found a URL of the scheme \"ftp\""),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://a:secret@x", "has no place in it"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,secret", "entry 2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=%0Asecret", "entry 1"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "secret.pem", "certificates of clients"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "expected \"otlp\" or \"none\""),
    ] {
        let err = read(&[HERE, (name, value)]).unwrap_err().to_string();
        assert!(err.contains(part) && !err.contains("secret"), "{name}: {err}");
        assert!(err.starts_with(name) || err.starts_with("OTEL_EXPORTER_OTLP_TRACES"), "{name}: {err}");
    }
}

#[test]
fn what_is_wrong_beside_is_told_once_and_its_default_is_used() {
    let wrong = [
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "9999"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
    ];
    let (settings, warnings) = read(&[&[HERE], &wrong[..]].concat()).unwrap();
    for (name, _) in wrong {
        let told = warnings.iter().filter(|warning| warning.starts_with(name)).count();
        assert_eq!(told, 1, "{name}: {warnings:#?}");
    }
    let (traces, metrics) = (settings.traces.unwrap(), settings.metrics.unwrap());
    assert_eq!((traces.delay, traces.batch_max), (Duration::from_secs(5), 2048));
    assert_eq!((metrics.interval, settings.resource), (Duration::from_secs(60), vec![]));
    let (_, warnings) = read(&[HERE, ("OTEL_SDK_DISABLED", "yes")]).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn nothing_secret_is_shown() {
    let shown = format!(
        "{:?}",
        with(&[
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=swordfish"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://y:1/in?key=swordfish"),
        ])
    );
    assert!(shown.contains("http://y:1/in") && !shown.contains("swordfish"), "{shown}");
}

proptest! {
    #[test]
    fn no_value_is_too_strange(name in 0usize..20, value: String) {
        const NAMES: [&str; 20] = [
            "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_PROTOCOL",
            "OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER",
            "OTEL_TRACES_SAMPLER_ARG", "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT",
            "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_METRIC_EXPORT_INTERVAL",
            "OTEL_METRIC_EXPORT_TIMEOUT", "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_SDK_DISABLED",
        ];
        let _ = read(&[(NAMES[name], &value), HERE]);
    }

    #[test]
    fn what_was_encoded_is_decoded(text: String) {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        prop_assert_eq!(decoded(&encoded), Some(text));
    }
}
